"""Every layer and loss accepts a batch of no rows: outputs and dx are empty, and parameter gradients and the loss are 0."""

import numpy as np
import pytest

from tests.layer_checks import build
from tests.test_graph_safety import LOSSES, NETWORKS
from xpnet import losses
from xpnet.backend import to_numpy
from xpnet.layers import base
from xpnet.layers.parameters import trainable
from xpnet.layers.sequential import Sequential
from xpnet.random import step_keys
from xpnet.tree import leaves, map_leaves


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the mean of no numbers in batch normalization
def test_layers(name, xp):
    shape, layers = NETWORKS[name]
    network = Sequential(layers)
    params, output_shape, statistics = build(network, shape)
    x = xp.asarray(np.zeros((0, *shape), np.int32 if network.integer_input else np.float32))
    key = xp.asarray(step_keys(0, np.array([0]))[0])

    y, backward, _ = base.forward(network, map_leaves(xp.asarray, params), x, key, map_leaves(xp.asarray, statistics))
    dx, grads = backward(y)
    prediction = base.infer(network, map_leaves(xp.asarray, params), x, map_leaves(xp.asarray, statistics))

    assert tuple(y.shape) == tuple(prediction.shape) == (0, *output_shape)
    assert dx is None or dx.shape == x.shape
    for grad, param in zip(leaves(grads), leaves(trainable(network, params)), strict=True):
        assert grad.shape == param.shape
        if "normalization" not in name and "image" not in name:
            assert np.all(to_numpy(grad) == 0)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, xp):
    loss = losses.get(name)
    y = xp.asarray(np.zeros((0, 2 // loss.outputs_per_target)))

    value, dz = loss(y, xp.asarray(np.zeros((0, 2))))

    assert float(value) == 0
    assert tuple(dz.shape) == (0, 2)
