"""get_weights and set_weights."""

import numpy as np
import pytest

from tests.test_model import X, assert_same_parameters, fit, make_model
from xpnet import Adam
from xpnet.backend import to_numpy
from xpnet.layers import LSTM, BatchNormalization, Dense, Dropout, MultiHeadAttention, ReLU, Residual
from xpnet.weights import in_keras_order

LAYERS = [Dense(4), BatchNormalization(), ReLU(), Residual(Dense(4, use_bias=False)), Dropout(0.1), Dense(3)]


def test_weights_come_in_keras_order_as_copies_on_the_host(xp):
    model = make_model(xp, layers=LAYERS).build((2,))
    weights = model.get_weights()

    assert [name for name, _ in in_keras_order(model.state)] == [
        "0.weight", "0.bias", "1.gamma", "1.beta", "1.mean", "1.variance", "3.0.weight", "5.weight", "5.bias",
    ]  # fmt: skip
    assert [w.shape for w in weights] == [(2, 4), (1, 4), (1, 4), (1, 4), (1, 4), (1, 4), (4, 4), (4, 3), (1, 3)]
    weights[0] += 1
    assert not np.any(to_numpy(model.parameters[0]["weight"]) == weights[0])


def test_layers_with_many_parameters_and_positions_above_nine(xp):
    layers = [LSTM(3, return_sequences=True), MultiHeadAttention(1, 3), *[ReLU()] * 8, LSTM(3), Dense(3)]
    model = make_model(xp, layers=layers).build((4, 2))

    assert [name for name, _ in in_keras_order(model.state)] == [
        "0.weight", "0.recurrent_weight", "0.bias", "1.weight", "1.bias", "1.output_weight", "1.output_bias", "10.weight",
        "10.recurrent_weight", "10.bias", "11.weight", "11.bias",
    ]  # fmt: skip


def test_a_model_given_anothers_weights_answers_as_it_does(xp):
    model, other = (make_model(xp, layers=LAYERS, optimizer=Adam(), seed=seed) for seed in (0, 1))
    fit(model, 2)
    other.build((2,)).set_weights(model.get_weights())

    np.testing.assert_array_equal(to_numpy(other.predict(X)), to_numpy(model.predict(X)))
    assert all(xp.owns(x) and x.dtype == xp.dtype for _, x in in_keras_order(other.state))
    fit(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:-1], r"list of 9 arrays: 0.weight \(2, 4\), .*Received: 8 of them"),
        (lambda w: None, "Received: a NoneType"),
        (
            lambda w: [w[0].T, *w[1:]],
            r"weights\[0\], 0.weight, must be numbers of shape \(2, 4\). Received: .* \(4, 2\)",
        ),
        (lambda w: [*w[:8], w[8] * np.nan], r"weights\[8\], 5.bias, must be finite in float32"),
        (lambda w: [*w[:8], np.full((1, 3), 1e300)], r"weights\[8\], 5.bias, must be finite in float32"),
        (lambda w: [*w[:8], np.full((1, 3), "a")], r"weights\[8\], 5.bias, must be numbers"),
        (lambda w: [*w[:8], [[1, 2], [3]]], r"weights\[8\], 5.bias, must be numbers"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, message, xp):
    model, same = (make_model(xp, layers=LAYERS).build((2,)) for _ in range(2))
    with pytest.raises(ValueError, match=message):
        model.set_weights(change(model.get_weights()))

    assert_same_parameters(model, same, rtol=0, atol=0)


def test_a_model_that_is_not_built_has_no_weights(xp):
    with pytest.raises(RuntimeError, match="no parameters yet"):
        make_model(xp).get_weights()
