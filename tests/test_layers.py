"""The dense, activation, dropout and reshaping layers, and Sequential."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer_checks import build, check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.functions import erf
from xpnet.layers import (
    ELU,
    GELU,
    LSTM,
    SELU,
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Rescaling,
    Reshape,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    base,
)
from xpnet.random import step_keys
from xpnet.tree import leaves, map_leaves, named_leaves

ACTIVATIONS = [
    ReLU(), LeakyReLU(0.2), ELU(), ELU(0.5), SELU(), GELU(), GELU("tanh"), SiLU(), Softplus(), Sigmoid(), Tanh(),
    Softmax(), LogSoftmax(), Identity(), Rescaling(0.5, 1.0), Flatten(),
]  # fmt: skip
few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEY = step_keys(0, np.arange(1))[0]


def network():
    return Sequential([Flatten(), Dense(5, activation="relu"), Dropout(0.4), Sequential([Dense(4), Tanh()]), Dense(3)])


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
@few
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5)), seed=st.integers(0, 99))
def test_activation_gradient(layer, xp64, shape, seed):
    check_layer(layer, xp64, np.random.default_rng(seed).normal(size=shape))


@few
@given(batch=st.integers(1, 4), n_in=st.integers(1, 5), units=st.integers(1, 4), use_bias=st.booleans())
def test_dense_gradient(xp64, batch, n_in, units, use_bias):
    check_layer(Dense(units, use_bias=use_bias), xp64, np.random.default_rng(0).normal(size=(batch, n_in)))


def test_network_gradient(xp64, rng):
    check_layer(network(), xp64, rng.normal(size=(3, 2, 2)), key=KEY)


def test_dropout_gradient(xp64, rng):
    check_layer(Dropout(0.3), xp64, rng.normal(size=(3, 4)), key=KEY)


def test_reshape_gradient(xp64, rng):
    check_layer(Reshape((2, -1)), xp64, rng.normal(size=(3, 8)))


@pytest.mark.parametrize("layer", [*ACTIVATIONS, Dense(3), network(), Reshape((1, 4))], ids=repr)
def test_float32_agrees_with_numpy(layer, xp, rng):
    x = rng.normal(size=(3, 4))
    key = KEY if layer.needs_key else None
    expected = check_layer(layer, make_backend("numpy", dtype="float32"), x, key=key, wide=False)
    got = check_layer(layer, xp, x, key=key, wide=False)

    for a, b in zip(leaves(expected), leaves(got), strict=True):
        np.testing.assert_allclose(to_numpy(b), a, rtol=2e-5, atol=2e-6)  # sums round in another order


TORCH = {
    "ReLU()": "relu", "LeakyReLU(negative_slope=0.2)": "leaky_relu:0.2", "ELU(alpha=0.5)": "elu:0.5", "SELU()": "selu",
    "GELU(approximate='none')": "gelu", "GELU(approximate='tanh')": "gelu::tanh", "SiLU()": "silu", "Softplus()":
    "softplus", "Sigmoid()": "sigmoid", "Tanh()": "tanh", "Softmax()": "softmax:-1", "LogSoftmax()": "log_softmax:-1",
}  # fmt: skip


@pytest.mark.parametrize("layer", [a for a in ACTIVATIONS if repr(a) in TORCH], ids=repr)
def test_activation_equals_torch(layer, xp64, rng):
    torch = pytest.importorskip("torch")
    name, argument, keyword = (TORCH[repr(layer)] + "::").split(":")[:3]
    x, dy = rng.normal(size=(2, 6, 5)) * 4
    z = torch.tensor(x, requires_grad=True)
    arguments = [float(argument) if "." in argument else int(argument)] if argument else []
    expected = getattr(torch.nn.functional, name)(z, *arguments, **({"approximate": keyword} if keyword else {}))
    expected.backward(torch.tensor(dy))

    y, backward = layer.forward({}, xp64.asarray(x))
    dx, _ = backward(xp64.asarray(dy))

    np.testing.assert_allclose(to_numpy(y), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(to_numpy(dx), z.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activations_do_not_overflow(layer, xp):
    x = xp.asarray(np.array([[-1e4, -100.0, 0.0, 100.0, 1e4]]))

    y, backward = layer.forward({}, x)
    dx, _ = backward(xp.asarray(np.ones((1, 5))))

    assert np.all(np.isfinite(to_numpy(y)))
    assert np.all(np.isfinite(to_numpy(dx)))


def test_erf(xp64, xp):
    x = np.linspace(-7, 7, 501)
    expected = [math.erf(v) for v in x]

    np.testing.assert_allclose(to_numpy(erf(xp64.asarray(x))), expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(to_numpy(erf(xp.asarray(x))), expected, rtol=0, atol=3e-7)


def test_first_layer_spares_its_input_gradient(xp, rng):
    """Below the first layer with parameters no backward is run at all, and that layer computes no dx."""

    @dataclasses.dataclass(frozen=True)
    class Untouchable(Identity):
        def forward(self, params, x):
            def backward(dy, need_dx=True):
                raise AssertionError("no gradient is needed here")

            return x, backward

    net = Sequential([Untouchable(), Dense(2), ReLU(), Dense(1)])
    params, _, _ = build(net, (3,))
    y, backward, _ = net.forward(map_leaves(xp.asarray, params), xp.asarray(rng.normal(size=(4, 3))))

    dx, grads = backward(y, need_dx=False)

    assert dx is None
    assert [name for name, _ in named_leaves(grads)] == [name for name, _ in named_leaves(params)]


def test_k_networks_on_a_leading_axis(xp, rng):
    """Three stacked parameter sets give the same results as each one separately."""
    net = Sequential([Dense(4, activation="tanh"), Dense(2)])
    sets = [build(net, (3,), seed)[0] for seed in range(3)]
    x, dy = xp.asarray(rng.normal(size=(5, 3))), rng.normal(size=(3, 5, 2))

    together = map_leaves(lambda *p: xp.asarray(np.stack(p)), *sets)
    y, backward, _ = net.forward(together, x)
    _, grads = backward(xp.asarray(dy))

    for k, params in enumerate(sets):
        one_y, one_backward, _ = net.forward(map_leaves(xp.asarray, params), x)
        _, one_grads = one_backward(xp.asarray(dy[k]))
        np.testing.assert_allclose(to_numpy(y)[k], to_numpy(one_y), rtol=1e-5, atol=1e-6)
        for g, one in zip(leaves(grads), leaves(one_grads), strict=True):
            np.testing.assert_allclose(to_numpy(g)[k], to_numpy(one), rtol=1e-5, atol=1e-6)


def test_inference_equals_forward_without_dropout(xp, rng):
    net = Sequential([Dense(4), ReLU(), Dense(2)])
    params = map_leaves(xp.asarray, build(net, (3,))[0])
    x = xp.asarray(rng.normal(size=(5, 3)))

    np.testing.assert_array_equal(to_numpy(net(params, x)), to_numpy(net.forward(params, x)[0]))


def test_dropout_keeps_the_mean_and_the_rate(xp):
    x = xp.asarray(np.ones((500, 200)))
    y, _ = Dropout(0.3).forward({}, x, key=xp.asarray(KEY))
    y = to_numpy(y)

    assert abs(np.mean(y == 0) - 0.3) < 0.005  # 3.4 standard errors of 100,000 draws
    assert abs(np.mean(y) - 1) < 0.01
    np.testing.assert_array_equal(to_numpy(Dropout(0.3)({}, x)), 1)


def test_dropout_mask_is_the_same_on_every_backend(xp):
    x = np.ones((7, 9))
    expected, _ = Dropout(0.5).forward({}, make_backend("numpy").asarray(x), key=KEY)
    y, _ = Dropout(0.5).forward({}, xp.asarray(x), key=xp.asarray(KEY))

    np.testing.assert_array_equal(to_numpy(y), expected)


def test_dense_with_activation_means_two_layers():
    """Checks only settings, so no backend."""
    assert Sequential([Dense(3, activation="relu")]) == Sequential([Dense(3), ReLU()])
    assert Activation("leaky_relu") == LeakyReLU()
    assert Activation(Tanh()) == Tanh()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(0), "units must be an integer of at least 1. Received: units=0"),
        (lambda: Dense(2.5), "Received: units=2.5"),
        (lambda: Dense(3, weight_initializer="he"), "Received: 'he'"),
        (lambda: Dense(3, "relu", "he_normal"), "use_bias must be True or False. Received: use_bias='he_normal'"),
        (lambda: Conv2D(3, 2, use_bias="no"), "use_bias must be True or False"),
        (lambda: BatchNormalization(center="no"), "center must be True or False"),
        (lambda: LSTM(3, unit_forget_bias=1), "unit_forget_bias must be True or False"),
        (lambda: Activation(["relu"]), r"Received: \['relu'\]"),
        (lambda: Dropout(1.0), r"rate must be a number in \[0, 1\). Received: rate=1.0"),
        (lambda: Dropout("0.5"), r"rate must be a number in \[0, 1\). Received: rate='0.5'"),
        (lambda: LeakyReLU(None), r"negative_slope must be a number in \(-inf, inf\). Received: negative_slope=None"),
        (lambda: Rescaling(float("nan")), "Received: scale=nan"),
        (lambda: Reshape(2.5), "target_shape must be a tuple of positive sizes.*Received: target_shape=2.5"),
        (lambda: GELU("exact"), "approximate"),
        (lambda: Activation("swoosh"), 'one of "relu", .*Received: .swoosh'),
        (lambda: Reshape((-1, -1)), "at most one of them -1"),
        (lambda: Dense(2).init(None, (28, 28)), r"Put Flatten\(\) before it.*\(28, 28\)"),
        (lambda: base.init(Dense(2, activation="relu"), None, (3,)), "put it into a Sequential"),
        (lambda: Reshape((5,)).init(None, (2, 3)), "has 6 elements"),
        (lambda: Sequential([Flatten(), Reshape((4,))]).init(np.random.default_rng(0), (3,)), "Layer 1, Reshape: "),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("layer", [Rescaling, LeakyReLU, ELU], ids=lambda layer: layer.__name__)
def test_a_numpy_number_as_a_setting_does_not_make_float32_wider(layer, xp, rng):
    x = xp.asarray(rng.normal(size=(2, 3)), dtype=xp.namespace.float32)

    y, backward = layer(np.float64(0.5)).forward({}, x)

    assert y.dtype == x.dtype
    assert backward(y)[0].dtype == x.dtype


def test_sequential_takes_layers_only():
    """Host-side check, so no backend."""
    with pytest.raises(TypeError, match="Received: 'relu'"):
        Sequential(["relu"])
    for others in [(Identity(),), (Identity(), Identity()), (None,)]:
        with pytest.raises(TypeError, match=r"Layers come in one list: Sequential\(\["):
            Sequential(*others)
