"""What watches a run of `fit`: the history it returns, and callbacks (named as in Keras)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from xpnet import metrics
from xpnet.checks import boolean, is_integer, number, plain, require, require_choice, unknown_name
from xpnet.tree import Tree


@dataclass
class History:
    """What `fit` returns.

    Attributes
    ----------
    history : dict of list
        One value an epoch: ``"loss"``, each metric, and with validation data ``"val_loss"``, ...
    epoch : list of int
        The epochs' numbers, from 0.
    validation_epoch : list of int
        Those of them after which the model was validated.
    iterations : dict of list
        With ``fit(record_every=k)``: one value every k steps; ``"step"``, the mini-batch's ``"loss"`` and metrics
        and, with validation data, ``"val_loss"``, ... right after that step.
    """

    history: dict[str, list] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    validation_epoch: list[int] = field(default_factory=list, kw_only=True)
    iterations: dict[str, list] = field(default_factory=dict)

    @staticmethod
    def add(table: dict[str, list], logs: dict[str, Any]) -> None:
        """Append each value of `logs` to its column."""
        for name, value in logs.items():
            table.setdefault(name, []).append(value)


class Callback:
    """Called at the events of `fit`. Override what you need; `self.model` is the model.

    Overriding `on_train_batch_end` costs a transfer each step; the other events cost nothing.
    """

    model: Any

    def on_train_begin(self) -> None:
        """Before the first epoch."""

    def on_train_end(self) -> None:
        """After the last epoch; not after an error."""

    def on_train_interrupt(self, error: BaseException) -> None:
        """In the place of `on_train_end` after Ctrl-C, SIGTERM or a divergence. The model is whole; `error` is raised next."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Before each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        """After each epoch and its validation; `logs` is what the history gets."""

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        """After each step, numbered over the model's life."""


class EarlyStopping(Callback):
    """Stop when a value has not improved for some epochs.

    Parameters
    ----------
    monitor : str, default "val_loss"
        A name in the history.
    min_delta : float, default 0.0
        A smaller change is no improvement.
    patience : int, default 0
        Epochs without improvement before the stop.
    mode : {"auto", "min", "max"}, default "auto"
        Which way is better. "auto" asks the model's metric, see `Metric.higher_is_better`.
    restore_best_weights : bool, default False
        Give the model the state of its best epoch at the end, also after Ctrl-C or a divergence.

    Raises
    ------
    ValueError
        A setting is out of range, or the name that of another library; when training begins, the model has no such metric or
        the metric cannot say which way is better, no validation data is there to monitor, or several seeds are trained; after
        the first epoch, the value is a list.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ):
        require_choice("mode", mode, "auto", "min", "max")
        require(is_integer(patience) and patience >= 0, "patience must be an integer of at least 0", f"{patience=}")
        require(isinstance(monitor, str), "monitor must be a name in the history", f"{monitor=}")
        name = monitor.removeprefix("val_")
        if plain(name) in metrics.ELSEWHERE:
            ours = metrics.ELSEWHERE[plain(name)].replace('"', f'"{monitor.removesuffix(name)}', 1)
            raise unknown_name(
                "monitor is a name in the history, such as", monitor, ["val_loss"], {plain(monitor): ours}, "monitor"
            )
        self.monitor, self.patience = monitor, patience
        self.min_delta = abs(number("min_delta", min_delta, "(-inf, inf)"))
        self.mode = mode
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)

    def on_train_begin(self) -> None:
        one = not isinstance(self.model.seed, tuple)
        require(one, "EarlyStopping follows one network; train the seeds one at a time", f"seed={self.model.seed}")
        known = {"loss": False} | {metric.name: metric.higher_is_better for metric in self.model.metrics}
        name = self.monitor.removeprefix("val_")
        if name not in known:
            names = [*known, *(f"val_{name}" for name in known if self.model.validates)]
            lacking = {plain(self.monitor): f'metrics=["{name}"] in Model'} if name in metrics.BY_NAME else {}
            raise unknown_name("monitor must be one of", self.monitor, names, lacking, "monitor")
        validated = name == self.monitor or self.model.validates
        rule = "Give fit validation_data or validation_split to monitor what is found on them"
        require(validated, rule, f"monitor={self.monitor!r} without validation data")
        higher = known[name] if self.mode == "auto" else self.mode == "max"
        require(higher is not None, 'Say mode="min" or mode="max": which way is better', f"monitor={self.monitor!r}")
        self.sign = -1.0 if higher else 1.0
        self.best, self.waited = math.inf, 0
        self.best_state: Tree = None

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if self.monitor not in logs:
            return  # an epoch without validation
        number = not isinstance(logs[self.monitor], list)
        require(number, "EarlyStopping monitors one number, not a list of them", f"monitor={self.monitor!r}")
        value = self.sign * logs[self.monitor]
        self.waited += 1
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
            if self.restore_best_weights:
                self.best_state = self.model.state
        elif self.waited >= self.patience:
            self.model.stop_training = True

    def on_train_end(self) -> None:
        if self.best_state is not None:
            self.model.state = self.best_state

    def on_train_interrupt(self, error: BaseException) -> None:
        if self.best_state is not None:
            self.model.state = self.best_state
            error.add_note("EarlyStopping gave the model the state of its best epoch (restore_best_weights).")
