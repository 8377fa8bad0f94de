"""Normalization layers: gradients, PyTorch's values, running statistics."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer_checks import build, check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import BatchNormalization, GroupNormalization, LayerNormalization, RMSNormalization, base
from xpnet.layers.dense import Dense
from xpnet.layers.sequential import Sequential
from xpnet.tree import leaves, map_leaves

LAYERS = [
    BatchNormalization(), BatchNormalization(center=False, epsilon=0.1), BatchNormalization(scale=False),
    LayerNormalization(), GroupNormalization(2), RMSNormalization(epsilon=0.01),
]  # fmt: skip
few = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shapes = st.sampled_from([(3, 4), (3, 2, 2), (2, 2, 1, 4)])


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@few
@given(shape=shapes, seed=st.integers(0, 99))
def test_gradient(layer, xp64, shape, seed):
    check_layer(layer, xp64, np.random.default_rng(seed).normal(1, 2, size=shape))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_float32_agrees_with_numpy(layer, xp, rng):
    x = rng.normal(1, 2, size=(2, 3, 5, 4))

    expected = check_layer(layer, make_backend("numpy", dtype="float32"), x, wide=False)
    got = check_layer(layer, xp, x, wide=False)

    for a, b in zip(leaves(expected), leaves(got), strict=True):
        np.testing.assert_allclose(to_numpy(b), a, rtol=1e-4, atol=1e-5)  # sums round in another order


def torch_normalize(F, layer, x, scale, offset):
    if isinstance(layer, LayerNormalization):
        return F.layer_norm(x, scale.shape, scale, offset, layer.epsilon)
    if isinstance(layer, RMSNormalization):
        return F.rms_norm(x, scale.shape, scale, layer.epsilon)
    x = x.movedim(-1, 1)
    if isinstance(layer, GroupNormalization):
        return F.group_norm(x, layer.groups, scale, offset, layer.epsilon).movedim(1, -1)
    return F.batch_norm(x, None, None, scale, offset, training=True, eps=layer.epsilon).movedim(1, -1)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5, 4)])
def test_equals_torch(layer, shape, xp64, rng):
    torch = pytest.importorskip("torch")
    x, dy = rng.normal(1, 2, size=(2, *shape))
    params, _, statistics = build(layer, shape[1:])
    z = torch.tensor(x, requires_grad=True)
    tensors = {name: torch.tensor(value[0], requires_grad=True) for name, value in params.items()}
    expected = torch_normalize(torch.nn.functional, layer, z, tensors.get("gamma"), tensors.get("beta"))
    expected.backward(torch.tensor(dy))

    move = xp64.asarray
    y, backward, _ = base.forward(layer, map_leaves(move, params), move(x), None, map_leaves(move, statistics))
    dx, grads = backward(move(dy))

    np.testing.assert_allclose(to_numpy(y), expected.detach().numpy(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(to_numpy(dx), z.grad.numpy(), rtol=1e-9, atol=1e-11)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(to_numpy(grads[name])[0], tensor.grad.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5, 4)])
def test_running_statistics_follow_keras(shape, xp, rng):
    """The variance is divided by n, not n - 1, and the old statistics are not changed."""
    layer = BatchNormalization(momentum=0.9)
    x = rng.normal(1, 2, size=shape)
    params, _, _ = layer.init(rng, shape[1:])
    statistics = {"mean": xp.asarray(np.full((1, 4), 0.5)), "variance": xp.asarray(np.full((1, 4), 2.0))}

    _, _, new = layer.forward(map_leaves(xp.asarray, params), xp.asarray(x), statistics=statistics)

    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(to_numpy(new["mean"])[0], 0.9 * 0.5 + 0.1 * x.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(new["variance"])[0], 0.9 * 2 + 0.1 * x.var(axes), rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(statistics["mean"]), 0.5)
    for name in new:
        assert new[name].shape == statistics[name].shape
        assert new[name].dtype == statistics[name].dtype
        assert new[name].device == statistics[name].device


@pytest.mark.parametrize("layer", [BatchNormalization(momentum=0), BatchNormalization(0, center=False, scale=False)])
def test_inference_uses_running_statistics(layer, xp, rng):
    """With momentum 0, they are the last batch's statistics, so inference on that batch repeats the training pass."""
    params, statistics = map_leaves(xp.asarray, build(layer, (3, 3, 2))[::2])
    x = xp.asarray(rng.normal(1, 2, size=(4, 3, 3, 2)))
    y, _, statistics = layer.forward(params, x, statistics=statistics)

    np.testing.assert_allclose(to_numpy(layer(params, x, statistics=statistics)), to_numpy(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [BatchNormalization(), LayerNormalization(), RMSNormalization()], ids=repr)
@pytest.mark.parametrize("first", [False, True])
def test_k_networks_on_a_leading_axis(layer, first, xp64, rng):
    """Three stacked parameter sets give the same results as each one separately."""
    net = Sequential([layer, Dense(4)] if first else [Dense(4), layer])
    sets = [build(net, (4,), seed)[::2] for seed in range(3)]
    x, dy = xp64.asarray(rng.normal(size=(5, 4))), rng.normal(size=(3, 5, 4))

    def run(params, statistics, dy):
        y, backward, new = base.forward(net, params, x, None, statistics)
        return y, backward(xp64.asarray(dy), need_dx=False)[1], new

    together = run(*[map_leaves(lambda *a: xp64.asarray(np.stack(a)), *trees) for trees in zip(*sets, strict=True)], dy)

    for k in range(3):
        alone = run(*[map_leaves(xp64.asarray, tree) for tree in sets[k]], dy[k])
        for a, b in zip(leaves(together), leaves(alone), strict=True):
            np.testing.assert_allclose(to_numpy(a)[k], to_numpy(b), rtol=1e-9, atol=1e-12)


def test_inference_keeps_its_digits_where_the_mean_is_large(rng):
    """The reference is NumPy in float32, because all backends round in the same way here."""
    x = (rng.normal(size=(64, 3)) + 1e5).astype(np.float32)
    layer = BatchNormalization(momentum=0)
    params, statistics = (map_leaves(np.float32, tree) for tree in layer.init(rng, (3,))[::2])
    y, _, statistics = layer.forward(params, x, statistics=statistics)

    np.testing.assert_allclose(layer(params, x, statistics=statistics), y, atol=2e-3)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_under_jit(layer, rng):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    arguments = *build(layer, (3, 3, 4))[::2], rng.normal(size=(2, 3, 3, 4))

    def step(params, statistics, x):
        y, backward, statistics = base.forward(layer, params, x, None, statistics)
        return y, statistics, backward(y)

    got = jax.jit(step)(*map_leaves(make_backend("jax").asarray, arguments))
    for a, b in zip(leaves(got), leaves(step(*arguments)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # float32 against float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNormalization(momentum=1.5), r"momentum must be a number in \[0, 1\]. Received: momentum=1.5"),
        (lambda: BatchNormalization(epsilon=0.0), r"epsilon must be a number in \(0, inf\). Received: epsilon=0.0"),
        (lambda: LayerNormalization(-1e-3), "Received: epsilon=-0.001"),
        (lambda: RMSNormalization(0), "Received: epsilon=0"),
        (lambda: GroupNormalization(0), "groups must be an integer of at least 1. Received: groups=0"),
        (lambda: GroupNormalization(2, epsilon=0), "Received: epsilon=0"),
        (lambda: GroupNormalization(3).init(None, (4, 8)), "divide the number of channels, 8. Received: groups=3"),
        (lambda: LayerNormalization().init(None, ()), r"Received: samples of shape \(\)"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
