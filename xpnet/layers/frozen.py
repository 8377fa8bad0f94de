"""Layers that do not train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from xpnet.layers import base
from xpnet.layers.base import Layer, Wrapper
from xpnet.layers.composition import one_layer
from xpnet.layers.mapping import map_layers


@dataclass(frozen=True)
class Frozen(Wrapper):
    """y = f(x),   dx = f'ᵀ dy:   f's parameters keep their values

    They have no gradient, no penalty, no weight decay and no memory in the optimizer, and clipping by the norm of all gradients
    leaves them out. Batch normalization inside normalizes by its running statistics, which stay as they are; dropout still
    drops. `Model.freeze` does the same by path.

    Parameters
    ----------
    layer : Layer
        f; use a `Sequential` for several layers.
    """

    has_frozen = True  # type: ignore[assignment]
    freezes = True

    def __post_init__(self):
        object.__setattr__(self, "layer", one_layer(self.layer))

    @cached_property
    def _still(self) -> Layer:
        return map_layers(self.layer, lambda path, layer: layer.frozen())

    def forward(self, params, x, *, key=None, statistics=None):
        y, layer_backward, _ = base.forward(self._still, params, x, key, statistics)

        def backward(dy, need_dx=True):
            return (layer_backward(dy)[0] if need_dx else None), {}

        return y, backward, statistics
