"""Layers that change the shape or the scale of their input."""

import numpy as np

from tests.layer_checks import check_layer
from tests.test_convolution import run
from tests.test_pooling import images
from xpnet.layers import (
    ChannelsLast,
    Reshape,
)


def test_reshape_gradient(xp64, rng):
    check_layer(Reshape((2, -1)), xp64, rng.normal(size=(3, 8)))


def test_channels_last(xp):
    x = images()

    y, dx, _ = run(ChannelsLast(), xp, {}, x, np.moveaxis(x, 1, -1))

    np.testing.assert_array_equal(y, np.moveaxis(x, 1, -1).astype(np.float32))
    np.testing.assert_array_equal(dx, x.astype(np.float32))
    assert ChannelsLast().init(None, (3, 28, 30))[1] == (28, 30, 3)
