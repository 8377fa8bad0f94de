"""Callbacks that stop training."""

from __future__ import annotations

from typing import Any

from xpnet.backend import to_numpy
from xpnet.callbacks.base import Callback, Logs
from xpnet.callbacks.monitor import Monitor
from xpnet.checks import boolean, is_integer, require
from xpnet.errors import CheckpointError
from xpnet.tree import Tree, from_leaves, map_leaves, named_leaves


class EarlyStopping(Callback):
    """Stop training when a value has stopped improving.

    Parameters
    ----------
    monitor : str, default "val_loss"
        A name in the history.
    min_delta : float, default 0.0
        The smallest change that counts as an improvement.
    patience : int, default 0
        The number of epochs without improvement after which training stops.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower ("min") or higher ("max") values are better. "auto" uses the metric's `Metric.higher_is_better`.
    restore_best_weights : bool, default False
        Restore the state of the best epoch at the end of training, even after Ctrl-C or a divergence.

    Raises
    ------
    ValueError
        When it is created: a setting is out of range, or `monitor` is a name from another library. When training begins:
        the model does not have the metric, "auto" does not know its direction, validation data is missing, or the model
        trains several seeds. After the first epoch: the value is a list.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ):
        require(is_integer(patience) and patience >= 0, "patience must be an integer of at least 0", f"{patience=}")
        self.monitored = Monitor(self, monitor, mode, min_delta)
        self.patience = patience
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.monitored.begin(self.model)
        self.waited = 0
        self.best_state: Tree = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.monitored.value(logs or {})
        if value is None:
            return
        self.waited += 1
        if self.monitored.improves(value):
            self.waited = 0
            if self.restore_best_weights:
                self.best_state = self.model.state
        elif self.waited >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.best_state is not None:
            self.model.state = self.best_state

    def on_train_interrupt(self, error: BaseException) -> None:
        if self.best_state is not None:
            self.model.state = self.best_state
            error.add_note("EarlyStopping restored the state of the best epoch (restore_best_weights=True).")

    def state_dict(self) -> dict[str, Any]:
        best_state = None if self.best_state is None else map_leaves(to_numpy, self.best_state)
        return {"best": self.monitored.best, "waited": self.waited, "best_state": best_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.monitored.best, self.waited = float(state["best"]), int(state["waited"])
        self.best_state = None
        if (best := state["best_state"]) is not None:
            backend, current = self.model.backend, self.model.state
            shapes = [{name: tuple(x.shape) for name, x in named_leaves(tree)} for tree in (current, best)]
            if shapes[0] != shapes[1]:
                raise CheckpointError(f"Expected a best state of the shapes {shapes[0]}. Received: {shapes[1]}")
            arrays = [backend.asarray(x.astype(backend.float_name, copy=False)) for _, x in named_leaves(best)]
            self.best_state = backend.copy(from_leaves(current, arrays))
