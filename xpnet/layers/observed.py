"""Layers whose results an observer inspects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from xpnet.layers.base import Layer, Wrapper
from xpnet.tree import Array, Tree


class Observer(Protocol):
    """Inspects what a layer returns, and may raise an error."""

    def outputs(self, path: str, layer: Layer, params: Tree, x: Array, statistics: Tree, result: Any) -> None:
        """Inspect what `forward` returned for these parameters, x and running statistics (None if the layer has none)."""

    def gradients(self, path: str, layer: Layer, params: Tree, x: Array, dy: Array, need_dx: bool, result: Any) -> None:
        """Inspect what `backward` returned for dy."""


@dataclass(frozen=True)
class Observed(Wrapper):
    """A layer that passes its results to an observer. `xpnet.layers.mapping.map_layers` can wrap every layer of a network."""

    path: str
    observer: Observer

    def forward(self, params, x, **extra):
        result = self.layer.forward(params, x, **extra)
        self.observer.outputs(self.path, self.layer, params, x, extra.get("statistics"), result)
        y, layer_backward, *statistics = result

        def backward(dy, need_dx=True):
            result = layer_backward(dy, need_dx)
            self.observer.gradients(self.path, self.layer, params, x, dy, need_dx, result)
            return result

        return y, backward, *(statistics or [None])
