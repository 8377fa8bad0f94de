"""Layers that do not train."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from xpnet.layers import base
from xpnet.layers.base import Layer, Wrapper
from xpnet.layers.composition import one_layer
from xpnet.layers.mapping import map_layers, swap_layers


@dataclass(frozen=True)
class Frozen(Wrapper):
    """y = f(x),   dx = f'ᵀ dy:   the parameters of f keep their values

    The parameters of f have no gradients, penalties, weight decay or optimizer state, and `global_clipnorm` ignores them.
    Batch normalization inside f uses its running statistics and does not update them. Dropout inside f remains active.
    `Model.freeze` freezes layers by path.

    Parameters
    ----------
    layer : Layer
        f; use a `Sequential` for several layers.
    """

    has_frozen = True
    freezes = True

    def __post_init__(self):
        object.__setattr__(self, "layer", one_layer(self.layer))

    @cached_property
    def still(self) -> Layer:
        """The layer inside, with frozen batch normalizations."""
        return map_layers(self.layer, lambda path, layer: layer.frozen())

    def forward(self, params, x, *, key=None, statistics=None):
        y, layer_backward, _ = base.forward(self.still, params, x, key, statistics)

        def backward(dy, need_dx=True):
            return (layer_backward(dy)[0] if need_dx else None), {}

        return y, backward, statistics


def freeze(network: Layer, layers: Iterable[Layer]) -> Layer:
    """Return `network` with these layers frozen."""
    return swap_layers(network, {id(layer): Frozen(layer) for layer in layers if not isinstance(layer, Frozen)})


def unfreeze(network: Layer, paths: Collection[str]) -> Layer:
    """Return `network` with the layers at these paths unfrozen, or all layers if `paths` is empty."""
    new: dict[int, Layer] = {}
    for path, layer in reversed(list(base.walk(network))):  # inner layers first
        if isinstance(layer, Frozen) and (path in paths or not paths):
            new[id(layer)] = swap_layers(layer.layer, new)
    return swap_layers(network, new)
