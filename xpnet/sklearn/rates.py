"""Learning rates and the rule of the stochastic solvers, as scikit-learn defines them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backend import to_numpy
from xpnet.optimizers import SGD
from xpnet.sklearn.step import EfficientAdam
from xpnet.tree import Tree, map_leaves


class Solver:
    """The state of a stochastic solver between epochs: the learning rate and the optimizer's state.

    Parameters
    ----------
    rule : SGD or EfficientAdam
    learning_rate_init : float
    schedule : {"constant", "invscaling", "adaptive"}
    power_t : float
        The exponent of "invscaling".

    Attributes
    ----------
    learning_rate : float
        The current learning rate. With Adam, it includes the bias corrections.
    memory : tree of arrays, optional
        The optimizer's state, such as velocities. None before the first step.
    steps : int
        The number of steps so far.
    """

    def __init__(self, rule: SGD | EfficientAdam, learning_rate_init: float, schedule: str, power_t: float):
        self.rule, self.learning_rate_init = rule, learning_rate_init
        self.schedule, self.power_t = schedule, power_t
        self.learning_rate = float(learning_rate_init)
        self.memory: Tree = None
        self.steps = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the memory on the host, so that a pickle loads on a machine without the device."""
        return vars(self) | {"memory": map_leaves(to_numpy, self.memory) if self.memory else self.memory}

    def rates(self, count: int) -> np.ndarray:
        """Return the learning rates of the next `count` steps in the form that the rule needs.

        Adam: lr √(1-β₂ᵗ) / (1-β₁ᵗ), and the factor (1-β₁) / √(1-β₂) that `EfficientAdam` omits from its averages.
        """
        self.steps += count
        if isinstance(self.rule, SGD):
            return np.full(count, self.learning_rate)
        t = np.arange(self.steps - count + 1, self.steps + 1)
        rates = self.learning_rate_init * np.sqrt(1 - self.rule.beta_2**t) / (1 - self.rule.beta_1**t)
        self.learning_rate = float(rates[-1])
        return rates * ((1 - self.rule.beta_1) / math.sqrt(1 - self.rule.beta_2))

    def iteration_ends(self, samples: int) -> None:
        """Set the learning rate of the next epoch. `samples` is the number of samples seen so far."""
        if self.schedule == "invscaling":
            self.learning_rate = float(self.learning_rate_init) / (samples + 1) ** self.power_t

    def trigger_stopping(self, message: str, verbose: Any) -> bool:
        """Return whether training stops after many epochs without an improvement, or decrease the learning rate."""
        adaptive = self.schedule == "adaptive"
        stops = not adaptive or self.learning_rate <= 1e-6
        if not stops:
            self.learning_rate /= 5.0
        if verbose:
            what = " Learning rate too small. Stopping." if adaptive else " Stopping."
            print(message + (what if stops else f" Setting learning rate to {self.learning_rate:f}"))
        return stops
