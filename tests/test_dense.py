"""The dense layer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.layer_checks import build, check_layer
from tests.test_activations import few
from xpnet.backend import to_numpy
from xpnet.layers import (
    Dense,
    Sequential,
)
from xpnet.tree import leaves, map_leaves


@few
@given(batch=st.integers(1, 4), n_in=st.integers(1, 5), units=st.integers(1, 4), use_bias=st.booleans())
def test_dense_gradient(xp64, batch, n_in, units, use_bias):
    check_layer(Dense(units, use_bias=use_bias), xp64, np.random.default_rng(0).normal(size=(batch, n_in)))


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
