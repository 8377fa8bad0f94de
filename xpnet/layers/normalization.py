"""Normalization: x̂ has mean 0 and variance 1, within each sample or, in `batch_normalization`, over the batch. Then y = γ x̂ + β.

γ is the parameter "gamma", and β is "beta". Both have shape (1, c): one number for each channel, the last axis. Weight decay does
not apply to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.checks import require_no_input_size, set_counts, set_numbers
from xpnet.initializers import draw
from xpnet.layers.base import Layer


@dataclass(frozen=True)
class _Normalization(Layer):
    """A layer with one γ and one β for each channel."""

    def output_shape(self, input_shape):
        require_channels(self, input_shape)
        return input_shape

    def init(self, rng, input_shape):
        row = (1, self.output_shape(input_shape)[-1])
        return {"gamma": draw("ones", rng, row), "beta": draw("zeros", rng, row)}, input_shape


@dataclass(frozen=True)
class LayerNormalization(_Normalization):
    """y = γ x̂ + β,   x̂ = (x - μ) / σ,   μ = mean x,   σ² = mean (x - μ)² + ε,   means over the last axis

    dx = (dx̂ - mean dx̂ - x̂ mean(dx̂ x̂)) / σ,   dx̂ = γ dy,   dβ = Σ dy,   dγ = Σ dy x̂   (sums over all other axes)

    The layer computes in two steps. The first is z = x - mean x, whose matrix is symmetric, so dx = dz - mean dz. The second
    is x̂ = z / rms z, as in `RMSNormalization`.

    x, y: (batch, …, c). J. Ba, J. Kiros and G. Hinton, "Layer normalization" (2016).

    Parameters
    ----------
    epsilon : float, default 1e-3
        ε > 0.

    Raises
    ------
    ValueError
        `epsilon` is not positive.
    """

    epsilon: float = 1e-3

    def __post_init__(self):
        require_no_input_size(type(self).__name__, "epsilon", self.epsilon, f"{type(self).__name__}()")
        set_numbers(self, "(0, inf)", "epsilon")

    def forward(self, params, x):
        return _affine(params, *_standardize(x, self.epsilon))


@dataclass(frozen=True)
class GroupNormalization(_Normalization):
    """y = γ x̂ + β,   x̂ = (x - μ) / σ with one μ and σ for each sample and group of neighboring channels

    The formulas, including dx, are the same as in `LayerNormalization`, over the numbers of a group: (batch, …, c) is reshaped to
    (batch, groups, … · c/groups). One group gives layer normalization over the whole sample, and c groups give instance
    normalization.

    x, y: (batch, …, c). Y. Wu and K. He, "Group normalization", ECCV 2018.

    Parameters
    ----------
    groups : int
        The number of groups. It must divide c.
    epsilon : float, default 1e-3
        ε > 0.

    Raises
    ------
    ValueError
        A setting is out of range, or `groups` does not divide the number of channels.
    """

    needs_leading_batch = True

    groups: int
    epsilon: float = 1e-3

    def __post_init__(self):
        set_counts(self, "groups")
        require_no_input_size("GroupNormalization", "epsilon", self.epsilon, f"GroupNormalization({self.groups})")
        set_numbers(self, "(0, inf)", "epsilon")

    def output_shape(self, input_shape):
        channels = super().output_shape(input_shape)[-1]
        if channels % self.groups:
            raise ValueError(f"groups must divide the number of channels, {channels}. Received: groups={self.groups}")
        return input_shape

    def forward(self, params, x):
        normalized, backward = _standardize(self._regroup(x), self.epsilon)
        ungroup = self._ungroup
        return _affine(params, ungroup(normalized, x.shape), lambda dy: ungroup(backward(self._regroup(dy)), x.shape))

    def _regroup(self, x):
        xp = namespace(x)
        batch, channels = x.shape[0], x.shape[-1]
        places, width = math.prod(x.shape[1:-1]), channels // self.groups
        x = xp.reshape(x, (batch, places, self.groups, width))
        return xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), (batch, self.groups, places * width))

    def _ungroup(self, x, shape):
        xp = namespace(x)
        x = xp.reshape(x, (shape[0], self.groups, math.prod(shape[1:-1]), shape[-1] // self.groups))
        return xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), shape)


@dataclass(frozen=True)
class RMSNormalization(_Normalization):
    """y = γ x̂,   x̂ = x / r,   r² = mean x² + ε,   mean over the last axis

    dγ = Σ dy x̂   (over all axes but the last),   dx = (dx̂ - x̂ mean(dx̂ x̂)) / r,   dx̂ = γ dy

    because ∂r/∂xᵢ = x̂ᵢ/c, so ∂x̂ⱼ/∂xᵢ = (δᵢⱼ - x̂ⱼ x̂ᵢ/c) / r.

    x, y: (batch, …, c). B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019.

    Parameters
    ----------
    epsilon : float, default 1e-6
        ε > 0.

    Raises
    ------
    ValueError
        `epsilon` is not positive.
    """

    epsilon: float = 1e-6

    def __post_init__(self):
        require_no_input_size(type(self).__name__, "epsilon", self.epsilon, f"{type(self).__name__}()")
        set_numbers(self, "(0, inf)", "epsilon")

    def init(self, rng, input_shape):
        return {"gamma": draw("ones", rng, (1, self.output_shape(input_shape)[-1]))}, input_shape

    def forward(self, params, x):
        return _affine(params, *_divide_by_rms(x, self.epsilon))


def _center(x):
    """x - mean x over the last axis. This map is its own transpose."""
    return x - namespace(x).mean(x, axis=-1, keepdims=True)


def _divide_by_rms(x, epsilon):
    xp = namespace(x)
    c = x.shape[-1]
    inverse = (xp.vecdot(x, x)[..., None] / c + epsilon) ** -0.5  # 1/r
    y = x * inverse

    def backward(dy):
        dx = y * (xp.vecdot(dy, y)[..., None] / -c)
        dx += dy
        dx *= inverse
        return dx

    return y, backward


def _standardize(x, epsilon):
    y, backward = _divide_by_rms(_center(x), epsilon)
    return y, lambda dy: _center(backward(dy))


def _affine(params, normalized, normalize_backward):
    """y = γ x̂ + β,   dx̂ = γ dy,   dγ = Σ dy x̂,   dβ = Σ dy;   `normalize_backward` computes dx from dx̂"""
    gamma, beta = params["gamma"], params.get("beta")
    y = normalized * spread(gamma, normalized)
    if beta is not None:
        y += spread(beta, normalized)

    def backward(dy, need_dx=True):
        grads = {"gamma": channel_sums(dy * normalized, gamma)}
        if beta is not None:
            grads["beta"] = channel_sums(dy, beta)
        return (normalize_backward(dy * spread(gamma, normalized)) if need_dx else None), grads

    return y, backward


def require_channels(layer, input_shape):
    """Raise ValueError unless samples have channels, the last axis."""
    if not input_shape:
        rule = f"{type(layer).__name__} needs samples whose last axis is the channels. Reshape x to (n, 1)"
        raise ValueError(f"{rule}. Received: samples of shape ()")


def channel_sums(x, row):
    """Return sums over all axes but the last, in the shape of `row`: (1, c), or (K, 1, c) for K parameter sets.

    Summing over the batch first avoids inner loops of length c, so it is up to 9 times faster on NumPy.
    """
    xp = namespace(x)
    if x.ndim > row.ndim:
        x = xp.reshape(xp.sum(x, axis=0), (-1, x.shape[-1]))
    return xp.sum(x, axis=-2, keepdims=True)


def spread(row, x):
    """Repeat `row` to the shape of a sample of x. Operators then have long inner loops, which are 3 times faster on NumPy."""
    return namespace(row).tile(row, (*x.shape[row.ndim - 1 : -1], 1))
