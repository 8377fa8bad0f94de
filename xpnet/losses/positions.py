"""A loss at every position of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import device, namespace
from xpnet.checks import require
from xpnet.losses.base import Loss


@dataclass(frozen=True)
class PerPosition(Loss):
    """loss = Σ wᵢₜ lᵢₜ / Σ wᵢₜ,   dzᵢₜ = wᵢₜ l'ᵢₜ / Σ wᵢₜ:   the mean of another loss over samples i and positions t = 1 … T

    For networks with an output at every position, such as language models: z (batch, T, units), y (batch, T) or
    (batch, T, units). In image-to-image networks the positions are pixels: z (batch, height, width, units).

    Metrics and class weights apply to positions. Sample weights apply to samples, (batch,), or to positions, (batch, T) or
    (batch, height, width); the weight 0 excludes padding from the loss and its gradient dz. The network still computes at such a
    position, so the input there must not make activations infinite, because dW multiplies them by dz = 0. Augmentation layers
    move the pixels of an image, but not the targets of these pixels.

    Parameters
    ----------
    loss : Loss
        The loss of one position, such as ``SoftmaxCrossEntropy()``.

    Raises
    ------
    ValueError
        `loss` is not a loss, or it is a `PerPosition`. Outputs do not have shape (..., units), or the number of targets
        differs from the number of positions.
    """

    loss: Loss

    def __post_init__(self):
        one = isinstance(self.loss, Loss) and not isinstance(self.loss, PerPosition)
        require(one, "loss must be a loss of one position, such as SoftmaxCrossEntropy()", repr(self.loss))

    @property
    def checked(self):
        return PerPosition(self.loss.checked)

    @property
    def row_loss(self):
        return self.loss

    @property
    def of_classes(self):
        return self.loss.of_classes

    def __call__(self, y, z, sample_weight=None):
        loss, dz = self.loss(*self.rows(y, z, sample_weight))
        return loss, namespace(z).reshape(dz, z.shape)

    def elements(self, y, z):
        return self.loss.elements(y, z)

    def rows(self, y, z, weight):
        xp = namespace(z)
        if weight is not None:
            if weight.ndim == 1:
                weight = xp.broadcast_to(xp.reshape(weight, (-1, *(1,) * (z.ndim - 2))), z.shape[:-1])
            weight = xp.reshape(weight, (-1,))
        return xp.reshape(y, (-1, *y.shape[z.ndim - 1 :])), xp.reshape(z, (-1, z.shape[-1])), weight

    def weight_shapes(self, n, output_shape):
        return [(n,), (n, *output_shape[:-1])]

    def labels(self, y, output_shape):
        axes = len(output_shape)
        labels = self.loss.labels(y.reshape(-1, *y.shape[axes:]), output_shape[-1:])
        return labels.reshape(*y.shape[:axes], *labels.shape[1:])

    def row_shapes(self, y_shape, output_shape):
        axes = len(output_shape)
        return (math.prod(y_shape[:axes]), *y_shape[axes:]), output_shape[-1]

    def activation(self, z):
        return self.loss.activation(z)

    def decide(self, z):
        return self.loss.decide(z)

    def check(self, y, output_shape, dtype, weight=None):
        axes = len(output_shape)
        require(
            axes >= 2,
            "PerPosition needs outputs of shape (T, units) or (..., units). Otherwise use the loss without PerPosition",
            f"outputs of shape {output_shape}",
        )
        positions = tuple(y.shape[1:axes])
        sizes = ", ".join(map(str, output_shape[:-1]))
        rule = f"PerPosition with outputs of shape {output_shape} needs targets of shape (n, {sizes}, ...)"
        fits = y.ndim - axes in (0, 1) and positions == output_shape[:-1]
        require(fits, rule, f"targets of shape {tuple(y.shape)}")
        xp = namespace(y)
        y_rows = xp.reshape(y, (-1, *y.shape[axes:]))
        like = xp.empty((*y.shape[:axes], 1), dtype=dtype, device=device(y))  # only its shape matters
        _, _, given = self.rows(y, like, weight)
        checked, rows_weight = self.loss.check(y_rows, output_shape[-1:], dtype, given)
        if rows_weight is not given:  # some labels are ignored
            weight = xp.reshape(rows_weight, y.shape[:axes])
        return xp.reshape(checked, (-1, *positions, *checked.shape[1:])), weight
