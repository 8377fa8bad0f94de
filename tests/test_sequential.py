"""Sequential, a chain of layers."""

import dataclasses

import numpy as np
import pytest

from tests.layer_checks import build, check_layer
from tests.test_activations import KEY, network
from xpnet.backend import to_numpy
from xpnet.layers import (
    Activation,
    Dense,
    Identity,
    LeakyReLU,
    ReLU,
    Sequential,
    Tanh,
)
from xpnet.tree import map_leaves, named_leaves


def test_network_gradient(xp64, rng):
    check_layer(network(), xp64, rng.normal(size=(3, 2, 2)), key=KEY)


def test_first_layer_spares_its_input_gradient(xp, rng):
    """No backward is run below the first layer with parameters, and that layer computes no dx."""

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


def test_inference_equals_forward_without_dropout(xp, rng):
    net = Sequential([Dense(4), ReLU(), Dense(2)])
    params = map_leaves(xp.asarray, build(net, (3,))[0])
    x = xp.asarray(rng.normal(size=(5, 3)))

    np.testing.assert_array_equal(to_numpy(net(params, x)), to_numpy(net.forward(params, x)[0]))


def test_dense_with_activation_means_two_layers():
    """Checks only settings, so no backend."""
    assert Sequential([Dense(3, activation="relu")]) == Sequential([Dense(3), ReLU()])
    assert Activation("leaky_relu") == LeakyReLU()
    assert Activation(Tanh()) == Tanh()


def test_sequential_takes_layers_only():
    """Host-side check, so no backend."""
    with pytest.raises(TypeError, match="Received: 'relu'"):
        Sequential(["relu"])
    for others in [(Identity(),), (Identity(), Identity()), (None,)]:
        with pytest.raises(TypeError, match=r"Sequential needs one list of layers, such as Sequential\(\["):
            Sequential(*others)
