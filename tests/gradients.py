"""A numerical check of gradients, shared by the tests of layers and losses."""

import numpy as np

from xpnet.backend import to_numpy
from xpnet.tree import from_leaves, leaves, map_leaves


def check_gradient(function, x, dx, step=1e-6, rtol=1e-6, atol=1e-8):
    """Compare `dx` with (f(x + h) - f(x - h)) / 2h, one element at a time.

    `x` is a host float64 array or a tree of them, and `dx` is the analytic gradient in the same form.
    ``function(x) -> float`` may compute on any backend, in float64. The default tolerances are for values of order 1, where
    the formula's truncation error is h² and its rounding error is 1e-16 / h.
    """
    x = map_leaves(lambda leaf: np.array(leaf, dtype=np.float64), x)
    for i, (values, analytic) in enumerate(zip(leaves(x), leaves(dx), strict=True)):
        numerical = np.empty_like(values)
        for position in np.ndindex(values.shape):
            ends = []
            for h in (step, -step):
                moved = values.copy()
                moved[position] += h
                ends.append(function(from_leaves(x, [*leaves(x)[:i], moved, *leaves(x)[i + 1 :]])))
            numerical[position] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(to_numpy(analytic), numerical, rtol=rtol, atol=atol)
