"""Layers that are looked at while they compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from xpnet.layers.base import Layer, Wrapper
from xpnet.tree import Array, Tree


class Observer(Protocol):
    """Looks at what a layer returns, and may raise."""

    def outputs(self, path: str, layer: Layer, x: Array, result: Any) -> None:
        """What `forward` returned for x."""

    def gradients(self, path: str, layer: Layer, params: Tree, x: Array, need_dx: bool, result: Any) -> None:
        """What `backward` returned."""


@dataclass(frozen=True)
class Observed(Wrapper):
    """A layer whose results an observer sees. `xpnet.layers.base.map_layers` puts it around every layer of a network."""

    path: str
    observer: Observer = field(compare=False)

    def forward(self, params, x, **extra):
        result = self.layer.forward(params, x, **extra)
        self.observer.outputs(self.path, self.layer, x, result)
        y, layer_backward, *statistics = result

        def backward(dy, need_dx=True):
            result = layer_backward(dy, need_dx)
            self.observer.gradients(self.path, self.layer, params, x, need_dx, result)
            return result

        return y, backward, *(statistics or [None])
