"""The relative error of every activation and loss in float32, value and gradient, compared with float64, over all normal numbers.

The reference formulas run on NumPy in float64. They differ from xpnet's formulas wherever those could be wrong, and erfc comes
from the standard library. The formulas of activations, `log_softmax` and `bce` were compared with mpmath on every 23rd point of
the grid within ±3000. The largest relative error was 2e-14, in erfc.
"""

import math

import numpy as np
import pytest

from xpnet import functions
from xpnet.backend import to_numpy
from xpnet.layers.activations import (
    ELU,
    GELU,
    SELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from xpnet.losses import (
    BinaryCrossEntropy,
    CategoricalCrossEntropy,
    GaussianNLL,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
)

EPS = np.finfo(np.float32).eps
TINY = (
    8 * np.finfo(np.float32).tiny
)  # JAX flushes numbers below tiny to 0, and then multiplies them by a factor of order 1
SIZES = np.concatenate(
    [np.logspace(-37, -3, 60), np.linspace(0.002, 20, 1500), np.linspace(20, 120, 500), np.logspace(2.1, 38.4, 60)]
)
GRID = np.concatenate([-SIZES[::-1], [0.0], SIZES]).astype(np.float32)


def assert_accurate(actual, expected, ulps=8, atol=TINY):
    """Check that numbers are within `ulps` of the correct ones, or within `atol` near 0, and infinite beyond float32."""
    actual, expected = to_numpy(actual).astype(float), np.asarray(expected)
    inside = abs(expected) <= np.finfo(np.float32).max
    with np.errstate(invalid="ignore"):
        excess = np.where(inside, abs(actual - expected) - ulps * EPS * abs(expected) - atol, 0)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess[worst] <= 0, (worst, actual[worst], expected[worst])
    assert np.all(abs(actual[~inside]) > 3.4e38)


def sigmoid(x):
    e = np.exp(-abs(x))
    return np.where(x < 0, e, 1.0) / (1 + e)


def sigmoid_slope(x):
    e = np.exp(-abs(x))
    return e / (1 + e) ** 2


def softplus(x):
    return np.where(x > 0, x, 0) + np.log1p(np.exp(-abs(x)))


def normal(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def density(x):
    return np.exp(-0.5 * np.minimum(abs(x), 1e3) ** 2) / math.sqrt(2 * math.pi)


def silu_slope(x):
    near = np.clip(x, -800, 800)
    return sigmoid(near) * (1 + near * sigmoid(-near))


def gelu_slope(x):
    near = np.clip(x, -50, 50)
    return normal(near) + near * density(near)


def gelu_tanh(x):
    near = np.clip(x, -40, 40)
    return np.maximum(x, -40) * sigmoid(math.sqrt(8 / math.pi) * (near + 0.044715 * near**3))


def gelu_tanh_slope(x):
    near, c = np.clip(x, -40, 40), math.sqrt(8 / math.pi)
    u, du = c * (near + 0.044715 * near**3), c * (1 + 3 * 0.044715 * near**2)
    return sigmoid(u) * (1 + near * du * sigmoid(-u))


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_slope(x, alpha=1.0):
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0)))


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
# y(x), y'(x), ulps. Where y' crosses 0, its two terms are of order 1, and their rounding error remains as an absolute error. In
# the tanh form of GELU, x³ is rounded before exp, which gives hundreds of ulps at the end of the tail, where PyTorch's tanh form
# has no correct digits.
ACTIVATIONS = {
    ReLU(): (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, 1),
    LeakyReLU(): (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01), 2),
    LeakyReLU(-0.3): (lambda x: np.where(x > 0, x, -0.3 * x), lambda x: np.where(x > 0, 1, -0.3), 2),
    ELU(): (elu, elu_slope, 8),
    ELU(0.3): (lambda x: elu(x, 0.3), lambda x: elu_slope(x, 0.3), 8),
    SELU(): (lambda x: SCALE * elu(x, ALPHA), lambda x: SCALE * elu_slope(x, ALPHA), 8),
    GELU(): (lambda x: np.maximum(x, -50) * normal(np.maximum(x, -50)), gelu_slope, 12),
    GELU("tanh"): (gelu_tanh, gelu_tanh_slope, 300),
    SiLU(): (lambda x: np.maximum(x, -800) * sigmoid(x), silu_slope, 8),
    Softplus(): (softplus, sigmoid, 8),
    Sigmoid(): (sigmoid, sigmoid_slope, 8),
    Tanh(): (np.tanh, lambda x: 4 * sigmoid_slope(2 * x), 8),
}
CROSSES_ZERO = (GELU, SiLU)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activation(layer, xp):
    value, slope, ulps = ACTIVATIONS[layer]
    x = GRID.astype(float)

    y, backward = layer.forward({}, xp.asarray(GRID[None, :]))
    dx, _ = backward(xp.asarray(np.ones((1, GRID.size))))

    assert_accurate(y[0, :], value(x), ulps)
    atol = np.where((x > -2) & (x < 0), 4 * EPS, TINY) if isinstance(layer, CROSSES_ZERO) else TINY
    assert_accurate(dx[0, :], slope(x), ulps, atol)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activation_of_infinity_has_a_limit(layer, xp):
    y, backward = layer.forward({}, xp.asarray(np.array([[-np.inf, np.inf]])))
    dx, _ = backward(xp.asarray(np.ones((1, 2))))

    assert not np.any(np.isnan(to_numpy(y)))
    assert not np.any(np.isnan(to_numpy(dx)))


def test_a_steep_leak_leaves_positive_numbers_alone(xp):
    y, _ = LeakyReLU(1e10).forward({}, xp.asarray(np.array([[0.1, -0.1]])))

    np.testing.assert_allclose(to_numpy(y), [[0.1, -1e9]], rtol=1e-6)


def test_erf(xp):
    expected = [math.erf(v) for v in GRID.astype(float)]

    assert_accurate(functions.erf(xp.asarray(GRID)), expected)


ROWS = np.array(
    [
        [0.0, 1, 2],
        [20, 0, -3],
        [90, 0, 0],
        [5, 5, 5],
        [-60, 30, 10],
        [3e38, -3e38, 0],
        [1e-20, 0, -1e-20],
        [-3e38, -3e38, 3e38],
    ],
    np.float32,
)


def log_softmax(z):
    x = z - z.max(axis=1, keepdims=True)
    rest = np.exp(x)
    rest[np.arange(len(z)), z.argmax(axis=1)] = 0
    return x - np.log1p(rest.sum(axis=1, keepdims=True))


# exp and log1p turn the rounding of a difference of logits, up to 60 here, into a relative error of 2 eps per unit
SOFT = 64


def test_softmax_and_its_derivative(xp, rng):
    z, dy = ROWS.astype(float), rng.normal(size=ROWS.shape).astype(np.float32)
    p = np.exp(log_softmax(z))

    y, backward = Softmax().forward({}, xp.asarray(ROWS))
    dx, _ = backward(xp.asarray(dy))

    assert_accurate(y, p, SOFT)
    expected = (p[:, :, None] * p[:, None, :] * (dy[:, :, None] - dy[:, None, :].astype(float))).sum(axis=2)
    assert_accurate(dx, expected, SOFT, atol=EPS * p + TINY)


def test_log_softmax_and_its_derivative(xp):
    z, dy = ROWS.astype(float), np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1, 0, 2, 2]]
    y, backward = LogSoftmax().forward({}, xp.asarray(ROWS))
    dx, _ = backward(xp.asarray(dy))

    assert_accurate(y, log_softmax(z), SOFT)
    assert_accurate(dx, softmax_slope(z, dy), SOFT)


def softmax_slope(z, t):
    """Return t - p for one-hot t, without computing the difference at the label."""
    p = np.exp(log_softmax(z))
    return np.where(t == 1, np.where(t == 1, 0, p).sum(axis=1, keepdims=True), -p)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("one_hot", [False, True])
def test_softmax_cross_entropy(label, one_hot, xp):
    z, t = ROWS.astype(float), np.eye(3)[[label]]
    for row, row64 in zip(ROWS, z, strict=True):
        loss, dz = SoftmaxCrossEntropy()(xp.asarray(t if one_hot else np.array([label])), xp.asarray(row[None]))

        assert_accurate(loss[None], -log_softmax(row64[None])[:, label], SOFT)
        assert_accurate(dz, -softmax_slope(row64[None], t), SOFT)


def bce(z, y):
    return np.where(z > 0, 1 - y, y) * abs(z) + np.log1p(np.exp(-abs(z)))


Z = GRID[abs(GRID) < 1e30][:, None]
P = np.linspace(1e-6, 1 - 1e-6, 999).astype(np.float32)[:, None]
MEANS = np.logspace(-6, 30, 500).astype(np.float32)[:, None]


def expm1_or_less(z, y):
    with np.errstate(over="ignore"):
        return np.expm1(z) if y == 1 else np.exp(z) - y


def exp(z):
    with np.errstate(over="ignore"):
        return np.exp(z)


# loss, outputs, target, l(z, y), l'(z, y), exact or in another form in float64
LOSSES = [
    *((BinaryCrossEntropy(), Z, y, bce, lambda z, y: (1 - y) * sigmoid(z) - y * sigmoid(-z)) for y in (0.0, 1.0)),
    *((BinaryCrossEntropy(False), P, y, lambda p, y: -y * np.log(p) - (1 - y) * np.log1p(-p),
       lambda p, y: (p - y) / (p * (1 - p))) for y in (0.0, 1.0)),
    *((Poisson(), Z, y, lambda z, y: exp(z) - y * z, expm1_or_less) for y in (0.0, 1.0)),
    (Poisson(False), MEANS, 1.0, lambda m, y: m - y * np.log(m), lambda m, y: (m - y) / m),
    (MeanSquaredError(), Z, 0.5, lambda z, y: (z - y) ** 2, lambda z, y: 2 * (z - y)),
    (MeanAbsoluteError(), Z, 0.5, lambda z, y: abs(z - y), lambda z, y: np.sign(z - y)),
    (Huber(2.0), Z, 0.5, lambda z, y: np.where(abs(z - y) <= 2, 0.5 * (z - y) ** 2, 2 * abs(z - y) - 2),
     lambda z, y: np.clip(z - y, -2, 2)),
    *((Quantile(q), Z, 0.5, lambda z, y, q=q: np.maximum((1 - q) * (z - y), -q * (z - y)),
       lambda z, y, q=q: (z > y) * (1 - q) - (z < y) * q) for q in (0.5, 0.999, 1e-6)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "z", "y", "value", "slope"), LOSSES, ids=lambda v: repr(v) if hasattr(v, "elements") else ""
)
def test_loss(loss, z, y, value, slope, xp):
    l, dz = xp.call(loss.elements, xp.asarray(np.full_like(z, y)), xp.asarray(z))  # without warnings beyond float32

    z = z.astype(float)
    assert_accurate(l, value(z, y))
    assert_accurate(dz, slope(z, y))


def test_categorical_cross_entropy(xp):
    p = np.concatenate([P, 1 - P], axis=1)
    y = np.tile([[1.0, 0.0]], (len(p), 1))

    l, dz = CategoricalCrossEntropy().elements(xp.asarray(y), xp.asarray(p))

    assert_accurate(l[:, 0], -np.log(p[:, 0].astype(float)))
    assert_accurate(dz, -y / p.astype(float))


@pytest.mark.parametrize("error", [0.0, 1e-30, 1.0])
def test_gaussian_nll_of_small_and_large_variances(error, xp):
    s = np.linspace(-170, 80, 300).astype(np.float32)[:, None]
    z = np.concatenate([np.full_like(s, error), s], axis=1)

    l, dz = xp.call(GaussianNLL().elements, xp.asarray(np.zeros_like(s)), xp.asarray(z))

    s, e = s.astype(float), float(np.float32(error))
    square = e * e * np.exp(-s)
    np.testing.assert_allclose(
        to_numpy(l), np.where(abs(s + square) < 3.4e38, 0.5 * (s + square), np.inf), rtol=1e-5, atol=1e-5
    )
    assert_accurate(dz[:, :1], e * np.exp(-s), 10)
