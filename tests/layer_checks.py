"""The checks that every layer must pass, in one call: the gradient check and the rules of the layer protocol."""

import numpy as np
import pytest

from tests.gradients import check_gradient
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import base
from xpnet.tree import from_leaves, leaves, map_leaves


def build(layer, input_shape, seed=0):
    """Return host parameters and statistics. Zeros become small random numbers, so that no gradient is zero by accident."""
    rng = np.random.default_rng(seed)
    params, output_shape, statistics = base.init(layer, rng, input_shape)
    params = map_leaves(lambda p: p + 0.1 * rng.normal(size=p.shape), params)
    return params, output_shape, statistics


def check_layer(layer, xp, x, key=None, wide=True):
    """Check `layer` on host samples x: its gradients by finite differences in float64 (`wide`), or the protocol in xp's type."""
    params, output_shape, statistics = build(layer, x.shape[1:])
    move = xp.asarray
    key = None if key is None else move(key)
    device_params, device_statistics = map_leaves(move, params), map_leaves(move, statistics)
    y, backward, _ = base.forward(layer, device_params, move(x), key, device_statistics)
    weights = np.random.default_rng(1).normal(size=y.shape)  # the loss is Σ weights · y
    dx, grads = backward(move(weights))

    assert tuple(y.shape) == (x.shape[0], *output_shape)
    assert dx.shape == x.shape
    for array in (y, dx, *leaves(grads)):
        assert xp.owns(array)
        assert array.dtype == xp.dtype
        assert array.device == move(x).device
    assert [g.shape for g in leaves(grads)] == [p.shape for p in leaves(params)]
    _, same_grads = backward(move(weights), need_dx=False)
    for first, second in zip(leaves(grads), leaves(same_grads), strict=True):
        np.testing.assert_array_equal(to_numpy(first), to_numpy(second))

    if wide:

        def output(params, x, key, statistics):
            return base.forward(layer, params, x, key, statistics)[0]

        def loss(params, x):  # compiled if the library compiles, because eager JAX takes a hundred times as long
            y = xp.call(output, map_leaves(move, params), move(x), key, device_statistics)
            return float(np.sum(weights * to_numpy(y)))

        check_gradient(lambda x: loss(params, x), x, to_numpy(dx))
        host = leaves(params)
        for i, grad in enumerate(leaves(grads)):
            check_gradient(
                lambda p, i=i: loss(from_leaves(params, [*host[:i], p, *host[i + 1 :]]), x), host[i], to_numpy(grad)
            )
    return y, dx, grads


def agrees_with_numpy(layer, xp, x):
    """Check that value and gradient agree with NumPy's in float32."""
    expected, got = (check_layer(layer, backend, x, wide=False) for backend in (make_backend("numpy"), xp))
    for a, b in zip(leaves(expected), leaves(got), strict=True):
        np.testing.assert_allclose(to_numpy(b), a, rtol=1e-5, atol=1e-6)  # sums round in another order


def equals_torch(layer, name, options, x):
    """Compare an image layer without parameters with PyTorch's function `name`, on NumPy."""
    torch = pytest.importorskip("torch")
    z = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    expected = getattr(torch.nn.functional, name)(z, **options)
    y, backward = layer.forward({}, x)
    dy = np.random.default_rng(0).normal(size=y.shape)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1)).reshape(expected.shape))

    dx, _ = backward(dy)

    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.detach().numpy().reshape(np.moveaxis(y, -1, 1).shape))
    np.testing.assert_allclose(np.moveaxis(dx, -1, 1), z.grad.numpy(), rtol=1e-12, atol=1e-12)
