"""Finding where a training run went non-finite: the last steps are run again, one at a time, with every layer
watched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from xpnet.backend import Backend, namespace
from xpnet.errors import DivergenceError
from xpnet.layers.base import Layer
from xpnet.layers.sequential import Sequential, inside
from xpnet.tree import Array, Tree, named_leaves


def diagnose(
    backend: Backend, step: Any, chunks: Iterable, data: dict[str, Array]
) -> tuple[Tree, int, DivergenceError]:
    """Run chunks of steps again, eagerly, up to the first value that is not finite.

    Parameters
    ----------
    backend : Backend
    step : TrainingStep
    chunks : iterable of (state, batches, number of the first step)
        The state at the start of each chunk, the first of them finite.
    data : dict of arrays

    Returns
    -------
    state : tree
        As it was before the step that failed.
    number : int
        Of that step.
    error : DivergenceError
        Names the step and the first layer, and the remedy.
    """
    watched = Watching(replace(step, network=watch(step.network)))
    for state, batches, first in chunks:
        for i in range(len(batches["learning_rate"])):
            before = state
            one_step = {name: values[i : i + 1] for name, values in batches.items()}
            try:
                state, _ = backend.scan_eagerly(watched, backend.copy(state), one_step, data)
            except NonFinite as error:
                return before, first + i, _error(first + i, str(error), batches["learning_rate"][i])
    return before, first + i, _error(first + i, "the loss, in compiled code only,", batches["learning_rate"][i])


def _error(step: int, where: str, learning_rate: float) -> DivergenceError:
    return DivergenceError(
        f"Training diverged at step {step}: {where} is not finite. The model is as it was before that step. Lower the "
        f"learning rate (it was {learning_rate:g}), clip gradients (global_clipnorm=1.0 in the optimizer), or choose "
        "another weight initialiser (He for ReLU, LeCun for tanh).",
        step,
        where,
    )


class NonFinite(ArithmeticError):
    """Where a value that is not finite appeared first."""


@dataclass(frozen=True)
class Watched(Layer):
    """A layer that raises `NonFinite` at the first non-finite output or gradient of the layer inside."""

    layer: Layer
    name: str

    @property
    def random(self):
        return self.layer.random

    @property
    def running(self):
        return self.layer.running

    @property
    def integer_input(self):
        return self.layer.integer_input

    def forward(self, params, x, **extra):
        y, layer_backward, *statistics = self.layer.forward(params, x, **extra)
        require_finite(f"{self.name} output", y)

        def backward(dy, need_dx=True):
            dx, grads = layer_backward(dy, need_dx)
            position = self.name.partition(" ")[0]
            for leaf_name, grad in named_leaves(grads):
                require_finite(f"{position}.{leaf_name} gradient", grad)
            if dx is not None:
                require_finite(f"{self.name} input gradient", dx)
            return dx, grads

        return y, backward, *statistics


def watch(network: Layer, prefix: str = "") -> Layer:
    """`network` with every layer watched, in sequences and branches too."""
    watched = [watch(layer, f"{prefix}.{i}".lstrip(".")) for i, layer in enumerate(inside(network))]
    if isinstance(network, Sequential):
        return Sequential(watched)
    if watched:
        network = replace(network, branches=tuple(watched))  # type: ignore[type-var]
    return Watched(network, f"{prefix or 'network'} {type(network).__name__}")


@dataclass(frozen=True)
class Watching:
    """A training step that also watches its loss and the updated parameters."""

    step: Any

    def __call__(self, state, batch):
        state, record = self.step(state, batch)
        require_finite("loss", record["loss"])
        for name, p in named_leaves(state["params"]):
            require_finite(f"{name} after the update", p)
        return state, record


def require_finite(what: str, x: Array) -> None:
    """Raise `NonFinite` unless every element of `x` is finite."""
    xp = namespace(x)
    if xp.isdtype(x.dtype, "real floating") and not bool(xp.all(xp.isfinite(x))):
        raise NonFinite(what)
