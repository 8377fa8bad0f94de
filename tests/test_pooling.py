"""Pooling."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import no_sync
from tests.layer_checks import agrees_with_numpy, check_layer, equals_torch
from tests.test_convolution import run
from xpnet.backend import make_backend
from xpnet.layers import (
    AveragePooling1D,
    AveragePooling2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    MaxPooling1D,
    MaxPooling2D,
)
from xpnet.tree import map_leaves

few = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
one_to_three = st.integers(1, 3)
LAYERS = [
    MaxPooling2D(),
    MaxPooling2D(3, strides=(1, 2), padding="same"),
    AveragePooling2D((2, 1)),
    AveragePooling2D(3, strides=2, padding="same"),
    GlobalMaxPooling2D(),
    GlobalAveragePooling2D(),
    MaxPooling1D(),
    AveragePooling1D(3, strides=2, padding="same"),
    GlobalMaxPooling1D(),
    GlobalAveragePooling1D(),
]
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=repr)


def images(seed=0):
    """Return distinct values whose distance exceeds the steps of the gradient check, which must not change the maximum."""
    return np.random.default_rng(seed).permutation(2 * 4 * 5 * 2).reshape(2, 4, 5, 2) / 10.0


def samples(layer):
    return images() if getattr(layer, "rank", 2) == 2 else images().reshape(2, 20, 2)


@few
@given(
    pooling=st.sampled_from([MaxPooling2D, AveragePooling2D]), size=st.tuples(one_to_three, one_to_three),
    strides=st.none() | one_to_three, padding=st.sampled_from(["valid", "same"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_pooling_gradient(xp64, pooling, size, strides, padding, seed):
    check_layer(pooling(size, strides, padding), xp64, images(seed))


@pytest.mark.parametrize("layer", LAYERS[4:], ids=repr)
def test_gradient(layer, xp64):
    check_layer(layer, xp64, samples(layer))


@every_layer
def test_float32_agrees_with_numpy(layer, xp):
    agrees_with_numpy(layer, xp, samples(layer))


@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 3), ((2, 3), (3, 4)), (1, 2), (2, 1), (3, (2, 1))])
def test_max_pooling_equals_torch(size, strides, xp, rng):
    """Equal bit for bit, even with ties, where the first value gets the gradient. If windows overlap, sums round differently."""
    torch = pytest.importorskip("torch")
    layer = MaxPooling2D(size, strides)
    x = rng.integers(-2, 3, size=(2, 9, 8, 3)).astype(np.float32)
    dy = rng.normal(size=(2, *layer.init(rng, x.shape[1:])[1])).astype(np.float32)
    z = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(z, size, strides)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1)))

    y, dx, _ = run(layer, xp, {}, x, dy)

    np.testing.assert_array_equal(np.moveaxis(y, -1, 1), expected.detach().numpy())
    overlap = any(k > s for k, s in zip(layer.pool_size, layer.strides, strict=True))
    np.testing.assert_allclose(np.moveaxis(dx, -1, 1), z.grad.numpy(), rtol=0, atol=1e-6 if overlap else 0)


@pytest.mark.parametrize(
    ("layer", "name", "options"),
    [
        (AveragePooling2D(2), "avg_pool2d", {"kernel_size": 2}),
        (AveragePooling2D(3, (2, 1)), "avg_pool2d", {"kernel_size": 3, "stride": (2, 1)}),
        (GlobalMaxPooling2D(), "adaptive_max_pool2d", {"output_size": 1}),
        (GlobalAveragePooling2D(), "adaptive_avg_pool2d", {"output_size": 1}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_equals_torch(layer, name, options, rng):
    """Only on NumPy; the other backends agree with it. Some values are equal, as after a ReLU."""
    equals_torch(layer, name, options, np.maximum(rng.integers(-2, 3, size=(2, 6, 5, 3)), 0.0))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (MaxPooling1D(3, strides=2, padding="same"), MaxPooling2D((3, 1), strides=(2, 1), padding="same")),
        (AveragePooling1D(3, strides=1, padding="same"), AveragePooling2D((3, 1), strides=1, padding="same")),
        (GlobalMaxPooling1D(), GlobalMaxPooling2D()),
        (GlobalAveragePooling1D(), GlobalAveragePooling2D()),
    ],
    ids=repr,
)
def test_a_sequence_is_an_image_one_pixel_wide(one, two, xp):
    x = samples(one)
    dy = np.random.default_rng(1).normal(size=(2, *one.init(None, x.shape[1:])[1]))
    image, d_image = x[:, :, None, :], dy.reshape(2, *two.init(None, (20, 1, 2))[1])

    y, dx, _ = run(one, xp, {}, x, dy)
    y_image, dx_image, _ = run(two, xp, {}, image, d_image)

    np.testing.assert_array_equal(y, y_image.reshape(y.shape))
    np.testing.assert_array_equal(dx, dx_image.reshape(dx.shape))


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 2), (2, 3), (3, 1), ((1, 3), (2, 1))])
def test_same_padding_equals_jax(kind, size, strides, rng):
    """Only on NumPy; the other backends agree with it. All values are negative, so zeros in the padding would be the maximum."""
    lax = pytest.importorskip("jax").lax
    x = -1 - rng.random((2, 7, 6, 3)).astype(np.float32)
    layer = (MaxPooling2D if kind == "max" else AveragePooling2D)(size, strides, "same")

    def reduce(x, start, function):
        return lax.reduce_window(
            x, np.float32(start), function, (1, *layer.pool_size, 1), (1, *layer.strides, 1), "SAME"
        )

    largest, mean = reduce(x, -np.inf, lax.max), reduce(x, 0, lax.add) / reduce(np.ones_like(x), 0, lax.add)

    np.testing.assert_allclose(layer({}, x), np.asarray(largest if kind == "max" else mean), rtol=1e-6)


@every_layer
def test_traces_under_jit(layer, rng):
    """Only on JAX."""
    jax = pytest.importorskip("jax")
    x = samples(layer)
    dy = rng.normal(size=(2, *layer.init(rng, x.shape[1:])[1]))

    @jax.jit
    def traced(x, dy):
        y, backward = layer.forward({}, x)
        return y, *backward(dy)

    got = traced(*map_leaves(make_backend("jax").asarray, (x, dy)))

    expected = run(layer, make_backend("numpy"), {}, x, dy)
    map_leaves(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)  # float32


@every_layer
def test_reads_no_value_on_the_host(layer, xp):
    x = xp.asarray(samples(layer))

    with no_sync():
        y, backward = layer.forward({}, x)
        backward(y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPooling2D(0), "pool_size must be an integer of at least 1. Received: pool_size=0"),
        (lambda: MaxPooling2D(2, strides=(2, 2, 2)), "strides must be an integer or a tuple of 2"),
        (lambda: AveragePooling2D(2, padding=1), 'padding must be one of "valid", "same". Received: padding=1'),
        (lambda: MaxPooling2D(3).init(None, (2, 8, 1)), 'use padding="same".*a window over 3 places for an input of 2'),
        (lambda: GlobalMaxPooling2D().init(None, (10,)), r"GlobalMaxPooling2D needs samples of shape \(height, width"),
        (lambda: MaxPooling1D((2, 2)), "pool_size must be an integer or a tuple of 1"),
        (lambda: GlobalAveragePooling1D().init(None, (8, 8, 1)), r"needs samples of shape \(time, channels\)"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
