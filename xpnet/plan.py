"""What a run of training does, and into how many parts it divides each batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xpnet.backend import Backend
from xpnet.checks import is_custom
from xpnet.errors import DivergenceError
from xpnet.groups import Alone, may_divide, parts_of, pieces_of, process
from xpnet.layers.base import Layer, Shape
from xpnet.layers.parameters import trainable
from xpnet.layers.shapes import Measured, mixing
from xpnet.settings import FitSettings
from xpnet.sources import InOrder, Source
from xpnet.step import Scores
from xpnet.tree import Tree, leaves


@dataclass(frozen=True)
class Plan:
    """What a run does. It does not change during the run.

    Attributes
    ----------
    backend : Backend
    network, checked : Layer
        The network, and the same network with checks of its custom layers. The first chunk of steps runs the latter.
    scores : Scores
    settings : FitSettings
    source : Source
        The training data.
    validation : InOrder, optional
    measured : mapping from a sample's shape to Measured
    keep : callable
        Returns one function for all equal functions, so that a backend compiles it once.
    class_weight : dict or "balanced", optional
        What `fit` was given. The source's weights contain it.
    survive : callable, optional
        ``survive(error, arrays)`` receives the arrays before the chunk of steps that diverged. It returns those with which the
        networks that did not diverge make the same steps, or raises the error.
    """

    backend: Backend
    network: Layer
    checked: Layer
    scores: Scores
    settings: FitSettings
    source: Source
    validation: InOrder | None
    measured: Mapping[Shape, Measured]
    keep: Callable[[Any], Any]
    class_weight: Any = None
    survive: Callable[[DivergenceError, dict[str, Tree]], dict[str, Tree]] | None = None

    def parts(self, params: Tree, saved: int | None = None) -> int:
        """Return the number of parts of a batch: that of the run in a checkpoint, if there is one, or the rule's."""
        ranks, divisible = process(), self._own_loss and may_divide(self._measured, params)
        if not isinstance(ranks, Alone):
            ranks.require(self.backend, divisible)
            return ranks.size if divisible else 1
        if not (divisible and self.backend.divides):
            return 1
        return parts_of(self.backend, self._measured, params, self.source.batch_size) if saved is None else saved

    def pieces(self, params: Tree, parts: int) -> int:
        """Return the number of pieces in which to compute each part."""
        return pieces_of(self.backend, self._measured, params, self.source.batch_size // parts) if self._own_loss else 1

    @property
    def _measured(self) -> Measured:
        return self.measured[self.source.shape]

    @property
    def _own_loss(self) -> bool:
        return not is_custom(self.scores.loss.row_loss)


def require_trainable(model: Any, settings: FitSettings, measured: Measured, params: Tree) -> None:
    """Raise ValueError if there is nothing to train, or if there are micro-batches but rows that depend on each other."""
    if not leaves(trainable(model.network, params)):
        raise ValueError(f"The network has no parameters to train. Add a layer such as Dense. Received: {model!r}")
    if settings.micro_batch_size is not None:
        _require_separable(model, settings.micro_batch_size, measured, params)


def _require_separable(model: Any, size: int, measured: Measured, params: Tree) -> None:
    if is_custom(model.loss.row_loss):
        found = f"the loss {type(model.loss.row_loss).__name__}"
    elif not measured.separable:
        found = ", ".join(sorted({type(layer).__name__ for layer in mixing(model.network)}))
    elif not may_divide(measured, params):
        found = f"seed={model.seed}"
    else:
        return
    raise ValueError(
        "micro_batch_size needs one seed, and layers and a loss from xpnet that compute each row by itself. Instead of "
        "BatchNormalization, use LayerNormalization or GroupNormalization. "
        f"Received: micro_batch_size={size} with {found}"
    )
