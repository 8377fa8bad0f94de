"""A custom container, and small models on the same data."""

from dataclasses import dataclass

import numpy as np

from tests.test_model import writable
from xpnet import SGD, Model
from xpnet.layers import Container, Dense, Layer, Sequential, Sigmoid, base
from xpnet.tree import named_leaves

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = X @ np.random.default_rng(1).normal(size=(4, 3)).astype("float32")


@dataclass(frozen=True)
class Gate(Container):
    """y = f(x) g(x): a custom container"""

    layer: Layer
    gate: Layer

    def output_shape(self, input_shape):
        return base.output_shape(self.layer, input_shape)

    def forward(self, params, x, *, key=None, statistics=None):
        passes = {}
        for name, layer in self.children.items():
            passes[name] = base.forward(layer, params[name], x, key, statistics and statistics[name])
        (y, layer_backward, new), (g, gate_backward, new_gate) = passes["layer"], passes["gate"]

        def backward(dy, need_dx=True):
            dx, grads = layer_backward(dy * g, need_dx)
            dx_gate, gate_grads = gate_backward(dy * y, need_dx)
            return (dx + dx_gate if need_dx else None), {"layer": grads, "gate": gate_grads}

        return y * g, backward, {"layer": new, "gate": new_gate}


def gate(**settings):
    return Gate(Dense(3, **settings), Sequential([Dense(3), Sigmoid()]))


def model(xp, layers, optimizer=None, loss="mean_squared_error", shape=(4,)):
    return Model(layers, loss, optimizer or SGD(0.1), backend=writable(xp)).build(shape)


def train(model, steps=1, x=X, y=Y):
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model


def names(tree):
    return [name for name, _ in named_leaves(tree)]
