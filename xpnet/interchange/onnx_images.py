"""Convolutions, pooling, padding and resizing in ONNX files."""

from __future__ import annotations

import numpy as np

from xpnet import layers
from xpnet.interchange.onnx_flow import refuse
from xpnet.layers.windows import Window

NOT_NEGATIVE = (layers.ReLU, layers.Sigmoid, layers.Softmax, layers.Softplus)


def convolution(flow, call):
    W, bias = call.weight(1), call.weight(2, optional=True)
    rank, group = _images(flow, call, W), call.attribute("group", 1)
    strides, dilations = (call.attribute(name, [1] * rank) for name in ("strides", "dilations"))
    pairs = _pads(flow, call, W.shape[2:], strides, dilations)
    padding = _padding(flow, pairs, W.shape[2:], strides, dilations)
    cls = layers.Conv2D if rank == 2 else layers.Conv1D
    layer = cls(W.shape[0], W.shape[2:], tuple(strides), padding, tuple(dilations), group, use_bias=bias is not None)
    flow.append(layer, _kernel(W, bias))


def transposed_convolution(flow, call):
    W, bias = call.weight(1), call.weight(2, optional=True)
    rank, group = _images(flow, call, W), call.attribute("group", 1)
    if rank != 2:
        raise refuse("images", f"a kernel of shape {W.shape}")
    strides, dilations = (tuple(call.attribute(name, [1] * rank)) for name in ("strides", "dilations"))
    call.require(auto_pad="NOTSET")
    call.ignore("output_shape")
    pads, extra = call.attribute("pads", [0] * 4), call.attribute("output_padding", [0] * 2)
    spans = list(zip(flow.shape, W.shape[2:], strides, dilations, pads, pads[2:], extra, strict=False))
    wanted = [((n - 1) * s + e + (k - 1) * d + 1 - a - b, a) for n, k, s, d, a, b, e in spans]
    for padding in ("valid", "same", pads[0]):
        layer = layers.Conv2DTranspose(
            W.shape[1] * group, W.shape[2:], strides, padding, dilations, group, use_bias=bias is not None
        )
        try:
            *sizes, _ = layer.output_shape(flow.shape)
            cut = [Window.fit(n, k, s, d, padding).before for n, (_, k, s, d, *_) in zip(sizes, spans, strict=True)]
        except ValueError:
            continue
        if list(zip(sizes, cut, strict=True)) == wanted:
            flow.append(layer, _kernel(W, bias))
            return
    raise refuse("the padding of a Conv2DTranspose", f"pads={pads}, output_padding={extra}")


def _images(flow, call, W):
    """Move the channels last. Return the number of axes of an image."""
    rank = W.ndim - 2
    if rank not in (1, 2) or len(flow.axes) != W.ndim:
        raise refuse("sequences or images", f"a kernel of shape {W.shape} and {len(flow.axes)} axes")
    call.require(kernel_shape=list(W.shape[2:]))
    flow.with_last(1)
    return rank


def _kernel(W, bias):
    return {"weight": np.moveaxis(W, (0, 1), (-1, -2))} | ({} if bias is None else {"bias": bias.reshape(1, -1)})


def _pads(flow, call, kernel, strides, dilations):
    """The zeros before and after each axis."""
    rank, auto = len(kernel), call.attribute("auto_pad", "NOTSET")
    pads = call.attribute("pads", [0] * 2 * rank)
    if (
        not len(pads) == 2 * len(strides) == 2 * len(dilations) == 2 * rank
        or min(pads) < 0
        or len(flow.shape) != rank + 1
    ):
        raise refuse(f"pads, strides and dilations of {rank} axes", f"pads={pads}")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = _same(flow, kernel, strides, dilations)
        return pairs if auto == "SAME_UPPER" else [pair[::-1] for pair in pairs]
    return list(zip(pads[:rank], pads[rank:], strict=True)) if auto == "NOTSET" else [(0, 0)] * rank


def _padding(flow, pairs, kernel, strides, dilations):
    """Return the setting of a convolution that pads like this. If none does, add a layer that adds zeros."""
    if not any(map(any, pairs)):
        return "valid"
    if pairs == _same(flow, kernel, strides, dilations):
        return "same"
    if len({n for pair in pairs for n in pair}) == 1:
        return pairs[0][0]
    return _add_zeros(flow, pairs)


def _same(flow, kernel, strides, dilations):
    """Return the zeros that ``padding="same"`` means."""
    windows = [Window.fit(*settings, "same") for settings in zip(flow.shape, kernel, strides, dilations, strict=False)]
    return [(window.before, window.after) for window in windows]


def _add_zeros(flow, pairs):
    if len(pairs) != 2:
        raise refuse("the same number of zeros at both ends", f"pads {pairs}")
    flow.append(layers.ZeroPadding2D(tuple(pairs)))
    return "valid"


# ------------------------------------------------------------------ pooling and resizing


def pooling(flow, call):
    average, kernel = call.node.operator == "AveragePool", tuple(call.attribute("kernel_shape", ()))
    rank = len(kernel)
    if rank not in (1, 2) or len(flow.axes) != rank + 2:
        raise refuse("sequences or images", f"kernel_shape={kernel} and {len(flow.axes)} axes")
    flow.with_last(1)
    strides, ones = tuple(call.attribute("strides", [1] * rank)), [1] * rank
    call.require(dilations=ones, storage_order=0)
    pairs = _pads(flow, call, kernel, strides, ones)
    lengths = [n + sum(pair) - k for n, pair, k in zip(flow.shape, pairs, kernel, strict=False)]
    if call.attribute("ceil_mode", 0) and any(n % s for n, s in zip(lengths, strides, strict=True)):
        raise refuse("windows that cover the image, or ceil_mode=0", "ceil_mode=1")
    counts_zeros = bool(call.attribute("count_include_pad", 0))
    padding = "valid"
    if any(map(any, pairs)):
        if pairs == _same(flow, kernel, strides, ones) and not (average and counts_zeros):
            padding = "same"
        elif counts_zeros if average else bool(flow.layers) and isinstance(flow.layers[-1], NOT_NEGATIVE):
            padding = _add_zeros(flow, pairs)  # they count, or are not above the maximum
        else:
            raise refuse('padding that is "valid" or "same"', f"pads {pairs}")
    classes: dict = {
        (True, 1): layers.AveragePooling1D, (True, 2): layers.AveragePooling2D,
        (False, 1): layers.MaxPooling1D, (False, 2): layers.MaxPooling2D,
    }  # fmt: skip
    flow.append(classes[average, rank](kernel, strides, padding))


def reduction(flow, call):
    """A mean or maximum over all places of an image or a sequence."""
    axes, keep = call.attribute("axes"), call.attribute("keepdims", 1)
    call.require(noop_with_empty_axes=0)
    axes = {axis % len(flow.axes) for axis in axes or ()}
    _pool_all(flow, call, axes, keep)


def global_pooling(flow, call):
    _pool_all(flow, call, {*range(2, len(flow.axes))}, keep=True)


def _pool_all(flow, call, reduced, keep):
    rest = [i for i in range(len(flow.axes)) if i not in reduced]
    rank = len(reduced)
    if rank not in (1, 2) or len(rest) != 2 or flow.axes[rest[0]] != 0:
        raise refuse(
            "a reduction over all places of an image or a sequence", f"axes {sorted(reduced)} of {len(flow.axes)}"
        )
    flow.with_last(rest[1])
    classes = {
        ("Mean", 1): layers.GlobalAveragePooling1D, ("Mean", 2): layers.GlobalAveragePooling2D,
        ("Max", 1): layers.GlobalMaxPooling1D, ("Max", 2): layers.GlobalMaxPooling2D,
    }  # fmt: skip
    kind = "Max" if "Max" in call.node.operator else "Mean"
    flow.append(classes[kind, rank]())
    where = {rest[0]: 0, rest[1]: 1}
    flow.axes = [where.get(i) for i in range(rank + 2) if keep or i in where]


def pad(flow, call):
    call.require(mode="constant")
    pads, value = call.integers(1), call.constant(2, optional=True)
    rank = len(flow.axes)
    if len(call.node.inputs) > 3 and call.node.inputs[3]:
        given = [axis % rank for axis in call.integers(3)]
        both = dict(zip(given, zip(pads[: len(given)], pads[len(given) :], strict=True), strict=True))
    else:
        both = dict(enumerate(zip(pads[:rank], pads[rank:], strict=True)))
    if value is not None and np.any(value):
        raise refuse("zeros", f"the value {value}")
    padded = [i for i, pair in both.items() if any(pair)]
    last = next((i for i in reversed(range(rank)) if i not in padded and flow.axes[i] != 0), None)
    if rank != 4 or last is None or flow.axes.index(0) in padded:
        raise refuse("zeros around images", f"pads {pads}")
    flow.with_last(last)
    flow.append(layers.ZeroPadding2D(tuple(both.get(flow.axes.index(axis), (0, 0)) for axis in (1, 2))))


def resize(flow, call):
    scales, sizes = call.constant(2, optional=True), call.constant(3, optional=True)
    mode = (
        call.attribute("coordinate_transformation_mode", "half_pixel"),
        call.attribute("nearest_mode", "round_prefer_floor"),
    )
    call.require(mode="nearest", antialias=0)
    call.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value", "keep_aspect_ratio_policy")
    dims = flow.dims
    if scales is not None and scales.size:
        factors = scales.reshape(-1).tolist()
    else:
        factors = [1 if n is None else m / n for m, n in zip(np.reshape(sizes, -1).tolist(), dims, strict=True)]
    whole = [round(factor) for factor in factors]
    enlarged = [i for i, factor in enumerate(whole) if factor > 1]
    same = [abs(a - b) < 1e-6 for a, b in zip(whole, factors, strict=True)]
    last = next((i for i in reversed(range(len(dims))) if i not in enlarged and flow.axes[i] != 0), None)
    fits = all(same) and min(whole) >= 1 and len(whole) == len(dims) == 4 and flow.axes.index(0) not in enlarged
    known = mode == ("asymmetric", "floor") or (mode[0].endswith("half_pixel") and mode[1].startswith("round_prefer"))
    if not (fits and known and last is not None and call.attribute("axes") is None):
        raise refuse("pixels that are repeated a whole number of times", f"factors {factors} with {mode}")
    flow.with_last(last)
    flow.append(layers.UpSampling2D(tuple(whole[flow.axes.index(axis)] for axis in (1, 2))))
