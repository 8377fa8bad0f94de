"""Metrics computed from counts of classes: precision, recall, F1, balanced accuracy, the confusion matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import require, set_booleans, set_numbers
from xpnet.metrics.base import Metric, at_least_one
from xpnet.metrics.classification import LabelMetric, columns, labels
from xpnet.tree import Array

AVERAGES = ("auto", "binary", "macro", "micro", "weighted", None)


class _Decided(LabelMetric):
    """A metric of decisions: the largest output, or ŷ > threshold for separate labels and for one output."""

    threshold: float

    @property
    def on_predictions(self):
        return bool(self.multi_label)

    def decided(self, y: Array, z: Array) -> tuple[Array, Array]:
        """1 where a class is correct, and 1 where it is predicted, else 0: (..., labels, classes, batch).

        Classes that exclude each other form one label. One output has two classes. Each of several labels has only the
        class "yes".
        """
        xp = namespace(z)
        if z.shape[-1] > 1 and not self.multi_label:
            right, predicted = (
                columns(labels(y), z)[..., None, :, :],
                columns(xp.argmax(z, axis=-1), z)[..., None, :, :],
            )
        else:
            right, predicted = (
                xp.astype(sides, z.dtype).mT[..., :, None, :] for sides in (y > 0.5, z > self.threshold)
            )
            if z.shape[-1] == 1:
                right, predicted = (xp.concat([1.0 - side, side], axis=-2) for side in (right, predicted))
        return xp.broadcast_to(right, predicted.shape), predicted


class _Averaged(_Decided):
    """hits / calls for each class, then their average. Subclasses are dataclasses with the fields below."""

    higher_is_better = True
    bounds = (0.0, 1.0)

    average: str | None
    zero_division: float

    def __post_init__(self):
        names = ", ".join(map(repr, AVERAGES))
        require(self.average in AVERAGES, f"average must be one of {names}", f"average={self.average!r}")
        set_numbers(self, "(-inf, inf)", "threshold")
        known = self.zero_division in (0, 1) or (
            isinstance(self.zero_division, float) and math.isnan(self.zero_division)
        )
        require(known, "zero_division must be 0, 1 or nan", f"zero_division={self.zero_division!r}")

    def check(self, y_shape, units):
        super().check(y_shape, units)
        fits = self.average != "binary" or units == 1 or (units == 2 and not self.multi_label)
        rule = f'{self.name} with average="binary" needs one output or two classes. Use "macro", "micro", "weighted" or None'
        require(fits, rule, f"{units} outputs")

    def terms(self, y, z):
        right, predicted = self.decided(y, z)
        return right * predicted, predicted, right

    def calls(self, predicted: Array, right: Array) -> Array:
        """The divisor of the hits."""
        raise NotImplementedError

    def result(self, hits, predicted, right):
        xp = namespace(hits)
        exclusive = hits.shape[0] == 1
        occur = predicted + right > 0
        weight = right if self.average == "weighted" else xp.astype(occur | (not exclusive), hits.dtype)
        hits, predicted, right, weight = (xp.reshape(x, (-1,)) for x in (hits, predicted, right, weight))
        if self.average == "micro":
            hits, predicted, right = (xp.sum(x, keepdims=True) for x in (hits, predicted, right))
        calls = self.calls(predicted, right)
        scores = xp.where(calls > 0, hits / at_least_one(calls), self.zero_division)
        average = self.average
        if average == "auto":
            average = "binary" if exclusive and scores.shape[0] == 2 else "macro"
        if average is None:
            return scores
        if average == "binary":
            return scores[1]
        if average == "micro":
            return scores[0]
        weight = xp.where(xp.isnan(scores), 0.0, weight)
        weight = weight if bool(xp.any(weight > 0)) else xp.astype(~xp.isnan(scores), weight.dtype)
        return xp.sum(xp.where(weight > 0, scores, 0.0) * weight) / xp.sum(weight)


@dataclass(frozen=True)
class Precision(_Averaged):
    """hits / predicted for each class: the fraction of a class's predictions that are correct

    Parameters
    ----------
    average : {"auto", "binary", "macro", "micro", "weighted", None}, default "auto"
        As in scikit-learn. "binary" is the value of class 1, for one output or two classes. "macro" is the mean over
        classes. "micro" counts the decisions of all classes together. "weighted" is the mean over classes, weighted by how
        often each class occurs in the targets. None returns the list of all classes. "auto" is "binary" for one output or
        two classes, else "macro". The means skip classes that occur neither in the targets nor in the predictions.
    zero_division : {0.0, 1.0, nan}, default 0.0
        The value of a class whose divisor is 0. With nan the means skip the class.
    threshold : float, default 0.5
        Predictions above it are class 1, for one output or several labels.
    multi_label : bool, optional
        Whether each output is a separate label, yes or no, instead of one of several classes that exclude each other. By default,
        True if the loss is `BinaryCrossEntropy`.
    name : str, default "precision"
        The metric's key in the history.

    Raises
    ------
    ValueError
        A setting is not one of these values.
    """

    average: str | None = "auto"
    zero_division: float = 0.0
    threshold: float = 0.5
    multi_label: bool | None = None
    name: str = "precision"

    def calls(self, predicted, right):
        return predicted


@dataclass(frozen=True)
class Recall(_Averaged):
    """hits / samples of each class: the fraction of a class that is predicted correctly

    Parameters
    ----------
    average, zero_division, threshold, multi_label
        As in `Precision`.
    name : str, default "recall"
        The metric's key in the history.

    Raises
    ------
    ValueError
        As in `Precision`.
    """

    average: str | None = "auto"
    zero_division: float = 0.0
    threshold: float = 0.5
    multi_label: bool | None = None
    name: str = "recall"

    def calls(self, predicted, right):
        return right


@dataclass(frozen=True)
class F1Score(_Averaged):
    """2 hits / (predicted + samples) for each class: the harmonic mean of precision and recall

    Parameters
    ----------
    average, zero_division, threshold, multi_label
        As in `Precision`.
    name : str, default "f1"
        The metric's key in the history.

    Raises
    ------
    ValueError
        As in `Precision`.
    """

    average: str | None = "auto"
    zero_division: float = 0.0
    threshold: float = 0.5
    multi_label: bool | None = None
    name: str = "f1"

    def calls(self, predicted, right):
        return 0.5 * (predicted + right)


@dataclass(frozen=True)
class BalancedAccuracy(_Decided):
    """The mean recall of the classes that have samples

    Parameters
    ----------
    adjusted : bool, default False
        Whether to rescale the value so that guessing scores 0, as in scikit-learn.
    threshold : float, default 0.5
        Predictions above it are class 1, for one output.
    multi_label : bool, optional
        Whether each output is a separate label; several separate labels are refused. By default, the loss decides.
    name : str, default "balanced_accuracy"
        The metric's key in the history.

    Raises
    ------
    ValueError
        `adjusted` is not a boolean, or `threshold` is not a finite number.
    """

    adjusted: bool = False
    threshold: float = 0.5
    multi_label: bool | None = None
    name: str = "balanced_accuracy"

    higher_is_better = True
    bounds = (-1.0, 1.0)

    def __post_init__(self):
        set_booleans(self, "adjusted")
        set_numbers(self, "(-inf, inf)", "threshold")

    def check(self, y_shape, units):
        super().check(y_shape, units)
        _require_one_label(self, units)

    def terms(self, y, z):
        right, predicted = self.decided(y, z)
        return right * predicted, right

    def result(self, hits, right):
        xp = namespace(hits)
        occur = right > 0
        classes = max(float(xp.sum(xp.astype(occur, hits.dtype))), 1.0)
        score = float(xp.sum(xp.where(occur, hits / at_least_one(right), 0.0))) / classes
        score = min(score, 1.0)
        return (score - 1 / classes) / (1 - 1 / classes) if self.adjusted and classes > 1 else score


@dataclass(frozen=True)
class ConfusionMatrix(_Decided):
    """The number of samples of class i (row) that were predicted as class j (column), as in scikit-learn

    With sample weights it is the sum of their weights. If the largest weight is above 10¹⁵ or below 10⁻¹⁵, all weights are
    divided by it.

    Parameters
    ----------
    normalize : {"true", "pred", "all", None}, default None
        As in scikit-learn, divide by the sum of each row, of each column, or of the whole matrix.
    threshold : float, default 0.5
        Predictions above it are class 1, for one output.
    multi_label : bool, optional
        Whether each output is a separate label; several separate labels are refused. By default, the loss decides.
    name : str, default "confusion_matrix"
        The metric's key in the history.

    Raises
    ------
    ValueError
        `normalize` is not one of these values, or `threshold` is not a finite number.
    """

    normalize: str | None = None
    threshold: float = 0.5
    multi_label: bool | None = None
    name: str = "confusion_matrix"

    bounds = (0.0, math.inf)
    sums = True

    def __post_init__(self):
        rule = "normalize must be 'true', 'pred', 'all' or None"
        require(self.normalize in ("true", "pred", "all", None), rule, f"normalize={self.normalize!r}")
        set_numbers(self, "(-inf, inf)", "threshold")

    def check(self, y_shape, units):
        super().check(y_shape, units)
        _require_one_label(self, units)

    def terms(self, y, z):
        right, predicted = self._classes(y, z)
        return (right[..., :, None, :] * predicted[..., None, :, :],)

    def state(self, y, z, weight=None):
        right, predicted = self._classes(y, z)
        if weight is None:
            return ((right @ predicted.mT) / z.shape[-2],)
        return (((right * weight) @ predicted.mT) / at_least_one(namespace(z).sum(weight)),)

    def _classes(self, y: Array, z: Array) -> tuple[Array, ...]:
        return tuple(side[..., 0, :, :] for side in self.decided(y, z))

    def result(self, counts):
        xp = namespace(counts)
        if self.normalize is None:
            whole = xp.round(counts)  # undoes the rounding of their fractions in float32
            return xp.where(xp.abs(counts - whole) <= 1e-6 * whole, whole, counts)
        if self.normalize == "all":
            return counts / at_least_one(xp.sum(counts))
        return counts / at_least_one(xp.sum(counts, axis=1 if self.normalize == "true" else 0, keepdims=True))


def _require_one_label(metric: Metric, units: int) -> None:
    rule = f"{metric.name} needs classes that exclude each other, not several labels for each sample"
    require(units == 1 or not getattr(metric, "multi_label", None), rule, f"{units} outputs of BinaryCrossEntropy")
