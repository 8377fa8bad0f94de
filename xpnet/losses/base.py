"""The base class of the losses: the weighted mean over the batch, and the check of the targets."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from xpnet.backend import namespace, quiet
from xpnet.backend.fusion import fused
from xpnet.checks import require
from xpnet.keywords import AbstractSettings
from xpnet.tree import Array

TINY = 1e-37  # the smallest sum of weights to divide by, because 0/0 is NaN
REMEDY = "Remove or replace NaN and infinity, or give their samples the weight 0 (sample_weight)"
EPSILON = 1e-7  # the smallest probability or rate, as in Keras, because the logarithm of 0 is infinite


class Loss(metaclass=AbstractSettings):
    """loss = Σ wᵢ lᵢ / Σ wᵢ,   dz = ∂loss/∂z:   the weighted mean over the batch, and its gradient

    lᵢ, the loss of one sample, is the mean over the output's units. Where lᵢ has a kink, dz is one of its subgradients.
    Subclasses are frozen dataclasses of settings and define `elements`.
    """

    target_range: tuple[float, float] = (-math.inf, math.inf)
    outputs_per_target: int = 1
    of_classes: bool = False  # whether the targets are classes, so that `decide` returns labels
    built_in: str = ""  # the activation that the loss includes; a network must not end with it
    of_probabilities: bool = False  # whether a network must end with an activation that computes probabilities

    @quiet
    def __call__(self, y: Array, z: Array, sample_weight: Array | None = None) -> tuple[Array, Array]:
        """Return the loss and its gradient with respect to `z`.

        Parameters
        ----------
        y : array of shape (batch, units)
            Targets. Losses of classes also accept labels of shape (batch,).
        z : array of shape (batch, units) or (K, batch, units)
            Network outputs.
        sample_weight : array of shape (batch,), optional
            Weights >= 0. A sample with weight 0 adds 0 to the loss and has the gradient 0, whatever y and z hold there. If
            all weights are 0, the loss and the gradient are 0.

        Returns
        -------
        loss : array of shape () or (K,)
        dz : array of the shape of `z`

        Raises
        ------
        ValueError
            The shapes do not fit. Values are not checked here, because that would have to wait for the device. `check` checks
            them.
        """
        if sample_weight is None:
            l, dz = fused(self._mean, z, y)
        else:
            l, dz = fused(self._weighted_mean, z, y, *fused(_with_sum, namespace(z).astype(sample_weight, z.dtype)))
        return namespace(z).sum(l, axis=(-2, -1)), dz

    def _mean(self, z: Array, y: Array) -> tuple[Array, Array]:
        """Return the terms of the mean, and their derivatives."""
        l, dz = self._checked_elements(z, y)
        weight = 1 / max(l.shape[-2] * l.shape[-1], 1)
        l *= weight  # both are new arrays from `elements`
        dz *= weight
        return l, dz

    def _weighted_mean(self, z: Array, y: Array, w: Array, total: Array) -> tuple[Array, Array]:
        l, dz = self._checked_elements(z, y)
        batch, units = l.shape[-2:]
        require(w.shape == (batch,), f"sample_weight must have shape ({batch},)", tuple(w.shape))
        xp, weight = namespace(z), (w / (units * total))[:, None]
        counts = weight > 0  # `where` instead of a product, because 0 times infinity or NaN is NaN
        return xp.where(counts, l * weight, 0.0), xp.where(counts, dz * weight, 0.0)

    def _checked_elements(self, z: Array, y: Array) -> tuple[Array, Array]:
        parts = self.elements(self.targets(y, z), z)
        if not _are_elements(parts, z):
            raise ValueError(
                f"{type(self).__name__}.elements must return a tuple of two new arrays: the losses, with a row for each row "
                f"of z, and their derivatives with respect to z, of shape {tuple(z.shape)}. Received: {_form(parts, z)}"
            )
        return parts

    @abstractmethod
    def elements(self, y: Array, z: Array) -> tuple[Array, Array]:
        """Return the losses before the mean, (..., batch, units), and their derivatives with respect to `z`.

        Both must be new arrays; the caller overwrites them.
        """

    def activation(self, z: Array) -> Array:
        """Convert outputs to predictions in the space of the targets. By default, return z unchanged."""
        return z

    def decide(self, z: Array) -> Array:
        """Return one answer for each target: a label if the targets are classes, otherwise a value."""
        return self.activation(z)

    @property
    def checked(self) -> Loss:
        """The same loss for targets from `check`, in which ignored labels already have weight 0, so it does not look for them."""
        return self

    @property
    def row_loss(self) -> Loss:
        """The loss of one of the `rows`."""
        return self

    def rows(self, y: Array, z: Array, weight: Array | None) -> tuple[Array, Array, Array | None]:
        """Return targets, outputs and weights with one row for each item that metrics count; here, each sample."""
        return y, z, weight

    def weight_shapes(self, n: int, output_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the shapes that the weights of n samples may have."""
        return [(n,)]

    def labels(self, y: Any, output_shape: tuple[int, ...]) -> Any:
        """Return checked targets on the host as class labels, one for each item that has a weight."""
        return y[:, 0] if y.shape[1:] == (1,) else y

    def row_shapes(self, y_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Return the shape of the targets in those rows, and the number of units in a row of outputs."""
        return y_shape, output_shape[-1]

    def targets(self, y: Array, z: Array) -> Array:
        """Return `y` in the dtype of z, without broadcasting: y (n,) against z (n, 1) would give (n, n)."""
        require(z.ndim >= 2, "Outputs must have shape (batch, units)", f"outputs of shape {tuple(z.shape)}")
        expected = z.shape[-2], z.shape[-1] // self.outputs_per_target
        if y.shape[-2:] != expected:
            raise ValueError(
                f"{type(self).__name__} for outputs of shape {tuple(z.shape)} needs targets of shape {expected}. "
                f"Reshape them, as `check` does. Received: targets of shape {tuple(y.shape)}"
            )
        return y if y.dtype == z.dtype else namespace(y).astype(y, z.dtype)

    def check(
        self, y: Array, output_shape: tuple[int, ...], dtype: Any, weight: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Check a data set's targets once, before training. Return them and their weights in the form that `checked` needs.

        A target with weight 0 may be anything, including NaN. The first target with a positive weight replaces it.

        Parameters
        ----------
        y : array
            Targets of all samples. Shape (n,) means (n, 1) if each sample has one target.
        output_shape : tuple of int
            Shape of the network's output for one sample.
        dtype : data type
            Data type of the network's output.
        weight : array with one of the `weight_shapes`, optional
            Weights of the samples.

        Raises
        ------
        ValueError
            The targets do not fit the output or this loss.
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
        require(fit, rule + f"targets in {list(self.target_range)}. Rescale them or use another loss", values)
        return y, weight


def _with_sum(w: Array) -> tuple[Array, Array]:
    """Return the weights, and the number to divide them by."""
    xp = namespace(w)
    return w, xp.maximum(xp.sum(w), TINY)


def counted(y: Array, weight: Array | None) -> Array:
    """Return `y`, (n, ...), with each row of weight 0 replaced by the first row that has a positive weight."""
    if weight is None:
        return y
    xp = namespace(y)
    counts = weight > 0
    first = int(xp.argmax(xp.astype(counts, xp.int32)))
    return xp.where(xp.reshape(counts, (-1, *(1,) * (y.ndim - 1))), y, y[first : first + 1, ...])


def _are_elements(parts: Any, z: Array) -> bool:
    """Whether `elements` followed its protocol. This reads only attributes, because every step calls it."""
    if type(parts) is not tuple or len(parts) != 2:
        return False
    l, dz = parts
    if l is dz or l is z or dz is z:  # scaling would change one array twice, or the network's output
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
    rule = (
        "A loss needs one row of outputs for each sample. Add Flatten() or Dense at the end, or use PerPosition(loss)"
    )
    require(len(output_shape) == 1, rule, f"outputs of shape {output_shape}")
    return output_shape[0]
