"""Callbacks that stop training."""

from __future__ import annotations

import warnings
from typing import Any

from xpnet.backend import to_numpy
from xpnet.callbacks.base import Callback, Logs
from xpnet.callbacks.monitor import Monitor
from xpnet.checks import boolean, number, whole
from xpnet.errors import CheckpointError, DivergenceError
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
    verbose : {0, 1}, default 0
        1 prints the epoch after which training stopped, and the best epoch if its state is restored.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower ("min") or higher ("max") values are better. "auto" uses the metric's `Metric.higher_is_better`.
    baseline : float, optional
        A value restarts the count of `patience` only if it is also better than this one.
    restore_best_weights : bool, default False
        Restore the state of the best epoch at the end of training, even after Ctrl-C or a divergence.
    start_from_epoch : int, default 0
        Ignore the epochs before this one, counted from 0.

    Attributes
    ----------
    best : float
        The best value of the last run, infinite if there was none.
    best_epoch : int
        Its epoch.
    wait : int
        The number of epochs without improvement.
    stopped_epoch : int
        The epoch after which training was stopped, or 0.

    Raises
    ------
    ValueError
        When it is created: a setting is out of range, or `monitor` is a name from another library. When training begins:
        the model does not have the metric, "auto" does not know its direction, validation data is missing, or the model
        trains several seeds. After the first epoch: the value is a list.
    """

    best_state: Tree = None

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        self.monitored = Monitor(self, monitor, mode, min_delta)
        self.patience = whole("patience", patience)
        self.verbose = whole("verbose", verbose)
        self.baseline = None if baseline is None else number("baseline", baseline, "(-inf, inf)")
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = whole("start_from_epoch", start_from_epoch)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with `best_state` on the host, as in a pickle of the model."""
        return vars(self) | {"best_state": self._best_state_on_host()}

    @property
    def best(self) -> float:
        return self.monitored.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.monitored.begin(self.model)
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_state = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.monitored.value(logs or {})
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        improved = self.monitored.improves(value)
        if improved or (self.restore_best_weights and self.best_state is None):
            self.best_epoch = epoch
            self.best_state = self.model.state if self.restore_best_weights else None
        if improved:
            if self.baseline is None or self.monitored.better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_state is not None:
            if self.verbose:
                print(f"Restoring the state of the best epoch: {self.best_epoch + 1}.")
            self.model.state = self.best_state

    def on_train_interrupt(self, error: BaseException) -> None:
        if self.best_state is not None:
            self.model.state = self.best_state
            error.add_note("EarlyStopping restored the state of the best epoch (restore_best_weights=True).")

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("best", "best_epoch", "wait", "stopped_epoch")}
        return counts | {"best_state": self._best_state_on_host()}

    def _best_state_on_host(self) -> Tree:
        return None if self.best_state is None else map_leaves(to_numpy, self.best_state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.monitored.best = float(state["best"])
        self.best_epoch, self.wait, self.stopped_epoch = (
            int(state[n]) for n in ("best_epoch", "wait", "stopped_epoch")
        )
        self.best_state = None
        if (best := state["best_state"]) is not None:
            backend, current = self.model.backend, self.model.state
            shapes = [{name: tuple(x.shape) for name, x in named_leaves(tree)} for tree in (current, best)]
            if shapes[0] != shapes[1]:
                raise CheckpointError(f"Expected a best state with the shapes {shapes[0]}. Received: {shapes[1]}")
            arrays = [backend.asarray(x.astype(backend.float_name, copy=False)) for _, x in named_leaves(best)]
            self.best_state = backend.copy(from_leaves(current, arrays))


class TerminateOnNaN(Callback):
    """Stop training when the loss or a parameter becomes infinite or NaN, and let `fit` return its history.

    Without this callback, `fit` raises a `DivergenceError`. With it, `fit` issues the error's message as a `RuntimeWarning`. The
    model is as it was before the step, so all its parameters are finite. The history ends with the last complete epoch.

    Attributes
    ----------
    error : DivergenceError, optional
        The divergence of the last run.
    """

    error: DivergenceError | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.error = None

    def on_train_interrupt(self, error: BaseException) -> bool:
        if not isinstance(error, DivergenceError):
            return False
        self.error = error
        warnings.warn(f"TerminateOnNaN stopped training. {error}", RuntimeWarning, stacklevel=2)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: a checkpoint belongs to a run that has not diverged."""
