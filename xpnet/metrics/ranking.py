"""The area under a curve: exact where all predictions can be kept, and estimated from binned counts during training."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.backend import device, namespace
from xpnet.checks import require
from xpnet.metrics.base import BinnedMetric, at_least_one
from xpnet.metrics.classification import LabelMetric, columns, labels
from xpnet.tree import Array

SIDE = 32  # a bin's number has two digits in this base
RANGE = 16.0  # bins have equal widths in log-odds between -RANGE and RANGE


@dataclass(frozen=True)
class AUC(BinnedMetric, LabelMetric):
    """The area under the ROC curve, or the average precision, of predicted probabilities

    "ROC" is the weighted fraction of (positive, negative) pairs that the predictions rank in the right order; a tie counts
    half. "PR" is Σ (recall - previous recall) · precision over all thresholds, scikit-learn's average_precision_score.

    `evaluate` and validation use all predictions and are exact. `fit` counts the predictions in 1,024 bins between odds of
    e⁻¹⁶ and e¹⁶, each 1/32 wide in log-odds, and treats the predictions in a bin as ties. The error of "ROC" is then at most
    half the fraction of (positive, negative) pairs whose two predictions share a bin. The error of "PR" is at most the sum,
    over bins, of the fraction of positives in the bin times the change of precision across it.

    Parameters
    ----------
    curve : {"ROC", "PR"}, default "ROC"
    average : {"macro", "weighted", None}, default "macro"
        How to combine several labels, or more than two classes (each against the rest): the mean, the mean weighted by the
        number of positives, or the list. A class without positives, or for "ROC" without negatives, is nan, and the means
        skip it.
    multi_label : bool, optional
        Whether each output is a separate label, yes or no. By default, True if the loss is `BinaryCrossEntropy`.
    name : str, default "auc" or "average_precision"
        The metric's key in the history.

    Raises
    ------
    ValueError
        A setting is not one of these values.
    """

    curve: str = "ROC"
    average: str | None = "macro"
    multi_label: bool | None = None
    name: str = ""

    higher_is_better = True
    bounds = (0.0, 1.0)
    on_predictions = True

    def __post_init__(self):
        require(self.curve in ("ROC", "PR"), 'curve must be "ROC" or "PR"', f"curve={self.curve!r}")
        known = self.average in ("macro", "weighted", None)
        require(known, 'average must be "macro", "weighted" or None', f"average={self.average!r}")
        object.__setattr__(self, "name", self.name or ("auc" if self.curve == "ROC" else "average_precision"))

    def terms(self, y, z):
        """1 in the bin of each positive, and 1 in the bin of each negative: two arrays (..., classes, bins, batch)."""
        xp = namespace(z)
        positive, high, low = self._digits(y, z)
        bins = high[..., :, None, :] * low[..., None, :, :]
        bins = xp.reshape(bins, (*bins.shape[:-3], SIDE * SIDE, bins.shape[-1]))
        positive = positive[..., None, :]
        return bins * positive, bins * (1.0 - positive)

    def state(self, y, z, weight=None):
        """Return the counts as a product of two matrices, which hold the bins' first and second digits."""
        xp = namespace(z)
        positive, high, low = self._digits(y, z)
        total = z.shape[-2] if weight is None else at_least_one(xp.sum(weight))
        shares = []
        for side in (positive, 1.0 - positive):
            side = side / total if weight is None else side * (weight / total)
            counts = (high * side[..., None, :]) @ low.mT
            shares.append(xp.reshape(counts, (*counts.shape[:-2], SIDE * SIDE)))
        return tuple(shares)

    def result(self, positive, negative):
        return self._joined(list(zip(positive, negative, strict=True)))

    def exact(self, y, z, weight):
        positive, scores = self._sides(y, z)
        return self._joined([_ties(s, p * weight, (1.0 - p) * weight) for s, p in zip(scores, positive, strict=True)])

    def _sides(self, y: Array, z: Array) -> tuple[Array, Array]:
        """Whether each sample belongs to each class, (classes, batch), and its prediction, (..., classes, batch)."""
        xp = namespace(z)
        if z.shape[-1] == 1 or self.multi_label:
            return xp.astype(y > 0.5, z.dtype).mT, z.mT
        first = 1 if z.shape[-1] == 2 else 0  # with two classes, the second is the positive one
        return columns(labels(y), z)[..., first:, :], z.mT[..., first:, :]

    def _digits(self, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Whether a sample belongs to a class, (..., classes, batch), and its bin's digits, (..., classes, SIDE, batch)."""
        xp = namespace(z)
        positive, p = self._sides(y, z)
        p = xp.minimum(xp.maximum(p, 2.0**-24), 1.0 - 2.0**-24)
        number = xp.floor((xp.log(p) - xp.log1p(-p) + RANGE) * (SIDE * SIDE / (2 * RANGE)))
        number = xp.minimum(xp.maximum(number, 0.0), SIDE * SIDE - 1.0)
        high = xp.floor(number / SIDE)
        digits = xp.arange(SIDE, dtype=z.dtype, device=device(z))[:, None]
        pair = (xp.astype(n[..., None, :] == digits, z.dtype) for n in (high, number - SIDE * high))
        return xp.broadcast_to(positive, p.shape), *pair

    def _joined(self, classes: list[tuple[Array, Array]]) -> Array:
        """The mean over classes, from the weights of positives and negatives at each score in ascending order."""
        xp = namespace(classes[0][0])
        area = _roc if self.curve == "ROC" else _average_precision
        areas = xp.stack([area(positive, negative) for positive, negative in classes])
        if self.average is None and len(classes) > 1:
            return areas
        weight = (
            xp.stack([xp.sum(positive) for positive, _ in classes])
            if self.average == "weighted"
            else xp.ones_like(areas)
        )
        weight = xp.where(xp.isnan(areas), 0.0, weight)
        total = xp.sum(weight)
        return xp.sum(xp.where(weight > 0, areas, 0.0) * weight) / total if total > 0 else xp.nan


def _ties(scores: Array, positive: Array, negative: Array) -> tuple[Array, Array]:
    """The sums of the weights at each score in ascending order."""
    xp = namespace(scores)
    if bool(xp.any(xp.isnan(scores))):
        return xp.zeros_like(scores), xp.zeros_like(scores)  # NaN has no order, so the area is undefined
    order = xp.argsort(scores)
    scores, *weights = (xp.take(x, order) for x in (scores, positive, negative))
    ends = xp.nonzero(xp.concat([xp.diff(scores) > 0, xp.asarray([True])]))[0]
    positive, negative = (
        xp.diff(xp.take(xp.cumulative_sum(w), ends), prepend=xp.zeros(1, dtype=w.dtype)) for w in weights
    )
    return positive, negative


def _roc(positive: Array, negative: Array) -> Array:
    xp = namespace(positive)
    pairs = xp.sum(positive) * xp.sum(negative)
    before = xp.cumulative_sum(negative) - 0.5 * negative
    return xp.sum(positive * before) / pairs if pairs > 0 else xp.asarray(xp.nan)


def _average_precision(positive: Array, negative: Array) -> Array:
    xp = namespace(positive)
    hits, called = (xp.flip(xp.cumulative_sum(xp.flip(w))) for w in (positive, positive + negative))
    return xp.sum(positive * hits / at_least_one(called)) / hits[0] if hits[0] > 0 else xp.asarray(xp.nan)
