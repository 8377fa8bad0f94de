"""The activation layers, and settings that layers check."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer_checks import check_layer
from xpnet.backend import make_backend, to_numpy
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
from xpnet.tree import leaves

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
        (lambda: Reshape((-1, -1)), "one of which may be -1"),
        (lambda: Dense(2).init(None, (28, 28)), r"Put Flatten\(\) before it.*\(28, 28\)"),
        (lambda: base.init(Dense(2, activation="relu"), None, (3,)), "Put it into a Sequential"),
        (lambda: Reshape((5,)).init(None, (2, 3)), "with 6 elements"),
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
