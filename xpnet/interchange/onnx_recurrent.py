"""Recurrent layers to and from ONNX, whose operators expect (time, batch, features) and gates in another order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xpnet import layers
from xpnet.interchange import onnx_formulas as formulas
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
    settings = {"hidden_size": layer.units, "direction": direction, **attributes}

    def gates(columns):
        """(…, gates · units) in our order -> (gates · units, …) in ONNX's"""
        parts = np.split(columns, len(order), axis=-1)
        return np.concatenate([parts[i] for i in order], axis=-1).T

    zeros = {"recurrent_bias": np.zeros_like(weights[0]["bias"])}  # only GRU has its own
    W, R, b, c = (
        np.stack([gates((zeros | tree)[name]) for tree in weights])
        for name in ("weight", "recurrent_weight", "bias", "recurrent_bias")
    )
    B = np.concatenate([b, c], axis=1)[..., 0]
    if layer.mask_value is not None:
        constants = _mask_constants(time, features, len(pair), layer.units, layer.return_sequences)
        value = np.float32(layer.mask_value)
        return formulas.masked_recurrence(
            op, x, operator, settings, layer.return_sequences, W, R, B, value, **constants
        )
    y, last = getattr(op, operator)(op.Transpose(x, perm=[1, 0, 2]), W, R, B, outputs=2, **settings)
    return op.Transpose(y, perm=[2, 0, 1, 3]) if layer.return_sequences else op.Transpose(last, perm=[1, 0, 2])


def _mask_constants(time, features, directions, units, sequences):
    """The arguments of `formulas.masked_recurrence` that follow from shapes."""
    constants = {
        "steps": np.array([1]), "length": np.float32(time), "positions": np.arange(time, dtype=np.float32),
        "count": np.array([time]), "inner": np.array([2]), "sizes": np.array([1, 1, features]),
    }  # fmt: skip
    if sequences:
        constants |= {
            "axis": np.array(1), "one": np.float32(1), "zero": np.float32(0), "state_axes": np.array([2, 3]),
            "state_sizes": np.array([1, 1, directions, units]),
        }  # fmt: skip
    return constants


# ------------------------------------------------------------------ from files


def read_recurrent(flow, call):
    """Add the layer that RNN, LSTM or GRU computes from a state of 0. Its output is a sequence, or the last state."""
    kind, (_, fixed, _) = next((kind, form) for kind, form in OPERATORS.items() if form[0] == call.node.operator)
    W, R, B = call.weight(1), call.weight(2), call.weight(3, optional=True)
    usual = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}[call.node.operator]
    received = {name: call.attribute(name, 0) for name in fixed}
    if received != fixed:
        raise refuse(f"{fixed}, as in PyTorch and Keras", received)
    call.require(layout=0, input_forget=0, activations=usual * len(W))
    for place in range(4, len(call.node.inputs)):
        state = call.constant(place, optional=True)
        if state is not None and (place not in (5, 6) or state.any()):
            raise refuse("whole sequences and an initial state of 0", f"input {place}")
    sequences = call.output == call.node.outputs[0]
    if not sequences and call.output not in call.node.outputs[1:2]:
        raise refuse("the outputs of all steps or of the last", "the cell state")
    if len(flow.axes) != 3 or flow.axes[1] != 0:
        raise refuse("(time, batch, features)", f"axes {flow.axes}")
    flow.arrange([1, 0, 2])
    units, way = call.attribute("hidden_size", R.shape[-1]), call.attribute("direction", "forward")
    _add(flow, kind, (W, R, B), units, way, sequences)
    both = len(W) == 2
    flow.axes = ([1, 2, 0, 3] if both else [1, None, 0, 2]) if sequences else ([1, 0, 2] if both else [None, 0, 1])


def _add(flow, kind, arrays, units, way, sequences, mask_value=None):
    """Add a layer, or both layers of a Bidirectional, whose outputs get an axis of their own."""
    (W, R, B), order = arrays, OPERATORS[kind][2]
    if {1: "forward", 2: "bidirectional"}.get(len(W)) != way:
        raise refuse("the direction forward or bidirectional", f"direction={way!r} and {len(W)} weights")
    if W.shape[1:2] != (len(order) * units,) or R.shape != (len(W), len(order) * units, units):
        raise refuse("the weights of all gates", f"shapes {W.shape}, {R.shape}")
    B = np.zeros((len(W), 2 * W.shape[1]), W.dtype) if B is None else B
    time, pair = flow.shape[0], [kind(units, return_sequences=sequences, mask_value=mask_value) for _ in W]
    flow.append(layers.Bidirectional(pair[0], backward_layer=pair[1]) if len(W) == 2 else pair[0])
    for layer, w, r, b in zip(pair, W, R, B, strict=True):
        flow.weights[id(layer)] = _our_weights(layer, w, r, b, order)
    if len(W) == 2:
        flow.append(layers.Reshape((time, 2, units) if sequences else (2, units)))


def read_masked(flow, found, kind, sequences):
    """Add the layer of `formulas.masked_recurrence`."""
    flow.in_rows()
    (time, features), W = flow.shape, found["W"]
    units, way = found["hidden_size"], found["direction"]
    if found["positions"].shape != (time,):  # compared first, because the input of a file may claim any length
        raise refuse(f"the positions of {time} steps", f"shape {found['positions'].shape}")
    expected = _mask_constants(time, features, len(W), units, sequences)
    if not all(np.array_equal(found[name], value) for name, value in expected.items()):
        raise refuse("the constants of a mask", f"others for samples of shape {flow.shape}")
    _add(flow, kind, (W, found["R"], found["B"]), units, way, sequences, float(found["value"].reshape(())))
    directions = [len(flow.shape) - 1 if len(W) == 2 else None]
    flow.axes = [0, *([1] if sequences else []), *directions, len(flow.shape)]


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
