"""What all losses share: the weighted mean over the batch, and the check of the targets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from xpnet.backend import namespace, quiet
from xpnet.backend.fusion import fused
from xpnet.checks import require
from xpnet.tree import Array

TINY = 1e-37  # the least sum of weights to divide by: 0/0 is not 0
REMEDY = "Remove or replace NaN and infinity, or give their samples the weight 0 (sample_weight)"
EPSILON = 1e-7  # probabilities and rates are kept this far from where the logarithm has no value, as in Keras


class Loss(ABC):
    """loss = Σ wᵢ lᵢ / Σ wᵢ,   dz = ∂loss/∂z:   the weighted mean over the batch, and its gradient

    lᵢ, the loss of one sample, is the mean over the output's units. Subclasses are frozen dataclasses of settings and
    write `elements`. Where lᵢ has a kink, dz is one of its subgradients.
    """

    target_range: tuple[float, float] = (-math.inf, math.inf)
    outputs_per_target: int = 1
    of_classes: bool = False  # are the targets classes, so that `decide` gives labels?
    built_in: str = ""  # the activation that is part of the loss, so that no network ends with it
    of_probabilities: bool = False  # so that a network must end with an activation that makes them

    @quiet
    def __call__(self, y: Array, z: Array, sample_weight: Array | None = None) -> tuple[Array, Array]:
        """The loss and its gradient by `z`.

        Parameters
        ----------
        y : array of shape (batch, units)
            Targets. Losses of classes take labels of shape (batch,) as well.
        z : array of shape (batch, units) or (K, batch, units)
            Network outputs.
        sample_weight : array of shape (batch,), optional
            Weights >= 0. A sample of weight 0 adds 0 to the loss and has the gradient 0, whatever y and z hold there. If all
            weights are 0, so are loss and gradient.

        Returns
        -------
        loss : array of shape () or (K,)
        dz : array of the shape of `z`

        Raises
        ------
        ValueError
            The shapes do not fit. Values are not looked at, for that would wait for the device: `check` does.
        """
        if sample_weight is None:
            l, dz = fused(self._mean, z, y)
        else:
            l, dz = fused(self._weighted_mean, z, y, *fused(_with_sum, namespace(z).astype(sample_weight, z.dtype)))
        return namespace(z).sum(l, axis=(-2, -1)), dz

    def _mean(self, z: Array, y: Array) -> tuple[Array, Array]:
        """The terms of the mean, and their derivatives."""
        l, dz = self._checked_elements(z, y)
        weight = 1 / max(l.shape[-2] * l.shape[-1], 1)
        l *= weight  # both are ours: `elements` made them
        dz *= weight
        return l, dz

    def _weighted_mean(self, z: Array, y: Array, w: Array, total: Array) -> tuple[Array, Array]:
        l, dz = self._checked_elements(z, y)
        batch, units = l.shape[-2:]
        require(w.shape == (batch,), f"sample_weight must have shape ({batch},)", tuple(w.shape))
        xp, weight = namespace(z), (w / (units * total))[:, None]
        counts = weight > 0  # a choice, not a factor: 0 times infinity or NaN is NaN
        return xp.where(counts, l * weight, 0.0), xp.where(counts, dz * weight, 0.0)

    def _checked_elements(self, z: Array, y: Array) -> tuple[Array, Array]:
        parts = self.elements(self.targets(y, z), z)
        if not _are_elements(parts, z):
            raise ValueError(
                f"{type(self).__name__}.elements must return a tuple of two new arrays: the losses, a row for each of z, and "
                f"their derivatives by z, of its shape {tuple(z.shape)}. Received: {_form(parts, z)}"
            )
        return parts

    @abstractmethod
    def elements(self, y: Array, z: Array) -> tuple[Array, Array]:
        """The losses before the mean, of shape (..., batch, units), and their derivatives by `z`: new arrays, handed over."""

    def activation(self, z: Array) -> Array:
        """Predictions in the space of the targets; z itself where that is its space."""
        return z

    def decide(self, z: Array) -> Array:
        """The one answer for each target: a label where the targets are classes, else a value."""
        return self.activation(z)

    @property
    def checked(self) -> Loss:
        """The same loss of what `check` returned, in which ignored labels have the weight 0: it need not look for them."""
        return self

    @property
    def row_loss(self) -> Loss:
        """The loss of one of the `rows`."""
        return self

    def rows(self, y: Array, z: Array, weight: Array | None) -> tuple[Array, Array, Array | None]:
        """Targets, outputs and weights with one row for each thing that metrics count: here, each sample."""
        return y, z, weight

    def weight_shapes(self, n: int, output_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes that the weights of n samples may have."""
        return [(n,)]

    def labels(self, y: Any, output_shape: tuple[int, ...]) -> Any:
        """Checked targets on the host as class labels, one for each thing that has a weight."""
        return y[:, 0] if y.shape[1:] == (1,) else y

    def row_shapes(self, y_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """The shape of the targets in those rows, and the number of units of a row of outputs."""
        return y_shape, output_shape[-1]

    def targets(self, y: Array, z: Array) -> Array:
        """`y` as floats of z's type. It is never broadcast: y (n,) against z (n, 1) would make (n, n)."""
        require(z.ndim >= 2, "Outputs have shape (batch, units)", f"outputs of shape {tuple(z.shape)}")
        expected = z.shape[-2], z.shape[-1] // self.outputs_per_target
        if y.shape[-2:] != expected:
            raise ValueError(
                f"{type(self).__name__} of outputs of shape {tuple(z.shape)} needs targets of shape {expected}. "
                f"Reshape them, as `check` does. Received: targets of shape {tuple(y.shape)}"
            )
        return y if y.dtype == z.dtype else namespace(y).astype(y, z.dtype)

    def check(
        self, y: Array, output_shape: tuple[int, ...], dtype: Any, weight: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Check a data set's targets, once before training, and return them and their weights in the form that `checked` wants.

        A target of weight 0 may be anything, NaN included: the first one that counts takes its place.

        Parameters
        ----------
        y : array
            Targets of all samples; (n,) is taken as (n, 1) if there is one target for a sample.
        output_shape : tuple of int
            Of the network's output for one sample.
        dtype : data type
            Of the network's output.
        weight : array of one of the `weight_shapes`, optional

        Raises
        ------
        ValueError
            The targets do not fit the output, or not this loss.
        """
        xp, outputs = namespace(y), outputs_of(output_shape)
        rule = f"{type(self).__name__} with {outputs} network output{'s' * (outputs != 1)} needs "
        units, rest = divmod(outputs, self.outputs_per_target)
        require(rest == 0, rule + f"{self.outputs_per_target} for each target. Change the last layer", outputs)
        if units == 1 and y.ndim == 1:
            y = y[:, None]
        require(
            y.ndim == 2 and y.shape[1] == units,
            rule + f"targets of shape (n, {units}). Reshape them (labels to one-hot rows) or change the last layer",
            f"targets of shape {tuple(y.shape)}",
        )
        y = counted(xp.astype(y, dtype, copy=False), weight)
        lowest, highest = float(xp.min(y)), float(xp.max(y))
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            rows = int(xp.sum(xp.astype(xp.any(~xp.isfinite(y), axis=1), xp.int32)))
            bad = f"NaN or infinity in {rows} of {y.shape[0]} targets"
            raise ValueError(f"{rule}finite targets in {dtype}. {REMEDY}. Received: {bad}")
        values = f"values from {lowest:g} to {highest:g}"
        fit = self.target_range[0] <= lowest and highest <= self.target_range[1]
        require(fit, rule + f"targets in {list(self.target_range)}. Rescale them or take another loss", values)
        return y, weight


def _with_sum(w: Array) -> tuple[Array, Array]:
    """Weights, and what to divide them by."""
    xp = namespace(w)
    return w, xp.maximum(xp.sum(w), TINY)


def counted(y: Array, weight: Array | None) -> Array:
    """`y` of shape (n, ...) with the first row of a weight above 0 in place of each row of weight 0."""
    if weight is None:
        return y
    xp = namespace(y)
    counts = weight > 0
    first = int(xp.argmax(xp.astype(counts, xp.int32)))
    return xp.where(xp.reshape(counts, (-1, *(1,) * (y.ndim - 1))), y, y[first : first + 1, ...])


def _are_elements(parts: Any, z: Array) -> bool:
    """Whether `elements` kept to its protocol; only attributes are looked at, because every step asks."""
    if type(parts) is not tuple or len(parts) != 2:
        return False
    l, dz = parts
    if l is dz or l is z or dz is z:  # one would be scaled twice, or the network's output with it
        return False
    try:
        return dz.shape == z.shape and l.shape[:-1] == z.shape[:-1]
    except AttributeError:
        return False


def _form(parts: Any, z: Array) -> str:
    several = parts if isinstance(parts, tuple) else (parts,)
    if len(several) == 2 and several[0] is several[1]:
        return "one array twice"
    if any(part is z for part in several):
        return "z itself"
    return ", ".join(f"{type(part).__name__} of shape {tuple(getattr(part, 'shape', ()))}" for part in several)


def outputs_of(output_shape: tuple[int, ...]) -> int:
    rule = "A loss needs one row of outputs for each sample; end with Flatten() or Dense, or take PerPosition(loss)"
    require(len(output_shape) == 1, rule, f"outputs of shape {output_shape}")
    return output_shape[0]
