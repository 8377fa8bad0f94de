"""Finds where a training run became non-finite, by running the last steps again, one at a time, with every layer observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from xpnet.backend import Backend, namespace
from xpnet.errors import DivergenceError
from xpnet.layers.base import Layer
from xpnet.layers.mapping import map_layers
from xpnet.layers.observed import Observed
from xpnet.optimizers.networks import PerNetwork
from xpnet.tree import Array, Tree, leaves, named_leaves

REMEDY = (
    "Lower the learning rate (it was {}), clip gradients (global_clipnorm=1.0 in the optimizer), scale x and y and look "
    "for extreme values in them, or choose another weight initializer (He for ReLU, LeCun for tanh)."
)


@dataclass(frozen=True)
class AllFinite:
    """Whether every floating-point number in a network's training state is finite, as a truth value on the device.

    Numbers that training updates do not become finite again, so one check after many steps is enough.
    """

    network: Layer  # so that the code compiled for a network is released with it

    def __call__(self, state: dict[str, Tree]) -> Array:
        return reduce(lambda a, b: a & b, [namespace(x).all(namespace(x).isfinite(x)) for _, x in _floating(state)])


def first_non_finite(state: dict[str, Tree]) -> str:
    """Return the name of the first array in a training state with a non-finite number, or an empty string."""
    for name, x in _floating(state):
        if not bool(namespace(x).all(namespace(x).isfinite(x))):
            kind, _, leaf = name.partition(".")
            return {"params": leaf, "statistics": f"running {leaf}", "optimizer": f"optimizer's {leaf}"}[kind]
    return ""


def _floating(state: Tree) -> Iterator[tuple[str, Array]]:
    for key in ("params", "statistics", "optimizer"):  # the error names the first
        for name, x in named_leaves(state[key], key):
            if namespace(x).isdtype(x.dtype, "real floating"):
                yield name, x


@dataclass
class Failed:
    """The chunk of steps to examine: its data, the state before them, and what was not finite after them."""

    step: Any
    state: dict[str, Tree]
    batches: dict[str, Any]
    data: dict[str, Array]
    first: int
    seen: str


def diagnose(backend: Backend, chunk: Failed, finite: dict[str, Tree]) -> tuple[dict[str, Tree], int, DivergenceError]:
    """Run a chunk of steps again, eagerly, up to the first step whose result is not finite.

    Parameters
    ----------
    backend : Backend
    chunk : Failed
    finite : dict of trees
        The last state known to be finite, in case the chunk began with a different state.

    Returns
    -------
    state : dict of trees
        The state before the step that failed, or before the chunk if no step fails again.
    number : int
        The number of that step.
    error : DivergenceError
        It names the step, the first layer and the remedy.
    """
    state, first = chunk.state, chunk.first
    if part := first_non_finite(state):
        return finite, first, _error(
            first, part, f"at step {first}: {part} was not finite before it, because a callback or the program set it",
            "The model keeps the last state from training", "Set finite values with set_weights, which checks them.",
        )  # fmt: skip
    watch = Watch()
    usual: set[str] = set()  # where infinity does no harm, as in the logits of an excluded class
    network = chunk.step.inference.network
    watched = chunk.step.with_network(map_layers(network, lambda path, layer: Observed(layer, path, watch)))
    rates = chunk.batches["learning_rate"]
    for i, rate in enumerate(rates):
        before, number = state, first + i
        one_step = {name: values[i : i + 1] for name, values in chunk.batches.items()}
        state, record = backend.scan_eagerly(watched, backend.copy(state), one_step, chunk.data)
        part = first_non_finite(state)
        if part or not _is_finite(record["loss"]):
            unusual = [place for place in watch.places if place not in usual]
            where = unusual[0] if unusual else f"{part} after the update" if part else "loss"
            networks, own = _networks(record["loss"][0, ...], state), [rate]
            if networks and isinstance(chunk.step.optimizer, PerNetwork):
                own = [rate * float(before["optimizer"]["rate"][k, 0, 0]) for k in networks]
            return before, number, _error(
                number, where, f"at step {number}: {where}{_of(networks)} is not finite",
                "The model is as it was before that step", _remedy(*own), networks,
            )  # fmt: skip
        usual.update(watch.places)
        watch.places.clear()
    return chunk.state, first, _error(
        first, chunk.seen, f"in the {len(rates)} steps from step {first}: {chunk.seen} was not finite at the end, but was "
        "finite when these steps were run again one at a time, without compilation. The cause may be rounding, a layer that is "
        "not a pure function, or a hardware fault", f"The model is as it was before step {first}", _remedy(rates[0]),
    )  # fmt: skip


def _networks(loss: Array, state: dict[str, Tree]) -> list[int]:
    """Return the numbers of the networks that are not finite, from the loss of each. One network has no number."""
    xp = namespace(loss)
    if loss.ndim == 0:
        return []
    finite = xp.isfinite(loss)
    for _, x in _floating(state):
        if x.shape[:1] != loss.shape:  # a number for all networks, such as Adam's step count
            continue
        finite = finite & xp.all(xp.isfinite(xp.reshape(x, (loss.shape[0], -1))), axis=1)
    return [k for k in range(loss.shape[0]) if not bool(finite[k])]


def _remedy(*rates: float) -> str:
    return REMEDY.format(", ".join(dict.fromkeys(f"{rate:g}" for rate in rates)))


def renumbered(error: DivergenceError, numbers: Sequence[int]) -> DivergenceError:
    """Return a copy of the error in which network k has the number `numbers[k]`."""
    networks = tuple(numbers[k] for k in error.networks)
    return DivergenceError(str(error).replace(_of(error.networks), _of(networks), 1), error.step, error.layer, networks)


def _of(networks: Sequence[int]) -> str:
    """Return the words that name the networks in a message, if it has any."""
    return f" of network{'s' * (len(networks) > 1)} {', '.join(map(str, networks))}" if networks else ""


def _error(step: int, where: str, what: str, model: str, remedy: str, networks: Sequence[int] = ()) -> DivergenceError:
    return DivergenceError(f"Training diverged {what}. {model}. {remedy}", step, where, tuple(networks))


class Watch:
    """Records where an output or a gradient is not finite, in the order of the computation."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def outputs(self, path: str, layer: Layer, params: Tree, x: Array, statistics: Tree, result: Any) -> None:
        self._note(f"{_name(path, layer)} output", result[0])

    def gradients(self, path: str, layer: Layer, params: Tree, x: Array, dy: Array, need_dx: bool, result: Any) -> None:
        dx, grads = result
        for leaf_name, grad in named_leaves(grads, path):
            self._note(f"{leaf_name} gradient", grad)
        if dx is not None:
            self._note(f"{_name(path, layer)} input gradient", dx)

    def _note(self, place: str, x: Array) -> None:
        if not all(_is_finite(part) for part in leaves(x)):  # `Parallel` returns several arrays
            self.places.append(place)


def _name(path: str, layer: Layer) -> str:
    return f"{path or 'network'} {type(layer).__name__}"


def _is_finite(x: Array) -> bool:
    xp = namespace(x)
    return not xp.isdtype(x.dtype, "real floating") or bool(xp.all(xp.isfinite(x)))
