"""Zero padding and upsampling."""

import numpy as np
import pytest

from tests.layer_checks import agrees_with_numpy, check_layer, equals_torch
from xpnet.layers import UpSampling2D, ZeroPadding2D

every_layer = pytest.mark.parametrize("layer", [ZeroPadding2D(((1, 0), (2, 1))), UpSampling2D((2, 3))], ids=repr)
X = np.random.default_rng(0).normal(size=(2, 4, 5, 2))


@every_layer
def test_gradient(layer, xp64):
    check_layer(layer, xp64, X)


@every_layer
def test_float32_agrees_with_numpy(layer, xp):
    agrees_with_numpy(layer, xp, X)


@pytest.mark.parametrize(
    ("layer", "name", "options"),
    [
        (ZeroPadding2D((1, 2)), "pad", {"pad": (2, 2, 1, 1)}),
        (UpSampling2D((2, 3)), "interpolate", {"scale_factor": (2, 3), "mode": "nearest"}),
    ],
    ids=["ZeroPadding2D", "UpSampling2D"],
)
def test_equals_torch(layer, name, options):
    """Only on NumPy; the other backends agree with it."""
    equals_torch(layer, name, options, X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZeroPadding2D(-1), "Received: padding=-1"),
        (lambda: ZeroPadding2D((1, 2, 3)), r"Received: padding=\(1, 2, 3\)"),
        (lambda: UpSampling2D(1.5), "Received: size=1.5"),
        (lambda: UpSampling2D().init(None, (10,)), r"UpSampling2D needs samples of shape \(height, width"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
