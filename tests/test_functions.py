"""The functions that layers and losses use. test_accuracy.py tests their accuracy in float32."""

import math

import numpy as np

from xpnet.backend import to_numpy
from xpnet.functions import erf


def test_erf(xp64, xp):
    x = np.linspace(-7, 7, 501)
    expected = [math.erf(v) for v in x]

    np.testing.assert_allclose(to_numpy(erf(xp64.asarray(x))), expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(to_numpy(erf(xp.asarray(x))), expected, rtol=0, atol=3e-7)
