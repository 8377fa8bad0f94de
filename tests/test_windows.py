"""Windows that slide over images: extracting windows and adding windows are adjoint maps, ⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""

import math

import numpy as np
import pytest

from xpnet.backend import to_numpy
from xpnet.layers.windows import Window, col2im, crop, im2col, pad, per_axis

WINDOWS = [Window.fit(9, 3, 2, 1, "same"), Window.fit(8, 2, 3, 2, "valid"), Window.fit(7, 3, 1, 1, 2), Window(6, 2, 2)]


def inner(a, b):
    return sum(np.sum(to_numpy(x) * to_numpy(y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("window", WINDOWS, ids=repr)
def test_add_is_the_adjoint_of_take(window, xp64, rng):
    x = xp64.asarray(rng.normal(size=(2, window.padded, 3)))
    parts = [xp64.asarray(rng.normal(size=(2, window.count, 3))) for _ in range(window.kernel)]

    assert inner(window.take(x, -2), parts) == pytest.approx(inner([x], [window.add(parts, -2)]))


@pytest.mark.parametrize("window", WINDOWS, ids=repr)
def test_crop_is_the_adjoint_of_pad(window, xp64, rng):
    x, y = (xp64.asarray(rng.normal(size=(2, n, 3))) for n in (window.size, window.padded))

    assert inner([pad(x, [window])], [y]) == pytest.approx(inner([x], [crop(y, [window])]))


@pytest.mark.parametrize("channels", [1, 2])
def test_col2im_is_the_adjoint_of_im2col(channels, xp64, rng):
    windows = WINDOWS[:2]
    x = xp64.asarray(rng.normal(size=(2, *(window.padded for window in windows), channels)))
    W = xp64.asarray(rng.normal(size=(math.prod(window.kernel for window in windows) * channels, 3)))
    y = im2col(x, windows) @ W
    dy = xp64.asarray(rng.normal(size=y.shape))

    assert inner([y], [dy]) == pytest.approx(inner([x], [col2im(dy, W, windows)]))


def test_a_window_that_does_not_fit_is_refused():
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match='use padding="same"'):
        Window.fit(2, 3, 1, 1, "valid")
    with pytest.raises(ValueError, match="size must be an integer or a tuple of 2"):
        per_axis("size", (1, 2, 3), 2)
