"""Losses of classes: softmax and categorical cross-entropy, and binary cross-entropy."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import require, set_booleans, set_integers, set_numbers
from xpnet.functions import below_maximum, sigmoid, softmax
from xpnet.losses.base import EPSILON, REMEDY, Loss, counted, outputs_of
from xpnet.losses.labels import Marked, are_labels, is_label, one_hot


class ClassLoss(Loss):
    """A loss whose targets are integer labels, (batch,), or class probabilities such as one-hot rows, (batch, classes).

    K networks with rows of their own have the targets (K, batch, 1) or (K, batch, classes).
    """

    of_classes = True

    ignore_index: int | None

    def __call__(self, y, z, sample_weight=None):
        if self.ignore_index is not None and y.ndim == 1:
            xp = namespace(z)
            counts = xp.astype(y, z.dtype) != self.ignore_index
            weight = xp.astype(counts, z.dtype)
            sample_weight = weight if sample_weight is None else xp.where(counts, sample_weight, 0.0)
        return super().__call__(y, z, sample_weight)

    @property
    def checked(self):
        loss = copy(self)
        object.__setattr__(loss, "ignore_index", None)
        return loss

    def targets(self, y, z):
        return y if are_labels(y) else super().targets(y, z)

    def decide(self, z):
        return namespace(z).argmax(z, axis=-1)

    def labels(self, y, output_shape):
        return y if y.ndim == 1 else y.argmax(axis=1)

    def check(self, y, output_shape, dtype, weight=None):
        xp, classes = namespace(y), outputs_of(output_shape)
        name = type(self).__name__
        rule = f"{name} with {classes} network outputs needs "
        require(
            classes > 1,
            f"{name} needs an output for each class, at least two. For one output and targets of 0 and 1, use "
            "binary_cross_entropy",
            f"a network with {classes} output",
        )
        if y.ndim == 2 and y.shape[1] == classes:
            y = counted(xp.astype(y, dtype, copy=False), weight)
            self._check_rows(y, rule)
            return y, weight
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        require(
            y.ndim == 1,
            rule + f"labels (n,) or class probabilities (n, {classes}). Reshape the targets or change the last layer",
            f"targets of shape {tuple(y.shape)}",
        )
        if not xp.isdtype(y.dtype, "integral"):
            missing = xp.isdtype(y.dtype, "real floating") and not bool(xp.all(xp.isfinite(y)))
            mark = "np.where(np.isnan(y), -100, y)" if missing and self.ignore_index == -100 else "y"
            raise ValueError(
                f"{rule}integer labels. Convert numbers with {mark}.astype(int), and text with np.unique(y, "
                f"return_inverse=True){'. -100 marks samples without a label' * (mark != 'y')}. Received: labels of dtype "
                f"{y.dtype}{', some of them NaN or infinite' * missing}"
            )
        labels = xp.astype(y, dtype)
        counts = labels != (math.nan if self.ignore_index is None else self.ignore_index)  # nothing equals NaN
        if not bool(xp.all(counts)):
            weight = xp.astype(counts, dtype) if weight is None else xp.where(counts, weight, 0.0)
            require(
                bool(xp.any(weight > 0)),
                rule + f"at least one label that is not ignore_index={self.ignore_index} and has a weight above 0",
                f"{labels.shape[0]} labels, all ignored or with weight 0",
            )
        labels = counted(labels, weight)
        lowest, highest = int(xp.min(labels)), int(xp.max(labels))
        require(
            lowest >= 0 and highest < classes,
            rule
            + f"labels in 0 .. {classes - 1}, or {self.ignore_index} (ignore_index) to ignore a sample. Renumber them "
            "(np.unique(y, return_inverse=True)), add outputs, or give the weight 0 to the samples to leave out",
            f"labels from {lowest} to {highest} for {classes} classes",
        )
        return (y if weight is None else xp.astype(labels, xp.int32)), weight

    def _check_rows(self, y, rule):
        xp = namespace(y)
        lowest, highest = float(xp.min(y)), float(xp.max(y))
        error = float(xp.max(xp.abs(xp.sum(y, axis=-1) - 1.0)))
        several = bool(xp.all((y == 0) | (y == 1)))
        remedy = (
            "If a sample may have several classes or none, use binary_cross_entropy"
            if several else "Divide each row by its sum"
        )  # fmt: skip
        if not math.isfinite(lowest + highest):
            remedy = REMEDY
        require(
            lowest >= 0 and error < 1e-3,
            rule + f"rows of nonnegative class probabilities with sum 1. {remedy}",
            f"a smallest value of {lowest:g}, a sum off by {error:g}",
        )


@dataclass(frozen=True)
class SoftmaxCrossEntropy(ClassLoss):
    """l = log Σ eᶻ - Σ t z,   dz = softmax(z) - t,   t = (1 - ε) y + ε / classes   (sums over classes)

    This is the softmax followed by the cross-entropy -Σ t log p, accurate for logits z of any size. Labels mean one-hot y.

    A logit of -∞ excludes its class: p is 0 there, and the class adds nothing to the loss. If a target assigns probability
    to an excluded class, the loss is ∞; label smoothing assigns some to every class. Logits of +∞ share all of the
    probability; see `xpnet.functions.softmax`.

    y: (batch,) or (batch, classes), z: (batch, classes) or (K, batch, classes).

    Parameters
    ----------
    label_smoothing : float, default 0.0
        ε, in [0, 1]. C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016.
    ignore_index : int or None, default -100
        The loss, metrics and class weights ignore samples with this label, as if their weight were 0. The loss is the mean
        over the other samples. If all labels of a batch are ignored, loss and gradient are 0 (PyTorch: NaN). `fit` raises
        ValueError if all labels of a data set are ignored.

    Raises
    ------
    ValueError
        `label_smoothing` is out of range, or `ignore_index` is neither an integer nor None.
    """

    built_in = "Softmax"

    label_smoothing: float = 0.0
    ignore_index: int | None = -100

    def __post_init__(self):
        set_numbers(self, "[0, 1]", "label_smoothing")
        if self.ignore_index is not None:
            set_integers(self, "ignore_index")

    def elements(self, y, z):
        xp = namespace(z)
        z = z.mT  # classes first: sums over 10 long rows are 30 times faster than over 10 columns, ...
        z = xp.reshape(xp.reshape(z, (-1,)), z.shape)  # ... if they are also rows in memory, as from a flat array
        x, is_top = below_maximum(z, axis=-2)
        label, soft = self._label_and_soft(y, z)
        label_x = label.read(x)
        p = xp.exp(label.replace(x, -math.inf))
        rest = xp.sum(p, axis=-2, keepdims=True)  # eˣ of the other classes: log(1 + rest) where the label is on top
        p = label.replace(p, -rest)  # ∂l/∂z at the label is -rest / total: the difference p - 1 would cancel
        rest += xp.expm1(label_x)
        l = xp.log1p(rest)
        rest += 1.0
        p *= 1.0 / rest
        if soft is None:
            l -= label_x
        else:
            # Halves, because the difference of numbers such as ±3e38 overflows
            half = 0.5 * z - 0.5 * xp.max(z, axis=-2, keepdims=True)
            t = label.replace(soft, 1.0)
            l -= 2.0 * xp.sum(xp.where((t > 0) & ~is_top, t * half, 0.0), axis=-2, keepdims=True)
            p -= soft
        return l.mT, p.mT

    def _label_and_soft(self, y, z):
        """Return the class of probability 1, and the probabilities of the others (None if all are 0); classes first."""
        xp = namespace(z)
        labels = are_labels(y)
        if labels and not self.label_smoothing:
            by_index = (
                getattr(xp, "Labels", None) if y.ndim == 1 and self.ignore_index is None else None
            )  # y is in range
            return (Marked(is_label(y, z)) if by_index is None else by_index(y, z)), None
        t = xp.astype(is_label(y, z), z.dtype) if labels else y.mT
        if self.label_smoothing:
            t = (1.0 - self.label_smoothing) * t + self.label_smoothing / z.shape[-2]
        certain = t == 1.0
        return Marked(certain), xp.where(certain, 0.0, t)

    def activation(self, z):
        return softmax(z)


@dataclass(frozen=True)
class CategoricalCrossEntropy(ClassLoss):
    """l = -Σ y log p,   dz = -y / p,   p = max(z, 10⁻⁷)   (sum over classes)

    For networks whose outputs z are already probabilities. If they are logits, use `SoftmaxCrossEntropy`. Where p is
    clipped, dz is the derivative at the clip, so the network can still move away from it. Unlike Keras, this loss does not
    divide a row by its sum, so end the network with Softmax, not Sigmoid.

    y: (batch,) or (batch, classes), z: (batch, classes) or (K, batch, classes).

    Parameters
    ----------
    ignore_index : int or None, default -100
        Samples with this label are ignored; see `SoftmaxCrossEntropy`.

    Raises
    ------
    ValueError
        `ignore_index` is neither an integer nor None.
    """

    of_probabilities = True

    ignore_index: int | None = -100

    def __post_init__(self):
        if self.ignore_index is not None:
            set_integers(self, "ignore_index")

    def elements(self, y, z):
        xp = namespace(z)
        y, p = one_hot(y, z) if are_labels(y) else y, xp.maximum(z, EPSILON)
        return -xp.sum(y * xp.log(p), axis=-1, keepdims=True), -y / p


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """l = log(1 + eᶻ) - y z,   dz = σ(z) - y,   targets y in [0, 1], one for each unit

    This is the sigmoid followed by the cross-entropy -y log p - (1 - y) log(1 - p), accurate for logits z of any size.

    y: (batch, units), z: (batch, units) or (K, batch, units).

    Parameters
    ----------
    from_logits : bool, default True
        If False, z is the probability p, clipped to [10⁻⁷, 1 - 10⁻⁷], and dz = (p - y) / (p (1 - p)), even where p is
        clipped.

    Raises
    ------
    ValueError
        `from_logits` is not True or False.
    """

    from_logits: bool = True

    target_range = (0, 1)
    of_classes = True

    def __post_init__(self):
        set_booleans(self, "from_logits")

    @property
    def built_in(self):
        return "Sigmoid" if self.from_logits else ""

    @property
    def of_probabilities(self):
        return not self.from_logits

    def elements(self, y, z):
        xp = namespace(z)
        if self.from_logits:
            # The likelier answer is 1 where z > 0. It differs from y by `miss`, and from p by σ(-|z|)
            size, likelier = xp.abs(z), xp.astype(z > 0, z.dtype)
            miss = xp.abs(y - likelier)
            e = xp.exp(-size)
            l = xp.log1p(e)
            l += xp.where(miss > 0, size, 0.0) * miss
            return l, (e / (1.0 + e) - miss) * (1.0 - 2.0 * likelier)
        p = xp.minimum(xp.maximum(z, EPSILON), 1.0 - EPSILON)
        return -y * xp.log(p) - (1.0 - y) * xp.log1p(-p), (p - y) / (p * (1.0 - p))

    def activation(self, z):
        return sigmoid(z) if self.from_logits else z

    def decide(self, z):
        """Return 0 or 1 for each unit."""
        xp = namespace(z)
        return xp.astype(z > (0.0 if self.from_logits else 0.5), xp.int32)
