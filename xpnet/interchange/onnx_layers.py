"""How ONNX computes each layer at inference.

A converter ``(op, x, at) -> y`` adds nodes to the graph: `op` has ONNX's operators, x and y are names of values, and `at` has the
layer, its weights and its shapes. ONNX's image operators expect (batch, channels, ...), so they are between transpositions.
Layers that act only in training add nothing.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from xpnet import layers, losses
from xpnet.interchange import onnx_formulas as formulas
from xpnet.interchange.onnx_graph import Converter
from xpnet.interchange.onnx_recurrent import bidirectional, recurrent
from xpnet.layers.windows import Window


def nothing(op, x, at):
    return x


# ------------------------------------------------------------------ rows and activations


def dense(op, x, at):
    bias = at.weights.get("bias")
    return op.Gemm(x, at.weights["weight"], None if bias is None else bias[0])


def gelu(op, x, at):
    if at.layer.approximate == "none":
        return formulas.gelu(op, x, *numbers(math.sqrt(2), 1, 0.5))
    return formulas.gelu_tanh(op, x, *numbers(0.044715, math.sqrt(2 / math.pi), 1, 0.5))


def rescaling(op, x, at):
    scale, offset = numbers(at.layer.scale, at.layer.offset)
    return op.Add(op.Mul(x, scale), offset)


def numbers(*values):
    return [np.float32(value) for value in values]


# ------------------------------------------------------------------ images and sequences


def channels_first(op, x, at):
    rank = len(at.shape) + 1
    return op.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last(op, y, at):
    rank = len(at.shape) + 1
    return op.Transpose(y, perm=[0, *range(2, rank), 1])


def kernel(weight):
    """(…, a, b) -> (b, a, …)"""
    return np.moveaxis(weight, (-1, -2), (0, 1))


def pads(windows):
    return [window.before for window in windows] + [window.after for window in windows]


def convolution(op, x, at):
    layer, bias = at.layer, at.weights.get("bias")
    settings = zip(at.shape[:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    windows = [Window.fit(*setting, layer.padding) for setting in settings]
    y = op.Conv(
        channels_first(op, x, at), kernel(at.weights["weight"]), None if bias is None else bias[0],
        strides=layer.strides, dilations=layer.dilation_rate, group=layer.groups, pads=pads(windows),
    )  # fmt: skip
    return channels_last(op, y, at)


def transposed_convolution(op, x, at):
    layer, bias = at.layer, at.weights.get("bias")
    settings = zip(at.output_shape[:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    windows = [Window.fit(*setting, layer.padding) for setting in settings]
    ends = [w.padded - (w.count - 1) * w.stride - (w.kernel - 1) * w.dilation - 1 for w in windows]  # no window reaches
    y = op.ConvTranspose(
        channels_first(op, x, at), kernel(at.weights["weight"]), None if bias is None else bias[0],
        strides=layer.strides, dilations=layer.dilation_rate, group=layer.groups, pads=pads(windows), output_padding=ends,
    )  # fmt: skip
    return channels_last(op, y, at)


def max_pooling(op, x, at):
    y = op.MaxPool(channels_first(op, x, at), **_pooling(at))
    return channels_last(op, y, at)


def average_pooling(op, x, at):
    y = op.AveragePool(channels_first(op, x, at), count_include_pad=0, **_pooling(at))
    return channels_last(op, y, at)


def _pooling(at):
    settings = zip(at.shape[:-1], at.layer.pool_size, at.layer.strides, strict=True)
    windows = [Window.fit(size, kernel, stride, 1, at.layer.padding) for size, kernel, stride in settings]
    return {"kernel_shape": at.layer.pool_size, "strides": at.layer.strides, "pads": pads(windows)}


def global_average_pooling(op, x, at):
    return op.ReduceMean(x, axes=list(range(1, len(at.shape))), keepdims=0)


def global_max_pooling(op, x, at):
    return op.ReduceMax(x, axes=list(range(1, len(at.shape))), keepdims=0)


def zero_padding(op, x, at):
    (top, bottom), (left, right) = at.layer.padding
    return op.Pad(x, np.array([0, top, left, 0, 0, bottom, right, 0]))


def up_sampling(op, x, at):
    scales = np.array([1, 1, *at.layer.size], np.float32)
    settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return channels_last(op, op.Resize(channels_first(op, x, at), None, scales, **settings), at)


def random_crop(op, x, at):
    (h, w, _), (height, width) = at.shape, (at.layer.height, at.layer.width)
    s, t = (h - height) // 2, (w - width) // 2
    return op.Slice(x, np.array([s, t]), np.array([s + height, t + width]), np.array([1, 2]))


# ------------------------------------------------------------------ shapes


def flatten(op, x, at):
    return op.Flatten(x, axis=1)


def reshape(op, x, at):
    return op.Reshape(x, np.array([0, *at.output_shape]))  # 0: the size of x, here the batch


# ------------------------------------------------------------------ normalizations


def batch_normalization(op, x, at):
    mean, variance = at.weights["mean"][0], at.weights["variance"][0]
    gamma = at.weights["gamma"][0] if at.layer.scale else np.ones_like(mean)
    beta = at.weights["beta"][0] if at.layer.center else np.zeros_like(mean)
    y = op.BatchNormalization(channels_first(op, x, at), gamma, beta, mean, variance, epsilon=at.layer.epsilon)
    return channels_last(op, y, at)


def layer_normalization(op, x, at):
    gamma, beta = at.weights["gamma"][0], at.weights["beta"][0]
    return op.LayerNormalization(x, gamma, beta, axis=-1, epsilon=at.layer.epsilon)


def group_normalization(op, x, at):
    groups, (*sizes, channels) = at.layer.groups, at.shape
    grouped, ungrouped = np.array([0, groups, -1]), np.array([0, channels, *sizes])
    gamma, beta = (at.weights[name].reshape(-1, *[1] * len(sizes)) for name in ("gamma", "beta"))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    x = channels_first(op, x, at)
    y = formulas.group_normalization(op, x, grouped, ones, zeros, at.layer.epsilon, ungrouped, gamma, beta)
    return channels_last(op, y, at)


def rms_normalization(op, x, at):
    two, epsilon = numbers(2, at.layer.epsilon)
    return formulas.rms_normalization(op, x, two, [-1], epsilon, at.weights["gamma"][0])


# ------------------------------------------------------------------ tokens and attention


def embedding(op, x, at):
    weight = at.weights["weight"]
    if at.layer.padding_idx is not None:
        weight = weight.copy()
        weight[at.layer.padding_idx] = 0.0
    return op.Gather(weight, x)


def position_embedding(op, x, at):
    return op.Add(x, at.weights["weight"][: at.shape[0]])


def attention(op, x, at):
    (time, _), heads, weights = at.shape, at.layer.num_heads, at.weights
    width = weights["output_weight"].shape[0]
    divided, joined = np.array([0, time, 3, heads, width // heads]), np.array([0, time, width])
    mask = np.triu(np.full((time, time), -np.inf, np.float32), 1) if at.layer.use_causal_mask else None
    scale, first, second, third = np.float32(1 / math.sqrt(width // heads)), np.array(0), np.array(1), np.array(2)
    return formulas.attention(
        op, x, weights["weight"], weights["bias"][0], divided, first, second, third, scale, joined,
        weights["output_weight"], weights["output_bias"][0], mask,
    )  # fmt: skip


# ------------------------------------------------------------------ containers


def sequential(op, x, at):
    return reduce(lambda y, child: child(y), at.children, x)


def time_distributed(op, x, at):
    (child,) = at.children
    y = child(op.Reshape(x, np.array([-1, *at.shape[1:]])))
    return op.Reshape(y, np.array([-1, *at.output_shape]))


# ------------------------------------------------------------------ what predict adds to the outputs


def first_half(op, z, at):
    """The means of `GaussianNLL`"""
    return op.Split(z, outputs=2, axis=-1)[0]


ANSWERS: dict[type, Converter] = {
    losses.BinaryCrossEntropy: lambda op, z, at: op.Sigmoid(z) if at.layer.from_logits else z,
    losses.GaussianNLL: first_half,
    losses.Poisson: lambda op, z, at: op.Exp(z) if at.layer.log_input else z,
    losses.SoftmaxCrossEntropy: lambda op, z, at: op.Softmax(z, axis=-1),
}

CONVERTERS: dict[type, Converter] = {
    layers.ELU: lambda op, x, at: op.Elu(x, alpha=at.layer.alpha),
    layers.GELU: gelu,
    layers.SELU: lambda op, x, at: op.Selu(x, alpha=1.6732632423543772, gamma=1.0507009873554805),
    layers.LeakyReLU: lambda op, x, at: op.LeakyRelu(x, alpha=at.layer.negative_slope),
    layers.LogSoftmax: lambda op, x, at: op.LogSoftmax(x, axis=-1),
    layers.ReLU: lambda op, x, at: op.Relu(x),
    layers.Sigmoid: lambda op, x, at: op.Sigmoid(x),
    layers.SiLU: lambda op, x, at: formulas.silu(op, x),
    layers.Softmax: lambda op, x, at: op.Softmax(x, axis=-1),
    layers.Softplus: lambda op, x, at: op.Softplus(x),
    layers.Tanh: lambda op, x, at: op.Tanh(x),
    layers.MultiHeadAttention: attention,
    layers.RandomCrop: random_crop,
    layers.RandomFlip: nothing,
    layers.RandomRotation: nothing,
    layers.RandomTranslation: nothing,
    layers.Add: lambda op, x, at: reduce(op.Add, [child(x) for child in at.children]),
    layers.Concatenate: lambda op, x, at: op.Concat(*[child(x) for child in at.children], axis=at.layer.axis),
    layers.TimeDistributed: time_distributed,
    layers.Conv1D: convolution,
    layers.Conv2D: convolution,
    layers.Conv2DTranspose: transposed_convolution,
    layers.Dense: dense,
    layers.Dropout: nothing,
    layers.Embedding: embedding,
    layers.PositionEmbedding: position_embedding,
    layers.Frozen: sequential,
    layers.GaussianNoise: nothing,
    layers.SpatialDropout1D: nothing,
    layers.SpatialDropout2D: nothing,
    layers.BatchNormalization: batch_normalization,
    layers.GroupNormalization: group_normalization,
    layers.LayerNormalization: layer_normalization,
    layers.RMSNormalization: rms_normalization,
    layers.AveragePooling1D: average_pooling,
    layers.AveragePooling2D: average_pooling,
    layers.GlobalAveragePooling1D: global_average_pooling,
    layers.GlobalAveragePooling2D: global_average_pooling,
    layers.GlobalMaxPooling1D: global_max_pooling,
    layers.GlobalMaxPooling2D: global_max_pooling,
    layers.MaxPooling1D: max_pooling,
    layers.MaxPooling2D: max_pooling,
    layers.Bidirectional: bidirectional,
    layers.GRU: recurrent,
    layers.LSTM: recurrent,
    layers.SimpleRNN: recurrent,
    layers.ChannelsLast: lambda op, x, at: channels_last(op, x, at),
    layers.Flatten: flatten,
    layers.Identity: nothing,
    layers.Permute: lambda op, x, at: op.Transpose(x, perm=[0, *at.layer.dims]),
    layers.Rescaling: rescaling,
    layers.Reshape: reshape,
    layers.UpSampling2D: up_sampling,
    layers.ZeroPadding2D: zero_padding,
    layers.Sequential: sequential,
}
