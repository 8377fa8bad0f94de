"""Metrics: numbers to look at, as means over samples, so that batches combine exactly into an epoch.

`Metric.terms` computes numbers for each sample, on the device; the trainer takes their (weighted) means over all
samples; `Metric.combine` makes the metric from these means, on the host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import require_positive, set_numbers
from xpnet.losses import BinaryCrossEntropy, Loss, one_hot
from xpnet.tree import Array


class Metric(ABC):
    """metric = combine(mean of each term over the samples)

    Subclasses are frozen dataclasses of settings.

    Attributes
    ----------
    name : str
        The key in a history.
    on_predictions : bool
        Whether `terms` takes predictions, ``loss.activation(z)``, or the network's raw outputs, whose largest is the
        same.
    """

    name: str
    on_predictions: bool = False

    @abstractmethod
    def terms(self, y: Array, z: Array) -> tuple[Array, ...]:
        """The terms of each sample.

        Parameters
        ----------
        y : array of shape (batch, units), or (batch,) for labels
            Targets, as `Loss.check` returns them.
        z : array of shape (batch, units) or (K, batch, units)
            Predictions or outputs, by `on_predictions`.

        Returns
        -------
        tuple of arrays of shape (batch,) or (K, batch)
            In z's type.
        """

    def check(self, y_shape: tuple, units: int) -> None:
        """Raise ValueError unless the metric fits targets of this shape and rows of so many outputs."""
        if len(y_shape) != 2:
            raise ValueError(
                f'{self.name} compares each output with a number. Use "accuracy" for class labels, or one-hot targets. '
                f"Received: targets of shape {y_shape} for {units} outputs"
            )

    def combine(self, *means):
        """The metric from the mean of each term: floats, or NumPy arrays of shape (K,)."""
        return means[0]


class _ClassMetric(Metric):
    def check(self, y_shape, units):
        if units < 2:
            raise ValueError(
                f'{self.name} compares classes: the network needs an output for each. Use "binary_accuracy" for one '
                f"output. Received: {units} output"
            )


@dataclass(frozen=True)
class Accuracy(_ClassMetric):
    """The share of samples whose largest output is the right class; y: labels or one-hot rows"""

    name = "accuracy"

    def terms(self, y, z):
        return (_correct(y, z),)


@dataclass(frozen=True)
class TopKAccuracy(_ClassMetric):
    """The share of samples whose right class is among the k largest outputs (of equal ones, the first are taken)

    Parameters
    ----------
    k : int, default 5

    Raises
    ------
    ValueError
        `k` is not a positive integer.
    """

    k: int = 5

    def __post_init__(self):
        require_positive(k=self.k)

    def check(self, y_shape, units):
        if units <= self.k:
            raise ValueError(
                f"{self.name} needs more than {self.k} classes: else all are right. Received: {units} outputs"
            )

    @property
    def name(self):
        return f"top_{self.k}_accuracy"

    def terms(self, y, z):
        xp = namespace(z)
        if y.ndim > 1:
            y = xp.argmax(y, axis=-1)
        right = one_hot(y, z)
        score = xp.sum(right * z, axis=-1, keepdims=True)
        later = xp.cumulative_sum(right, axis=-1) - right
        beaten = (z < score) | ((z == score) & (later > 0))
        return (xp.astype(xp.sum(xp.astype(beaten, z.dtype), axis=-1) >= z.shape[-1] - self.k, z.dtype),)


@dataclass(frozen=True)
class ElementwiseAccuracy(_ClassMetric):
    """The share of right entries among all of one-hot(largest output): 1 - 2e / classes at an error rate e

    A wrong class makes two entries wrong of `classes`, so 0.99 is only 95 % accuracy with ten classes.
    """

    name = "elementwise_accuracy"

    def terms(self, y, z):
        return ((_correct(y, z) - 1.0) * (2 / z.shape[-1]) + 1.0,)


@dataclass(frozen=True)
class BinaryAccuracy(Metric):
    """The share of units, averaged over samples, on the same side as their target: ŷ > threshold where y > ½

    Parameters
    ----------
    threshold : float, default 0.5
        On predicted probabilities ŷ.
    name : str, default "binary_accuracy"

    Raises
    ------
    ValueError
        `threshold` is not a finite number.
    """

    threshold: float = 0.5
    name: str = "binary_accuracy"

    on_predictions = True

    def __post_init__(self):
        set_numbers(self, "(-inf, inf)", "threshold")

    def terms(self, y, z):
        xp = namespace(z)
        y = xp.astype(y, z.dtype)
        return (xp.mean(xp.astype((z > self.threshold) == (y > 0.5), z.dtype), axis=-1),)


@dataclass(frozen=True)
class MeanAbsoluteError(Metric):
    """mean |ŷ - y| over samples and units, in the unit of the targets"""

    name = "mae"
    on_predictions = True

    def terms(self, y, z):
        xp = namespace(z)
        return (xp.mean(xp.abs(_residual(y, z)), axis=-1),)


@dataclass(frozen=True)
class RootMeanSquaredError(Metric):
    """√ mean (ŷ - y)² over samples and units, in the unit of the targets"""

    name = "rmse"
    on_predictions = True

    def terms(self, y, z):
        e = _residual(y, z)
        return (namespace(z).mean(e * e, axis=-1),)

    def combine(self, mean_square):
        return mean_square**0.5


@dataclass(frozen=True)
class R2(Metric):
    """1 - Σ (ŷ - y)² / Σ (y - ȳ)²,   sums over samples and units, ȳ the mean of each unit

    With several units this is scikit-learn's ``r2_score(..., multioutput="variance_weighted")``. Targets without spread
    give 1 if they are met exactly, else 0. Σ (y - ȳ)² is computed as n (mean y² - ȳ²), which loses a digit of float32's
    seven for each factor of 3 between |ȳ| and the spread of y: standardise such targets, or train in float64.
    """

    name = "r2"
    on_predictions = True

    def terms(self, y, z):
        xp = namespace(z)
        e = _residual(y, z)
        y = xp.broadcast_to(xp.astype(y, z.dtype), e.shape)
        square, changes = xp.sum(y * y, axis=-1), xp.sum(xp.abs(y - xp.roll(y, 1, axis=-2)), axis=-1)
        rounding = square * (64 * xp.finfo(z.dtype).eps)
        return (xp.sum(e * e, axis=-1), square, rounding, changes, *xp.unstack(y, axis=-1))

    def combine(self, residual, square, rounding, changes, *means):
        variance = square - sum(mean * mean for mean in means)
        # Each batch is constant, and all are alike. A number or, of K networks, an array: hence factors and no branch
        constant = (changes == 0) & (variance <= rounding)
        return (1 - constant) * (1 - residual / (variance + constant)) + constant * (residual == 0)


_METRICS = (Accuracy, TopKAccuracy, ElementwiseAccuracy, BinaryAccuracy, MeanAbsoluteError, RootMeanSquaredError, R2)
_BY_NAME: dict[str, Metric] = {metric.name: metric for metric in (make() for make in _METRICS)}


def get(metric: str | Metric, loss: Loss) -> Metric:
    """The metric of that name, with default settings; a metric is returned as it is.

    "accuracy" of a network trained with `BinaryCrossEntropy`, also `PerPosition`, is `BinaryAccuracy`, under the name "accuracy".
    """
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str) or metric not in _BY_NAME:
        raise ValueError(
            f"A metric is an object such as TopKAccuracy(3) or one of {', '.join(_BY_NAME)}. Received: {metric!r}"
        )
    if metric == "accuracy" and isinstance(loss.row_loss, BinaryCrossEntropy):
        return BinaryAccuracy(name="accuracy")
    return _BY_NAME[metric]


def _correct(y: Array, z: Array) -> Array:
    """1 for each sample whose largest output is at its label, else 0."""
    xp = namespace(z)
    if z.shape[-1] == 1:
        raise ValueError("One output is always the largest: take BinaryAccuracy for a network with one output.")
    largest = xp.argmax(z, axis=-1)
    if y.ndim > 1:
        y = xp.argmax(y, axis=-1)
    return xp.astype(largest == xp.astype(y, largest.dtype, copy=False), z.dtype)


def _residual(y: Array, z: Array) -> Array:
    """ŷ - y; of `GaussianNLL`'s predictions (mean, variance), the means."""
    return z[..., : y.shape[-1]] - namespace(z).astype(y, z.dtype, copy=False)
