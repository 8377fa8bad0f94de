"""Classification metrics that are means over samples: accuracies and the log loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from xpnet.backend import device, namespace
from xpnet.checks import require_positive, set_numbers
from xpnet.losses import BinaryCrossEntropy, Loss, one_hot
from xpnet.losses.labels import are_labels
from xpnet.metrics.base import Metric
from xpnet.tree import Array


class _Share(Metric):
    """The fraction of correct answers."""

    higher_is_better = True
    bounds = (0.0, 1.0)


class _ClassMetric(_Share):
    def check(self, y_shape, units):
        if units < 2:
            raise ValueError(
                f'{self.name} needs one output for each class. Use "binary_accuracy" for a network with one output. '
                f"Received: {units} output"
            )


@dataclass(frozen=True)
class Accuracy(_ClassMetric):
    """The fraction of samples whose largest output is the correct class; y: labels or one-hot rows

    For a network trained with `BinaryCrossEntropy`, the name "accuracy" means `BinaryAccuracy`.

    Parameters
    ----------
    name : str, default "accuracy"
        The metric's key in the history.
    """

    name: str = "accuracy"

    def terms(self, y, z):
        return (_correct(y, z),)


@dataclass(frozen=True)
class TopKAccuracy(_ClassMetric):
    """The fraction of samples whose correct class is among the k largest outputs

    Among equal outputs, the first classes count as larger.

    Parameters
    ----------
    k : int, default 5
        Must be less than the number of classes.
    name : str, default "top_5_accuracy" for k = 5
        The metric's key in the history.

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
                f"{self.name} needs more than {self.k} classes. Otherwise every answer is correct. Received: {units} outputs"
            )

    def terms(self, y, z):
        xp = namespace(z)
        right = columns(labels(y), z).mT
        score = xp.max(xp.where(right > 0, z, -math.inf), axis=-1, keepdims=True)  # not right * z: 0 · ∞ is NaN
        later = xp.cumulative_sum(right, axis=-1) - right
        beaten = (z < score) | ((z == score) & (later > 0))
        return (xp.astype(xp.sum(xp.astype(beaten, z.dtype), axis=-1) >= z.shape[-1] - self.k, z.dtype),)


@dataclass(frozen=True)
class ElementwiseAccuracy(_ClassMetric):
    """The fraction of correct entries in one-hot(largest output): 1 - 2e / classes for an error rate e

    Each wrong class makes two of the `classes` entries wrong, so with ten classes 0.99 is only 95 % accuracy.

    Parameters
    ----------
    name : str, default "elementwise_accuracy"
        The metric's key in the history.
    """

    name: str = "elementwise_accuracy"

    def terms(self, y, z):
        return ((_correct(y, z) - 1.0) * (2 / z.shape[-1]) + 1.0,)


@dataclass(frozen=True)
class BinaryAccuracy(_Share):
    """The fraction of units, averaged over samples, with (ŷ > threshold) = (y > ½)

    Parameters
    ----------
    threshold : float, default 0.5
        For the predicted probabilities ŷ.
    name : str, default "binary_accuracy"
        The metric's key in the history.

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
    """A metric that must know whether classes exclude each other; if `multi_label` is None, the loss decides."""

    multi_label: bool | None

    def check(self, y_shape, units):
        if units == 1 and len(y_shape) == 1:
            raise ValueError(
                f'{self.name} needs one output for each class, or one output and the loss "binary_cross_entropy". Received: '
                f"1 output and targets of shape {y_shape}"
            )

    def for_loss(self, loss: Loss):
        if self.multi_label is None:
            return replace(self, multi_label=isinstance(loss.row_loss, BinaryCrossEntropy))  # type: ignore[type-var]
        return self


@dataclass(frozen=True)
class LogLoss(LabelMetric):
    """mean of -log p, where p is the probability predicted for the correct class; scikit-learn's log_loss

    With several labels or one output it is the mean over units of -y log p - (1 - y) log(1 - p). Probabilities are clipped
    to [eps, 1 - eps], where eps is the rounding error of their dtype, as in scikit-learn.

    Parameters
    ----------
    multi_label : bool, optional
        Whether each output is a separate label, yes or no. By default, True if the loss is `BinaryCrossEntropy`.
    name : str, default "log_loss"
        The metric's key in the history.
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
        y = one_hot(y, z) if are_labels(y) else xp.astype(y, z.dtype, copy=False)
        return (-xp.sum(y * xp.log(p), axis=-1),)


def labels(y: Array) -> Array:
    """The class of each sample, (batch,) or (K, batch), from labels or one-hot rows."""
    if are_labels(y):
        return y if y.ndim == 1 else y[..., 0]
    return namespace(y).argmax(y, axis=-1)


def columns(labels: Array, like: Array) -> Array:
    """1 at each label, else 0: (..., batch) -> (..., classes, batch), with the classes and dtype of `like`."""
    xp = namespace(like)
    classes = xp.arange(like.shape[-1], dtype=like.dtype, device=device(like))
    return xp.astype(xp.astype(labels, like.dtype)[..., None, :] == classes[:, None], like.dtype)


def _correct(y: Array, z: Array) -> Array:
    """1 for each sample whose largest output is at its label, else 0."""
    xp = namespace(z)
    if z.shape[-1] == 1:
        raise ValueError("Accuracy needs at least two outputs. Use BinaryAccuracy for one output. Received: 1 output")
    largest = xp.argmax(z, axis=-1)
    return xp.astype(largest == xp.astype(labels(y), largest.dtype, copy=False), z.dtype)
