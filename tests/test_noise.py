"""Gaussian noise and spatial dropout."""

import math

import numpy as np
import pytest

from tests.layer_checks import check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.layers.dropout import Dropout
from xpnet.layers.noise import GaussianNoise, SpatialDropout1D, SpatialDropout2D
from xpnet.random import normal, step_keys

KEYS = step_keys(0, np.arange(2))
LAYERS = [(GaussianNoise(0.5), (3, 5)), (SpatialDropout1D(0.4), (3, 2, 4)), (SpatialDropout2D(0.4), (3, 2, 1, 4))]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_gradient(layer, shape, xp64, rng):
    check_layer(layer, xp64, rng.normal(size=shape), key=KEYS[0])


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_float32_agrees_with_numpy(layer, shape, xp, rng):
    x = rng.normal(size=shape)

    y, dx, _ = check_layer(layer, xp, x, key=KEYS[0], wide=False)

    expected_y, expected_dx, _ = check_layer(layer, make_backend("numpy", dtype="float32"), x, key=KEYS[0], wide=False)
    np.testing.assert_allclose(to_numpy(y), expected_y, rtol=1e-6, atol=1e-6)  # the last digit of log, cos and sin
    np.testing.assert_array_equal(to_numpy(dx), expected_dx)


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_inference_is_the_identity(layer, shape, xp, rng):
    x = xp.asarray(rng.normal(size=shape))

    assert layer({}, x) is x


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_under_jit(layer, shape):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    x, key = (make_backend("jax").asarray(a) for a in (np.ones(shape), KEYS[0]))

    y = jax.jit(lambda x, key: layer.forward({}, x, key=key)[0])(x, key)

    np.testing.assert_allclose(y, layer.forward({}, x, key=key)[0], rtol=1e-6, atol=1e-6)


def test_normal_numbers():
    """Moments, the fraction within one standard deviation, and correlations are within 4 standard errors.

    Only on NumPy; the other backends draw the same numbers.
    """
    n = 10**6
    z = normal(KEYS[0], like=np.zeros(n + 1))[:n]

    assert abs(np.mean(z)) < 4 / math.sqrt(n)
    assert abs(np.mean(z**2) - 1) < 4 * math.sqrt(2 / n)
    assert abs(np.mean(z**3)) < 4 * math.sqrt(15 / n)
    assert abs(np.mean(z**4) - 3) < 4 * math.sqrt(96 / n)
    assert abs(np.mean(abs(z) < 1) - math.erf(math.sqrt(0.5))) < 4 * math.sqrt(0.22 / n)
    assert abs(np.mean(z[1:] * z[:-1])) < 4 / math.sqrt(n)
    assert abs(np.mean(z[: n // 2] * z[n // 2 :])) < 4 / math.sqrt(n / 2)  # the two numbers of a Box-Muller pair


def test_noise_is_new_at_each_step():
    """Only on NumPy; the other backends draw the same numbers."""
    first, second = (GaussianNoise(1.0).forward({}, np.zeros((4, 5)), key=key)[0] for key in KEYS)

    assert np.all(first != second)


@pytest.mark.parametrize(
    ("layer", "shape"), [(SpatialDropout1D(0.3), (400, 3, 50)), (SpatialDropout2D(0.3), (400, 2, 2, 50))]
)
def test_spatial_dropout_drops_whole_channels(layer, shape, xp):
    y, _ = layer.forward({}, xp.asarray(np.ones(shape)), key=xp.asarray(KEYS[0]))
    y = to_numpy(y)

    channels = y[(slice(None), *[0] * (y.ndim - 2))]
    np.testing.assert_array_equal(y, np.broadcast_to(channels.reshape(400, *[1] * (y.ndim - 2), 50), shape))
    assert abs(np.mean(channels == 0) - 0.3) < 0.013  # 4 standard errors of 20,000 draws
    np.testing.assert_allclose(channels[channels != 0], 1 / 0.7, rtol=1e-4)


def test_one_position_makes_it_dropout(xp, rng):
    x, key = xp.asarray(rng.normal(size=(5, 1, 6))), xp.asarray(KEYS[0])

    y, _ = SpatialDropout1D(0.5).forward({}, x, key=key)

    np.testing.assert_array_equal(to_numpy(y), to_numpy(Dropout(0.5).forward({}, x, key=key)[0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise(-0.1), r"stddev must be a number in \[0, inf\). Received: stddev=-0.1"),
        (lambda: SpatialDropout2D(1.0), r"must be a number in \[0, 1\). Received: rate=1.0"),
        (lambda: SpatialDropout1D(0.5).init(None, (8, 8, 3)), r"samples of shape \(time, channels\). .*\(8, 8, 3\)"),
        (lambda: SpatialDropout2D(0.5).init(None, (8, 3)), r"samples of shape \(height, width, channels\). .*\(8, 3\)"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
