"""Conv1D, Conv2D, Conv2DTranspose, and the windows that they share with pooling."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import no_sync
from tests.layer_checks import build, check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import Dense, ReLU, Sequential
from xpnet.layers.convolution import Conv1D, Conv2D, Conv2DTranspose
from xpnet.layers.windows import Window
from xpnet.tree import leaves, map_leaves

few = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
one_to_three = st.integers(1, 3)
LAYERS = [
    (Conv2D(3, 2), (4, 5, 2)),
    (Conv2D(3, (2, 3), strides=2, padding="same", use_bias=False), (4, 5, 1)),
    (Conv2D(4, 3, padding=2, dilation_rate=(2, 1), groups=2), (4, 5, 6)),
    (Conv2D(6, 3, padding=1, groups=3), (4, 5, 3)),
    (Conv2D(4, 1), (3, 2, 4)),
    (Conv2D(2, 1, strides=2), (3, 4, 2)),
    (Conv1D(4, 3, strides=2, padding=1, dilation_rate=2), (7, 2)),
    (Conv1D(4, 2, groups=4), (5, 4)),
    (Conv2DTranspose(3, 3, strides=2, padding="same"), (3, 2, 2)),
    (Conv2DTranspose(1, (2, 3), strides=3), (2, 3, 2)),
    (Conv2DTranspose(2, 4, strides=2, padding=1, use_bias=False), (2, 3, 1)),
    (Conv2DTranspose(4, 2, padding=0, dilation_rate=2, groups=2), (2, 3, 6)),
]
every_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=range(len(LAYERS)))


def run(layer, xp, params, x, dy):
    """Run the layer on host arrays. Return y, dx and the gradients on the host."""
    y, backward = layer.forward(map_leaves(xp.asarray, params), xp.asarray(x))
    dx, grads = backward(xp.asarray(dy))
    return map_leaves(to_numpy, (y, dx, grads))


@st.composite
def convolutions(draw):
    """Draw a Conv2D with any settings, and the smallest shape of images that it accepts."""
    kernel, stride, dilation = (draw(st.tuples(n, n)) for n in (one_to_three, st.integers(1, 2), st.integers(1, 2)))
    groups = draw(one_to_three)
    filters, channels = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    padding = draw(st.sampled_from(["valid", "same", 1]))
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, 1)) for k, d in zip(kernel, dilation, strict=True)]
    return Conv2D(filters, kernel, stride, padding, dilation, groups), (draw(st.integers(1, 2)), *sizes, channels)


@few
@given(convolution=convolutions(), seed=st.integers(0, 99))
def test_convolution_gradient(xp64, convolution, seed):
    layer, shape = convolution
    check_layer(layer, xp64, np.random.default_rng(seed).normal(size=shape))


@few
@given(kernel=one_to_three, stride=one_to_three, padding=st.sampled_from(["valid", "same", 1]), n=st.integers(2, 4))
def test_sequence_convolution_gradient(xp64, kernel, stride, padding, n):
    check_layer(Conv1D(2, kernel, stride, padding), xp64, np.random.default_rng(n).normal(size=(2, n + 1, 3)))


@few
@given(
    kernel=st.integers(2, 3), strides=st.tuples(one_to_three, one_to_three), padding=st.sampled_from(["valid", "same", 1]),
    dilation=st.integers(1, 2), channels=st.integers(1, 2),
)  # fmt: skip
def test_transposed_convolution_gradient(xp64, kernel, strides, padding, dilation, channels):
    layer = Conv2DTranspose(2, kernel, strides, padding, dilation)
    check_layer(layer, xp64, np.random.default_rng(kernel).normal(size=(2, 3, 2, channels)))


@every_layer
def test_float32_agrees_with_numpy(layer, shape, xp, rng):
    x = rng.normal(size=(2, *shape))
    expected = check_layer(layer, make_backend("numpy"), x, wide=False)
    got = check_layer(layer, xp, x, wide=False)

    for a, b in zip(leaves(expected), leaves(got), strict=True):
        np.testing.assert_allclose(to_numpy(b), a, rtol=2e-5, atol=5e-6)  # sums round in another order


@every_layer
def test_equals_torch(layer, shape, rng):
    """Only on NumPy; the other backends agree with it."""
    torch = pytest.importorskip("torch")
    if layer.padding == "same" or layer.strides == (3, 3):
        pytest.skip("torch has no such padding; see test_equals_jax")
    rank, transposed = layer.rank, isinstance(layer, Conv2DTranspose)
    params, output_shape, _ = build(layer, shape)
    x, dy = rng.normal(size=(2, *shape)), rng.normal(size=(2, *output_shape))
    z = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    # torch's weights are (out, in, *window) or, transposed, (in, out, *window): xpnet's last two axes, swapped
    W = torch.tensor(np.moveaxis(params["weight"], (-1, -2), (0, 1)).copy(), requires_grad=True)
    b = torch.tensor(params["bias"][0], requires_grad=True) if layer.use_bias else None
    options = {"stride": layer.strides, "padding": 0 if layer.padding == "valid" else layer.padding,
               "dilation": layer.dilation_rate, "groups": layer.groups}  # fmt: skip
    expected = getattr(torch.nn.functional, f"conv{'_transpose' * transposed}{rank}d")(z, W, b, **options)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1)))

    y, dx, grads = run(layer, make_backend("numpy", dtype="float64"), params, x, dy)

    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.moveaxis(dx, -1, 1), z.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.moveaxis(grads["weight"], (-1, -2), (0, 1)), W.grad.numpy(), rtol=1e-9, atol=1e-12)
    if layer.use_bias:
        np.testing.assert_allclose(grads["bias"][0], b.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"),
    [(3, 1, 1, "same"), (2, 1, 1, "same"), (3, 2, 1, "same"), (4, 3, 1, "same"), (1, 2, 1, "same"), (2, 3, 1, "same"),
     (3, 1, 2, "same"), (2, 3, 1, "valid"), (3, 2, 1, "valid")],
)  # fmt: skip
def test_equals_jax(transposed, kernel, stride, dilation, padding, rng):
    """Only on NumPy; the other backends agree with it."""
    jax = pytest.importorskip("jax")
    layer = (Conv2DTranspose if transposed else Conv2D)(2, kernel, stride, padding, dilation, use_bias=False)
    x = rng.normal(size=(2, 7, 6, 3)).astype(np.float32)
    params, shape = layer.init(rng, x.shape[1:])
    W = params["weight"].astype(np.float32)

    def convolve(x):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, W, (stride, stride), padding.upper(), rhs_dilation=(dilation, dilation), dimension_numbers=axes
        )

    expected = jax.vjp(convolve, np.zeros((2, *shape), np.float32))[1](x)[0] if transposed else convolve(x)

    y = layer({"weight": W}, x)

    assert y.shape[1:] == shape
    np.testing.assert_allclose(y, np.asarray(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "filters", "groups"), [(64, 1, 1), (1, 64, 1), (32, 8, 4)])
def test_he_initialisation_keeps_the_variance(channels, filters, groups):
    """On NumPy, because weights are drawn on the host. Both kinds of convolution count fans in the same way."""
    x = np.random.default_rng(0).normal(size=(8, 24, 24, channels))
    for kind in (Conv2D, Conv2DTranspose):
        layer = kind(filters, 3, padding="same", groups=groups, use_bias=False, weight_initializer="he_normal")
        draws = [layer(layer.init(np.random.default_rng(seed), x.shape[1:])[0], x).std() for seed in range(20)]

        assert np.mean(draws) == pytest.approx(np.sqrt(2), rel=0.1)


@every_layer
def test_traces_under_jit(layer, shape, rng):
    """Only on JAX."""
    jax = pytest.importorskip("jax")
    params, output_shape, _ = build(layer, shape)
    arguments = params, rng.normal(size=(2, *shape)), rng.normal(size=(2, *output_shape))

    @jax.jit
    def traced(params, x, dy):
        y, backward = layer.forward(params, x)
        return y, *backward(dy)

    got = traced(*map_leaves(make_backend("jax").asarray, arguments))

    expected = run(layer, make_backend("numpy"), *arguments)
    map_leaves(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), got, expected)  # float32


@every_layer
def test_reads_no_value_on_the_host(layer, shape, xp, rng):
    params = map_leaves(xp.asarray, build(layer, shape)[0])
    x = xp.asarray(rng.normal(size=(2, *shape)))

    with no_sync():
        y, backward = layer.forward(params, x)
        backward(y)


@every_layer
def test_spares_the_input_gradient(layer, shape, xp, rng, monkeypatch):
    params = map_leaves(xp.asarray, build(layer, shape)[0])
    y, backward = layer.forward(params, xp.asarray(rng.normal(size=(2, *shape))))
    monkeypatch.setattr("xpnet.layers.convolution.col2im", None)  # would fail if called

    dx, grads = backward(y, need_dx=False)

    assert dx is None
    assert grads.keys() == params.keys()


def test_one_by_one_is_dense_at_every_pixel(xp, rng):
    params, _, _ = build(Conv2D(4, 1), (3, 2, 5))
    x, dy = rng.normal(size=(2, 3, 2, 5)), rng.normal(size=(2, 3, 2, 4))

    y, dx, grads = run(Conv2D(4, 1), xp, params, x, dy)
    dense = params | {"weight": params["weight"][0, 0]}
    y2, dx2, grads2 = run(Dense(4), xp, dense, x.reshape(-1, 5), dy.reshape(-1, 4))

    pairs = [(y, y2), (dx, dx2), (grads["weight"], grads2["weight"]), (grads["bias"], grads2["bias"])]
    for a, b in pairs:
        np.testing.assert_allclose(a.ravel(), b.ravel(), rtol=1e-5, atol=1e-6)


def test_groups_are_convolutions_side_by_side(xp, rng):
    layer = Conv2D(6, 2, groups=2)
    params, _, _ = build(layer, (3, 4, 4))
    x = rng.normal(size=(2, 3, 4, 4))

    y = to_numpy(layer(map_leaves(xp.asarray, params), xp.asarray(x)))

    for g in range(2):
        one = {"weight": params["weight"][..., 3 * g : 3 * g + 3], "bias": params["bias"][:, 3 * g : 3 * g + 3]}
        alone = Conv2D(3, 2)(map_leaves(xp.asarray, one), xp.asarray(x[..., 2 * g : 2 * g + 2]))
        np.testing.assert_allclose(y[..., 3 * g : 3 * g + 3], to_numpy(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["valid", "same", 1])
def test_transposed_is_the_adjoint(padding, rng):
    """⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩ with the same weight, if the strides skip no pixel. Only on NumPy."""
    conv, transposed = (layer(n, 3, 2, padding, use_bias=False) for layer, n in ((Conv2D, 4), (Conv2DTranspose, 2)))
    size = 8 if padding == "same" else 7
    params, output_shape, _ = build(conv, (size, size, 2))
    x, y = rng.normal(size=(2, size, size, 2)), rng.normal(size=(2, *output_shape))

    left = np.sum(conv(params, x) * y)
    right = np.sum(x * transposed(params, y))

    np.testing.assert_allclose(left, right, rtol=1e-12)


@few
@given(
    size=st.integers(5, 9), kernel=one_to_three, stride=one_to_three, dilation=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same", 2]), axis=st.sampled_from([-1, -2, -3]),
)  # fmt: skip
def test_window_maps_are_adjoint(xp64, size, kernel, stride, dilation, padding, axis):
    """⟨take(pad(x)), y⟩ = ⟨x, crop(add(y))⟩"""
    window = Window.fit(size, kernel, stride, dilation, padding)
    rng = np.random.default_rng(size)
    shape = [2, 3, 2]
    shape[axis] = size
    x = rng.normal(size=shape)

    seen = window.take(window.pad(xp64.asarray(x), axis), axis)
    y = [rng.normal(size=part.shape) for part in seen]
    back = window.crop(window.add([xp64.asarray(part) for part in y], axis), axis)

    assert [part.shape[axis] for part in seen] == [window.count] * kernel
    assert back.shape == x.shape
    left = sum(np.sum(to_numpy(a) * b) for a, b in zip(seen, y, strict=True))
    np.testing.assert_allclose(left, np.sum(x * to_numpy(back)), rtol=1e-12, atol=1e-12)


def test_initial_weights_have_keras_shapes(rng):
    """Host-side, so no backend."""
    assert Conv2D(6, (3, 2), groups=2).init(rng, (8, 8, 4))[0]["weight"].shape == (3, 2, 2, 6)
    assert Conv1D(6, 3).init(rng, (8, 4))[0]["weight"].shape == (3, 4, 6)
    assert Conv2DTranspose(6, 3).init(rng, (8, 8, 4))[0]["weight"].shape == (3, 3, 6, 4)
    assert Conv2D(6, 3).init(rng, (8, 8, 4))[0]["bias"].shape == (1, 6)


def test_activation_means_two_layers():
    """Checks only settings, so no backend."""
    assert Sequential([Conv2D(3, 2, activation="relu")]) == Sequential([Conv2D(3, 2), ReLU()])


def test_numpy_integers_are_settings():
    """Checks only shapes, so no backend."""
    layer = Conv2D(np.int64(8), np.int64(3), padding=np.int64(1))
    shape = layer.init(np.random.default_rng(0), (5, 5, 1))[1]

    assert shape == (5, 5, 8)
    assert [type(n) for n in shape] == [int, int, int]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(0, 3), "filters must be an integer of at least 1. Received: filters=0"),
        (
            lambda: Conv2D(8, (3, 3, 3)),
            r"kernel_size must be an integer or a tuple of 2.*Received: kernel_size=\(3, 3, 3\)",
        ),
        (lambda: Conv2D(8, 3, strides=(1, 0)), "Received: strides=0"),
        (lambda: Conv1D(8, 3, dilation_rate=1.5), "Received: dilation_rate=1.5"),
        (lambda: Conv2D(8, 3, padding="full"), "Received: padding='full'"),
        (lambda: Conv2DTranspose(8, 3, padding=-1), "Received: padding=-1"),
        (lambda: Conv2D(8, 3, groups=3), "multiple of groups=3. Received: filters=8"),
        (lambda: Conv2D(8, 3, groups=2).init(None, (8, 8, 3)), "multiple of groups=2. Received: 3 channels"),
        (lambda: Conv2D(8, 3, weight_initializer="he"), "Received: 'he'"),
        (lambda: Conv2D(8, 3).init(None, (28, 28)), r"Reshape\(\(28, 28, 1\)\).*samples of shape \(28, 28\)"),
        (lambda: Conv1D(8, 3).init(None, (28, 28, 1)), r"\(time, channels\).*samples of shape \(28, 28, 1\)"),
        (lambda: Conv2D(8, 5).init(None, (4, 9, 1)), 'use padding="same".*a window over 5 places for an input of 4'),
        (
            lambda: Conv2DTranspose(8, 2, padding=1).init(None, (1, 1, 1)),
            "must not cut off the whole output.*an output of size 0",
        ),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
