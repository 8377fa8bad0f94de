"""What all metrics share: numbers of single samples that merge, in any order and grouping, into those of a data set."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import reduce

from xpnet.backend import namespace
from xpnet.losses import Loss
from xpnet.tree import Array


class Metric(ABC):
    """metric = result(merge of the terms of all samples)

    The terms of one sample are the state of a data set of that sample alone, and `merge` joins the states of parts into the
    state of the whole: the samples of a batch inside the training step, then the batches of an epoch on the host. So
    the value depends neither on the batch size nor on the order of the samples. Subclasses are frozen dataclasses of settings;
    most write `terms` alone, whose means they are.

    Attributes
    ----------
    name : str
        The key in a history.
    higher_is_better : bool or None
        What `EarlyStopping` goes by; None where the metric cannot say.
    bounds : (float, float)
        Values are clipped to this range, which rounding may leave.
    on_predictions : bool
        Whether `terms` takes predictions, ``loss.activation(z)``, or the network's raw outputs, whose largest is the
        same.
    sums : bool
        Whether `result` takes Σ w t of each term rather than the mean Σ w t / Σ w.
    """

    name: str
    higher_is_better: bool | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    on_predictions: bool = False
    sums: bool = False

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
        tuple of arrays of shape (..., batch) or (K, ..., batch)
            In z's type. The samples are the last axis; the axes before it are the term's own, such as one of classes.
        """

    def merge(self, terms: tuple[Array, ...], weight: Array | None = None) -> tuple[Array, ...]:
        """Join parts into one: here, the weighted mean of each term.

        Parameters
        ----------
        terms : tuple of arrays of shape (..., parts)
            The parts are samples, or what `merge` made of several. Whatever a part of weight 0 holds does not count.
        weight : array of shape (parts,), optional
            Each part's weight; that of a merged part is the sum of its weights. If all are 0, so are the merged terms.

        Returns
        -------
        tuple of arrays of shape (...)
        """
        return means(terms, weight)

    def result(self, *merged):
        """The value from the merged terms of all samples, NumPy arrays in float64: a number, or an array of them."""
        return merged[0]

    def state(self, y: Array, z: Array, weight: Array | None = None) -> tuple[Array, ...]:
        """The merged terms of a batch. Overridden where they are found without the terms of each sample."""
        terms = self.terms(y, z)
        networks, batch = tuple(z.shape[:-2]), z.shape[-2]
        shapes = [getattr(term, "shape", None) for term in terms] if isinstance(terms, tuple) else []
        if not shapes or not all(s and s[-1] == batch and s[: len(networks)] == networks for s in shapes):
            raise ValueError(
                f"{self.name}.terms must return a tuple of arrays of shape {(*networks, batch)}, the samples last; axes of "
                f"a term's own come before them. Received: {type(terms).__name__} {[s and tuple(s) for s in shapes]}"
            )
        return self.merge(terms, weight)

    def check(self, y_shape: tuple, units: int) -> None:
        """Raise ValueError unless the metric fits targets of this shape and rows of so many outputs."""
        if len(y_shape) != 2:
            raise ValueError(
                f'{self.name} compares each output with a number. Use "accuracy" for class labels, or one-hot targets. '
                f"Received: targets of shape {y_shape} for {units} outputs"
            )

    def for_loss(self, loss: Loss) -> Metric:
        """This metric for a network that is trained with this loss."""
        return self


class BinnedMetric(Metric):
    """A metric that no small state holds exactly: `fit` has it from bins, `evaluate` from all predictions."""

    @abstractmethod
    def exact(self, y: Array, z: Array, weight: Array):
        """The value from all targets, predictions and weights above 0, NumPy arrays in float64."""


def means(terms: tuple[Array, ...], weight: Array | None) -> tuple[Array, ...]:
    """Σ w t / Σ w over the last axis, of each term; the plain mean without weights, 0 where all are 0."""
    if weight is None:
        return tuple([namespace(t).sum(t, axis=-1) / t.shape[-1] for t in terms])
    xp = namespace(weight)
    counted, total = weight > 0, at_least_one(xp.sum(weight))
    return tuple([xp.sum(xp.where(counted, t, 0.0) * weight, axis=-1) / total for t in terms])


def root_mean_square(terms: tuple[Array, ...], weight: Array | None) -> Array:
    """√ Σ w Σ t² / Σ w over the last axis, the inner sum over the terms; 0 where all weights are 0.

    Divided by the largest |t| before they are squared, numbers near 1e±25 neither overflow nor vanish in float32.
    """
    xp = namespace(terms[0])
    if weight is not None:
        terms = tuple([xp.where(weight > 0, t, 0.0) for t in terms])
    largest = reduce(xp.maximum, [xp.max(xp.abs(t), axis=-1, keepdims=True) for t in terms])
    largest = xp.where((largest > 0) & xp.isfinite(largest), largest, 1.0)
    return xp.sqrt(means((sum((t / largest) ** 2 for t in terms),), weight)[0]) * largest[..., 0]


def moments(terms: tuple[Array, ...], weight: Array | None) -> tuple[Array, Array, Array]:
    """Standard deviation and mean of the union of parts, from theirs.

    deviation² = Σ w (deviationᵢ² + (meanᵢ - mean)²) / Σ w,   mean = Σ w meanᵢ / Σ w,   meanᵢ = originᵢ + shiftᵢ

    T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample variance", The American Statistician
    37 (1983), for any number of parts: nothing cancels. The mean is kept in two numbers, the origin being one of the values
    that were averaged: the mean of 10⁶ + 0.01 in float32 is no sum of these, and equal values have deviation 0 exactly.

    Parameters
    ----------
    terms : (deviation, origin, shift), arrays of shape (..., parts)
        Of single values (0, value, 0).
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
    """`total`, or 1 where it is 0: nothing is divided by 0."""
    return namespace(total).where(total > 0, total, 1.0)
