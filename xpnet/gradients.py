"""Gradients outside training: the numerical check of every parameter, and saliency."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import in_scope, namespace, to_numpy
from xpnet.layers import base
from xpnet.layers.base import Container, Layer
from xpnet.layers.mapping import swap_layers
from xpnet.losses import Loss
from xpnet.random import step_keys
from xpnet.tables import Table
from xpnet.tree import Array, Tree, named_leaves, subtree, with_subtree
from xpnet.weights import moved_copy

STEP = 1e-6
ENTRIES = 100  # of an array, at most


@dataclass(frozen=True)
class CheckedGradient:
    """The comparison of one array's gradient with finite differences.

    Attributes
    ----------
    name : str
        The name of the parameter, such as ``"0.weight"``, or ``"x"``.
    passed : bool
    worst : tuple of int
        The entry that differs most.
    analytic, numerical : float
        The two gradients at this entry.
    entries, size : int
        How many entries were compared, and how many the array has.
    """

    name: str
    passed: bool
    worst: tuple[int, ...]
    analytic: float
    numerical: float
    entries: int
    size: int


@dataclass(frozen=True, repr=False)
class GradientCheck:
    """The result of `check_gradients`. It is true if every gradient passed, and prints as a table.

    Attributes
    ----------
    gradients : list of CheckedGradient
    """

    gradients: list[CheckedGradient]

    @property
    def passed(self) -> bool:
        return all(gradient.passed for gradient in self.gradients)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def table(self) -> Table:
        rows = [
            (
                g.name, "pass" if g.passed else "FAIL", f"{g.entries:,} of {g.size:,}", str(list(g.worst)), f"{g.analytic:.8g}",
                f"{g.numerical:.8g}",
            )
            for g in self.gradients
        ]  # fmt: skip
        header = ("gradient of", "result", "entries", "worst", "analytic", "numerical")
        return Table(header, rows, right="entries analytic numerical")

    def __repr__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True)
class TrainingLoss:
    """The loss of a batch in training mode, as a function that a backend can compile."""

    network: Layer
    loss: Loss

    def __call__(self, params: Tree, x: Array, statistics: Tree, batch: dict[str, Array]) -> Array:
        z, _, _ = base.forward(self.network, params, x, batch["key"], statistics)
        return self.loss(batch["y"], z, batch.get("weight"))[0]


def check_gradients(model: Any, x: Any, y: Any, sample_weight: Any = None) -> GradientCheck:
    """Compare the gradients of all parameters, and of x, with finite differences in float64. The model does not change.

    The numerical gradient of an entry is (loss(p + h) - loss(p - h)) / 2h. Where the loss has a kink, as at the 0 of a ReLU,
    every value between the derivatives from the left and from the right is accepted. Dropout draws one mask for all losses.

    Parameters
    ----------
    model : Model
        A built model, with custom layers or without.
    x, y, sample_weight : array
        A small batch in the form that `fit` accepts. Avoid batches in which many values are exactly at a kink.

    Returns
    -------
    GradientCheck
        ``if not check_gradients(model, x, y): ...``. It prints as a table with the worst entry of each array. Of an array with
        more than 100 entries, the one with the largest gradient and 99 others are compared.
    """
    wide = copy.copy(model)
    wide.backend = model.backend.computing_in("float64")
    with wide.backend.scope():
        wide.state = moved_copy(wide.backend, model.built_state())
        return GradientCheck(list(_checks(wide, wide.prepare(x, y, sample_weight))))


def _checks(model: Any, data: dict[str, Array]) -> Iterator[CheckedGradient]:
    backend, network, params, statistics = model.backend, model.network, model.parameters, model.state["statistics"]
    batch = data | {"key": backend.asarray(step_keys(model.seeds[0], np.array([model.step]))[0])}
    x = model.training_step.inference.floating(batch.pop("x"))
    z, backward, _ = base.forward(network, params, x, batch["key"], statistics)
    _, dz = model.loss(batch["y"], z, batch.get("weight"))
    dx, grads = backward(dz, need_dx=not network.integer_input)
    function = TrainingLoss(network, model.loss)

    def loss(params: Tree, x: Array) -> float:
        return float(np.sum(to_numpy(backend.call(function, params, x, statistics, batch))))

    start = loss(params, x)
    if dx is not None:
        if dx.ndim > x.ndim:  # the gradients of several networks, whose losses are added
            dx = namespace(dx).sum(dx, axis=0)
        yield _check("x", x, dx, lambda moved: loss(params, backend.asarray(moved)), start)
    for name, g in named_leaves(grads):

        def at(moved: np.ndarray, name: str = name) -> float:
            return loss(with_subtree(params, name, backend.asarray(moved)), x)

        yield _check(name, subtree(params, name), g, at, start)


def _check(name: str, p: Array, g: Array, loss: Callable[[np.ndarray], float], start: float) -> CheckedGradient:
    values, analytic = (np.array(to_numpy(array), dtype=float) for array in (p, g))
    order = np.random.default_rng(0).permutation(values.size)
    largest = int(np.argmax(np.abs(analytic)))
    chosen = [largest, *(i for i in order.tolist() if i != largest)][:ENTRIES]
    found = []
    for i in chosen:
        h = STEP * max(1.0, abs(values.flat[i]))
        ends = []
        for move in (-h, h):
            moved = values.copy()
            moved.flat[i] += move
            ends.append(loss(moved))
        sides = (start - ends[0]) / h, (ends[1] - start) / h
        tolerance = 1e-5 * max(map(abs, (*sides, analytic.flat[i]))) + 1e-7 * max(1.0, abs(start))
        outside = max(min(sides) - analytic.flat[i], analytic.flat[i] - max(sides), 0.0)
        found.append((outside / tolerance, i, sum(sides) / 2))
    excess, i, numerical = max(found)
    worst = tuple(map(int, np.unravel_index(i, values.shape)))
    return CheckedGradient(
        name, excess <= 1, worst, float(analytic.flat[i]), numerical, len(chosen), values.size
    )  # fmt: skip


@in_scope
def saliency(model: Any, x: Any, y: Any = None, *, unit: int | None = None) -> Array:
    """Return the gradient of an output, or of the loss, with respect to x, in inference mode.

    Batch normalization uses its running statistics, and dropout, noise and augmentation are off. K. Simonyan et al., "Deep
    inside convolutional networks", ICLR workshop 2014.

    Parameters
    ----------
    model : Model
        A built model.
    x : array, shape (n, ...)
    y : array, optional
        With targets, the result is the gradient of the mean loss.
    unit : int, optional
        The unit of the network's raw output. The default is the largest output of each sample.

    Returns
    -------
    array, with the shape of x
        On the model's backend. Where its absolute value is large, the output depends most on x.

    Raises
    ------
    ValueError
        The network takes integers, both y and `unit` are given, `unit` does not exist, or a custom random layer does not
        define `at_inference`.
    """
    if model.network.integer_input:
        raise ValueError(f"saliency needs a network that takes floating-point numbers. Received: {model!r}")
    if y is not None and unit is not None:
        raise ValueError(f"Give y for the gradient of the loss, or unit for that of an output. Received: {unit=} and y")
    state = model.built_state()
    data = model.prepare(x, y) if y is not None else {"x": model.backend.asarray(x)}
    new = {id(layer): _at_inference(layer) for _, layer in base.walk(model.network) if not isinstance(layer, Container)}
    z, backward, _ = base.forward(
        swap_layers(model.network, new), state["params"], model.training_step.inference.floating(data["x"]), None,
        state["statistics"],
    )  # fmt: skip
    if y is not None:
        return backward(model.loss(data["y"], z)[1])[0]
    xp, units = namespace(z), z.shape[-1]
    if unit is not None and unit not in range(units):
        raise ValueError(f"unit must be one of the network's outputs, 0 .. {units - 1}. Received: unit={unit!r}")
    numbers = xp.arange(units, device=z.device)
    chosen = numbers == (xp.argmax(z, axis=-1)[..., None] if unit is None else unit)
    return backward(xp.astype(xp.broadcast_to(chosen, z.shape), z.dtype))[0]


def _at_inference(layer: Layer) -> Layer:
    still = layer.at_inference()
    if still.needs_key:
        raise ValueError(
            "A random layer must define at_inference(), which returns a layer without randomness, such as Identity(). "
            f"Received: {layer!r}"
        )
    return still
