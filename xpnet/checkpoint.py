"""Models in files: parameters, statistics and the optimizer's memory as arrays, everything else as a description."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpnet import settings, tensorfile
from xpnet.backend import Backend, to_numpy
from xpnet.checks import boolean, is_integer
from xpnet.description import Custom, describe, rebuild
from xpnet.errors import CheckpointError, DivergenceError
from xpnet.files import StrPath
from xpnet.history import History
from xpnet.layers import base
from xpnet.layers.base import Shape
from xpnet.layers.parameters import trainable
from xpnet.layers.sequential import Sequential
from xpnet.optimizers import Optimizer
from xpnet.random import ShapesOnly
from xpnet.state import TrainingState
from xpnet.tensorfile import Entry, TensorFile, refusal
from xpnet.tree import Tree, from_leaves, leaves, map_leaves, named_leaves
from xpnet.weights import named_weights, with_weights

PARTS = ("network", "loss", "optimizer", "metrics")
COUNTS = ("step", "epoch", "position")
OPTIMIZER, HISTORY, RUN = "optimizer.", "history.", "run."  # names of arrays begin with these, or with a layer's number


def save(model: Any, path: StrPath) -> None:
    """Implements `Model.save`."""
    tensorfile.write(path, *contents(model, copy.copy(model.training_state), {}))


def contents(
    model: Any, state: TrainingState, further: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the description of a model with this state, and with further objects in the description."""
    if state.arrays is not None:
        state.match_optimizer(model.network)  # as the next epoch does
    columns, dtype = _columns(state.history), model.backend.float_name
    parts = {name: getattr(model, name) for name in PARTS} | {"optimizer": state.optimizer}
    description = {
        "kind": "model",
        **describe({**parts, **further}),
        "dtype": dtype,
        "input_shape": model.input_shape,
        "target_shape": state.target_shape,
        "validates": model.validates,
        "class_names": [str(name) for name in model.class_names],
        "diverged": [
            [int(k), str(e), int(e.step), e.layer, [*map(int, e.networks)]] for k, e in model.diverged.items()
        ],
        "seed": state.seed,
        **{name: int(getattr(state, name)) for name in COUNTS},
        "history": list(columns),
    }
    arrays = {}
    if state.arrays is not None:
        arrays = _host(state.arrays, dtype)
        forms = _forms(model.network, state.optimizer, dtype, model.input_shape, state.seed)
        _require_alike(dict(_named(forms)), {name: Entry(x.dtype.name, x.shape) for name, x in arrays.items()})
    return arrays | {HISTORY + name: column for name, column in columns.items()}, description


def save_weights(model: Any, path: StrPath) -> None:
    """Implements `Model.save_weights`."""
    tensorfile.write(
        path, _host(model.built_state() | {"optimizer": {}}, model.backend.float_name), {"kind": "weights"}
    )


def load_weights(model: Any, path: StrPath) -> None:
    """Implements `Model.load_weights`."""
    state = model.built_state()
    with tensorfile.errors_named(path):
        file = tensorfile.read(path)
        expected = {name: tuple(x.shape) for name, x in named_weights(state).items()}
        found = {n: entry.shape for n, entry in file.table.items() if not n.startswith((OPTIMIZER, HISTORY, RUN))}
        _require_alike(expected, found)
        model.state = with_weights(model.backend, state, list(tensorfile.arrays(file, expected)))


def read(
    file: TensorFile, custom: Custom, backend: Backend
) -> tuple[dict[str, Any], TrainingState, Shape | None, dict[str, Any]]:
    """Read the file of a model -> network, loss, optimizer and metrics; training state; input shape; other attributes.

    The parts and the shapes of all arrays are known before an array is read. What only a run needs is not read.

    Raises
    ------
    CheckpointError
        The file is not the complete file of a model, or a class is neither in xpnet nor in `custom`.
    """
    about = file.description
    if about.get("kind") != "model":
        raise refusal("the file of a model. Read weights with model.load_weights", f"a file of {about.get('kind')!r}")
    parts = rebuild(about, PARTS, custom)
    if not isinstance(parts["network"], Sequential) or not isinstance(parts["optimizer"], Optimizer):
        raise refusal("a Sequential and an Optimizer", parts)
    state = TrainingState(parts["optimizer"], settings.check_seed(about.get("seed")))
    for name in COUNTS:
        setattr(state, name, _count(file, name))
    state.target_shape = _shape(file, "target_shape")
    shape = _shape(file, "input_shape")
    forms = None
    if shape is not None:
        values = sum(math.prod(entry.shape) for entry in file.table.values())
        dtype, shape = about.get("dtype"), settings.check_shape(shape)
        forms = _forms(parts["network"], parts["optimizer"], dtype, shape, state.seed, values)
    names = about.get("history")
    if not (isinstance(names, list) and all(isinstance(n, str) for n in names) and len(set(names)) == len(names)):
        raise refusal("the names of the history's columns", names)
    entries = {} if forms is None else dict(_named(forms))
    columns = [HISTORY + name for name in names]
    of_run = {name for name in file.table if name.startswith(RUN)} if "run" in about else set()
    _require_alike(entries | {name: file.table.get(name) for name in {*columns, *of_run}}, file.table)
    if forms is not None:
        state.arrays = _on(backend, file, forms)
    state.history = _history(dict(zip(names, tensorfile.arrays(file, columns), strict=True)))
    classes = about.get("class_names")
    if not (isinstance(classes, list) and all(isinstance(one, str) for one in classes)):
        raise refusal("the names of classes", classes)
    others = {
        "validates": boolean("validates", about.get("validates")),
        "class_names": tuple(classes),
        "diverged": _diverged(about.get("diverged", []), len(state.seeds)),
    }
    return parts, state, shape, others


def _host(state: dict[str, Tree], dtype: str) -> dict[str, np.ndarray]:
    """Return all arrays of a state by name, as host arrays; raise CheckpointError unless all are finite floats."""
    arrays = {}
    for name, x in _named(state):
        array = to_numpy(x)
        if array.dtype.kind != "f":
            raise CheckpointError(
                "A model file holds floating-point parameters and statistics. Return such arrays from init. "
                f"Received: {name} of type {array.dtype}"
            )
        if not np.all(np.isfinite(array)):
            raise CheckpointError(f"A model file holds finite values. Received: NaN or infinity in {name}")
        arrays[name] = array.astype(dtype, copy=False)
    return arrays


def _named(state: dict[str, Tree]) -> list[tuple[str, Any]]:
    """(name, array) pairs: ``"0.weight"``, then ``"optimizer.velocity.0.weight"``."""
    return [*named_weights(state).items(), *((OPTIMIZER + name, x) for name, x in named_leaves(state["optimizer"]))]


def _forms(
    network: Sequential, optimizer: Optimizer, dtype: Any, shape: Shape, seed: Any, limit: float = math.inf
) -> dict[str, Tree]:
    """Return the state that the network and the optimizer need, with an `Entry` in place of each array.

    Raises ValueError if a parameter has more values than the limit.
    """
    if dtype not in ("float32", "float64"):
        raise refusal('the dtype "float32" or "float64"', dtype)
    params, output_shape, statistics = base.init(network, ShapesOnly(limit), shape)
    base.require_one_output(output_shape)
    networks: Shape = ()
    if isinstance(seed, tuple):
        settings.require_rows(network, shape, output_shape)
        networks = (len(seed),)
    # These arrays take no memory. In the optimizer's state, a leading 0 marks an array with a parameter's shape
    without_elements = map_leaves(lambda x: np.empty((0, *networks, *x.shape), dtype), params)
    trained = trainable(network, without_elements)
    memory = optimizer.init(trained) if leaves(trained) else {}

    def entry(x: np.ndarray) -> Entry:
        return Entry(dtype, tuple(x.shape[1:] if x.shape[:1] == (0,) else x.shape))

    return {
        "params": map_leaves(entry, without_elements),
        "optimizer": map_leaves(entry, memory),
        "statistics": map_leaves(lambda x: Entry(dtype, tuple(x.shape)), statistics),
    }


def _require_alike(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless the file has arrays of these names and forms, and no others."""
    for name in [*expected, *found]:
        form, other = expected.get(name), found.get(name)
        if form is None or form != other:
            described = [f"{name!r:.100}: {'no such array' if x is None else x}" for x in (form, other)]
            raise refusal(f"the arrays of this network, {described[0]}", described[1])


def _on(backend: Backend, file: TensorFile, forms: dict[str, Tree]) -> dict[str, Tree]:
    """Read the arrays onto a backend, in its float type."""
    named = _named(forms)
    placed = {}
    for (name, _), array in zip(named, tensorfile.arrays(file, [name for name, _ in named]), strict=True):
        with np.errstate(over="ignore"):
            array = array.astype(backend.float_name, copy=False)
        if not np.all(np.isfinite(array)):
            raise refusal(f"finite values in {backend.float_name}", f"NaN or infinity in {name}")
        placed[name] = backend.copy(backend.asarray(array))  # one by one: a file's arrays are in memory once
    prefixes = {"params": "", "optimizer": OPTIMIZER, "statistics": ""}
    return {
        part: from_leaves(forms[part], [placed[prefix + name] for name, _ in named_leaves(forms[part])])
        for part, prefix in prefixes.items()
    }


def _count(file: TensorFile, name: str) -> int:
    value = file.description.get(name)
    if not is_integer(value) or not 0 <= value < 2**53:
        raise refusal(f"{name} to be a number of steps or epochs", value)
    return value


def _shape(file: TensorFile, name: str) -> Shape | None:
    sizes = file.description.get(name)
    if sizes is None:
        return None
    if not isinstance(sizes, list) or not all(is_integer(n) and 0 <= n < 2**53 for n in sizes):
        raise refusal(f"{name} to be a shape", sizes)
    return tuple(sizes)


def _diverged(saved: Any, networks: int) -> dict[int, DivergenceError]:
    """Return the errors of the networks that diverged, from rows ``[network, message, step, layer, networks]``."""
    numbers = range(networks)
    for row in saved if isinstance(saved, list) else [saved]:
        form = [int, str, int, str, list]
        if not (isinstance(row, list) and [type(value) for value in row] == form and {row[0], *row[4]} <= {*numbers}):
            raise refusal("the networks that diverged, each with its error", saved)
    return {k: DivergenceError(message, step, layer, tuple(several)) for k, message, step, layer, several in saved}


def _columns(history: History) -> dict[str, np.ndarray]:
    """Return the lists of a history as arrays."""
    lists = {"epoch": history.epoch, "validation_epoch": history.validation_epoch}
    for table in ("history", "iterations"):
        lists |= {f"{table}.{name}": column for name, column in getattr(history, table).items()}
    columns = {}
    for name, column in lists.items():
        try:
            values = np.asarray(column)
        except ValueError as error:
            raise CheckpointError(f"A history holds numbers. Received: {name} with {column!r:.200}") from error
        if values.dtype.kind not in "iuf":
            raise CheckpointError(f"A history holds numbers. Received: {name} with {column!r:.200}")
        columns[name] = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    return columns


def _history(columns: dict[str, np.ndarray]) -> History:
    history = History()
    for name, column in columns.items():
        table, dot, key = name.partition(".")
        if dot and table in ("history", "iterations"):
            getattr(history, table)[key] = column.tolist()
        elif name in ("epoch", "validation_epoch"):
            setattr(history, name, column.tolist())
        else:
            raise CheckpointError(f"Expected a column of a history. Received: {name!r:.100}")
    return history
