"""Losses of classes: softmax and categorical cross-entropy, and binary cross-entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import device, namespace
from xpnet.checks import require, set_booleans, set_numbers
from xpnet.losses.base import EPSILON, Loss, outputs_of
from xpnet.special import below_maximum, sigmoid, softmax
from xpnet.tree import Array


class ClassLoss(Loss):
    """A loss of class labels, integers (batch,), or of class probabilities, rows (batch, classes) such as one-hot ones."""

    of_classes = True

    def targets(self, y, z):
        return y if y.ndim == 1 else super().targets(y, z)

    def decide(self, z):
        return namespace(z).argmax(z, axis=-1)

    def labels(self, y, output_shape):
        return y if y.ndim == 1 else y.argmax(axis=1)

    def check(self, y, output_shape, dtype):
        xp, classes = namespace(y), outputs_of(output_shape)
        rule = f"{type(self).__name__} with {classes} network outputs needs "
        if y.ndim == 2 and y.shape[1] == classes:
            y = xp.astype(y, dtype, copy=False)
            lowest, error = float(xp.min(y)), float(xp.max(xp.abs(xp.sum(y, axis=-1) - 1.0)))
            require(
                lowest >= 0 and error < 1e-3,
                rule + "rows of class probabilities: none negative, of sum 1. Divide each row by its sum",
                f"a smallest value of {lowest:g}, a sum off by {error:g}",
            )
            return y
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        require(
            y.ndim == 1,
            rule + f"labels (n,) or class probabilities (n, {classes}). Reshape the targets or change the last layer",
            f"targets of shape {tuple(y.shape)}",
        )
        require(
            xp.isdtype(y.dtype, "integral"),
            rule + "integer labels. Convert them by y.astype(int), text by np.unique(y, return_inverse=True)",
            f"labels of dtype {y.dtype}",
        )
        labels = xp.astype(y, dtype)  # torch has no minimum of uint16
        lowest, highest = int(xp.min(labels)), int(xp.max(labels))
        require(
            lowest >= 0 and highest < classes,
            rule + f"labels in 0 .. {classes - 1}. Renumber them (np.unique(y, return_inverse=True)) or add outputs",
            f"labels from {lowest} to {highest} for {classes} classes",
        )
        return y


@dataclass(frozen=True)
class SoftmaxCrossEntropy(ClassLoss):
    """l = log Σ eᶻ - Σ t z,   dz = softmax(z) - t,   t = (1 - ε) y + ε / classes   (sums over classes)

    Softmax and cross-entropy -Σ t log p in one, stable for logits z of any size. Labels stand for one-hot y.

    Parameters
    ----------
    label_smoothing : float, default 0.0
        ε, in [0, 1]. C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016.

    Raises
    ------
    ValueError
        `label_smoothing` is out of range.
    """

    built_in = "Softmax"

    label_smoothing: float = 0.0

    def __post_init__(self):
        set_numbers(self, "[0, 1]", "label_smoothing")

    def elements(self, y, z):
        xp = namespace(z)
        z = z.mT  # class first: sums over 10 long rows are 30 times faster than over 10 columns, ...
        z = xp.reshape(xp.reshape(z, (-1,)), z.shape)  # ... if they are rows in memory too, as from a flat array
        x, is_top = below_maximum(z, axis=-2)
        is_label, soft = self._label_and_soft(y, z)
        label_x = xp.max(xp.where(is_label, x, -math.inf), axis=-2, keepdims=True)
        p = xp.exp(xp.where(is_label, -math.inf, x))
        rest = xp.sum(
            p, axis=-2, keepdims=True
        )  # of eˣ over the other classes: log(1 + rest) where the label is on top
        p = xp.where(is_label, -rest, p)  # ∂l/∂z at the label is -rest / total: the difference p - 1 would cancel
        rest += xp.expm1(label_x)
        l = xp.log1p(rest)
        rest += 1.0
        p *= 1.0 / rest
        if soft is None:
            l -= label_x
        else:
            # Halves, for the difference of numbers such as ±3e38 may be too large
            half = 0.5 * z - 0.5 * xp.max(z, axis=-2, keepdims=True)
            t = xp.where(is_label, 1.0, soft)
            l -= 2.0 * xp.sum(xp.where((t > 0) & ~is_top, t * half, 0.0), axis=-2, keepdims=True)
            p -= soft
        return l.mT, p.mT

    def _label_and_soft(self, y, z):
        """Which class is the label, of probability 1, and the probabilities of the others, None if all 0; class first."""
        xp = namespace(z)
        if y.ndim == 1 and not self.label_smoothing:
            return _is_label(y, z), None
        t = xp.astype(_is_label(y, z), z.dtype) if y.ndim == 1 else y.mT
        if self.label_smoothing:
            t = (1.0 - self.label_smoothing) * t + self.label_smoothing / z.shape[-2]
        is_label = t == 1.0
        return is_label, xp.where(is_label, 0.0, t)

    def activation(self, z):
        return softmax(z)


@dataclass(frozen=True)
class CategoricalCrossEntropy(ClassLoss):
    """l = -Σ y log p,   dz = -y / p,   p = max(z, 10⁻⁷)   (sum over classes)

    For a network whose outputs z are probabilities already; logits are better left to `SoftmaxCrossEntropy`. Where p is
    clipped, dz is the derivative at the clip, so that the network can get away from there.
    """

    of_probabilities = True

    def elements(self, y, z):
        xp = namespace(z)
        y, p = one_hot(y, z) if y.ndim == 1 else y, xp.maximum(z, EPSILON)
        return -xp.sum(y * xp.log(p), axis=-1, keepdims=True), -y / p


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """l = log(1 + eᶻ) - y z,   dz = σ(z) - y,   targets y in [0, 1], one for each unit

    Sigmoid and cross-entropy -y log p - (1 - y) log(1 - p) in one, accurate for logits z of any size.

    Parameters
    ----------
    from_logits : bool, default True
        If False, z is the probability p: dz = (p - y) / (p (1 - p)), with p clipped to [10⁻⁷, 1 - 10⁻⁷] and, where it
        is clipped, the derivative at the clip.

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
            # The likelier answer is 1 where z > 0. It misses y by `miss`, and p by the rest of the probability, σ(-|z|)
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
        """0 or 1 for each unit."""
        xp = namespace(z)
        return xp.astype(z > (0.0 if self.from_logits else 0.5), xp.int32)


def one_hot(labels: Array, like: Array) -> Array:
    """1 at each label, else 0: (batch,) -> (batch, classes), with the classes, type and device of `like`."""
    return namespace(like).astype(_is_label(labels, like.mT), like.dtype).mT


def _is_label(labels: Array, like: Array) -> Array:
    """Class first, (classes, batch), as `SoftmaxCrossEntropy` wants it, and `like` is."""
    xp = namespace(like)
    classes = xp.arange(like.shape[-2], dtype=like.dtype, device=device(like))
    return xp.astype(labels, like.dtype) == classes[:, None]  # as floats, which every library compares, exact up to 2²⁴
