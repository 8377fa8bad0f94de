"""Recurrent layers to and from ONNX, whose operators expect (time, batch, features) and gates in another order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xpnet import layers
from xpnet.interchange.onnx_flow import refuse
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


# ------------------------------------------------------------------ from files


def read_recurrent(flow, call):
    """Add the layer that RNN, LSTM or GRU computes from a state of 0. Its output is a sequence, or the last state."""
    kind, (_, fixed, order) = next((kind, form) for kind, form in OPERATORS.items() if form[0] == call.node.operator)
    W, R, B = call.weight(1), call.weight(2), call.weight(3, optional=True)
    way = call.attribute("direction", "forward")
    if W.ndim != 3 or R.ndim != 3 or len(W) != len(R) or {1: "forward", 2: "bidirectional"}.get(len(W)) != way:
        raise refuse("weights of one direction or of both, forward first", f"direction={way!r}, shape {W.shape}")
    units, both = R.shape[2], len(W) == 2
    if R.shape[1] != len(order) * units or W.shape[1] != R.shape[1] or len(flow.axes) != 3 or flow.axes[1] != 0:
        raise refuse("(time, batch, features) and the weights of all gates", f"shapes {W.shape}, {R.shape}")
    B = np.zeros((len(W), 2 * W.shape[1]), W.dtype) if B is None else B
    usual = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}[call.node.operator]
    received = {name: call.attribute(name, 0) for name in fixed}
    if received != fixed:
        raise refuse(f"{fixed}, as in PyTorch and Keras", received)
    call.require(layout=0, input_forget=0, hidden_size=units, activations=usual * len(W))
    for place in range(4, len(call.node.inputs)):
        state = call.constant(place, optional=True)
        if state is not None and (place not in (5, 6) or state.any()):
            raise refuse("whole sequences and an initial state of 0", f"input {place}")
    sequences = call.output == call.node.outputs[0]
    if not sequences and call.output not in call.node.outputs[1:2]:
        raise refuse("the outputs of all steps or of the last", "the cell state")

    flow.arrange([1, 0, 2])
    time, pair = flow.shape[0], [kind(units, return_sequences=sequences) for _ in W]
    flow.append(layers.Bidirectional(pair[0], backward_layer=pair[1]) if both else pair[0])
    for layer, w, r, b in zip(pair, W, R, B, strict=True):
        flow.weights[id(layer)] = _our_weights(layer, w, r, b, order)
    if both:
        flow.append(layers.Reshape((time, 2, units) if sequences else (2, units)))
    flow.axes = ([1, 2, 0, 3] if both else [1, None, 0, 2]) if sequences else ([1, 0, 2] if both else [None, 0, 1])


def _our_weights(layer, w, r, b, order):
    """The weights of a layer from those of one direction: (gates · units, …) in ONNX's order -> (…, gates · units) in ours"""

    def columns(rows):
        parts = np.split(rows, len(order), axis=0)
        return np.concatenate([parts[order.index(i)] for i in range(len(order))], axis=0).T

    first, second = np.split(b[:, None], 2)
    rows = {"bias": columns(first), "recurrent_bias": columns(second)}
    if not isinstance(layer, layers.GRU):
        rows = {"bias": rows["bias"] + rows["recurrent_bias"]}
    return {"weight": columns(w), "recurrent_weight": columns(r), **rows}


def read_bidirectional_sum(flow, call):
    """The sum over both directions: a `Bidirectional` that adds its outputs"""
    axes, keep = call.attribute("axes", []), call.attribute("keepdims", 1)
    call.require(noop_with_empty_axes=0)
    axis = flow.axes[axes[0]] if len(axes) == 1 and -len(flow.axes) <= axes[0] < len(flow.axes) else None
    pair = flow.layers[-2] if len(flow.layers) > 1 else None
    if not isinstance(pair, layers.Bidirectional) or keep or axis != len(flow.shape) - 1 or flow.shape[-2] != 2:
        raise refuse("a sum over the directions of a bidirectional layer", f"axes {axes}")
    flow.pop(), flow.pop()
    flow.append(replace(pair, merge_mode="sum"))
    place = axes[0] % len(flow.axes)
    flow.axes = [
        other if other is None or other < axis else other - 1 for i, other in enumerate(flow.axes) if i != place
    ]
