"""Callbacks that set the learning rate of an epoch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from typing import Any

from xpnet.callbacks.base import Callback, Logs
from xpnet.callbacks.monitor import Monitor
from xpnet.checks import number, require, whole


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of each epoch. It enters the history as ``"learning_rate"``.

    Parameters
    ----------
    schedule : callable
        A function of ``(epoch, learning_rate)`` or ``(epoch)`` that returns the learning rate. Epochs count from 0. For a
        learning rate that changes in every step, give the optimizer a schedule instead; see `xpnet.schedules`.
    verbose : {0, 1}, default 0
        1 prints the learning rate of each epoch.

    Raises
    ------
    ValueError
        The schedule accepts other arguments, or does not return a finite number of at least 0. When training
        begins: the optimizer's learning rate is a schedule.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        rule = "schedule must be a function of (epoch, learning_rate) or (epoch)"
        require(callable(schedule), rule, f"schedule={schedule!r}")
        self.arguments = next((n for n in (2, 1) if _accepts(schedule, n)), 0)
        require(self.arguments > 0, rule, f"schedule={schedule!r}")
        self.schedule, self.verbose = schedule, whole("verbose", verbose)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        learning_rate(self)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.schedule(*(epoch, learning_rate(self))[: self.arguments])
        rate = number(f"The learning rate of epoch {epoch}", value, "[0, inf)")
        _set(self.model, rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: LearningRateScheduler sets the learning rate to {rate:g}.")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = learning_rate(self)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: the learning rate belongs to the optimizer."""


class ReduceLROnPlateau(Callback):
    """Multiply the learning rate by `factor` when a value has stopped improving.

    The learning rate of each epoch enters the history as ``"learning_rate"``.

    Parameters
    ----------
    monitor : str, default "val_loss"
        A name in the history.
    factor : float, default 0.1
        Less than 1.
    patience : int, default 10
        The number of epochs without improvement after which the learning rate is reduced.
    verbose : {0, 1}, default 0
        1 prints each reduction.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower ("min") or higher ("max") values are better. "auto" uses the metric's `Metric.higher_is_better`.
    min_delta : float, default 1e-4
        The smallest change that counts as an improvement.
    cooldown : int, default 0
        The number of epochs after a reduction that do not count.
    min_lr : float, default 0.0
        The learning rate is not reduced below this value.

    Attributes
    ----------
    best : float
        The best value of the last run, infinite if there was none.
    wait, cooldown_counter : int
        The number of epochs without improvement, and of epochs that do not count yet.

    Raises
    ------
    ValueError
        A setting is out of range, or `monitor` is a name from another library. When training begins: the optimizer's learning
        rate is a schedule, or the value cannot be monitored; see `EarlyStopping`.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        self.monitored = Monitor(self, monitor, mode, min_delta)
        self.factor, self.min_lr = number("factor", factor, "[0, 1)"), number("min_lr", min_lr, "[0, inf)")
        self.patience, self.verbose = whole("patience", patience), whole("verbose", verbose)
        self.cooldown = whole("cooldown", cooldown)

    @property
    def best(self) -> float:
        return self.monitored.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        learning_rate(self)
        self.monitored.begin(self.model)
        self.wait = self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = {} if logs is None else logs
        rate = logs["learning_rate"] = learning_rate(self)
        value = self.monitored.value(logs)
        if value is None:
            return
        if self.cooldown_counter:
            self.cooldown_counter -= 1
        if self.monitored.improves(value):
            self.wait = 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                _set(self.model, max(rate * self.factor, self.min_lr))
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: ReduceLROnPlateau reduces the learning rate to {learning_rate(self):g}.")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.monitored.best = float(state["best"])
        self.wait, self.cooldown_counter = int(state["wait"]), int(state["cooldown_counter"])


def learning_rate(callback: Callback) -> float:
    """Return the learning rate of the callback's model; raise ValueError if it is a schedule."""
    rate = callback.model.optimizer.learning_rate
    name = type(callback).__name__
    require(
        isinstance(rate, Real), f"{name} needs an optimizer whose learning rate is a number", f"learning_rate={rate!r}"
    )
    return float(rate)


def _set(model: Any, rate: float) -> None:
    model.optimizer = replace(model.optimizer, learning_rate=rate)


def _accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):  # ValueError: a builtin without a signature
        return False
    return True
