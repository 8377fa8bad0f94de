"""Recurrent layers in ONNX, whose operators expect (time, batch, features) and gates in another order."""

from __future__ import annotations

import numpy as np

from xpnet import layers
from xpnet.layers.mapping import innermost

OPERATORS: dict[type, tuple] = {  # the operator, its attributes, and the places of ONNX's gates among ours
    layers.SimpleRNN: ("RNN", {}, [0]),
    layers.LSTM: ("LSTM", {}, [0, 3, 1, 2]),  # i, o, f, g; ours are i, f, g, o
    layers.GRU: ("GRU", {"linear_before_reset": 1}, [0, 1, 2]),
}


def recurrent(op, x, at):
    y = _run(op, x, at.shape, [at.layer], [at.weights], "forward")
    return op.Squeeze(y, np.array([-2]))


def bidirectional(op, x, at):
    pair: list = [innermost(child) for child in at.layer.children.values()]
    weights = [at.weights[name] for name in at.layer.children]
    if len({(type(layer), layer.mask_value) for layer in pair}) == 1:
        y = _run(op, x, at.shape, pair, weights, "bidirectional")
    else:
        runs = zip(pair, weights, ("forward", "reverse"), strict=True)
        y = op.Concat(*(_run(op, x, at.shape, [layer], [tree], way) for layer, tree, way in runs), axis=-2)
    if at.layer.merge_mode == "sum":
        return op.ReduceSum(y, np.array([-2]), keepdims=0)
    return op.Reshape(y, np.array([0, *at.output_shape]))


def _run(op, x, shape, pair, weights, direction):
    """Return the outputs of all layers, (batch, time, layers, units), or (batch, layers, units) without sequences."""
    layer, (time, features) = pair[0], shape
    operator, attributes, order = OPERATORS[type(layer)]
    lengths = None
    if layer.mask_value is not None:
        valid, lengths, steps = _valid_steps(op, x, layer.mask_value, time)
        x = _take_steps(op, x, steps, [1, 1, features])

    def gates(columns):
        """(…, gates · units) in our order -> (gates · units, …) in ONNX's"""
        parts = np.split(columns, len(order), axis=-1)
        return np.concatenate([parts[i] for i in order], axis=-1).T

    zeros = {"recurrent_bias": np.zeros_like(weights[0]["bias"])}  # only GRU has its own
    W, R, b, c = (
        np.stack([gates((zeros | tree)[name]) for tree in weights])
        for name in ("weight", "recurrent_weight", "bias", "recurrent_bias")
    )
    y, last = getattr(op, operator)(
        op.Transpose(x, perm=[1, 0, 2]), W, R, np.concatenate([b, c], axis=1)[..., 0], lengths,
        outputs=2, hidden_size=layer.units, direction=direction, **attributes,
    )  # fmt: skip
    if not layer.return_sequences:
        return op.Transpose(last, perm=[1, 0, 2])
    y = op.Transpose(y, perm=[2, 0, 1, 3])
    if lengths is None:
        return y
    places = op.Max(op.Sub(op.CumSum(valid, np.array(1)), np.float32(1)), np.float32(0))
    y = _take_steps(op, y, op.Cast(places, to=7), [1, 1, len(pair), layer.units])
    return op.Where(op.Unsqueeze(op.Cast(valid, to=9), np.array([2, 3])), y, np.float32(layer.mask_value))


def _valid_steps(op, x, mask_value, time):
    """Return which steps are not masked (1 or 0), how many, and a permutation that puts them first, in their order.

    ONNX's operators skip only steps at the end of a sequence.
    """
    differs = op.Cast(op.Not(op.Equal(x, np.float32(mask_value))), to=1)
    valid = op.ReduceMax(differs, axes=[-1], keepdims=0)
    lengths = op.Cast(op.ReduceSum(valid, np.array([1]), keepdims=0), to=6)
    rank = op.Sub(op.Mul(valid, np.float32(time)), np.arange(time, dtype=np.float32))
    _, steps = op.TopK(rank, np.array([time]), axis=1, outputs=2)
    return valid, lengths, steps


def _take_steps(op, x, steps, sizes):
    """x[n, steps[n, t], …]"""
    axes = np.arange(2, len(sizes))
    return op.GatherElements(x, op.Expand(op.Unsqueeze(steps, axes), np.array(sizes)), axis=1)
