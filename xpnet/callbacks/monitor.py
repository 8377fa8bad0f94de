"""A value of the history that a callback monitors, and which values are better."""

from __future__ import annotations

import math
from typing import Any

from xpnet import metrics
from xpnet.callbacks.base import Callback
from xpnet.checks import number, plain, require, require_choice, unknown_name


class Monitor:
    """The value that a callback monitors.

    Parameters
    ----------
    callback : Callback
        Errors name its class.
    monitor : str
        A name in the history.
    mode : {"auto", "min", "max"}
        Whether lower ("min") or higher ("max") values are better. "auto" uses the metric's `Metric.higher_is_better`.
    min_delta : float, default 0.0
        The smallest change that counts as an improvement.

    Attributes
    ----------
    best : float
        The best value so far, infinite before the first one.

    Raises
    ------
    ValueError
        When it is created: a setting is out of range, or `monitor` is a name from another library.
    """

    def __init__(self, callback: Callback, monitor: str, mode: str, min_delta: float = 0.0):
        require_choice("mode", mode, "auto", "min", "max")
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
        self.owner, self.monitor, self.mode = type(callback).__name__, monitor, mode
        self.min_delta = abs(number("min_delta", min_delta, "(-inf, inf)"))

    def begin(self, model: Any, best: float | None = None) -> None:
        """Begin a run, with `best` as the value to improve on.

        Raises ValueError if the model does not have the metric, "auto" does not know its direction, validation data is
        missing, or the model trains several seeds.
        """
        one = not isinstance(model.seed, tuple)
        require(one, f"{self.owner} monitors one network. Train the seeds one at a time", f"seed={model.seed}")
        known = {"loss": False} | {metric.name: metric.higher_is_better for metric in model.metrics}
        name = self.monitor.removeprefix("val_")
        if name not in known:
            names = [*known, *(f"val_{name}" for name in known if model.validates)]
            lacking = {plain(self.monitor): f'metrics=["{name}"] in Model'} if name in metrics.BY_NAME else {}
            raise unknown_name("monitor must be one of", self.monitor, names, lacking, "monitor")
        validated = name == self.monitor or model.validates
        rule = (
            "Monitoring a validation value needs validation data. Pass validation_data or validation_split to fit, or X_val and "
            "y_val to the fit of an estimator"
        )
        require(validated, rule, f"monitor={self.monitor!r} without validation data")
        higher = known[name] if self.mode == "auto" else self.mode == "max"
        rule = 'mode="auto" does not know whether higher values of this metric are better. Set mode="min" or mode="max"'
        require(higher is not None, rule, f"monitor={self.monitor!r}")
        self.sign = -1.0 if higher else 1.0
        self.best = self.sign * math.inf if best is None else best

    def value(self, logs: dict[str, Any]) -> float | None:
        """Return the value of an epoch, or None for an epoch without validation. Raises ValueError for a list."""
        value = logs.get(self.monitor)
        one = not isinstance(value, list)
        require(one, f"{self.owner} monitors a single number, not a list", f"monitor={self.monitor!r}")
        return value

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another one by more than `min_delta`."""
        return self.sign * value < self.sign * than - self.min_delta

    def improves(self, value: float) -> bool:
        """Whether a value is better than `best`, which it then replaces."""
        improved = self.better(value, self.best)
        if improved:
            self.best = value
        return improved
