"""Finds the rows of flattened images, whose features have another order in PyTorch, where images have the channels first."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xpnet import layers
from xpnet.layers.base import Container, Layer, Shape, Wrapper
from xpnet.tree import join, named_leaves

WITH_CHANNELS_FIRST = (  # in PyTorch, the input of these is (batch, channels, ...)
    layers.Conv1D, layers.Conv2D, layers.Conv2DTranspose, layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D,
    layers.AveragePooling2D, layers.UpSampling2D, layers.ZeroPadding2D,
)  # fmt: skip
IN_OUR_ORDER = (
    layers.SimpleRNN, layers.LSTM, layers.GRU, layers.Bidirectional, layers.Embedding, layers.PositionEmbedding,
    layers.MultiHeadAttention, layers.Permute,
)  # fmt: skip


class _Layout(NamedTuple):
    """Whether channels come first in PyTorch, and where each feature of a row is in PyTorch's row (None: in order)."""

    channels_first: bool
    order: np.ndarray | None = None


def flattened_orders(network: Layer, input_shape: Shape) -> dict[str, np.ndarray]:
    """Return the order of the input features, by path, of each layer whose input is a row of flattened images.

    Feature i of our row is feature order[i] of PyTorch's. Images have channels first in PyTorch. Sequences have them first
    after a convolution or pooling.
    """
    orders: dict[str, np.ndarray] = {}
    _visit(network, "", input_shape, _Layout(len(input_shape) == 3), orders)
    return orders


def _visit(layer: Layer, path: str, shape: Shape, layout: _Layout, orders: dict[str, np.ndarray]) -> _Layout:
    """Record the orders of a layer and of all layers inside it. Return the layout of its output."""
    if isinstance(layer, layers.TimeDistributed):
        _visit(layer.layer, path, shape[1:], _Layout(len(shape) == 4), orders)
        return layout
    if isinstance(layer, IN_OUR_ORDER):
        return _Layout(False)
    if isinstance(layer, Container):
        named = list(named_leaves(layer.children))
        inner = zip(named, layer.input_shapes(shape), strict=True)
        if isinstance(layer, (layers.Sequential, Wrapper)):
            for (name, child), child_shape in inner:
                layout = _visit(child, join(path, name), child_shape, layout, orders)
            return layout
        ends = [_visit(child, join(path, name), child_shape, layout, orders) for (name, child), child_shape in inner]
        if isinstance(layer, layers.Concatenate) and any(end.order is not None for end in ends):
            return _Layout(ends[0].channels_first, _joined(layer, shape, ends))
        return ends[0]
    if isinstance(layer, WITH_CHANNELS_FIRST):
        return _Layout(True)
    if layout.channels_first and len(shape) > 1 and len(layer.output_shape(shape)) == 1:
        pooled = isinstance(layer, (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling1D,
                                    layers.GlobalMaxPooling2D))  # fmt: skip
        theirs = np.arange(math.prod(shape)).reshape(shape[-1], *shape[:-1])
        return _Layout(True, None if pooled else np.moveaxis(theirs, 0, -1).reshape(-1))
    if layout.order is not None and type(layer).init is not Layer.init:
        orders[path] = layout.order
    return _Layout(layout.channels_first) if isinstance(layer, layers.Dense) else layout


def _joined(layer: layers.Concatenate, shape: Shape, ends: list[_Layout]) -> np.ndarray:
    widths = [branch.output_shape(shape)[-1] for branch in layer.branches]
    starts = np.cumsum([0, *widths])
    orders = (np.arange(width) if end.order is None else end.order for width, end in zip(widths, ends, strict=True))
    return np.concatenate([start + order for start, order in zip(starts, orders, strict=False)])
