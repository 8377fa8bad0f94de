"""Batch normalization: x̂ has mean 0 and variance 1 over the batch, for each channel. It is the only layer that mixes samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xpnet.backend import size
from xpnet.checks import require_no_input_size, set_booleans, set_numbers
from xpnet.initializers import draw
from xpnet.layers.base import Layer
from xpnet.layers.normalization import channel_sums, require_channels, spread


@dataclass(frozen=True)
class BatchNormalization(Layer):
    """y = γ x̂ + β,   x̂ = (x - μ) / σ,   μ = mean x,   σ² = mean (x - μ)² + ε,   means over all axes but the last

    dβ = Σ dy,   dγ = Σ dy x̂,   dx = γ/σ (dy - dβ/n - x̂ dγ/n),   n numbers in each mean

    because xᵢ changes x̂ⱼ directly, through μ and through σ: ∂μ/∂xᵢ = 1/n and ∂σ/∂xᵢ = x̂ᵢ/n, so
    ∂x̂ⱼ/∂xᵢ = (δᵢⱼ - 1/n - x̂ⱼ x̂ᵢ/n) / σ, and dx̂ = γ dy.

    x, y: (batch, c), (batch, length, c) or (batch, height, width, c). Inference uses the running μ and σ², which each
    training step updates: running = momentum · running + (1 - momentum) · batch. The running variance is the biased one
    (divided by n), as in Keras. PyTorch stores the unbiased variance, and its momentum is 1 minus this one. If a batch has
    only one number for each channel, x̂ and dx are 0, so use more rows.

    S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015.

    Parameters
    ----------
    momentum : float, default 0.99
        The weight of the old running statistics, 0 <= momentum <= 1.
    epsilon : float, default 1e-3
        ε > 0.
    center, scale : bool, default True
        Whether to learn β and γ, respectively. If False, β is 0 and γ is 1.
    synchronized : bool, default True
        Where several threads or processes compute parts of a batch, take the means over the whole batch. If False, each part
        has its own means, and the running statistics are those of the first part.

    Raises
    ------
    ValueError
        `momentum` or `epsilon` is out of range, another setting is not True or False, or a sample has no channels.
    """

    has_statistics = True

    momentum: float = 0.99
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    synchronized: bool = True

    def __post_init__(self):
        require_no_input_size("BatchNormalization", "momentum", self.momentum, "BatchNormalization()")
        set_numbers(self, "(0, inf)", "epsilon")
        set_numbers(self, "[0, 1]", "momentum")
        set_booleans(self, "center", "scale", "synchronized")

    def output_shape(self, input_shape):
        require_channels(self, input_shape)
        return input_shape

    def init(self, rng, input_shape):
        row = (1, self.output_shape(input_shape)[-1])
        params = {"gamma": draw("ones", rng, row)} if self.scale else {}
        if self.center:
            params["beta"] = draw("zeros", rng, row)
        return params, input_shape, {"mean": draw("zeros", rng, row), "variance": draw("ones", rng, row)}

    def forward(self, params, x, *, statistics):
        return self.normalize(params, x, statistics, lambda sums: sums)

    def normalize(self, params, x, statistics, reduce):
        """Compute `forward` for some rows of a batch. ``reduce(sums)`` adds the sums over the other rows."""
        sums = channel_sums(x, statistics["mean"])
        sums, n = reduce((sums, size(x) // size(sums)))
        mean = sums / n
        centered = x - spread(mean, x)
        variance = reduce(channel_sums(centered * centered, mean)) / n
        inverse = (variance + self.epsilon) ** -0.5  # 1/σ
        slope = inverse * params.get("gamma", 1.0)
        y = centered * spread(slope, x)
        if self.center:
            y += spread(params["beta"], x)

        def backward(dy, need_dx=True):
            grads = {"beta": channel_sums(dy, slope), "gamma": channel_sums(dy * centered, slope) * inverse}
            if need_dx:
                sums = reduce(grads)
                dx = centered * spread(sums["gamma"] * inverse / -n, x)
                dx -= spread(sums["beta"] / n, x)
                dx += dy
                dx *= spread(slope, x)
            return (dx if need_dx else None), {name: grads[name] for name in params}

        batch = {"mean": mean, "variance": variance}
        return y, backward, {name: old + (1 - self.momentum) * (batch[name] - old) for name, old in statistics.items()}

    def frozen(self):
        return _FrozenBatchNormalization(self)

    def in_group(self, member):
        return _GroupBatchNormalization(self, member.reduce) if self.synchronized else self

    def __call__(self, params, x, *, statistics):
        y = x - spread(statistics["mean"], x)  # subtract first, to keep digits if μ is large
        y *= spread((statistics["variance"] + self.epsilon) ** -0.5 * params.get("gamma", 1.0), x)
        if self.center:
            y += spread(params["beta"], x)
        return y


@dataclass(frozen=True)
class _FrozenBatchNormalization(Layer):
    """y = γ (x - μ) / σ + β,   dx = γ/σ dy:   μ and σ are the running statistics, so they do not depend on x"""

    has_statistics = True
    layer: BatchNormalization

    def init(self, rng, input_shape):
        return self.layer.init(rng, input_shape)

    def forward(self, params, x, *, statistics):
        slope = (statistics["variance"] + self.layer.epsilon) ** -0.5 * params.get("gamma", 1.0)
        y = self.layer(params, x, statistics=statistics)
        return y, lambda dy, need_dx=True: (dy * spread(slope, dy), {}), statistics


@dataclass(frozen=True)
class _GroupBatchNormalization(Layer):
    """`BatchNormalization` over the rows of all members of a group"""

    has_statistics = True
    layer: BatchNormalization
    reduce: Callable[[Any], Any]

    def init(self, rng, input_shape):
        return self.layer.init(rng, input_shape)

    def forward(self, params, x, *, statistics):
        return self.layer.normalize(params, x, statistics, self.reduce)

    def frozen(self):
        return self.layer.frozen()
