"""Layers that change the shape or the scale of their input."""

import numpy as np
import pytest

from tests.layer_checks import check_layer
from tests.test_convolution import run
from tests.test_pooling import images
from xpnet import to_numpy
from xpnet.layers import (
    ChannelsLast,
    Permute,
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


def test_permute(xp64, rng):
    x = rng.normal(size=(3, 2, 4, 5))

    y, _, _ = check_layer(Permute((3, 1, 2)), xp64, x)

    np.testing.assert_array_equal(to_numpy(y), x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("dims", [(0, 1), (1, 1), (1, 3), (1.0, 2), 2, "ab"])
def test_what_is_not_a_permutation_is_refused(dims):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match="dims must be a permutation of 1"):
        Permute(dims)
    with pytest.raises(ValueError, match=r"needs samples with 2 axes\. Received: samples of shape \(2, 3, 4\)"):
        Permute((2, 1)).output_shape((2, 3, 4))
