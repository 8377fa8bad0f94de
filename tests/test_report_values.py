"""The exact values of report E ("Neural network from scratch"), computed with xpnet's layers on every backend."""

import numpy as np
import pytest

from xpnet import Sequential, to_numpy
from xpnet.layers import Dense, Sigmoid
from xpnet.losses import mean_squared_error

NEURON = Sequential([Dense(1), Sigmoid()])
NETWORK = Sequential([Dense(2), Sigmoid(), Dense(1), Sigmoid()])  # 2-2-1


def array(xp64, values):
    return xp64.asarray(np.array(values, dtype=float))


def dense(xp64, weight, bias):
    return {"weight": array(xp64, weight), "bias": array(xp64, [bias])}


def ones(xp64):
    """Return the parameters of the 2-2-1 network with all weights 1 and all biases 0."""
    return dense(xp64, [[1, 1], [1, 1]], [0, 0]), {}, dense(xp64, [[1], [1]], [0]), {}


def exactly(value):
    return pytest.approx(value, rel=1e-14)  # each library has its own tanh, which may differ in the last two digits


def test_a_neuron(xp64):
    params = dense(xp64, [[0], [1]], [4]), {}

    y = NEURON(params, array(xp64, [[2, 3]]))

    assert float(y[0, 0]) == exactly(0.9990889488055994)


def test_a_network_of_three_neurons(xp64):
    params = dense(xp64, [[0, 0], [1, 1]], [0, 0]), {}, dense(xp64, [[0], [1]], [0]), {}

    y = NETWORK(params, array(xp64, [[2, 3]]))

    assert float(y[0, 0]) == exactly(0.7216325609518421)


def test_the_mean_squared_error(xp64):
    loss, _ = mean_squared_error(array(xp64, [[1], [0], [0], [1]]), array(xp64, [[0], [0], [0], [0]]))

    assert float(loss) == 0.5


def test_activations_of_the_2_2_1_network(xp64):
    hidden, output = NETWORK.layers[:2], NETWORK.layers[2:]
    params, x = ones(xp64), array(xp64, [[-2, -1]])

    h = Sequential(hidden)(params[:2], x)
    y = Sequential(output)(params[2:], h)

    np.testing.assert_allclose(to_numpy(h), [[0.04742587, 0.04742587]], atol=5e-9)
    np.testing.assert_allclose(to_numpy(y), [[0.52369517]], atol=5e-9)


def test_gradient_of_the_2_2_1_network(xp64):
    y, backward, _ = NETWORK.forward(ones(xp64), array(xp64, [[-2, -1]]))
    _, dy = mean_squared_error(array(xp64, [[1]]), y)
    _, grads = backward(dy)

    assert float(grads[0]["weight"][0, 0]) == pytest.approx(0.02146954, abs=5e-9)  # dL/dw1, by hand in docs/backprop.md
