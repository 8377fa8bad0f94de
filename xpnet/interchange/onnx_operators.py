"""The layers that each of ONNX's operators becomes: functions ``(flow, call)`` that add layers to a `Flow`.

A function raises an error for attributes that no layer has, so a file never gives wrong results silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.interchange import onnx_images as images
from xpnet.interchange.onnx_calls import Call
from xpnet.interchange.onnx_flow import Flow, refuse
from xpnet.interchange.onnx_recurrent import read_bidirectional_sum, read_recurrent
from xpnet.layers.base import Layer

FLOATS, TOKENS = (1, 10, 11, 16), (6, 7)  # ONNX's numbers of types: float32, 16, 64, bfloat16; int32 and 64


def elementwise(make: Callable[[Call], Any]) -> Callable[[Flow, Call], None]:
    """An operator that is a layer for any order of axes."""
    return lambda flow, call: flow.append(make(call))


def nothing(flow: Flow, call: Call) -> None:
    """Identity, and Dropout at inference."""
    call.ignore("seed", "ratio")
    if len(call.constants) > 2 and call.constants[2] is not None and call.constants[2].any():
        raise refuse("a Dropout at inference", "training_mode=True")


def cast(flow, call):
    """From one floating-point type to another, and of the input to numbers or tokens."""
    to = call.attribute("to")
    call.ignore("saturate", "round_mode")
    if to in TOKENS and flow.at_input and not flow.layers:
        flow.tokens = True
    elif to not in FLOATS:
        raise refuse("floating-point numbers", f"the type {to}")


def selu(call):
    call.attributes = {name: round(value, 4) for name, value in call.attributes.items()}
    call.require(alpha=1.6733, gamma=1.0507)
    return layers.SELU()


def softmax(make):
    def operator(flow, call):
        flow.with_last(call.axis(len(flow.axes)))
        flow.append(make())

    return operator


# ------------------------------------------------------------------ products


def gemm(flow, call):
    call.require(transA=0, alpha=1.0, beta=1.0)
    weight, bias = call.weight(1), call.weight(2, optional=True)
    _dense(flow, weight.T if call.attribute("transB", 0) else weight, bias, rank=2)


def matmul(flow, call):
    if call.constants[0] is not None:
        raise refuse("the weights as the second factor", "the weights as the first factor")
    _dense(flow, call.weight(1), None, rank=len(flow.axes))


def _dense(flow, weight, bias, rank):
    if weight.ndim != 2 or len(flow.axes) != rank or rank < 2:
        raise refuse("rows and a matrix", f"weights of shape {weight.shape} and {len(flow.axes)} axes")
    flow.with_last(rank - 1)
    units = weight.shape[1]
    layer: Layer = layers.Dense(units, use_bias=bias is not None)
    for _ in range(rank - 2):
        layer = layers.TimeDistributed(layer)
    if bias is not None and bias.size not in (1, units):
        raise refuse(f"a bias of {units} numbers", f"shape {bias.shape}")
    row = {} if bias is None else {"bias": np.broadcast_to(bias.reshape(1, -1), (1, units))}
    flow.append(layer, {"weight": weight, **row})


# ------------------------------------------------------------------ shapes


def reshape(flow, call):
    call.ignore("allowzero")  # a size of 0 comes only from a batch whose size is not known
    flow.view(call.integers(1))


def flatten(flow, call):
    if call.axis(len(flow.axes), 1) != 1 or flow.axes[0] != 0:
        raise refuse("axis=1 and the batch first", f"axes {flow.axes}")
    flow.view([0, -1])


def transpose(flow, call):
    order = call.attribute("perm", list(reversed(range(len(flow.axes)))))
    if sorted(order) != list(range(len(flow.axes))):
        raise refuse(f"a permutation of {len(flow.axes)} axes", f"perm={order}")
    flow.axes = [flow.axes[i] for i in order]


def squeeze(flow, call):
    axes = call.integers(1, optional=True)
    dims = flow.dims
    dropped = {i % len(dims) for i in axes} if axes else {i for i, n in enumerate(dims) if n == 1}
    if any(dims[i] != 1 for i in dropped):
        raise refuse("axes of size 1", f"axes {sorted(dropped)} of {dims}")
    flow.axes = [axis for i, axis in enumerate(flow.axes) if i not in dropped]


def unsqueeze(flow, call):
    axes = call.integers(1)
    rank = len(flow.axes) + len(axes)
    new, old = {i % rank for i in axes}, iter(list(flow.axes))
    if len(new) < len(axes) or rank > 8:
        raise refuse("different axes, of at most 8", f"axes {axes}")
    flow.axes = [None if i in new else next(old) for i in range(rank)]


# ------------------------------------------------------------------ normalizations, tokens, arithmetic


def batch_normalization(flow, call):
    call.require(training_mode=0)
    call.ignore("momentum")
    flow.with_last(1)
    names = ("gamma", "beta", "mean", "variance")
    rows = {name: call.weight(i).reshape(1, -1) for i, name in enumerate(names, 1)}
    flow.append(layers.BatchNormalization(epsilon=call.attribute("epsilon", 1e-5)), rows)


def layer_normalization(flow, call):
    rank = len(flow.axes)
    call.require(stash_type=1)
    if call.axis(rank) != rank - 1:
        raise refuse("a normalization over the last axis", "a normalization over several axes")
    flow.with_last(rank - 1)
    gamma, beta = call.weight(1).reshape(1, -1), call.weight(2, optional=True)
    rows = {"gamma": gamma, "beta": np.zeros_like(gamma) if beta is None else beta.reshape(1, -1)}
    flow.append(layers.LayerNormalization(call.attribute("epsilon", 1e-5)), rows)


def group_normalization(flow, call):
    """The operator of opset 21, and instance normalization."""
    call.require(stash_type=1)
    flow.with_last(1)
    channels = flow.shape[-1]
    groups = call.attribute("num_groups") if call.node.operator == "GroupNormalization" else channels
    rows = {name: call.weight(i).reshape(1, -1) for i, name in ((1, "gamma"), (2, "beta"))}
    flow.append(layers.GroupNormalization(groups, call.attribute("epsilon", 1e-5)), rows)


def gather(flow, call):
    axis = call.axis(len(call.constants[0].shape if call.constants[0] is not None else flow.axes), 0)
    if call.constants[0] is not None:  # a table of vectors, and tokens from the data
        table = call.weight(0)
        if table.ndim != 2 or axis != 0 or flow.layers or not flow.at_input:
            raise refuse("a matrix and the tokens of the input", f"a table of shape {table.shape}")
        flow.in_rows()
        flow.append(layers.Embedding(*table.shape), {"weight": table})
        flow.axes = [*flow.axes, len(flow.axes)]
        return
    step, last = call.constant(1), flow.layers[-1] if flow.layers else layers.Identity()
    ends = step.size == 1 and int(step.reshape(-1)[0]) in (-1, (flow.dims[axis] or 0) - 1)
    recurrent = isinstance(last, (layers.SimpleRNN, layers.LSTM, layers.GRU)) and last.return_sequences
    if not (ends and recurrent and flow.axes[axis] == 1 and step.ndim == 0):
        raise refuse("the last step of a recurrent layer", "another part of a value")
    weights = flow.weights.pop(id(flow.pop()))
    flow.append(replace(last, return_sequences=False), weights)
    flow.axes = [1 if other == 2 else other for i, other in enumerate(flow.axes) if i != axis]


def arithmetic(flow, call):
    """x + c, x - c, c - x, x c or x / c with a number, or x + b with a bias or with one vector for each step."""
    operator, first = call.node.operator, call.constants[0] is not None  # whether the constant comes first
    constant = call.weight(0 if first else 1)
    if constant.size == 1 and constant.ndim <= len(flow.axes):
        c = float(constant.reshape(-1)[0])
        if operator == "Div" and (first or not c):
            raise refuse("a value divided by a number", "a number divided by a value, or zero")
        if operator in ("Mul", "Div"):
            scale, offset = (c if operator == "Mul" else 1 / c), 0.0
        else:
            scale, offset = (
                (-1.0 if operator == "Sub" and first else 1.0),
                (-c if operator == "Sub" and not first else c),
            )
        last = flow.layers[-1] if flow.layers else None
        if isinstance(last, layers.Rescaling) and not last.offset and scale == 1.0:
            scale = flow.pop().scale
        flow.append(layers.Rescaling(scale, offset))
        return
    if operator != "Add":
        raise refuse("a number", f"an array of shape {constant.shape}")
    bias = constant.reshape((1,) * (len(flow.axes) - constant.ndim) + constant.shape)
    wide = [i for i, n in enumerate(bias.shape) if n > 1]
    if len(wide) == 1 and flow.axes[wide[0]] == len(flow.shape) and flow.add_bias(bias.reshape(-1)):
        return
    if len(flow.axes) != 3 or flow.axes[0] != 0 or bias.shape[0] != 1 or bias.shape[1:] != tuple(flow.dims[1:]):
        raise refuse(
            "a number, a bias, or one vector for each step of a sequence", f"an array of shape {constant.shape}"
        )
    flow.in_rows()
    flow.append(layers.PositionEmbedding(bias.shape[1]), {"weight": bias[0]})


OPERATORS: dict[str, Callable[[Flow, Call], None]] = {
    "Add": arithmetic,
    "AveragePool": images.pooling,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Conv": images.convolution,
    "ConvTranspose": images.transposed_convolution,
    "Div": arithmetic,
    "Dropout": nothing,
    "Elu": elementwise(lambda call: layers.ELU(call.attribute("alpha", 1.0))),
    "Flatten": flatten,
    "GRU": read_recurrent,
    "Gather": gather,
    "Gelu": elementwise(lambda call: layers.GELU(call.attribute("approximate", "none"))),
    "Gemm": gemm,
    "GlobalAveragePool": images.global_pooling,
    "GlobalMaxPool": images.global_pooling,
    "GroupNormalization": group_normalization,
    "Identity": nothing,
    "InstanceNormalization": group_normalization,
    "LSTM": read_recurrent,
    "LayerNormalization": layer_normalization,
    "LeakyRelu": elementwise(lambda call: layers.LeakyReLU(call.attribute("alpha", 0.01))),
    "LogSoftmax": softmax(layers.LogSoftmax),
    "MatMul": matmul,
    "MaxPool": images.pooling,
    "Mul": arithmetic,
    "Pad": images.pad,
    "RNN": read_recurrent,
    "ReduceMax": images.reduction,
    "ReduceMean": images.reduction,
    "ReduceSum": read_bidirectional_sum,
    "Relu": elementwise(lambda call: layers.ReLU()),
    "Reshape": reshape,
    "Resize": images.resize,
    "Selu": elementwise(selu),
    "Sigmoid": elementwise(lambda call: layers.Sigmoid()),
    "Softmax": softmax(layers.Softmax),
    "Softplus": elementwise(lambda call: layers.Softplus()),
    "Squeeze": squeeze,
    "Sub": arithmetic,
    "Tanh": elementwise(lambda call: layers.Tanh()),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
