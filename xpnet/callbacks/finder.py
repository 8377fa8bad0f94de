"""A test of learning rates."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from statistics import fmean

from xpnet.averages import Averages
from xpnet.callbacks.base import Callback, Logs
from xpnet.checks import count, number, require
from xpnet.errors import DivergenceError


class LearningRateFinder(Callback):
    """Raise the learning rate in every step of `fit` and record the loss: the range test of L. N. Smith, WACV 2017.

    The learning rate of step t is min_lr (max_lr / min_lr)^(t / (num_steps - 1)). The run ends after `num_steps` steps, or
    earlier if the loss rises too far or the training diverges. Then the model is as it was before `fit`, with its parameters,
    optimizer and counts, so the learning rate can be chosen and the training can begin. Only the history of the test remains.
    ``xpnet.plotting.learning_rate_curve(finder)`` draws the losses.

    Parameters
    ----------
    min_lr, max_lr : float, default 1e-6 and 10.0
        The first and the last learning rate.
    num_steps : int, default 100
        The number of steps. Pass enough `epochs` to `fit`.
    stop_factor : float, default 1.0
        End when the loss has risen above its lowest value by `stop_factor` times the absolute value of the first loss. This rule
        uses the mean loss of the last tenth of `num_steps`.

    Attributes
    ----------
    learning_rates, losses : list of float
        The learning rate of each step, and the loss of its mini-batch before the step.
    smoothed : list of float
        At each step, the mean of `losses` over a tenth of `num_steps`, half of them before the step.
    suggestion : float, optional
        The learning rate at which the smoothed loss falls fastest before its lowest value, with respect to the logarithm of the
        learning rate. None if it never falls.

    Raises
    ------
    ValueError
        A setting is out of range. When the run begins: `fit` takes fewer than `num_steps` steps.
    """

    def __init__(self, min_lr: float = 1e-6, max_lr: float = 10.0, num_steps: int = 100, stop_factor: float = 1.0):
        self.min_lr, self.max_lr = number("min_lr", min_lr, "(0, inf)"), number("max_lr", max_lr, "(0, inf)")
        require(self.min_lr < self.max_lr, "min_lr must be less than max_lr", f"{min_lr=}, {max_lr=}")
        self.num_steps, self.stop_factor = count("num_steps", num_steps), number("stop_factor", stop_factor, "(0, inf)")
        require(self.num_steps >= 10, "num_steps must be at least 10", f"{num_steps=}")
        self.half = max(self.num_steps // 20, 1)  # steps on each side of a mean
        self.learning_rates, self.losses = list[float](), list[float]()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        steps, epochs = self.params["steps"], self.params["epochs"]
        if steps is not None and steps * epochs < self.num_steps:
            raise ValueError(
                f"The test takes {self.num_steps} steps. Pass epochs={-(-self.num_steps // steps)} to fit, or set num_steps. "
                f"Received: {epochs=}, with {steps} steps each"
            )
        self.learning_rates, self.losses, self.lowest = [], [], math.inf

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.losses:
            self.before, self.first = copy.copy(self.model.training_state), self.model.step
            self.model.optimizer = replace(self.model.optimizer, learning_rate=self._rate)

    def _rate(self, step: int) -> float:
        return self.min_lr * (self.max_lr / self.min_lr) ** ((step - self.first) / (self.num_steps - 1))

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self.model.training_state.averages = Averages(self.model.metrics)  # the next logs are those of one batch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {})["loss"]
        self.losses.append(fmean(loss) if isinstance(loss, list) else loss)
        self.learning_rates.append(self._rate(self.model.step - 1))
        mean = fmean(self.losses[-2 * self.half - 1 :])
        self.lowest = min(mean, self.lowest)
        rises = mean - self.lowest > self.stop_factor * abs(self.losses[0])
        if rises or len(self.losses) == self.num_steps:
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        state = self.model.training_state
        for field in fields(state):
            if field.name != "history":
                setattr(state, field.name, getattr(self.before, field.name))

    def on_train_interrupt(self, error: BaseException) -> bool:
        self.on_train_end()
        return isinstance(error, DivergenceError)

    @property
    def smoothed(self) -> list[float]:
        return [fmean(self.losses[max(i - self.half, 0) : i + self.half + 1]) for i in range(len(self.losses))]

    @property
    def suggestion(self) -> float | None:
        means = self.smoothed
        lowest = min(range(len(means)), key=means.__getitem__, default=0)
        slopes = {i: means[i + 1] - means[i - 1] for i in range(1, lowest)}
        steepest = min(slopes, key=slopes.__getitem__, default=None)
        return None if steepest is None or slopes[steepest] >= 0 else self.learning_rates[steepest]
