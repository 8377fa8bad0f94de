"""Models whose files and weights are exchanged with other libraries."""

import numpy as np

from xpnet import Model


def built(network, shape, loss="mean_squared_error", backend="numpy"):
    """A model whose parameters and statistics are not those that initializers draw, so that nothing is 0 or 1 by accident."""
    model, rng = Model(network, loss, backend=backend).build(shape), np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.random(w.shape, np.float32) for w in model.get_weights()])
    return model


def samples(model, n):
    rng = np.random.default_rng(n)
    if model.network.integer_input:
        return rng.integers(0, 7, (n, *model.input_shape))
    x = rng.normal(size=(n, *model.input_shape)).astype(np.float32)
    if len(model.input_shape) == 2:  # some steps are masked, and so is a whole sequence
        x[0::2, 1], x[1::2, :2], x[2::3] = 0.0, 0.5, 0.0
    return x
