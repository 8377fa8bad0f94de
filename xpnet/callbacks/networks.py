"""Stops each of several networks that train together, early or because it diverged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from xpnet.callbacks.base import Callback, Logs
from xpnet.callbacks.stopping import EarlyStopping
from xpnet.divergence import renumbered
from xpnet.errors import DivergenceError
from xpnet.tree import Array, Tree, map_leaves


class StopEach(Callback):
    """Calls a copy of an `EarlyStopping` for each network. A network that it stops keeps its parameters; the others continue.

    The arrays keep their shapes, so that nothing is compiled again: the rate of a stopped network is set to 0.

    Parameters
    ----------
    stopping : EarlyStopping, optional
    numbers : sequence of int
        The number of each network in error messages.

    Attributes
    ----------
    diverged : dict of int to DivergenceError
        The networks that diverged, by their positions. They stopped with the parameters from before that step, or those of
        their best epoch with ``restore_best_weights=True``.
    """

    def __init__(self, stopping: EarlyStopping | None, numbers: Sequence[int]):
        self.numbers, self.each = numbers, [copy.deepcopy(stopping or Callback()) for _ in numbers]
        self.diverged: dict[int, DivergenceError] = {}
        self.silent: set[int] = set()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.views = [_Network(self.model, k) for k in range(len(self.each))]
        for stopping, view in zip(self.each, self.views, strict=True):
            stopping.set_model(view)
            stopping.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for k, (stopping, view) in enumerate(zip(self.each, self.views, strict=True)):
            if view.stop_training:
                continue
            stopping.on_epoch_end(epoch, {name: values[k] for name, values in (logs or {}).items()})
            view.epochs = epoch + 1
            if view.stop_training:
                view.state = view.state
                stopping.on_train_end()
        self.model.stop_training = all(view.stop_training for view in self.views)
        if any(view.stop_training for view in self.views):
            optimizer = self.model.state["optimizer"]
            running = self._ones_and_zeros([not view.stop_training for view in self.views])
            self.model.state = self.model.state | {"optimizer": optimizer | {"rate": optimizer["rate"] * running}}

    def survive(self, error: DivergenceError, arrays: dict[str, Tree]) -> dict[str, Tree]:
        """Stop the networks that diverged; see `Plan.survive`. Their parameters and rates become 0, so all values are finite."""
        if not error.networks or self.silent.intersection(error.networks):
            raise renumbered(error, self.numbers)
        self.silent.update(error.networks)
        for k in error.networks:
            if not (view := self.views[k]).stop_training:
                own = self.diverged[k] = renumbered(error, self.numbers)  # to which EarlyStopping may add a note
                view.stop_training, view.state = True, view.state
                self.each[k].on_train_interrupt(own)
        heard = self._ones_and_zeros([k not in self.silent for k in range(len(self.views))])
        silenced = {
            name: map_leaves(lambda x: x * heard if x.ndim == 3 else x, arrays[name])
            for name in ("params", "optimizer")
        }
        return arrays | silenced

    def _ones_and_zeros(self, flags: list[bool]) -> Array:
        """Return 1.0 or 0.0 for each network, with shape (networks, 1, 1)."""
        backend = self.model.backend
        return backend.namespace.reshape(backend.asarray([float(flag) for flag in flags]), (-1, 1, 1))

    def on_train_end(self, logs: Logs | None = None) -> None:
        for stopping, view in zip(self.each, self.views, strict=True):
            if not view.stop_training:
                stopping.on_train_end()
        self._set_final()

    def on_train_interrupt(self, error: BaseException) -> None:
        for stopping, view in zip(self.each, self.views, strict=True):
            if not view.stop_training:
                stopping.on_train_interrupt(error)
        self._set_final()

    def _set_final(self) -> None:
        """Give each network the parameters that it stopped with or that were restored."""
        if all(view.final is None for view in self.views):
            return
        finals = [view.state["params"] for view in self.views]
        stack = self.model.backend.namespace.stack
        self.model.state = self.model.state | {"params": map_leaves(lambda *leaves: stack(leaves), *finals)}


class _Network:
    """One of the networks of a model, as `EarlyStopping` sees a model."""

    stop_training = False
    epochs = 0
    final: dict[str, Tree] | None = None

    def __init__(self, model: Any, k: int):
        self.model, self.k, self.seed = model, k, model.seeds[k]
        self.metrics, self.validates = model.metrics, model.validates

    @property
    def state(self) -> dict[str, Tree]:
        """A copy of the network's parameters, or the state that it stopped with or that was restored."""
        return {"params": params_of(self.model, self.k)} if self.final is None else self.final

    @state.setter
    def state(self, state: dict[str, Tree]) -> None:
        self.final = state


def params_of(model: Any, k: int) -> Tree:
    """Return a copy of the parameters of network k of a model with several seeds."""
    return model.backend.copy(map_leaves(lambda x: x[k, ...], model.parameters))
