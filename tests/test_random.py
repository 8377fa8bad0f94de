"""Randomness: numbers are the same on every backend, and they pass tests of randomness."""

import numpy as np
import pytest

from xpnet import random
from xpnet.backend import make_backend, to_numpy


def key_of(xp, seed=0, step=0, position=0):
    return random.fold_in(xp.asarray(random.step_keys(seed, np.array([step]))[0]), position)


def bits(xp, count=1000, **key):
    return to_numpy(random.uniform_bits(key_of(xp, **key), count, xp.device))


def test_bits_are_identical_on_every_backend(xp):
    np.testing.assert_array_equal(
        bits(xp, 999, seed=7, step=3, position=2), bits(make_backend("numpy"), 999, seed=7, step=3, position=2)
    )


def test_bits_are_these():
    """Compares known values, so that a change of the hash does not go unnoticed. On NumPy, with which the others are compared."""
    assert bits(make_backend("numpy"), 6).tolist() == [61276, 51946, 18175, 41849, 23697, 59938]


def test_normals_agree_and_are_normal(xp):
    x = to_numpy(random.normal(key_of(xp), xp.asarray(np.zeros((200, 301)))))
    expected = random.normal(key_of(make_backend("numpy")), np.zeros((200, 301), "float32"))

    np.testing.assert_allclose(x, expected, rtol=2e-5, atol=2e-5)  # log and cos differ in the last digit
    assert abs(x.mean()) < 4 / np.sqrt(x.size)
    assert abs(x.std() - 1) < 4 / np.sqrt(2 * x.size)


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}, {"position": 1}, {"step": 2**31 + 5}])
def test_seed_step_and_layer_each_give_other_bits(change):
    """Only on NumPy; the other backends are identical."""
    numpy = make_backend("numpy")
    first, second = bits(numpy, 20_000), bits(numpy, 20_000, **change)

    assert np.mean(first == second) < 0.001  # 1 in 65,536 by chance
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(20_000)


def test_bits_are_uniform_and_uncorrelated():
    """Only on NumPy; the other backends are identical. Bounds are 5 standard deviations."""
    for seed in range(5):
        x = bits(make_backend("numpy"), 2**18, seed=seed)
        counts = np.bincount(x >> 8, minlength=256)
        assert abs(np.sum((counts - 1024) ** 2 / 1024) - 255) < 5 * np.sqrt(2 * 255)
        for lag in (1, 2, 7, 64, 2**17):
            assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / np.sqrt(len(x) - lag)


def test_step_keys_do_not_depend_on_the_chunk():
    """Host-side, so no backend."""
    whole = random.step_keys(3, np.arange(100))

    np.testing.assert_array_equal(
        np.concatenate([random.step_keys(3, np.arange(40)), random.step_keys(3, np.arange(40, 100))]), whole
    )
    assert len(np.unique(whole, axis=0)) == 100


def test_host_generators_differ_by_purpose_and_position():
    """Host-side, so no backend."""
    first = random.host_rng(0, "weights").random(4)

    np.testing.assert_array_equal(random.host_rng(0, "weights").random(4), first)
    for other in (random.host_rng(1, "weights"), random.host_rng(0, "shuffle"), random.host_rng(0, "weights", 1)):
        assert not np.any(other.random(4) == first)
