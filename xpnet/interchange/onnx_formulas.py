"""Layers that need several of ONNX's operators. Each formula appears once, for writing files and for recognizing it in files.

`op` has a method for each operator (`xpnet.interchange.onnx_graph.Graph` adds nodes, `xpnet.interchange.onnx_patterns` compares
them), x is the input, and the other arguments are constants or attributes. PyTorch's exporters write the formulas in the same
way, except for attention.
"""

from __future__ import annotations


def gelu(op, x, root_of_two, one, half):
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root_of_two)), one)), half)


def gelu_tanh(op, x, cubic, scale, one, half):
    u = op.Mul(op.Add(x, op.Mul(op.Mul(x, op.Mul(x, x)), cubic)), scale)
    return op.Mul(op.Mul(x, op.Add(op.Tanh(u), one)), half)


def silu(op, x):
    return op.Mul(x, op.Sigmoid(x))


def rms_normalization(op, x, two, axes, epsilon, gamma):
    square = op.ReduceMean(op.Pow(x, two), axes=axes, keepdims=1)
    return op.Mul(op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(square, epsilon)))), gamma)


def group_normalization(op, x, grouped, ones, zeros, epsilon, ungrouped, gamma, beta):
    """x: (batch, channels, ...)"""
    normalized = op.InstanceNormalization(op.Reshape(x, grouped), ones, zeros, epsilon=epsilon)
    return op.Add(op.Mul(op.Reshape(normalized, ungrouped), gamma), beta)


def attention(op, x, W, b, divided, first, second, third, scale, joined, W_o, b_o, mask=None):
    qkv = op.Transpose(op.Reshape(op.Add(op.MatMul(x, W), b), divided), perm=[2, 0, 3, 1, 4])
    q, k, v = (op.Gather(qkv, i, axis=0) for i in (first, second, third))  # each (batch, heads, time, key_dim)
    scores = op.MatMul(op.Mul(q, scale), op.Transpose(k, perm=[0, 1, 3, 2]))
    if mask is not None:
        scores = op.Add(scores, mask)
    head = op.MatMul(op.Softmax(scores, axis=-1), v)
    return op.Add(op.MatMul(op.Reshape(op.Transpose(head, perm=[0, 2, 1, 3]), joined), W_o), b_o)


def masked_recurrence(
    op, x, operator, settings, sequences, W, R, B, value, steps, length, positions, count, inner, sizes,
    axis=None, one=None, zero=None, state_axes=None, state_sizes=None,
):  # fmt: skip
    """A recurrent operator that skips the steps whose features all equal a value.

    ONNX skips only steps at the end of a sequence. Therefore the other steps are moved to the front, in their order, and the
    outputs are moved back. x: (batch, time, features), y: (batch, time, directions, units) or (batch, directions, units).
    """
    valid = op.ReduceMax(op.Cast(op.Not(op.Equal(x, value)), to=1), axes=[-1], keepdims=0)
    lengths = op.Cast(op.ReduceSum(valid, steps, keepdims=0), to=6)
    _, order = op.TopK(op.Sub(op.Mul(valid, length), positions), count, axis=1, outputs=2)
    moved = op.GatherElements(x, op.Expand(op.Unsqueeze(order, inner), sizes), axis=1)
    y, last = getattr(op, operator)(op.Transpose(moved, perm=[1, 0, 2]), W, R, B, lengths, outputs=2, **settings)
    if not sequences:
        return op.Transpose(last, perm=[1, 0, 2])
    places = op.Cast(op.Max(op.Sub(op.CumSum(valid, axis), one), zero), to=7)
    y = op.GatherElements(
        op.Transpose(y, perm=[2, 0, 1, 3]), op.Expand(op.Unsqueeze(places, state_axes), state_sizes), axis=1
    )
    return op.Where(op.Unsqueeze(op.Cast(valid, to=9), state_axes), y, value)
