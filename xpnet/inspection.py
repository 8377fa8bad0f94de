"""Looking into a network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backend import in_scope, to_numpy
from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.layers.sequential import Sequential, inside
from xpnet.random import fold_in, host_rng, step_keys
from xpnet.tree import Array, leaves


def summary(network: Sequential, input_shape: Shape) -> str:
    """A table: each layer, the shape of its output for one sample, its number of parameters, and below it the layers inside."""
    inner, total, _ = _rows(network, "", input_shape)
    rows = [("", "layer", "output shape", "parameters"), ("", "input", str(input_shape), ""), *inner]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}".rstrip() for a, b, c, d in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, f"{total:,} parameters in all"])


def _rows(container: Layer, prefix: str, shape: Shape) -> tuple[list[tuple], int, Shape]:
    """Rows of the layers inside a container, the number of its parameters, and the shape of its output."""
    params, output_shape, _ = base.init(container, host_rng(0, "weights"), shape)
    rows = []
    for i, layer in enumerate(inside(container)):
        name = f"{prefix}{i}"
        inner, count, layer_shape = _rows(layer, f"{name}.", shape)
        rows += [(name, type(layer).__name__, str(layer_shape), f"{count:,}"), *inner]
        shape = layer_shape if isinstance(container, Sequential) else shape  # branches all take the same
    return rows, sum(math.prod(p.shape) for p in leaves(params)), output_shape


@in_scope
def layer_statistics(model: Any, x: Any, y: Any) -> list[dict[str, Any]]:
    """Activations and gradients of each layer in one training pass; nothing is changed.

    Parameters
    ----------
    model : Model
        Built.
    x, y : array
        A batch, as `fit` takes it.

    Returns
    -------
    list of dict
        For each layer its name, ``"layer"``, and what its output, ``"activation"``, and the gradient of the batch's mean loss
        by this output, ``"gradient"``, are made of: ``"mean"``, ``"std"``, ``"zeros"`` (the share of exact zeros) and
        ``"quantiles"`` (at 5, 25, 50, 75 and 95 %).
    """
    state, data = model.built_state(), model.prepare(x, y)
    y, backwards, rows = model.training_step.inference.floating(data["x"]), [], []
    key = model.backend.asarray(step_keys(model.seeds[0], np.array([model.step]))[0])
    for i, (layer, params) in enumerate(zip(model.network.layers, state["params"], strict=True)):
        statistics = state["statistics"] and state["statistics"][i]
        y, backward, _ = base.forward(layer, params, y, fold_in(key, i) if layer.random else None, statistics)
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
