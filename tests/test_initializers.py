"""Initializers draw on the host with NumPy for every backend, so these tests do not use the `xp` fixture."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import initializers
from xpnet.initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Initializer,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    Zeros,
)
from xpnet.layers import Conv2D, MultiHeadAttention

NAMES = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "orthogonal": Orthogonal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
}
N = 100_000
matrices = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def largest_gap(values, cdf):
    """Return the Kolmogorov-Smirnov statistic, which exceeds 2 / sqrt(len(values)) for one sample in 1,500."""
    expected = np.array([cdf(value) for value in np.sort(values.ravel())])
    ranks = np.arange(values.size + 1) / values.size
    return max(np.max(expected - ranks[:-1]), np.max(ranks[1:] - expected))


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_is_float64_of_the_shape_and_repeats_with_the_seed(name):
    initializer = initializers.get(name)

    a, b = initializer(rng(), (3, 2, 4)), initializer(rng(), (3, 2, 4))

    assert a.shape == (3, 2, 4)
    assert a.dtype == np.float64
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"zeros", "ones", "constant"}))
def test_another_seed_draws_other_values(name):
    initializer = initializers.get(name)

    assert not np.any(initializer(rng(0), (3, 4)) == initializer(rng(1), (3, 4)))


def test_fixed_values():
    np.testing.assert_array_equal(Zeros()(rng(), (2, 3)), [[0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(Ones()(rng(), (2,)), [1, 1])
    np.testing.assert_array_equal(Constant(-2.5)(rng(), (2,)), [-2.5, -2.5])


def test_uniform_has_its_distribution():
    values = RandomUniform(-1, 3)(rng(), (N,))

    assert -1 <= values.min() < values.max() <= 3
    assert largest_gap(values, lambda x: (x + 1) / 4) < 2 / math.sqrt(N)


def test_normal_has_its_distribution():
    assert largest_gap(RandomNormal(stddev=2, mean=1)(rng(), (N,)), NormalDist(1, 2).cdf) < 2 / math.sqrt(N)


def test_truncated_normal_has_its_distribution():
    phi = NormalDist().cdf

    values = TruncatedNormal(stddev=2, mean=1)(rng(), (N,))

    assert np.max(np.abs(values - 1)) <= 4
    assert largest_gap((values - 1) / 2, lambda z: (phi(z) - phi(-2)) / (phi(2) - phi(-2))) < 2 / math.sqrt(N)


# The bound of the uniform form and the variance of both forms, by hand, for 784 inputs and 100 outputs.
SCALED = [
    (LecunUniform, LecunNormal, 0.0618589574, 1 / 784),
    (GlorotUniform, GlorotNormal, 0.0823852555, 1 / 442),
    (HeUniform, HeNormal, 0.0874817765, 1 / 392),
]


@pytest.mark.parametrize(("uniform", "normal", "bound", "variance"), SCALED)
def test_variance_scaling(uniform, normal, bound, variance):
    u, n = uniform()(rng(), (784, 100)), normal()(rng(), (784, 100))

    assert 0.999 * bound < np.max(np.abs(u)) <= bound * (1 + 1e-9)  # 78,400 draws come close to the bound
    cut = 2 * math.sqrt(variance) / 0.8796256610
    assert 0.99 * cut < np.max(np.abs(n)) <= cut * (1 + 1e-9)
    for values in (u, n):
        assert abs(np.mean(values)) < 5 * math.sqrt(variance / values.size)
        assert np.var(values) == pytest.approx(variance, rel=0.02)  # 4 standard errors or more


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [((), 1, 1), ((7,), 7, 7), ((3, 5), 3, 5), ((2, 3, 5), 6, 10), ((3, 4, 5, 6), 60, 72)],
)
def test_fans_come_from_the_shape_when_not_given(shape, fan_in, fan_out):
    for initializer in (HeUniform(), GlorotNormal()):
        values = initializer(rng(), shape)

        assert isinstance(values, np.ndarray)
        np.testing.assert_array_equal(values, initializer(rng(), shape, fan_in, fan_out))


def test_given_fans_win_over_the_shape():
    lone_unit = HeUniform()(rng(), (9, 1))

    np.testing.assert_allclose(HeUniform()(rng(), (9, 1), fan_in=900), lone_unit / 10)
    np.testing.assert_allclose(GlorotUniform()(rng(), (9, 1), fan_out=991), lone_unit / math.sqrt(1000 / 9))


def test_a_fan_of_zero_counts_as_one():
    assert LecunUniform()(rng(), (0, 4)).shape == (0, 4)


@given(shape=matrices, gain=st.floats(0.1, 10))
def test_orthogonal(shape, gain):
    W = Orthogonal(gain)(rng(), shape).reshape(-1, shape[-1])

    gram = W.T @ W if W.shape[0] >= W.shape[1] else W @ W.T
    np.testing.assert_allclose(gram, gain**2 * np.eye(min(W.shape)), rtol=0, atol=1e-12 * gain**2)


def test_orthogonal_favours_no_direction():
    signs = [np.sign(Orthogonal()(rng(seed), (2, 2))[0, 0]) for seed in range(400)]

    assert abs(np.sum(signs)) < 80  # 4 standard errors; without the signs of R all would be negative


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_get_by_name_or_object(name, kind):
    initializer = initializers.get(name)

    assert initializer == kind()
    assert hash(initializer) == hash(kind())
    assert initializers.get(initializer) is initializer


def test_layers_tell_the_fans_of_one_output():
    """Two groups of a convolution, and q, k and v of attention, count as separate layers. Host-side, so no backend."""
    told = []

    def listen(rng, shape, fan_in=None, fan_out=None):
        told.append((fan_in, fan_out))
        return np.zeros(shape)

    Conv2D(6, (3, 2), groups=2, weight_initializer=listen).init(rng(), (5, 5, 4))
    MultiHeadAttention(2, key_dim=3, weight_initializer=listen).init(rng(), (5, 4))

    assert told == [(3 * 2 * 4 // 2, 3 * 2 * 6), (4, 2 * 3), (None, None)]


def test_get_accepts_any_function():
    def eye(rng, shape, fan_in=None, fan_out=None):
        return np.eye(*shape)

    np.testing.assert_array_equal(initializers.get(eye)(None, (2, 3)), np.eye(2, 3))


@pytest.mark.parametrize("unknown", ["glorot", "", None, 0.05, HeNormal, ["zeros"]])
def test_get_of_an_unknown_one_lists_the_names(unknown):
    with pytest.raises(ValueError, match=r'one of "zeros", "ones", .*, "he_normal"') as error:
        initializers.get(unknown)

    assert str(error.value).endswith(f"Received: {unknown!r}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomUniform(1, -1), "minval must be at most maxval. Swap them. Received: minval=1.0, maxval=-1.0"),
        (lambda: RandomNormal(stddev=-1), "stddev must be at least 0. Received: stddev=-1.0"),
        (lambda: TruncatedNormal(stddev=-1), "stddev must be at least 0. Received: stddev=-1.0"),
        (lambda: RandomNormal(stddev=math.nan), "stddev must be a number in (-inf, inf). Received: stddev=nan"),
        (lambda: RandomUniform(0, math.inf), "maxval must be a number in (-inf, inf). Received: maxval=inf"),
        (lambda: Constant("1"), "value must be a number in (-inf, inf). Received: value='1'"),
        (lambda: Orthogonal(None), "gain must be a number in (-inf, inf). Received: gain=None"),
        (
            lambda: Orthogonal()(rng(), (3,)),
            "Orthogonal needs a shape of at least 2 axes. Use Zeros for a vector. Received: shape=(3,)",
        ),
    ],
)
def test_errors_give_the_rule_the_remedy_and_what_was_received(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (compared whole below)
        make()

    assert str(error.value) == message


def test_settings_become_floats_so_that_equal_ones_are_one_cache_key():
    assert repr(RandomNormal(stddev=np.float32(0.5), mean=1)) == "RandomNormal(mean=1.0, stddev=0.5)"


def test_the_base_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Initializer()


@pytest.mark.parametrize("name", [*list(NAMES)[7:], "orthogonal"])
@pytest.mark.parametrize("shape", [(300, 200), (3, 3, 40, 150)])
def test_against_keras(name, shape):
    keras = pytest.importorskip("keras")

    theirs = np.abs(keras.initializers.get({"class_name": name, "config": {"seed": 0}})(shape))
    ours = np.abs(initializers.get(name)(rng(), shape))

    for statistic in (np.std, np.mean, lambda x: np.quantile(x, 0.99)):
        assert statistic(ours) == pytest.approx(statistic(theirs), rel=0.02)  # 4 standard errors


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 4)])
def test_orthogonal_arrays_have_the_memory_order_of_files(shape):
    """A product with a transposed array may differ in the last bits, and so may a run that continues from a file."""
    assert initializers.draw("orthogonal", np.random.default_rng(0), shape).flags.c_contiguous
