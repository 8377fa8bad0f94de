"""Functions that the Array API standard lacks, each accurate in relative error over all normal numbers.

Errors are a few units in the last place, even in the tails, because no formula subtracts nearly equal numbers. Below the
smallest normal number (1e-38 in float32), results are accurate in absolute error.
"""

from __future__ import annotations

import math

from xpnet.backend import namespace, quiet
from xpnet.backend.fusion import formula
from xpnet.tree import Array

# Chebyshev coefficients of (1 + 2u) exp(u²) erfc(u) in s = (u - 3) / (u + 3), u >= 0, after M. Shepherd and J. Laframboise,
# "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 <= x < ∞", Math. Comp. 36 (1981)
_ERFCX = (
    1.177562574196560046, 0.005353904539615677, -0.09377550342284209, 0.05436652555744322, -0.018976596707845207,
    0.004453426061462712, -6.335531710553147e-4, 1.7661719523171592e-5, 1.284153286405667e-5, -2.0072285659059914e-6,
    -1.8075227904148371e-7, 7.549828343825093e-8, 1.8856685238386028e-9, -2.699519049798364e-9, -1.460079119939105e-11,
    1.0361607445969489e-10, 1.475715976623473e-12, -4.277340064396911e-12, -2.07922492859799e-13, 1.8134502003176962e-13,
    1.9734255745447388e-14, -7.287943737592673e-15, -1.5169878690228116e-15, 2.3514112258781404e-16, 1.0006111691821668e-16,
)  # fmt: skip
_ERFCX_IN_FLOAT32 = 12  # the number of coefficients that matter in float32; the rest are below its rounding
# Chebyshev coefficients of erf(x) / x in 2x² - 1, |x| <= 1
_ERF = (
    0.975476939382654096, -0.14226120510371364, 0.010035582187599796, -5.768764699767485e-4, 2.741993125219606e-5,
    -1.1043175507344507e-6, 3.8488755420345037e-8, -1.1808582533875467e-9, 3.2334215826050910e-11, -7.991015947004549e-13,
    1.7990725113961456e-14, -3.7186354878186926e-16,
)  # fmt: skip
_ERF_IN_FLOAT32 = 7


@quiet
@formula
def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ). Where e⁻ˣ overflows, the result 0 is correct."""
    y = namespace(x).exp(-x)
    y += 1.0
    return 1.0 / y


@quiet
@formula
def sigmoid_and_exp(x: Array) -> tuple[Array, Array]:
    """σ(x) and e⁻ˣ, from which `complement` computes 1 - σ(x)."""
    e = namespace(x).exp(-x)
    return 1.0 / (e + 1.0), e


@quiet
@formula
def complement(e: Array) -> Array:
    """σ(-x) = 1 - σ(x) = 1 / (1 + 1/e) from e = e⁻ˣ in [0, ∞]. The difference would lose all digits for large x."""
    y = 1.0 / e
    y += 1.0
    return 1.0 / y


@formula
def sigmoid_factors(x: Array) -> tuple[Array, Array, Array]:
    """a, b with a b = σ(x), and σ(-x). A product t a b keeps its digits even if σ(x) is below the normal numbers."""
    xp = namespace(x)
    a, c = xp.exp(0.5 * xp.minimum(x, 0.0)), xp.exp(-xp.maximum(x, 0.0))
    total = a * a + c  # between 1 and 2
    return a, a / total, c / total


@formula
def softplus(x: Array) -> Array:
    """log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|), which cannot overflow."""
    xp = namespace(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


@quiet
@formula
def tanh_slope(x: Array) -> Array:
    """1 - tanh² x = 4e / (1 + e)²,   e = exp(-2 |x|)"""
    xp = namespace(x)
    y = xp.abs(x)
    y *= -2.0
    y = xp.exp(y)
    d = y + 1.0
    y /= d
    y /= d
    y *= 4.0
    return y


@quiet
def below_maximum(x: Array, axis: int = -1) -> tuple[Array, Array]:
    """Return x - max x, and where x is the maximum. There the difference is 0 even if x is infinite, so equal entries stay equal.

    Its exponential cannot overflow, and -∞ excludes an entry. The difference of numbers such as ±3e38 is -∞, which is correct.
    """
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    is_top = x == top
    return xp.where(is_top, 0.0, x - top), is_top


@formula
def softmax(x: Array) -> Array:
    """eˣ / Σ eˣ over the last axis.

    -∞ gives exactly 0. Infinite maxima share all of the probability: (∞, 0) gives (1, 0), and (∞, ∞) gives (½, ½). A row of
    only -∞ gives a uniform result, like any row of equal numbers.
    """
    xp = namespace(x)
    y = xp.exp(below_maximum(x)[0])
    y /= xp.sum(y, axis=-1, keepdims=True)
    return y


@formula
def log_softmax(x: Array) -> Array:
    """x - log Σ eˣ over the last axis, with infinities treated as in `softmax`.

    If the maximum is 0, the sum is 1 + rest, and log1p(rest) keeps the digits of a rest far below 1.
    """
    xp = namespace(x)
    y, is_top = below_maximum(x)
    rest = xp.sum(xp.where(is_top, 0.0, xp.exp(y)), axis=-1, keepdims=True)
    rest += xp.sum(xp.astype(is_top, x.dtype), axis=-1, keepdims=True) - 1.0  # the other equal maxima
    y -= xp.log1p(rest)
    return y


@formula
def erf(x: Array) -> Array:
    """The error function 2/√π ∫₀ˣ exp(-t²) dt."""
    xp = namespace(x)
    size = xp.abs(x)
    near = xp.minimum(size, 1.0)
    coefficients = _ERF if x.dtype == xp.float64 else _ERF[:_ERF_IN_FLOAT32]
    small = x * _chebyshev(coefficients, 2.0 * near * near - 1.0)
    far = xp.minimum(xp.maximum(size, 1.0), 40.0)
    return xp.where(size < 1.0, small, xp.sign(x) * (1.0 - _erfcx(far) * xp.exp(-far * far)))


@formula
def normal_tail(x: Array) -> tuple[Array, Array]:
    """t and e with Φ(-x) = t e and φ(x) = e / √2π, the normal distribution and its density, for x in [0, 40].

    e = exp(-x²/2). Rounding x² would cost as many digits as x²/2 has before the point, so x is split into h + l, where h² is
    exact.
    """
    xp = namespace(x)
    h = xp.round(x * 256.0) * (1 / 256)
    e = xp.exp(-0.5 * h * h) * xp.exp(-0.5 * (x - h) * (x + h))
    return 0.5 * _erfcx(x * math.sqrt(0.5)), e


def _erfcx(u: Array) -> Array:
    """exp(u²) erfc(u) for u >= 0."""
    coefficients = _ERFCX if u.dtype == namespace(u).float64 else _ERFCX[:_ERFCX_IN_FLOAT32]
    return _chebyshev(coefficients, (u - 3.0) / (u + 3.0)) / (1.0 + 2.0 * u)


def _chebyshev(coefficients: tuple[float, ...], s: Array) -> Array:
    """Σ cₖ Tₖ(s), by Clenshaw's recurrence."""
    d = previous = namespace(s).zeros_like(s)
    twice = 2.0 * s
    for c in reversed(coefficients[1:]):
        d, previous = twice * d - previous + c, d
    return s * d - previous + coefficients[0]
