"""Everything that training changes, as one value."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.averages import Averages
from xpnet.backend import Backend, to_numpy
from xpnet.history import History
from xpnet.layers.base import Layer, Shape
from xpnet.layers.parameters import trainable
from xpnet.optimizers import Optimizer
from xpnet.tree import Tree, graft, leaves, map_leaves


@dataclass
class TrainingState:
    """Everything that training changes. A checkpoint stores this value.

    Attributes
    ----------
    optimizer : Optimizer
        The optimizer from the next epoch on.
    epoch_optimizer : Optimizer
        The optimizer of the current epoch.
    seed : int or tuple of int
        The order of samples and the random keys follow from the seed, `epoch` and `step`.
    arrays : dict of trees, optional
        ``"params"``, ``"optimizer"`` and ``"statistics"``, on the device. None until the model is built.
    step : int
        Training steps taken so far.
    epoch : int
        Epochs completed so far.
    position : int
        Steps taken in the current epoch.
    averages : Averages
        Loss and metrics over those steps.
    target_shape : tuple of int, optional
        The shape of one sample's targets.
    history : History
        The records of the current or last run.
    parts : int
        The number of parts that each batch of the current or last run is divided into; see `xpnet.groups`.
    stop_training : bool
        Whether the run stops after the current epoch, or after the current chunk of steps.
    """

    optimizer: Optimizer
    seed: int | tuple[int, ...]
    arrays: Tree = None
    step: int = 0
    epoch: int = 0
    position: int = 0
    averages: Averages = field(default_factory=lambda: Averages(()))
    target_shape: Shape | None = None
    history: History = field(default_factory=History)
    parts: int = 1
    stop_training: bool = False
    epoch_optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.epoch_optimizer = self.optimizer

    def __copy__(self) -> TrainingState:
        """Return a state that shares the arrays."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with the arrays on the host. JAX would unpickle or deep-copy its float64 arrays as float32."""
        return vars(self) | {"arrays": None if self.arrays is None else map_leaves(to_numpy, self.arrays)}

    def on(self, backend: Backend) -> TrainingState:
        """Return a copy with the arrays on this backend."""
        other = copy.copy(self)
        if self.arrays is not None:
            with backend.scope():
                other.arrays = map_leaves(backend.asarray, self.arrays)
        return other

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return `seed` as a tuple."""
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)

    def match_optimizer(self, network: Layer) -> None:
        """Give the optimizer a new state if the current state has other names, because it belongs to another optimizer."""
        if self.optimizer.init(np.zeros(1)).keys() != self.arrays["optimizer"].keys():
            self.begin_optimizer(network)

    def begin_optimizer(self, network: Layer) -> None:
        """Give the optimizer a new state for the parameters that train."""
        params = trainable(network, self.arrays["params"])
        self.arrays = self.arrays | {"optimizer": self.optimizer.init(params) if leaves(params) else {}}

    def exchange_network(self, network: Layer) -> None:
        """Fit the optimizer's state to a network of which other layers train."""
        memory = self.arrays["optimizer"]
        self.begin_optimizer(network)
        self.arrays = self.arrays | {"optimizer": graft(self.arrays["optimizer"], memory)}

    def begin_run(self, initial_epoch: int, steps_per_epoch: int | None) -> None:
        """Start at the beginning of epoch `initial_epoch`, or of the next epoch if it is 0, with an empty history."""
        if initial_epoch and initial_epoch != self.epoch:
            if steps_per_epoch is None:
                raise ValueError(
                    "initial_epoch needs the number of steps in an epoch. Pass steps_per_epoch. "
                    f"Received: initial_epoch={initial_epoch}, and data of unknown length"
                )
            self.epoch, self.step = initial_epoch, initial_epoch * steps_per_epoch
        self.position, self.history, self.stop_training = 0, History(), False


def part(name: str) -> Any:
    """A property that is an attribute of `Model.training_state`."""
    return property(
        lambda self: getattr(self.training_state, name), lambda self, value: setattr(self.training_state, name, value)
    )
