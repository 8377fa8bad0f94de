"""Metrics of classes that are means over samples: accuracies and the log loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from xpnet.backend import device, namespace
from xpnet.checks import require_positive, set_numbers
from xpnet.losses import BinaryCrossEntropy, Loss, one_hot
from xpnet.metrics.base import Metric
from xpnet.tree import Array


class _Share(Metric):
    """A share of something that is right."""

    higher_is_better = True
    bounds = (0.0, 1.0)


class _ClassMetric(_Share):
    def check(self, y_shape, units):
        if units < 2:
            raise ValueError(
                f'{self.name} compares classes: the network needs an output for each. Use "binary_accuracy" for one '
                f"output. Received: {units} output"
            )


@dataclass(frozen=True)
class Accuracy(_ClassMetric):
    """The share of samples whose largest output is the right class; y: labels or one-hot rows

    Of a network trained with `BinaryCrossEntropy`, the name "accuracy" means `BinaryAccuracy`.
    """

    name: str = "accuracy"

    def terms(self, y, z):
        return (_correct(y, z),)


@dataclass(frozen=True)
class TopKAccuracy(_ClassMetric):
    """The share of samples whose right class is among the k largest outputs (of equal ones, the first are taken)

    Parameters
    ----------
    k : int, default 5
    name : str, default "top_5_accuracy" for k = 5

    Raises
    ------
    ValueError
        `k` is not a positive integer.
    """

    k: int = 5
    name: str = ""

    def __post_init__(self):
        require_positive(k=self.k)
        object.__setattr__(self, "name", self.name or f"top_{self.k}_accuracy")

    def check(self, y_shape, units):
        if units <= self.k:
            raise ValueError(
                f"{self.name} needs more than {self.k} classes: else all are right. Received: {units} outputs"
            )

    def terms(self, y, z):
        xp = namespace(z)
        right = one_hot(labels(y), z)
        score = xp.max(xp.where(right > 0, z, -math.inf), axis=-1, keepdims=True)  # no product: 0 · ∞ is none
        later = xp.cumulative_sum(right, axis=-1) - right
        beaten = (z < score) | ((z == score) & (later > 0))
        return (xp.astype(xp.sum(xp.astype(beaten, z.dtype), axis=-1) >= z.shape[-1] - self.k, z.dtype),)


@dataclass(frozen=True)
class ElementwiseAccuracy(_ClassMetric):
    """The share of right entries among all of one-hot(largest output): 1 - 2e / classes at an error rate e

    A wrong class makes two entries wrong of `classes`, so 0.99 is only 95 % accuracy with ten classes.
    """

    name: str = "elementwise_accuracy"

    def terms(self, y, z):
        return ((_correct(y, z) - 1.0) * (2 / z.shape[-1]) + 1.0,)


@dataclass(frozen=True)
class BinaryAccuracy(_Share):
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


class LabelMetric(Metric):
    """A metric that must know whether classes exclude each other: `multi_label` None is answered by the loss."""

    multi_label: bool | None

    def check(self, y_shape, units):
        if units == 1 and len(y_shape) == 1:
            raise ValueError(
                f'{self.name} needs an output for each class, or one output and the loss "binary_cross_entropy". Received: '
                f"1 output and targets of shape {y_shape}"
            )

    def for_loss(self, loss: Loss):
        if self.multi_label is None:
            return replace(self, multi_label=isinstance(loss.row_loss, BinaryCrossEntropy))  # type: ignore[type-var]
        return self


@dataclass(frozen=True)
class LogLoss(LabelMetric):
    """mean of -log p, p the probability predicted for the right class; scikit-learn's log_loss

    Probabilities are kept one rounding error of their type away from 0 and 1, as in scikit-learn. Of several labels, or
    one output, it is the mean over units of -y log p - (1 - y) log(1 - p).

    Parameters
    ----------
    multi_label : bool, optional
        Whether each output is a label of its own; as the loss has it if not given.
    name : str, default "log_loss"
    """

    multi_label: bool | None = None
    name: str = "log_loss"

    higher_is_better = False
    bounds = (0.0, math.inf)
    on_predictions = True

    def terms(self, y, z):
        xp = namespace(z)
        rounding = float(xp.finfo(z.dtype).eps)
        p = xp.minimum(xp.maximum(z, rounding), 1.0 - rounding)
        if self.multi_label or z.shape[-1] == 1:
            y = xp.astype(y, z.dtype, copy=False)
            return (xp.mean(-y * xp.log(p) - (1.0 - y) * xp.log1p(-p), axis=-1),)
        y = one_hot(y, z) if y.ndim == 1 else xp.astype(y, z.dtype, copy=False)
        return (-xp.sum(y * xp.log(p), axis=-1),)


def labels(y: Array) -> Array:
    """The class of each row of targets."""
    return namespace(y).argmax(y, axis=-1) if y.ndim > 1 else y


def columns(labels: Array, like: Array) -> Array:
    """1 at each label, else 0, class first: (..., batch) -> (..., classes, batch), with classes and type of `like`."""
    xp = namespace(like)
    classes = xp.arange(like.shape[-1], dtype=like.dtype, device=device(like))
    return xp.astype(xp.astype(labels, like.dtype)[..., None, :] == classes[:, None], like.dtype)


def _correct(y: Array, z: Array) -> Array:
    """1 for each sample whose largest output is at its label, else 0."""
    xp = namespace(z)
    if z.shape[-1] == 1:
        raise ValueError("One output is always the largest: take BinaryAccuracy for a network with one output.")
    largest = xp.argmax(z, axis=-1)
    return xp.astype(largest == xp.astype(labels(y), largest.dtype, copy=False), z.dtype)
