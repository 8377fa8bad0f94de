"""Losses: each is a formula and its derivative, value and gradient computed together.

``loss, dz = softmax_cross_entropy(y, z)`` for targets y and network outputs z. With an axis of K networks in front,
z: (K, batch, units), the loss is (K,): one for each network.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from xpnet.backend import device, namespace
from xpnet.layers.activations import sigmoid, softmax
from xpnet.tree import Array

_EPSILON = 1e-7  # probabilities and rates are kept this far from where the logarithm has no value, as in Keras


def _require(condition: bool, rule: str, received: Any) -> None:
    if not condition:
        raise ValueError(f"{rule}. Received: {received}")


class Loss(ABC):
    """loss = Σ wᵢ lᵢ / Σ wᵢ,   dz = ∂loss/∂z:   the weighted mean over the batch, and its gradient

    lᵢ, the loss of one sample, is the mean over the output's units. Subclasses are frozen dataclasses of settings and
    write `elements`. Where lᵢ has a kink, dz is one of its subgradients.
    """

    target_range: tuple[float, float] = (-math.inf, math.inf)
    outputs_per_target: int = 1

    def __call__(self, y: Array, z: Array, sample_weight: Array | None = None) -> tuple[Array, Array]:
        """The loss and its gradient by `z`.

        Parameters
        ----------
        y : array of shape (batch, units)
            Targets, as `check` returns them. Losses of classes take labels of shape (batch,) as well.
        z : array of shape (batch, units) or (K, batch, units)
            Network outputs.
        sample_weight : array of shape (batch,), optional
            Weights >= 0. If all are 0, so are loss and gradient.

        Returns
        -------
        loss : array of shape () or (K,)
        dz : array of the shape of `z`
        """
        xp = namespace(z)
        l, dz = self.elements(self.targets(y, z), z)
        batch, units = l.shape[-2:]
        if sample_weight is None:
            weight = 1 / (batch * units)
        else:
            w = xp.astype(sample_weight, z.dtype)
            weight = (w / (units * xp.maximum(xp.sum(w), 1e-37)))[:, None]  # at least 1e-37: 0/0 is not 0
        l *= weight  # both are ours: `elements` made them
        dz *= weight
        return xp.sum(l, axis=(-2, -1)), dz

    @abstractmethod
    def elements(self, y: Array, z: Array) -> tuple[Array, Array]:
        """The losses before the mean, of shape (..., batch, units), and their derivatives by `z`: new arrays, handed over."""

    def activation(self, z: Array) -> Array:
        """Predictions in the space of the targets."""
        return z

    def decide(self, z: Array) -> Array:
        """The one answer for each sample: labels where the targets are classes, else the predictions."""
        return self.activation(z)

    def targets(self, y: Array, z: Array) -> Array:
        """`y` as floats of z's type. It is never broadcast: y (n,) against z (n, 1) would make (n, n)."""
        expected = z.shape[-2], z.shape[-1] // self.outputs_per_target
        if y.shape[-2:] != expected:
            raise ValueError(
                f"{type(self).__name__} of outputs of shape {tuple(z.shape)} needs targets of shape {expected}. "
                f"Reshape them, as `check` does. Received: targets of shape {tuple(y.shape)}"
            )
        return y if y.dtype == z.dtype else namespace(y).astype(y, z.dtype)

    def check(self, y: Array, output_shape: tuple[int, ...], dtype: Any) -> Array:
        """Check a data set's targets, once before training, and return them in the form that the call wants.

        Parameters
        ----------
        y : array
            Targets of all samples; (n,) is taken as (n, 1) if there is one target for a sample.
        output_shape : tuple of int
            Of the network's output for one sample.
        dtype : data type
            Of the network's output.

        Raises
        ------
        ValueError
            The targets do not fit the output, or not this loss.
        """
        xp, outputs = namespace(y), _outputs(output_shape)
        rule = f"{type(self).__name__} with {outputs} network outputs needs "
        units, rest = divmod(outputs, self.outputs_per_target)
        _require(rest == 0, rule + f"{self.outputs_per_target} for each target. Change the last layer", outputs)
        if units == 1 and y.ndim == 1:
            y = y[:, None]
        _require(
            y.ndim == 2 and y.shape[1] == units,
            rule + f"targets of shape (n, {units}). Reshape them (labels to one-hot rows) or change the last layer",
            f"targets of shape {tuple(y.shape)}",
        )
        y = xp.astype(y, dtype, copy=False)
        lowest, highest = float(xp.min(y)), float(xp.max(y))
        values = f"values from {lowest:g} to {highest:g}"
        finite = math.isfinite(lowest) and math.isfinite(highest)
        _require(finite, rule + f"finite targets in {dtype}. Remove or replace NaN and infinity", values)
        fit = self.target_range[0] <= lowest and highest <= self.target_range[1]
        _require(fit, rule + f"targets in {list(self.target_range)}. Rescale them or take another loss", values)
        return y


class _ClassLoss(Loss):
    """A loss of class labels, integers (batch,), or of class probabilities, rows (batch, classes) such as one-hot ones."""

    def targets(self, y, z):
        return one_hot(y, z) if y.ndim == 1 else super().targets(y, z)

    def decide(self, z):
        return namespace(z).argmax(z, axis=-1)

    def check(self, y, output_shape, dtype):
        xp, classes = namespace(y), _outputs(output_shape)
        rule = f"{type(self).__name__} with {classes} network outputs needs "
        if y.ndim == 2 and y.shape[1] == classes:
            y = xp.astype(y, dtype, copy=False)
            lowest, error = float(xp.min(y)), float(xp.max(xp.abs(xp.sum(y, axis=-1) - 1.0)))
            _require(
                lowest >= 0 and error < 1e-3,
                rule + "rows of class probabilities: none negative, of sum 1. Divide each row by its sum",
                f"a smallest value of {lowest:g}, a sum off by {error:g}",
            )
            return y
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        _require(
            y.ndim == 1,
            rule + f"labels (n,) or class probabilities (n, {classes}). Reshape the targets or change the last layer",
            f"targets of shape {tuple(y.shape)}",
        )
        _require(
            xp.isdtype(y.dtype, "integral"),
            rule + "integer labels. Convert them by y.astype(int), text by np.unique(y, return_inverse=True)",
            f"labels of dtype {y.dtype}",
        )
        labels = xp.astype(y, dtype)  # torch has no minimum of uint16
        lowest, highest = int(xp.min(labels)), int(xp.max(labels))
        _require(
            lowest >= 0 and highest < classes,
            rule + f"labels in 0 .. {classes - 1}. Renumber them (np.unique(y, return_inverse=True)) or add outputs",
            f"labels from {lowest} to {highest} for {classes} classes",
        )
        return y


@dataclass(frozen=True)
class SoftmaxCrossEntropy(_ClassLoss):
    """l = log Σ eᶻ - Σ t z,   dz = softmax(z) - t,   t = (1 - ε) y + ε / classes   (sums over classes)

    Softmax and cross-entropy -Σ t log p in one, stable for logits z of any size. Labels stand for one-hot y.

    Parameters
    ----------
    label_smoothing : float, default 0.0
        ε, in [0, 1]. C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016.
    """

    label_smoothing: float = 0.0

    def __post_init__(self):
        _require(0 <= self.label_smoothing <= 1, "label_smoothing must be in [0, 1]", self.label_smoothing)

    def elements(self, y, z):
        xp = namespace(z)
        t, x = y.mT, z.mT  # class first: sums over 10 long rows are 30 times faster than over 10 columns, ...
        x = xp.reshape(xp.reshape(x, (-1,)), x.shape)  # ... if they are rows in memory too, as from a flat array
        if self.label_smoothing:
            t = (1.0 - self.label_smoothing) * t + self.label_smoothing / z.shape[-1]
        x = x - xp.max(x, axis=-2, keepdims=True)  # exp cannot overflow; not -=, for one sample is still z's memory
        p = xp.exp(x)
        total = xp.sum(p, axis=-2, keepdims=True)
        x *= t
        l = xp.log(total)
        l -= xp.sum(x, axis=-2, keepdims=True)
        p *= 1.0 / total
        p -= t  # ∂(log Σ eᶻ)/∂z = eᶻ / Σ eᶻ = p,  ∂(Σ t z)/∂z = t
        return l.mT, p.mT

    def activation(self, z):
        return softmax(z)


@dataclass(frozen=True)
class CategoricalCrossEntropy(_ClassLoss):
    """l = -Σ y log p,   dz = -y / p,   p = max(z, 10⁻⁷)   (sum over classes)

    For a network whose outputs z are probabilities already; logits are better left to `SoftmaxCrossEntropy`. Where p is
    clipped, dz is the derivative at the clip, so that the network can get away from there.
    """

    def elements(self, y, z):
        xp = namespace(z)
        p = xp.maximum(z, _EPSILON)
        return -xp.sum(y * xp.log(p), axis=-1, keepdims=True), -y / p


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """l = log(1 + eᶻ) - y z,   dz = σ(z) - y,   targets y in [0, 1], one for each unit

    Sigmoid and cross-entropy -y log p - (1 - y) log(1 - p) in one, stable for logits z of any size.

    Parameters
    ----------
    from_logits : bool, default True
        If False, z is the probability p: dz = (p - y) / (p (1 - p)), with p clipped to [10⁻⁷, 1 - 10⁻⁷] and, where it
        is clipped, the derivative at the clip.
    """

    from_logits: bool = True

    target_range = (0, 1)

    def elements(self, y, z):
        xp = namespace(z)
        if self.from_logits:
            l = xp.maximum(z, 0.0) - y * z
            l += xp.log1p(xp.exp(-xp.abs(z)))  # last, being the smallest
            return l, sigmoid(z) - y
        p = xp.minimum(xp.maximum(z, _EPSILON), 1.0 - _EPSILON)
        return -y * xp.log(p) - (1.0 - y) * xp.log1p(-p), (p - y) / (p * (1.0 - p))

    def activation(self, z):
        return sigmoid(z) if self.from_logits else z

    def decide(self, z):
        """0 or 1 for each unit, of shape (batch,) if there is one unit only."""
        xp = namespace(z)
        labels = xp.astype(z > (0.0 if self.from_logits else 0.5), xp.int32)
        return labels[..., 0] if z.shape[-1] == 1 else labels


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """l = (z - y)²,   dz = 2 (z - y)"""

    def elements(self, y, z):
        e = z - y
        return e * e, 2.0 * e


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """l = |z - y|,   dz = sign(z - y)"""

    def elements(self, y, z):
        xp = namespace(z)
        e = z - y
        return xp.abs(e), xp.sign(e)


@dataclass(frozen=True)
class Huber(Loss):
    """l = ½ e² where |e| <= δ, else δ (|e| - ½ δ);   dz = e clipped to [-δ, δ],   e = z - y

    P. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964).

    Parameters
    ----------
    delta : float, default 1.0
        δ > 0, in the unit of the targets.
    """

    delta: float = 1.0

    def __post_init__(self):
        _require(self.delta > 0, "delta must be positive", self.delta)

    def elements(self, y, z):
        xp = namespace(z)
        e = z - y
        c = xp.minimum(xp.maximum(e, -self.delta), self.delta)
        return c * (e - 0.5 * c), c


@dataclass(frozen=True)
class Poisson(Loss):
    """l = eᶻ - y z,   dz = eᶻ - y,   counts y >= 0 of mean eᶻ

    The negative log-likelihood without log y!, which does not depend on z. eᶻ overflows float32 from z = 89 on.

    Parameters
    ----------
    log_input : bool, default True
        If False, z is the mean itself: l = z - y log z, dz = 1 - y / z, with 10⁻⁷ in place of any z below it in log z
        and y / z.
    """

    log_input: bool = True

    target_range = (0, math.inf)

    def elements(self, y, z):
        xp = namespace(z)
        if self.log_input:
            mean = xp.exp(z)
            return mean - y * z, mean - y
        mean = xp.maximum(z, _EPSILON)
        return z - y * xp.log(mean), 1.0 - y / mean

    def activation(self, z):
        return namespace(z).exp(z) if self.log_input else z


@dataclass(frozen=True)
class Quantile(Loss):
    """l = q (y - z) where y > z, else (1 - q) (z - y);   dz = -q where y > z, 1 - q where y < z

    The pinball loss: least where z is the q-quantile of y. R. Koenker and G. Bassett, "Regression quantiles",
    Econometrica 46 (1978).

    Parameters
    ----------
    quantile : float, default 0.5
        q, 0 < q < 1.
    """

    quantile: float = 0.5

    def __post_init__(self):
        _require(0 < self.quantile < 1, "quantile must be between 0 and 1", self.quantile)

    def elements(self, y, z):
        xp = namespace(z)
        e, tilt = z - y, 0.5 - self.quantile
        return 0.5 * xp.abs(e) + tilt * e, 0.5 * xp.sign(e) + tilt


@dataclass(frozen=True)
class GaussianNLL(Loss):
    """l = ½ (log σ² + (y - μ)² / σ²),   dμ = (μ - y) / σ²,   d log σ² = ½ (1 - (y - μ)² / σ²),   z = (μ, log σ²)

    The negative log-likelihood without its constant ½ log 2π. For k targets the network has 2k outputs: first the k means
    μ, then the k log-variances. `activation` returns (μ, σ²) in the same order; metrics compare the targets with μ. 1/σ²
    overflows float32 below log σ² = -89. D. Nix and A. Weigend, "Estimating the mean and variance of the target
    probability distribution", ICNN 1994.
    """

    outputs_per_target = 2

    def elements(self, y, z):
        xp = namespace(z)
        mean, log_variance = _halves(z)
        precision = xp.exp(-log_variance)
        e = mean - y
        de = e * precision
        square = e * de
        return 0.5 * (log_variance + square), xp.concat((de, 0.5 - 0.5 * square), axis=-1)

    def activation(self, z):
        xp = namespace(z)
        mean, log_variance = _halves(z)
        return xp.concat((mean, xp.exp(log_variance)), axis=-1)

    def decide(self, z):
        return _halves(z)[0]


softmax_cross_entropy = SoftmaxCrossEntropy()
categorical_cross_entropy = CategoricalCrossEntropy()
binary_cross_entropy = BinaryCrossEntropy()
mean_squared_error = MeanSquaredError()
mean_absolute_error = MeanAbsoluteError()
huber = Huber()
poisson = Poisson()
quantile = Quantile()
gaussian_nll = GaussianNLL()

_BY_NAME: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy, "categorical_cross_entropy": categorical_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy, "mean_squared_error": mean_squared_error,
    "mean_absolute_error": mean_absolute_error, "huber": huber, "poisson": poisson, "quantile": quantile,
    "gaussian_nll": gaussian_nll,
}  # fmt: skip


def get(loss: str | Loss) -> Loss:
    """The loss of that name, with default settings; a loss is returned as it is."""
    if isinstance(loss, Loss):
        return loss
    rule = f"A loss is an object such as Huber(0.5) or one of {', '.join(_BY_NAME)}"
    _require(isinstance(loss, str) and loss in _BY_NAME, rule, repr(loss))
    return _BY_NAME[loss]


def one_hot(labels: Array, like: Array) -> Array:
    """1 at each label, else 0: (batch,) -> (batch, classes), with the classes, type and device of `like`."""
    xp = namespace(like)
    classes = xp.arange(like.shape[-1], dtype=like.dtype, device=device(like))
    # Class first, as `SoftmaxCrossEntropy` wants it; as floats, which every library compares, exact up to 2²⁴ classes
    return xp.astype(xp.astype(labels, like.dtype) == classes[:, None], like.dtype).mT


def _outputs(output_shape: tuple[int, ...]) -> int:
    rule = "A loss needs one row of outputs for each sample; end the network with Flatten() or Dense"
    _require(len(output_shape) == 1, rule, f"outputs of shape {output_shape}")
    return output_shape[0]


def _halves(z: Array) -> tuple[Array, Array]:
    k = z.shape[-1] // 2
    return z[..., :k], z[..., k:]
