"""Random changes to images: each layer is compared with a few lines of NumPy, and its backward pass must be the transpose."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer_checks import check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.layers.augmentation import RandomCrop, RandomFlip, RandomRotation, RandomTranslation, farthest
from xpnet.random import step_keys

KEYS = step_keys(0, np.arange(2))
LAYERS = [
    RandomTranslation(1, 2), RandomTranslation(0.3, 0), RandomCrop(2, 3), RandomFlip(), RandomFlip("vertical"),
    RandomFlip("horizontal_and_vertical"),
    RandomRotation(30), RandomRotation(180),
]  # fmt: skip
SHAPE = (3, 7, 6, 2)
few = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMPY = make_backend("numpy")  # every backend draws the same; see test_float32_agrees_with_numpy


def forward(layer, xp, x, key=KEYS[0]):
    y, backward = layer.forward({}, xp.asarray(x), key=xp.asarray(key))
    return to_numpy(y), lambda dy: to_numpy(backward(xp.asarray(dy))[0])


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_gradient(layer, xp64, rng):
    check_layer(layer, xp64, rng.normal(size=(2, 3, 4, 1)), key=KEYS[0])


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@few
@given(shape=st.sampled_from([(2, 3, 4, 1), SHAPE, (1, 2, 9, 3)]), seed=st.integers(0, 99))
def test_backward_is_the_transpose(layer, xp64, shape, seed):
    """⟨A x, dy⟩ = ⟨x, Aᵀ dy⟩"""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    y, backward = forward(layer, xp64, x, key=step_keys(seed, np.arange(1))[0])
    dy = rng.normal(size=y.shape)

    np.testing.assert_allclose(np.sum(y * dy), np.sum(x * backward(dy)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_float32_agrees_with_numpy(layer, xp, rng):
    x = rng.normal(size=SHAPE)

    y, dx, _ = check_layer(layer, xp, x, key=KEYS[0], wide=False)

    expected_y, expected_dx, _ = check_layer(layer, NUMPY, x, key=KEYS[0], wide=False)
    tolerance = 2e-5 if isinstance(layer, RandomRotation) else 0  # cos and sin differ in the last digit
    np.testing.assert_allclose(to_numpy(y), expected_y, rtol=0, atol=tolerance)
    np.testing.assert_allclose(to_numpy(dx), expected_dx, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_under_jit(layer, rng):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    x = rng.normal(size=SHAPE)
    moved = (make_backend("jax").asarray(a) for a in (x, KEYS[0]))

    y = jax.jit(lambda x, key: layer.forward({}, x, key=key)[0])(*moved)

    np.testing.assert_allclose(y, forward(layer, NUMPY, x)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_inference_does_not_change_images(layer, xp, rng):
    x = rng.normal(size=(2, 5, 6, 1)).astype("float32")

    y = to_numpy(layer({}, xp.asarray(x)))

    np.testing.assert_array_equal(y, x[:, 1:3, 1:4, :] if isinstance(layer, RandomCrop) else x)


def shifted(image, s, t):
    y = np.zeros_like(image)
    h, w, _ = image.shape
    y[max(-s, 0) : h - s, max(-t, 0) : w - t] = image[max(s, 0) : h + s, max(t, 0) : w + t][:h, :w]
    return y


def test_shift(rng):
    """All 15 shifts, and no others, occur with about equal frequency."""
    image = rng.normal(size=(4, 5, 2)).astype("float32")
    y, _ = forward(RandomTranslation(1, 2), NUMPY, np.stack([image] * 1500))

    candidates = [shifted(image, s, t) for s in range(-1, 2) for t in range(-2, 3)]
    counts = [sum(np.array_equal(candidate, other) for other in y) for candidate in candidates]
    assert sum(counts) == 1500
    assert min(counts) > 65  # 100 each, less 3.6 standard deviations


def test_shift_by_a_share_of_the_image(rng):
    image = np.arange(20.0).reshape(20, 1, 1)
    y, _ = forward(RandomTranslation(0.1, 0), NUMPY, np.stack([image] * 200))

    assert set(y[:, 10, 0, 0]) == {8, 9, 10, 11, 12}


def test_crop(rng):
    """All 6 positions occur."""
    image = rng.normal(size=(4, 5, 2)).astype("float32")
    y, _ = forward(RandomCrop(3, 3), NUMPY, np.stack([image] * 300))

    candidates = [image[s : s + 3, t : t + 3] for s in range(2) for t in range(3)]
    counts = [sum(np.array_equal(candidate, other) for other in y) for candidate in candidates]
    assert sum(counts) == 300
    assert min(counts) > 25  # 50 each, less 3.8 standard deviations


@pytest.mark.parametrize(
    ("direction", "axes"),
    [("horizontal", [(), (1,)]), ("vertical", [(), (0,)]), ("horizontal_and_vertical", [(), (0,), (1,), (0, 1)])],
)
def test_flip(direction, axes, rng):
    image = rng.normal(size=(4, 5, 2)).astype("float32")
    y, _ = forward(RandomFlip(direction), NUMPY, np.stack([image] * 400))

    counts = [sum(np.array_equal(np.flip(image, axis), other) for other in y) for axis in axes]
    assert sum(counts) == 400
    assert min(counts) > 400 / len(axes) - 40  # 4 standard deviations and more


def angles(layer, xp, batch):
    """Return the angles, which a rotation of an image of row and column numbers reveals."""
    positions = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), axis=-1)
    y, _ = forward(layer, xp, np.stack([positions] * batch))
    cos, sin = (y[:, 3, 2, :] - y[:, 2, 2, :]).T
    return np.arctan2(sin, cos)


def test_rotation_angles():
    degrees = np.degrees(angles(RandomRotation(40), NUMPY, 1000))

    assert np.max(np.abs(degrees)) <= 40.01
    assert abs(np.mean(degrees)) < 3  # 4 standard errors
    assert abs(np.mean(np.abs(degrees) < 20) - 0.5) < 0.065


@pytest.mark.parametrize("degrees", [30, 180])
def test_rotation_equals_torch(degrees, xp64, rng):
    torch = pytest.importorskip("torch")
    h, w = 5, 8
    x, dy = rng.normal(size=(2, 4, h, w, 3))
    layer = RandomRotation(degrees)
    angle = angles(layer, xp64, 4)[:, None, None]
    i, j = np.arange(h)[:, None] - (h - 1) / 2, np.arange(w) - (w - 1) / 2
    rows, columns = np.cos(angle) * i - np.sin(angle) * j, np.sin(angle) * i + np.cos(angle) * j
    grid = torch.tensor(np.stack([columns * 2 / (w - 1), rows * 2 / (h - 1)], axis=-1))
    z = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.grid_sample(z.permute(0, 3, 1, 2), grid, "bilinear", "zeros", align_corners=True)
    expected = expected.permute(0, 2, 3, 1)
    expected.backward(torch.tensor(dy))

    y, backward = forward(layer, xp64, x)

    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(backward(dy), z.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_no_rotation(xp, rng):
    x = rng.normal(size=SHAPE).astype("float32")
    y, _ = forward(RandomRotation(0), xp, x)

    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    "layer", [RandomTranslation(2, 2), RandomFlip("horizontal_and_vertical"), RandomRotation(20)], ids=repr
)
def test_each_step_draws_anew(layer, xp, rng):
    x = rng.normal(size=SHAPE)

    assert not np.array_equal(forward(layer, xp, x)[0], forward(layer, xp, x, KEYS[1])[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomTranslation(-1, 0), r"height must be a number of pixels.*Received: height=-1"),
        (lambda: RandomTranslation(0, 1.5), r"a float in \[0, 1\)\). Received: width=1.5"),
        (lambda: RandomCrop(0, 3), "height must be an integer of at least 1. Received: height=0"),
        (
            lambda: RandomCrop(8, 3).init(None, (6, 6, 1)),
            r"RandomCrop\(8, 3\) needs images of at least that size.*\(6, 6, 1\)",
        ),
        (
            lambda: RandomTranslation(6, 0).init(None, (6, 8, 1)),
            "shift must be smaller than the image.*Received: RandomTranslation",
        ),
        (lambda: RandomFlip("diagonal"), "Received: mode='diagonal'"),
        (lambda: RandomRotation(200), r"must be a number in \[0, 180\]. Received: degrees=200"),
        (
            lambda: RandomRotation(10).init(None, (28, 28)),
            r"needs samples of shape \(height, width, channels\). Put a layer such as Reshape.*\(28, 28\)",
        ),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("share", "length", "pixels"), [(0.29, 150, 44), (0.29, 50, 14), (0.1, 30, 3), (np.float32(0.1), 30, 3)]
)
def test_a_share_of_the_image_is_counted_in_decimals(share, length, pixels):
    """0.29 · 150 is 43.5, which rounds to the even number 44, but 43.49... in floats. No arrays, so no backend."""
    assert farthest(share, length) == pixels
