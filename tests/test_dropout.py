"""Dropout."""

import numpy as np

from tests.layer_checks import check_layer
from tests.test_activations import KEY
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import (
    Dropout,
)


def test_dropout_gradient(xp64, rng):
    check_layer(Dropout(0.3), xp64, rng.normal(size=(3, 4)), key=KEY)


def test_dropout_keeps_the_mean_and_the_rate(xp):
    x = xp.asarray(np.ones((500, 200)))
    y, _ = Dropout(0.3).forward({}, x, key=xp.asarray(KEY))
    y = to_numpy(y)

    assert abs(np.mean(y == 0) - 0.3) < 0.005  # 3.4 standard errors of 100,000 draws
    assert abs(np.mean(y) - 1) < 0.01
    np.testing.assert_array_equal(to_numpy(Dropout(0.3)({}, x)), 1)


def test_dropout_mask_is_the_same_on_every_backend(xp):
    x = np.ones((7, 9))
    expected, _ = Dropout(0.5).forward({}, make_backend("numpy").asarray(x), key=KEY)
    y, _ = Dropout(0.5).forward({}, xp.asarray(x), key=xp.asarray(KEY))

    np.testing.assert_array_equal(to_numpy(y), expected)
