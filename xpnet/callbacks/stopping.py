"""Callbacks that stop training."""

from __future__ import annotations

import math
from typing import Any

from xpnet import metrics
from xpnet.callbacks.base import Callback
from xpnet.checks import boolean, is_integer, number, plain, require, require_choice, unknown_name
from xpnet.tree import Tree


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
        require_choice("mode", mode, "auto", "min", "max")
        require(is_integer(patience) and patience >= 0, "patience must be an integer of at least 0", f"{patience=}")
        require(isinstance(monitor, str), 'monitor must be a name in the history, such as "val_loss"', f"{monitor=}")
        name = monitor.removeprefix("val_")
        if plain(name) in metrics.ELSEWHERE:
            ours = metrics.ELSEWHERE[plain(name)].replace('"', f'"{monitor.removesuffix(name)}', 1)
            raise unknown_name(
                "monitor must be a name in the history, such as",
                monitor,
                ["val_loss"],
                {plain(monitor): ours},
                "monitor",
            )
        self.monitor, self.patience = monitor, patience
        self.min_delta = abs(number("min_delta", min_delta, "(-inf, inf)"))
        self.mode = mode
        self.restore_best_weights = boolean("restore_best_weights", restore_best_weights)

    def on_train_begin(self) -> None:
        one = not isinstance(self.model.seed, tuple)
        require(one, "EarlyStopping monitors one network. Train the seeds one at a time", f"seed={self.model.seed}")
        known = {"loss": False} | {metric.name: metric.higher_is_better for metric in self.model.metrics}
        name = self.monitor.removeprefix("val_")
        if name not in known:
            names = [*known, *(f"val_{name}" for name in known if self.model.validates)]
            lacking = {plain(self.monitor): f'metrics=["{name}"] in Model'} if name in metrics.BY_NAME else {}
            raise unknown_name("monitor must be one of", self.monitor, names, lacking, "monitor")
        validated = name == self.monitor or self.model.validates
        rule = "Monitoring a validation value needs validation data. Pass validation_data or validation_split to fit"
        require(validated, rule, f"monitor={self.monitor!r} without validation data")
        higher = known[name] if self.mode == "auto" else self.mode == "max"
        rule = 'mode="auto" does not know whether higher values of this metric are better. Set mode="min" or mode="max"'
        require(higher is not None, rule, f"monitor={self.monitor!r}")
        self.sign = -1.0 if higher else 1.0
        self.best, self.waited = math.inf, 0
        self.best_state: Tree = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        if self.monitor not in logs:
            return  # an epoch without validation
        number = not isinstance(logs[self.monitor], list)
        require(number, "EarlyStopping monitors a single number, not a list", f"monitor={self.monitor!r}")
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
            error.add_note("EarlyStopping restored the state of the best epoch (restore_best_weights=True).")
