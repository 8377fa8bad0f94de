"""The base classes of the metrics. The states of samples merge, in any order and grouping, into the state of a data set."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import reduce
from typing import Any

from xpnet.backend import namespace
from xpnet.backend.fusion import fused
from xpnet.keywords import AbstractSettings
from xpnet.losses import Loss
from xpnet.tree import Array


class Metric(metaclass=AbstractSettings):
    """metric = result(merge(terms of all samples)): the base class

    `terms` computes the state of each sample. `merge` joins the states of parts into the state of the whole: first the
    samples of a batch inside the training step, then the batches of an epoch on the host. The value therefore depends
    neither on the batch size nor on the order of the samples. Subclasses are frozen dataclasses of settings. Most of them
    define only `terms`, which returns a single term, and their value is its mean.

    Attributes
    ----------
    name : str
        The metric's key in a history.
    higher_is_better : bool or None
        Whether `EarlyStopping` treats higher values as better. If None, `EarlyStopping` requires `mode`.
    bounds : (float, float)
        Values are clipped to this range, because rounding errors can push them outside.
    on_predictions : bool
        Whether `terms` accepts predictions, ``loss.activation(z)``. Otherwise it accepts the network's raw outputs, in which
        the same class is the largest.
    sums : bool
        Whether `result` accepts the sum Σ w t of each term instead of the mean Σ w t / Σ w.
    """

    name: str
    higher_is_better: bool | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    on_predictions: bool = False
    sums: bool = False

    @abstractmethod
    def terms(self, y: Array, z: Array) -> tuple[Array, ...]:
        """Return the terms of each sample.

        Parameters
        ----------
        y : array of shape (batch, units), or (batch,) for labels
            Targets, as `Loss.check` returns them.
        z : array of shape (batch, units) or (K, batch, units)
            Predictions or raw outputs, depending on `on_predictions`.

        Returns
        -------
        tuple of arrays of shape (..., batch) or (K, ..., batch)
            In the dtype of z. The samples are the last axis; a term may have axes before it, such as one for classes.
        """

    def merge(self, terms: tuple[Array, ...], weight: Array | None = None) -> tuple[Array, ...]:
        """Join parts into one; by default, return the weighted mean of each term.

        Parameters
        ----------
        terms : tuple of arrays of shape (..., parts)
            The parts are samples or earlier results of `merge`. A part with weight 0 does not count, whatever it holds.
        weight : array of shape (parts,), optional
            The weight of each part. The weight of a merged part is the sum of its weights. If all weights are 0, the
            merged terms are 0.

        Returns
        -------
        tuple of arrays of shape (...)
        """
        return means(terms, weight)

    def result(self, *merged: Any) -> Any:
        """Return the metric's value, a number or an array, from the merged terms of all samples as float64 NumPy arrays."""
        return merged[0]

    def state(self, y: Array, z: Array, weight: Array | None = None) -> tuple[Array, ...]:
        """Return the merged terms of a batch. Override it to compute them without the terms of each sample."""
        return fused(self._state, y, z) if weight is None else fused(self._state, y, z, weight)

    def _state(self, y, z, weight=None):
        terms = self.terms(y, z)
        networks, batch = tuple(z.shape[:-2]), z.shape[-2]
        shapes = [getattr(term, "shape", None) for term in terms] if isinstance(terms, tuple) else []
        if not shapes or not all(s and s[-1] == batch and s[: len(networks)] == networks for s in shapes):
            raise ValueError(
                f"{self.name}.terms must return a tuple of arrays of shape {(*networks, batch)}, with samples as the last "
                f"axis and a term's other axes before it. Received: {type(terms).__name__} "
                f"{[s and tuple(s) for s in shapes]}"
            )
        return self.merge(terms, weight)

    def check(self, y_shape: tuple, units: int) -> None:
        """Raise ValueError unless the metric accepts targets of this shape and this number of outputs."""
        if len(y_shape) != 2:
            raise ValueError(
                f'{self.name} compares each output with a number. Use "accuracy" for class labels, or give one-hot targets. '
                f"Received: targets of shape {y_shape} for {units} outputs"
            )

    def for_loss(self, loss: Loss) -> Metric:
        """Return this metric with its settings completed for a network trained with this loss."""
        return self


class BinnedMetric(Metric):
    """A metric without a small exact state: `fit` estimates it from bins, and `evaluate` computes it from all predictions."""

    @abstractmethod
    def exact(self, y: Array, z: Array, weight: Array):
        """Return the value from all targets, predictions and positive weights, as float64 NumPy arrays."""


def means(terms: tuple[Array, ...], weight: Array | None) -> tuple[Array, ...]:
    """Σ w t / Σ w over the last axis, for each term; the plain mean without weights, and 0 if all weights are 0."""
    if weight is None:
        return tuple([namespace(t).sum(t, axis=-1) / t.shape[-1] for t in terms])
    xp = namespace(weight)
    counted, total = weight > 0, at_least_one(xp.sum(weight))
    return tuple([xp.sum(xp.where(counted, t, 0.0) * weight, axis=-1) / total for t in terms])


def root_mean_square(terms: tuple[Array, ...], weight: Array | None) -> Array:
    """√ Σ w Σ t² / Σ w over the last axis, with the inner sum over the terms; 0 if all weights are 0.

    The terms are divided by the largest |t| before they are squared, so that numbers near 1e±25 neither overflow nor
    underflow in float32.
    """
    xp = namespace(terms[0])
    if weight is not None:
        terms = tuple([xp.where(weight > 0, t, 0.0) for t in terms])
    largest = reduce(xp.maximum, [xp.max(xp.abs(t), axis=-1, keepdims=True) for t in terms])
    largest = xp.where((largest > 0) & xp.isfinite(largest), largest, 1.0)
    return xp.sqrt(means((sum((t / largest) ** 2 for t in terms),), weight)[0]) * largest[..., 0]


def moments(terms: tuple[Array, ...], weight: Array | None) -> tuple[Array, Array, Array]:
    """Return the standard deviation and mean of a union of parts, computed from the parts' own.

    deviation² = Σ w (deviationᵢ² + (meanᵢ - mean)²) / Σ w,   mean = Σ w meanᵢ / Σ w,   meanᵢ = originᵢ + shiftᵢ

    This is the formula of T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample variance", The
    American Statistician 37 (1983), for any number of parts. It does not subtract large sums from each other. The mean is
    stored as two numbers, an origin, which is one of the averaged values, and a shift. So a mean such as 10⁶ + 0.01 keeps
    digits that a single float32 would lose, and equal values have a deviation of exactly 0.

    Parameters
    ----------
    terms : (deviation, origin, shift), arrays of shape (..., parts)
        (0, value, 0) for a single value.
    weight : array of shape (parts,), optional

    Returns
    -------
    deviation, origin, shift : arrays of shape (...)
    """
    deviation, origin, shift = terms
    xp = namespace(origin)
    if weight is None:
        first = origin[..., :1]
        d = (origin - first) + shift
    else:
        origin = xp.where(weight > 0, origin, 0.0)
        heaviest = xp.reshape(xp.argmax(weight), (1,))  # at most √parts standard deviations from the mean
        first = xp.take(origin, heaviest, axis=-1)
        d = xp.where(weight > 0, (origin - first) + shift, 0.0)
    mean = means((d,), weight)[0]
    return root_mean_square((deviation, d - mean[..., None]), weight), first[..., 0], mean


def at_least_one(total: Array) -> Array:
    """`total`, or 1 where it is 0: a divisor that is never 0."""
    return namespace(total).where(total > 0, total, 1.0)
