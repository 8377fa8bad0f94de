"""Learning rate schedules: functions of the step, counted from 0, that return a Python float on the host."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from numbers import Real
from typing import Any

from xpnet.checks import boolean, count, number, require
from xpnet.keywords import AbstractSettings


@dataclass(frozen=True)
class Schedule(metaclass=AbstractSettings):
    """lr = schedule(step): the base class

    Every schedule checks its settings: floats are finite and >= 0, counts of steps are integers >= 1, and switches are
    True or False.

    Parameters
    ----------
    restart_every_epoch : bool, default False
        Pass the step within the epoch instead of the step since training began, so that every epoch starts at step 0.

    Raises
    ------
    ValueError
        A setting breaks one of these rules.
    """

    restart_every_epoch: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        checks = {"float": _rate, "int": count, "bool": boolean}  # by the setting's annotation
        for setting in fields(self):
            if check := checks.get(getattr(setting.type, "__name__", str(setting.type))):
                object.__setattr__(self, setting.name, check(setting.name, getattr(self, setting.name)))

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate for this step."""


@dataclass(frozen=True)
class Constant(Schedule):
    """lr = value

    Parameters
    ----------
    value : float
        The learning rate at every step.
    restart_every_epoch : bool, default False
        Accepted by every schedule; a constant does not depend on the step.
    """

    value: float

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """lr = (1 - t) start + t end,   t = min(step / decay_steps, 1)

    Parameters
    ----------
    initial_learning_rate : float
        "start", the learning rate at step 0.
    decay_steps : int
        Number of steps from start to end.
    end_learning_rate : float
        "end", the learning rate from step `decay_steps` on.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float

    def __call__(self, step: int) -> float:
        t = min(step / self.decay_steps, 1)
        return (1 - t) * self.initial_learning_rate + t * self.end_learning_rate


@dataclass(frozen=True)
class PolynomialDecay(Schedule):
    """lr = end + (start - end) (1 - t)^power,   t = min(step / decay_steps, 1)

    Parameters
    ----------
    initial_learning_rate : float
        "start", the learning rate at step 0.
    decay_steps : int
        Number of steps from start to end.
    end_learning_rate : float
        "end", the learning rate from step `decay_steps` on.
    power : float
        The exponent; 1 is `Linear`.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float
    power: float

    def __call__(self, step: int) -> float:
        start, end, t = self.initial_learning_rate, self.end_learning_rate, min(step / self.decay_steps, 1)
        return end + (start - end) * (1 - t) ** self.power


@dataclass(frozen=True)
class _Decay(Schedule):
    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def _time(self, step: int) -> float:
        return step // self.decay_steps if self.staircase else step / self.decay_steps


@dataclass(frozen=True)
class ExponentialDecay(_Decay):
    """lr = start · decay_rate^t,   t = step / decay_steps

    Parameters
    ----------
    initial_learning_rate : float
        "start", the learning rate at step 0.
    decay_steps : int
        Number of steps in which t grows by 1.
    decay_rate : float
        The factor applied every `decay_steps` steps.
    staircase : bool, default False
        Round t down, so that the learning rate changes only every `decay_steps` steps.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate * self.decay_rate ** self._time(step)


@dataclass(frozen=True)
class InverseTimeDecay(_Decay):
    """lr = start / (1 + decay_rate · t),   t = step / decay_steps

    Parameters
    ----------
    initial_learning_rate : float
        "start", the learning rate at step 0.
    decay_steps : int
        Number of steps in which t grows by 1.
    decay_rate : float
        How much the denominator grows every `decay_steps` steps.
    staircase : bool, default False
        Round t down, so that the learning rate changes only every `decay_steps` steps.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * self._time(step))


@dataclass(frozen=True)
class PiecewiseConstantDecay(Schedule):
    """lr = values[i] where boundaries[i - 1] <= step < boundaries[i]

    ``PiecewiseConstantDecay([1000, 3000], [0.1, 0.01, 0.001])`` takes 1,000 steps at 0.1, 2,000 at 0.01, and the rest at 0.001.
    PyTorch's ``MultiStepLR`` changes at the same steps; Keras' ``PiecewiseConstantDecay`` changes one step later.

    Parameters
    ----------
    boundaries : sequence of int
        The steps at which the learning rate changes, in increasing order.
    values : sequence of float
        The learning rates before, between and after the boundaries, so one value more than boundaries.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    boundaries: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        boundaries = tuple(count(f"boundaries[{i}]", boundary) for i, boundary in enumerate(self.boundaries))
        values = tuple(_rate(f"values[{i}]", value) for i, value in enumerate(self.values))
        increasing = all(a < b for a, b in pairwise(boundaries))
        require(increasing, "boundaries must increase. Sort them and remove duplicates", f"{boundaries=}")
        require(
            len(values) == len(boundaries) + 1,
            "values must hold one entry more than boundaries. Give the values before, between and after the boundaries",
            f"{values=}, {boundaries=}",
        )
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "values", values)

    def __call__(self, step: int) -> float:
        return self.values[bisect_right(self.boundaries, step)]


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """lr = end + (start - end) (1 + cos πt) / 2,   t = min(step / decay_steps, 1)

    One cycle of I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017.

    Parameters
    ----------
    initial_learning_rate : float
        "start", the learning rate at step 0.
    decay_steps : int
        Number of steps from start to end.
    end_learning_rate : float, default 0.0
        "end", the learning rate from step `decay_steps` on. Keras' `alpha` is this divided by `initial_learning_rate`.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float = field(default=0.0, kw_only=True)

    def __call__(self, step: int) -> float:
        return _half_cosine(self.initial_learning_rate, self.end_learning_rate, min(step / self.decay_steps, 1))


@dataclass(frozen=True)
class CosineDecayRestarts(Schedule):
    """lr = end + m_mulⁱ (start - end) (1 + cos πt) / 2,   t = (step within cycle i) / (length of cycle i)

    I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017.

    Parameters
    ----------
    initial_learning_rate : float
        "start", the learning rate at step 0.
    first_decay_steps : int
        Length of cycle 0.
    t_mul : int, default 1
        Each cycle is this many times as long as the one before it.
    m_mul : float, default 1.0
        Each cycle's height, its first learning rate minus end, is this many times the height of the previous cycle.
    end_learning_rate : float, default 0.0
        "end", the learning rate that every cycle falls toward. Keras' `alpha` is this divided by `initial_learning_rate`.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    initial_learning_rate: float
    first_decay_steps: int
    t_mul: int = 1
    m_mul: float = 1.0
    end_learning_rate: float = field(default=0.0, kw_only=True)

    def __call__(self, step: int) -> float:
        length, end = self.first_decay_steps, self.end_learning_rate
        if self.t_mul == 1:
            cycle, step = divmod(step, length)
        else:
            cycle = 0
            while step >= length:
                cycle, step, length = cycle + 1, step - length, length * self.t_mul
        height = self.m_mul**cycle * (self.initial_learning_rate - end)
        return _half_cosine(end + height, end, step / length)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """lr = (1 - t) start + t then(0),   t = step / warmup_steps, while t < 1;   after that lr = then(step - warmup_steps)

    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.

    Parameters
    ----------
    warmup_steps : int
        Number of warm-up steps.
    then : Schedule, float or callable of the step
        The schedule after the warm-up. It must not restart every epoch by itself.
    initial_learning_rate : float, default 0.0
        "start", the learning rate at step 0.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch, for the warm-up and for `then`.
    """

    warmup_steps: int
    then: Any
    initial_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "then", get(self.then))
        require(
            not getattr(self.then, "restart_every_epoch", False),
            "then must not restart every epoch by itself. Set restart_every_epoch=True on WarmUp instead",
            f"then={self.then}",
        )

    def __call__(self, step: int) -> float:
        t = step / self.warmup_steps
        if t < 1:
            return (1 - t) * self.initial_learning_rate + t * self.then(0)
        return self.then(step - self.warmup_steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """lr = lo + (max_lr - lo) (1 - cos πt) / 2,   t = step / top,   while step < top = pct_start · total_steps - 1
    lr = end + (max_lr - end) (1 + cos πt) / 2,   t = min((step - top) / (total_steps - 1 - top), 1),   from step top on
    where lo = max_lr / div_factor and end = lo / final_div_factor

    L. Smith and N. Topin, "Super-convergence", 2018, with cosines instead of straight lines, as in PyTorch's
    ``OneCycleLR``.

    Parameters
    ----------
    max_lr : float
        The largest learning rate.
    total_steps : int
        Number of steps in the whole cycle.
    pct_start : float, default 0.3
        The share of the steps before the largest learning rate, 0 <= pct_start < 1.
    div_factor : float, default 25.0
        The largest learning rate divided by the first learning rate, at least 1.
    final_div_factor : float, default 1e4
        The first learning rate divided by the last, at least 1.
    restart_every_epoch : bool, default False
        Count the step from the beginning of each epoch.
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "pct_start, the share of steps before the largest learning rate, must be less than 1"
        require(self.pct_start < 1, rule, f"pct_start={self.pct_start}")
        for name in ("div_factor", "final_div_factor"):
            value = getattr(self, name)
            require(value >= 1, f"{name}, a divisor of max_lr, must be at least 1", f"{name}={value}")

    def __call__(self, step: int) -> float:
        lo, last = self.max_lr / self.div_factor, self.total_steps - 1
        top = self.pct_start * self.total_steps - 1
        if step < top:
            return _half_cosine(lo, self.max_lr, step / top)
        return _half_cosine(self.max_lr, lo / self.final_div_factor, min((step - top) / (last - top), 1))


def get(learning_rate: Any) -> Callable[[int], float]:
    """Return a number as a `Constant`, and a schedule or any other function of the step unchanged."""
    if isinstance(learning_rate, Real):
        return Constant(_rate("learning_rate", learning_rate))
    require(
        callable(learning_rate) and not isinstance(learning_rate, type),
        "A learning rate must be a number, a schedule such as CosineDecay(0.1, 1000), or a function of the step",
        repr(learning_rate),
    )
    try:
        inspect.signature(learning_rate).bind(0)
    except TypeError as error:
        raise ValueError(
            "A learning rate function must accept one argument, the step counted from 0. "
            f"Received: {learning_rate!r} ({error})"
        ) from error
    except ValueError:  # a function written in C, whose signature Python does not know
        pass
    return learning_rate


def _half_cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def _rate(name: str, value: Any) -> float:
    return number(name, value, "[0, inf)")
