"""Learning rates as functions of the step, counted from 0: Python floats, evaluated on the host."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field, fields
from itertools import pairwise
from numbers import Real
from typing import Any

from xpnet.checks import boolean, count, number, require


@dataclass(frozen=True)
class Schedule(ABC):
    """lr = schedule(step)

    With ``restart_every_epoch=True`` the trainer passes the step within the epoch. In every schedule floats
    are finite and >= 0, numbers of steps are ints >= 1, switches True or False; anything else is a ValueError.
    """

    restart_every_epoch: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        checks = {"float": _rate, "int": count, "bool": boolean}  # by the annotation of the setting
        for setting in fields(self):
            if check := checks.get(getattr(setting.type, "__name__", str(setting.type))):
                object.__setattr__(self, setting.name, check(setting.name, getattr(self, setting.name)))

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate of this step."""


@dataclass(frozen=True)
class Constant(Schedule):
    """lr = value"""

    value: float

    def __call__(self, step):
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """lr = (1 - t) start + t end,   t = min(step / steps, 1):   `end` is the floor after `steps`"""

    start: float
    end: float
    steps: int

    def __call__(self, step):
        t = min(step / self.steps, 1)
        return (1 - t) * self.start + t * self.end


@dataclass(frozen=True)
class Polynomial(Schedule):
    """lr = end + (start - end) (1 - t)^power,   t = min(step / steps, 1)"""

    start: float
    end: float
    steps: int
    power: float

    def __call__(self, step):
        t = min(step / self.steps, 1)
        return self.end + (self.start - self.end) * (1 - t) ** self.power


@dataclass(frozen=True)
class _Decay(Schedule):
    start: float
    decay_rate: float
    decay_steps: int
    staircase: bool = False

    def _time(self, step):
        return step // self.decay_steps if self.staircase else step / self.decay_steps


@dataclass(frozen=True)
class Exponential(_Decay):
    """lr = start · decay_rate^t,   t = step / decay_steps, rounded down if `staircase`"""

    def __call__(self, step):
        return self.start * self.decay_rate ** self._time(step)


@dataclass(frozen=True)
class InverseTime(_Decay):
    """lr = start / (1 + decay_rate · t),   t = step / decay_steps, rounded down if `staircase`"""

    def __call__(self, step):
        return self.start / (1 + self.decay_rate * self._time(step))


@dataclass(frozen=True)
class Piecewise(Schedule):
    """lr = values[i] where boundaries[i - 1] <= step < boundaries[i]

    ``Piecewise([1000, 3000], [0.1, 0.01, 0.001])``: 1,000 steps at 0.1, 2,000 at 0.01, then 0.001. So
    counts torch's ``MultiStepLR``; Keras changes one step later. Boundaries increase, one fewer than values.
    """

    boundaries: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self):
        super().__post_init__()
        boundaries = tuple(count(f"boundaries[{i}]", boundary) for i, boundary in enumerate(self.boundaries))
        values = tuple(_rate(f"values[{i}]", value) for i, value in enumerate(self.values))
        increasing = all(a < b for a, b in pairwise(boundaries))
        require(increasing, "boundaries must increase; sort them", f"{boundaries=}")
        require(
            len(values) == len(boundaries) + 1,
            "there must be one value more than boundaries: before, between and after them",
            f"{values=}, {boundaries=}",
        )
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "values", values)

    def __call__(self, step):
        return self.values[bisect_right(self.boundaries, step)]


@dataclass(frozen=True)
class Cosine(Schedule):
    """lr = end + (start - end) (1 + cos πt) / 2,   t = min(step / steps, 1)

    I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017: one cycle.
    """

    start: float
    steps: int
    end: float = 0.0

    def __call__(self, step):
        return _half_cosine(self.start, self.end, min(step / self.steps, 1))


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """lr = end + decayⁱ (start - end) (1 + cos πt) / 2,   t = (step within cycle i) / (length of cycle i)

    Cycle 0 takes `steps` steps, each next one `cycle_multiplier` times as many as the one before.
    I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017.
    """

    start: float
    steps: int
    end: float = 0.0
    cycle_multiplier: int = 1
    decay: float = 1.0

    def __call__(self, step):
        if self.cycle_multiplier == 1:
            (cycle, step), length = divmod(step, self.steps), self.steps
        else:
            cycle, length = 0, self.steps
            while step >= length:
                cycle, step, length = cycle + 1, step - length, length * self.cycle_multiplier
        height = self.decay**cycle * (self.start - self.end)
        return _half_cosine(self.end + height, self.end, step / length)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """lr = (1 - t) start + t then(0),   t = step / steps, while t < 1;   after that lr = then(step - steps)

    `then` is a schedule, a number or a function of the step; only the whole can restart every epoch.
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
    """

    steps: int
    then: Any
    start: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "then", get(self.then))
        require(
            not getattr(self.then, "restart_every_epoch", False),
            "then cannot restart alone; give restart_every_epoch=True to WarmUp",
            f"then={self.then}",
        )

    def __call__(self, step):
        t = step / self.steps
        return (1 - t) * self.start + t * self.then(0) if t < 1 else self.then(step - self.steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """lr = lo + (peak - lo) (1 - cos πt) / 2,   t = step / top,   while step < top = rise · steps - 1
    lr = end + (peak - end) (1 + cos πt) / 2,   t = min((step - top) / (steps - 1 - top), 1),   from there on

    lo = peak / div_factor, end = lo / final_div_factor; `rise` is < 1, both factors are >= 1. L. Smith and
    N. Topin, "Super-convergence", 2018, with torch's cosines (``OneCycleLR``) in place of straight lines.
    """

    peak: float
    steps: int
    rise: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self):
        super().__post_init__()
        require(self.rise < 1, "rise, the share of steps up to the peak, must be < 1", f"rise={self.rise}")
        for name in ("div_factor", "final_div_factor"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be >= 1: the peak is divided by it", f"{name}={value}")

    def __call__(self, step):
        lo, top, last = self.peak / self.div_factor, self.rise * self.steps - 1, self.steps - 1
        if step < top:
            return _half_cosine(lo, self.peak, step / top)
        return _half_cosine(self.peak, lo / self.final_div_factor, min((step - top) / (last - top), 1))


def get(learning_rate):
    """The schedule of a number, `Constant`; a schedule or any other function of the step as it is."""
    if isinstance(learning_rate, Real):
        return Constant(_rate("learning_rate", learning_rate))
    require(
        callable(learning_rate) and not isinstance(learning_rate, type),
        "A learning rate is a number, a schedule such as Cosine(0.1, 1000), or a function of the step",
        repr(learning_rate),
    )
    try:
        inspect.signature(learning_rate).bind(0)
    except TypeError as error:
        raise ValueError(
            f"A learning rate that is a function takes the step, counted from 0, alone. Received: {learning_rate!r} ({error})"
        ) from error
    except ValueError:  # written in C: nothing is known of its arguments
        pass
    return learning_rate


def _half_cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def _rate(name: str, value: Any) -> float:
    return number(name, value, "[0, inf)")
