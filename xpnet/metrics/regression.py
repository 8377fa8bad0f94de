"""Regression metrics: they compare predictions with targets of the same shape.

Each metric says how it combines several outputs. The values of `multioutput` are named as in scikit-learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import require, set_numbers
from xpnet.metrics.base import Metric, moments, root_mean_square
from xpnet.tree import Array

EPSILON = 2.0**-52  # the smallest divisor |y|, as in scikit-learn


class Regression(Metric):
    higher_is_better = False
    on_predictions = True


class _Error(Regression):
    """A mean over samples and units."""

    bounds = (0.0, math.inf)


@dataclass(frozen=True)
class MeanAbsoluteError(_Error):
    """mean |ŷ - y| over samples and units, in the unit of the targets

    Parameters
    ----------
    name : str, default "mae"
        The metric's key in the history.
    """

    name: str = "mae"

    def terms(self, y, z):
        xp = namespace(z)
        return (xp.mean(xp.abs(_residual(y, z)), axis=-1),)


@dataclass(frozen=True)
class MeanSquaredError(_Error):
    """mean (ŷ - y)² over samples and units, in the squared unit of the targets

    Parameters
    ----------
    name : str, default "mse"
        The metric's key in the history.
    """

    name: str = "mse"

    def terms(self, y, z):
        e = _residual(y, z)
        return (namespace(z).mean(e * e, axis=-1),)


@dataclass(frozen=True)
class RootMeanSquaredError(_Error):
    """√ mean (ŷ - y)², in the unit of the targets

    Parameters
    ----------
    multioutput : {"pooled", "uniform_average", "raw_values"}, default "pooled"
        How to combine several outputs. "pooled" is the root of the mean over samples and units, as in Keras, and the root
        of the loss "mean_squared_error". "uniform_average" is the mean of each output's root, as in scikit-learn, and is at
        most "pooled". "raw_values" returns the list of each output's root.
    name : str, default "rmse"
        The metric's key in the history.

    Raises
    ------
    ValueError
        `multioutput` is not one of these values.
    """

    multioutput: str = "pooled"
    name: str = "rmse"

    def __post_init__(self):
        _require_multioutput(self.multioutput, "pooled", "uniform_average", "raw_values")

    def terms(self, y, z):
        return (namespace(z).abs(_residual(y, z)).mT,)

    def merge(self, terms, weight=None):
        return (root_mean_square(terms, weight),)

    def result(self, roots):
        xp = namespace(roots)
        if self.multioutput == "pooled":
            return xp.sqrt(xp.mean(roots * roots))
        return roots if self.multioutput == "raw_values" else xp.mean(roots)


class _Explained(Regression):
    """1 - unexplained variance / variance of the targets."""

    higher_is_better = True
    bounds = (-math.inf, 1.0)

    multioutput: str

    def __post_init__(self):
        _require_multioutput(self.multioutput, "variance_weighted", "uniform_average", "raw_values")

    def _share(self, unexplained: Array, deviation: Array) -> Array:
        """Return 1 - (unexplained / deviation)², combined over the outputs.

        An output with constant targets gets 1 if nothing is unexplained, else 0. It does not count in a mean weighted by
        variance.
        """
        xp = namespace(deviation)
        unexplained, variance = unexplained * unexplained, deviation * deviation
        varies = variance > 0
        share = 1.0 - unexplained / xp.where(varies, variance, 1.0)
        share = xp.where(varies, share, xp.astype(unexplained == 0, variance.dtype))
        if self.multioutput == "raw_values":
            return share
        by_variance = self.multioutput == "variance_weighted" and bool(xp.any(varies))
        return xp.sum(share * variance) / xp.sum(variance) if by_variance else xp.mean(share)


@dataclass(frozen=True)
class R2Score(_Explained):
    """1 - Σ (ŷ - y)² / Σ (y - ȳ)²,   sums over samples, where ȳ is the mean of the targets

    Constant targets give 1 if the predictions equal them, else 0, as in scikit-learn.

    Parameters
    ----------
    multioutput : {"variance_weighted", "uniform_average", "raw_values"}, default "variance_weighted"
        How to combine several outputs, as in scikit-learn: the mean of their R² weighted by their variances, in which outputs
        with constant targets do not count; the unweighted mean; or the list. The default of Keras and scikit-learn is
        "uniform_average".
    name : str, default "r2"
        The metric's key in the history.

    Raises
    ------
    ValueError
        `multioutput` is not one of these values.
    """

    multioutput: str = "variance_weighted"
    name: str = "r2"

    def terms(self, y, z):
        e = _residual(y, z).mT
        return namespace(e).abs(e), *_value(_like(y, z, e))

    def merge(self, terms, weight=None):
        return root_mean_square(terms[:1], weight), *moments(terms[1:], weight)

    def result(self, residual, deviation, origin, shift):
        return self._share(residual, deviation)


@dataclass(frozen=True)
class ExplainedVariance(_Explained):
    """1 - Var(y - ŷ) / Var(y):   R² after the mean error is subtracted

    Constant targets give 1 if the errors are constant too, else 0, as in scikit-learn.

    Parameters
    ----------
    multioutput : {"variance_weighted", "uniform_average", "raw_values"}, default "variance_weighted"
        As in `R2Score`.
    name : str, default "explained_variance"
        The metric's key in the history.

    Raises
    ------
    ValueError
        `multioutput` is not one of these values.
    """

    multioutput: str = "variance_weighted"
    name: str = "explained_variance"

    def terms(self, y, z):
        e = _residual(y, z).mT
        return *_value(e), *_value(_like(y, z, e))

    def merge(self, terms, weight=None):
        return *moments(terms[:3], weight), *moments(terms[3:], weight)

    def result(self, unexplained, error_origin, error_shift, deviation, origin, shift):
        return self._share(unexplained, deviation)


@dataclass(frozen=True)
class MeanAbsolutePercentageError(_Error):
    """mean |ŷ - y| / max(|y|, 2⁻⁵²) over samples and units

    The value is a fraction, as in scikit-learn; Keras returns a percentage. Targets of 0 make it huge.

    Parameters
    ----------
    name : str, default "mape"
        The metric's key in the history.
    """

    name: str = "mape"

    def terms(self, y, z):
        xp = namespace(z)
        size = xp.maximum(xp.abs(xp.astype(y, z.dtype, copy=False)), EPSILON)
        return (xp.mean(xp.abs(_residual(y, z)) / size, axis=-1),)


@dataclass(frozen=True)
class MeanPinballLoss(_Error):
    """mean over samples and units of α (y - ŷ) where y > ŷ, else (1 - α) (ŷ - y)

    The minimum is at the α-quantile of y.

    Parameters
    ----------
    alpha : float, default 0.5
        α, in (0, 1), as in scikit-learn. The loss `Quantile` calls it quantile.
    name : str, default "mean_pinball_loss"
        The metric's key in the history.

    Raises
    ------
    ValueError
        `alpha` is not between 0 and 1.
    """

    alpha: float = 0.5
    name: str = "mean_pinball_loss"

    def __post_init__(self):
        set_numbers(self, "(0, 1)", "alpha")

    def terms(self, y, z):
        xp = namespace(z)
        e = _residual(y, z)
        return (xp.mean(0.5 * xp.abs(e) + (0.5 - self.alpha) * e, axis=-1),)


@dataclass(frozen=True)
class CosineSimilarity(Regression):
    """mean of y·ŷ / (|y| |ŷ|) over samples; 0 for a row of zeros

    Parameters
    ----------
    name : str, default "cosine_similarity"
        The metric's key in the history.
    """

    name: str = "cosine_similarity"

    higher_is_better = True
    bounds = (-1.0, 1.0)

    def terms(self, y, z):
        z = z[..., : y.shape[-1]]
        return (namespace(z).sum(_unit(namespace(z).astype(y, z.dtype, copy=False)) * _unit(z), axis=-1),)


def _unit(x: Array) -> Array:
    """Scale rows to length 1, except rows of zeros. Dividing by the largest first avoids overflow and underflow of squares."""
    xp = namespace(x)
    largest = xp.max(xp.abs(x), axis=-1, keepdims=True)
    x = x / xp.where(largest > 0, largest, 1.0)
    square = xp.sum(x * x, axis=-1, keepdims=True)
    return x / xp.where(square > 0, xp.sqrt(square), 1.0)


def _residual(y: Array, z: Array) -> Array:
    """ŷ - y. `GaussianNLL` predicts (mean, variance); only the means are compared."""
    return z[..., : y.shape[-1]] - namespace(z).astype(y, z.dtype, copy=False)


def _like(y: Array, z: Array, e: Array) -> Array:
    """Return the targets in the dtype of z, with units first, repeated for each network."""
    xp = namespace(z)
    return xp.broadcast_to(xp.astype(y, z.dtype, copy=False).mT, e.shape)


def _value(x: Array) -> tuple[Array, Array, Array]:
    """Single values as terms of `moments`."""
    zero = namespace(x).zeros_like(x)
    return zero, x, zero


def _require_multioutput(value: str, *names: str) -> None:
    require(value in names, f"multioutput must be one of {', '.join(map(repr, names))}", f"multioutput={value!r}")
