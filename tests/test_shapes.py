"""Computations from shapes: whether samples of another shape fit, and the work of a step."""

import numpy as np
import pytest

from tests.test_model import make_model, writable
from xpnet import Model, Sequential, losses
from xpnet.backend import to_numpy
from xpnet.layers import (
    LSTM,
    BatchNormalization,
    Bidirectional,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    GlobalAveragePooling2D,
    MultiHeadAttention,
    ReLU,
    TimeDistributed,
)  # fmt: skip


def test_sequences_of_another_length_and_images_of_another_size(xp):
    rng = np.random.default_rng(0)
    recurrent = Sequential([LSTM(4, return_sequences=True), MultiHeadAttention(2), TimeDistributed(Dense(3))])
    model = Model(
        recurrent, losses.PerPosition(losses.SoftmaxCrossEntropy()), metrics=["accuracy"], backend=writable(xp)
    )
    for steps in (5, 9, 2):
        x, y = rng.normal(size=(6, steps, 2)), rng.integers(0, 3, (6, steps))
        model.fit(x, y, batch_size=3, verbose=0, validation_data=(x[:, 1:], y[:, 1:]))
        z = model.backend.call(model.network, model.parameters, model.backend.asarray(x))
        np.testing.assert_allclose(to_numpy(model.predict_logits(x)), to_numpy(z), atol=1e-6)
        assert to_numpy(model.predict_classes(x)).shape == (6, steps)
        assert model.evaluate(x, y).loss > 0
    assert model.input_shape == (5, 2)

    convolutional = [Conv2D(3, 3, padding="same"), BatchNormalization(), GlobalAveragePooling2D(), Dense(2)]
    model = make_model(xp, layers=convolutional)
    for size in (6, 7):
        model.fit(rng.normal(size=(8, size, size, 1)), np.arange(8) % 2, batch_size=4, verbose=0)
    assert model.step == 4


def test_a_shape_that_needs_other_parameters_or_that_a_layer_refuses(xp):
    model = make_model(xp, layers=[Conv2D(2, 3), Flatten(), Dense(3)]).build((6, 6, 1))

    with pytest.raises(ValueError, match=r"shape \(6, 6, 1\), and other shapes.*Build a new model.*\(7, 6, 1\)"):
        model.predict(np.zeros((4, 7, 6, 1)))
    flat = make_model(xp, layers=[Flatten(), Dense(3)]).build((3, 5))
    with pytest.raises(ValueError, match=r"shape \(3, 5\), and other shapes.*Received: samples of shape \(15,\)"):
        flat.predict(np.zeros((4, 15)))
    with pytest.raises(ValueError, match=r"shape \(6, 6, 1\), and other shapes.*Layer 0, Conv2D: The window must fit"):
        model.predict(np.zeros((4, 2, 6, 1)))


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        ([Dense(100), ReLU(), Dense(10)], (784,), 784 * 100 + 100 * 10),
        ([Flatten(), Dense(100)], (28, 28), 784 * 100),
        ([TimeDistributed(Dense(5)), Flatten(), Dense(2)], (7, 3), 7 * 3 * 5 + 35 * 2),
        ([LSTM(8), Dense(2)], (7, 3), 7 * (3 * 32 + 8 * 32) + 8 * 2),
        ([Bidirectional(LSTM(8)), Dense(2)], (7, 3), 2 * 7 * (3 * 32 + 8 * 32) + 16 * 2),
        ([Embedding(1000, 4), LSTM(8), Dense(2)], (7,), 7 * (4 * 32 + 8 * 32) + 8 * 2),
        ([Conv2D(16, 3), Flatten(), Dense(2)], (28, 28, 1), 28 * 28 * 9 * 16 + 26 * 26 * 16 * 2),
    ],
)
def test_multiplications_are_counted_from_shapes(network, shape, expected):
    model = Model(network, "softmax_cross_entropy", backend="numpy").build(shape)

    assert model.measured[shape].multiplications == expected
