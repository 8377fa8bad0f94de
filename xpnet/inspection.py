"""Inspection of a network: the summary, and statistics of activations and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backend import in_scope, to_numpy
from xpnet.layers import base
from xpnet.layers.base import Shape
from xpnet.layers.parameters import frozen_paths
from xpnet.layers.sequential import Sequential
from xpnet.layers.shapes import walk_shapes
from xpnet.random import ShapesOnly, fold_in, step_keys
from xpnet.tree import Array, Tree, leaves, subtree


def summary(network: Sequential, input_shape: Shape) -> str:
    """Return a table of all layers, inner ones included, with the output shape of one sample and the number of parameters."""
    params, _, _ = base.init(network, ShapesOnly(), input_shape)
    shared = dict(network.links)
    rows = [("", "layer", "output shape", "parameters"), ("", "input", str(input_shape), "")]
    for path, layer, _, shape, _ in walk_shapes(network, input_shape):
        if not path or any(path.startswith(f"{later}.") for later in shared):
            continue
        parameters = f"shared with {shared[path]}" if path in shared else f"{_count(subtree(params, path)):,}"
        rows.append((path, type(layer).__name__, str(shape), parameters))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    fixed = sum(_count(subtree(params, path)) for path in frozen_paths(network))
    return "\n".join(
        [*lines, f"{_count(params):,} parameters in all" + (f", {fixed:,} of them frozen" if fixed else "")]
    )


def _count(params: Tree) -> int:
    return sum(math.prod(p.shape) for p in leaves(params))


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
