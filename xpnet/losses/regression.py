"""Losses for regression: squared, absolute, Huber, Poisson, quantile, Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import set_booleans, set_numbers
from xpnet.losses.base import EPSILON, Loss
from xpnet.tree import Array


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """l = (z - y)²,   dz = 2 (z - y)

    y: (batch, units), z: (batch, units) or (K, batch, units), as in all losses of this module except `GaussianNLL`.
    """

    def elements(self, y, z):
        e = z - y
        return e * e, 2.0 * e


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """l = |z - y|,   dz = sign(z - y)"""

    def elements(self, y, z):
        xp = namespace(z)
        e = z - y
        return xp.abs(e), xp.sign(e)


@dataclass(frozen=True)
class Huber(Loss):
    """l = ½ e² where |e| <= δ, else δ (|e| - ½ δ);   dz = e clipped to [-δ, δ],   e = z - y

    P. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964).

    Parameters
    ----------
    delta : float, default 1.0
        δ > 0, in the units of the targets.

    Raises
    ------
    ValueError
        `delta` is not above 0.
    """

    delta: float = 1.0

    def __post_init__(self):
        set_numbers(self, "(0, inf)", "delta")

    def elements(self, y, z):
        xp = namespace(z)
        e = z - y
        c = xp.minimum(xp.maximum(e, -self.delta), self.delta)
        return c * (e - 0.5 * c), c


@dataclass(frozen=True)
class Poisson(Loss):
    """l = eᶻ - y z,   dz = eᶻ - y,   counts y >= 0 with mean eᶻ

    The negative log-likelihood without log y!, which does not depend on z. eᶻ overflows float32 if z >= 89.

    Parameters
    ----------
    log_input : bool, default True
        If False, z is the mean itself: l = z - y log z, dz = 1 - y / z. In log z and y / z, 10⁻⁷ replaces smaller z.

    Raises
    ------
    ValueError
        `log_input` is not True or False.
    """

    log_input: bool = True

    target_range = (0, math.inf)

    def __post_init__(self):
        set_booleans(self, "log_input")

    def elements(self, y, z):
        xp = namespace(z)
        if self.log_input:
            mean = xp.exp(z)
            # Near z = 0, eᶻ - y is computed as (eᶻ - 1) - (y - 1), which keeps the digits of a small z for integer y
            dz = xp.where(xp.abs(z) < 0.5, xp.expm1(z) - (y - 1.0), mean - y)
            return mean - xp.where(y > 0, z, 0.0) * y, dz
        mean = xp.maximum(z, EPSILON)
        return z - y * xp.log(mean), (mean - y) / mean

    def activation(self, z):
        return namespace(z).exp(z) if self.log_input else z


@dataclass(frozen=True)
class Quantile(Loss):
    """l = q (y - z) where y > z, else (1 - q) (z - y);   dz = -q where y > z, 1 - q where y < z

    The pinball loss, which is smallest where z is the q-quantile of y. R. Koenker and G. Bassett, "Regression quantiles",
    Econometrica 46 (1978).

    Parameters
    ----------
    quantile : float, default 0.5
        q, 0 < q < 1.

    Raises
    ------
    ValueError
        `quantile` is not between 0 and 1.
    """

    quantile: float = 0.5

    def __post_init__(self):
        set_numbers(self, "(0, 1)", "quantile")

    def elements(self, y, z):
        xp = namespace(z)
        e, over, under = z - y, 1.0 - self.quantile, -self.quantile
        sides = xp.astype(e > 0, z.dtype) * over + xp.astype(e < 0, z.dtype) * under
        return xp.maximum(over * e, under * e), sides


@dataclass(frozen=True)
class GaussianNLL(Loss):
    """l = ½ (log σ² + (y - μ)² / σ²),   dμ = (μ - y) / σ²,   d log σ² = ½ (1 - (y - μ)² / σ²),   z = (μ, log σ²)

    The negative log-likelihood without its constant ½ log 2π. For k targets the network has 2k outputs: first the k means
    μ, then the k log-variances. `activation` returns (μ, σ²) in the same order; metrics compare the targets with μ. In
    float32, 1/σ is limited to e⁸⁸, its value at log σ² = -176.

    y: (batch, k), z: (batch, 2k) or (K, batch, 2k). D. Nix and A. Weigend, "Estimating the mean and variance of the target
    probability distribution", ICNN 1994.
    """

    outputs_per_target = 2

    def elements(self, y, z):
        xp = namespace(z)
        mean, log_variance = _halves(z)
        # 1/σ, which can be finite where 1/σ² overflows. The limit keeps it finite, because 0 · ∞ is NaN
        precision = xp.exp(xp.minimum(-0.5 * log_variance, 700.0 if z.dtype == xp.float64 else 88.0))
        e = (mean - y) * precision
        square = e * e
        return 0.5 * (log_variance + square), xp.concat((e * precision, 0.5 - 0.5 * square), axis=-1)

    def activation(self, z):
        xp = namespace(z)
        mean, log_variance = _halves(z)
        return xp.concat((mean, xp.exp(log_variance)), axis=-1)

    def decide(self, z):
        return _halves(z)[0]


def _halves(z: Array) -> tuple[Array, Array]:
    k = z.shape[-1] // 2
    return z[..., :k], z[..., k:]
