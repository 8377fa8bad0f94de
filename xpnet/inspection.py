"""Inspection of a network: the summary, and statistics of activations and gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from xpnet.backend import Backend, in_scope, to_numpy
from xpnet.layers import base
from xpnet.layers.base import Container, Shape
from xpnet.layers.parameters import frozen_paths
from xpnet.layers.sequential import Sequential
from xpnet.layers.shapes import Place, measure_alike, multiplications, walk_shapes
from xpnet.random import ShapesOnly, fold_in, step_keys
from xpnet.settings import check_shape
from xpnet.tables import Table
from xpnet.tree import Array, Tree, leaves, subtree

__all__ = ["Summary", "layer_statistics"]


class Summary(str):
    """The table that `Model.summary` prints. In a notebook it displays as HTML."""

    table: Table

    def __new__(cls, table: Table) -> Summary:
        summary = super().__new__(cls, str(table))
        summary.table = table
        return summary

    def __repr__(self) -> str:  # what an interactive session shows below the printed table
        return f"<Summary of {len(self.table.rows)} lines>"

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def summary(
    model: Any, input_shape: Shape | None = None, line_length: int | None = None,
    print_fn: Callable[[str], Any] | None = None, expand_nested: bool = True, show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> Summary:  # fmt: skip
    """Print and return a table of all layers; see `Model.summary`."""
    built, network = model.input_shape, model.network
    if input_shape is None and built is None:
        raise ValueError(
            "summary needs the shape of a sample until the model is built. Call summary(input_shape) or "
            "build(input_shape). Received: input_shape=None"
        )
    shape = built if input_shape is None else check_shape(input_shape)
    if built not in (None, shape):
        measure_alike(network, shape, built)
    table = summarize(network, shape, model.backend, expand_nested, show_trainable, layer_range)
    result = Summary(replace(table, line_length=line_length))
    if print_fn is not None or not in_notebook():
        (print_fn or print)(result)
    return result


def summarize(
    network: Sequential, input_shape: Shape, backend: Backend, expand_nested: bool = True, show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> Table:  # fmt: skip
    """Return the table. Inner layers have the paths that parameters and errors use."""
    params, _, _ = base.init(network, ShapesOnly(), input_shape)
    filled: Tree = network.filled(params)  # type: ignore[no-untyped-call]
    shared, fixed = dict(network.links), frozen_paths(network)
    places = list(walk_shapes(network, input_shape))
    flops = {id(place): 2 * multiplications(place, subtree(filled, place.path)) for place in places
             if not isinstance(place.layer, Container)}  # fmt: skip
    shown, seen = _range(network, layer_range), {""}
    rows: list[tuple[str, ...]] = [("", "input", str(input_shape), "", "", "")]
    for place in places[1:]:
        path, repeated = place.path, place.path in seen
        seen.add(path)
        if any(path.startswith(f"{later}.") for later in shared) or path.partition(".")[0] not in shown:
            continue
        if not expand_nested and ("." in path or repeated):
            continue
        mine = subtree(params, path)
        parameters = f"shared with {shared[path]}" if path in shared else f"{_count(mine):,}"
        inner = sum(flops.get(id(other), 0) for other in places if _inside(other, place, places))
        trains = "" if not leaves(mine) else "no" if any(_is_below(path, frozen) for frozen in fixed) else "yes"
        rows.append((path, type(place.layer).__name__, str(place.output_shape), parameters, f"{inner:,}", trains))
    frozen = sum(_count(subtree(params, path)) for path in fixed)
    size = 4 if backend.float_name == "float32" else 8
    activations = sum(place.runs * math.prod(place.output_shape) for place in places if id(place) in flops)
    header = ("", "layer", "output shape", "parameters", "FLOPs", "trains")
    columns = len(header) - (not show_trainable)
    notes = [
        f"{_count(params):,} parameters in all" + (f", {frozen:,} of them frozen" if frozen else ""),
        f"{_memory(size * _count(params))} of parameters, {_memory(size * activations)} of activations and "
        f"{sum(flops.values()):,} FLOPs per sample",
    ]
    return Table(header[:columns], [*(row[:columns] for row in rows), *((note,) for note in notes)], "parameters FLOPs")


def _inside(place: Place, outer: Place, places: list[Place]) -> bool:
    """Whether a place is `outer` or inside it. The layer of a wrapper comes after it and has its path."""
    return _is_below(place.path, outer.path) and places.index(place) >= places.index(outer)


def _is_below(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _range(network: Sequential, layer_range: Sequence[str] | None) -> list[str]:
    """Return the paths of the network's own layers from the first to the last of a range."""
    known = [str(i) for i in range(len(network.layers))]
    if layer_range is None:
        return known
    ends = [str(path) for path in layer_range]
    if len(ends) != 2 or not {*ends} <= {*known}:
        raise ValueError(
            f"layer_range must be the paths of the first and the last layer to show, from 0 to {known[-1]}. Received: "
            f"layer_range={layer_range!r}"
        )
    return known[int(ends[0]) : int(ends[1]) + 1]


def _count(params: Tree) -> int:
    return sum(math.prod(p.shape) for p in leaves(params))


def _memory(size: float) -> str:
    power = min(int(math.log(max(size, 1), 1024)), 4)
    return f"{size / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def in_notebook() -> bool:
    """Whether a notebook shows the value of a cell."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython() if ipython else None, "kernel", None) is not None


def model_html(model: Any) -> str:
    """Return what a notebook shows of a model: its layers if their shapes are known, its loss and its optimizer."""
    settings = "".join(
        f"<div>{name}: <code>{escape(repr(part))}</code></div>"
        for name, part in (("loss", model.loss), ("optimizer", model.optimizer), ("backend", model.backend))
    )
    if model.input_shape is None:
        return f"<pre>{escape(repr(model))}</pre>{settings}"
    return summarize(model.network, model.input_shape, model.backend)._repr_html_() + settings


@in_scope
def layer_statistics(model: Any, x: Any, y: Any) -> list[dict[str, Any]]:
    """Return statistics of each layer's activations and gradients in one training pass. The model does not change.

    Parameters
    ----------
    model : Model
        A built model.
    x, y : array
        A batch in the form that `fit` accepts.

    Returns
    -------
    list of dict
        For each layer: ``"layer"``, its name; ``"activation"``, the statistics of its output; and ``"gradient"``, the
        statistics of the gradient of the batch's mean loss with respect to this output. The statistics are ``"mean"``,
        ``"std"``, ``"zeros"`` (the share of exact zeros) and ``"quantiles"`` (at 5, 25, 50, 75 and 95 %).
    """
    state, data = model.built_state(), model.prepare(x, y)
    y, backwards, rows = model.training_step.inference.floating(data["x"]), [], []
    key = model.backend.asarray(step_keys(model.seeds[0], np.array([model.step]))[0])
    params, statistics = (model.network.filled(state[name]) for name in ("params", "statistics"))
    for i, layer in enumerate(model.network.layers):
        layer_key = fold_in(key, i) if layer.needs_key else None
        y, backward, _ = base.forward(layer, params[i], y, layer_key, statistics[i])
        backwards.append(backward)
        rows.append({"layer": f"{i}.{type(layer).__name__}", "activation": _describe(y)})
    _, dy = model.loss(data["y"], y)
    for i in reversed(range(len(rows))):
        rows[i]["gradient"] = _describe(dy)
        dy, _ = backwards[i](dy, i > 0)
    return rows


def _describe(x: Array) -> dict[str, Any]:
    values = to_numpy(x).astype(float)
    quantiles = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "zeros": float(np.mean(values == 0)),
        "quantiles": quantiles.tolist(),
    }
