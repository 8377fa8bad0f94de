"""A chain of layers under construction, and how the axes of ONNX's value correspond to xpnet's.

Our layers expect the batch first and the channels last. ONNX's operators expect other orders, and files transpose between them.
A transposition only changes the correspondence; the axes are moved when a layer needs another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.errors import ConversionError
from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.layers.mapping import innermost, swap_layers

Weights = dict[int, dict[str, np.ndarray]]  # by the id of a layer


def refuse(expected: str, received: Any) -> ConversionError:
    """Return the error that says what an operator should be; the caller adds which one."""
    return ConversionError(f"expected {expected}. Received: {received!s:.200}")


class Flow:
    """Layers, the shape of one sample of their output, and the axes of the corresponding value of ONNX.

    Attributes
    ----------
    layers : list of Layer
    shapes : list of tuple of int
        The shape of a sample before the first layer and after each layer.
    axes : list of int or None
        Our axis for each axis of ONNX's value: 0 for the batch, None for an axis of size 1 that only ONNX has. Our axes that
        are missing here have size 1.
    weights : dict
        The weights of all layers of the network.
    """

    def __init__(self, shape: Shape, axes: Sequence[int | None], weights: Weights):
        self.layers: list[Any] = []
        self.shapes = [shape]
        self.axes = list(axes)
        self.weights = weights
        self.at_input = False  # whether the flow begins with the input of the network
        self.tokens = False  # whether the file converts the input to integers
        self.outside: list[tuple[list, list]] = []  # layers and shapes around each open TimeDistributed

    @property
    def shape(self) -> Shape:
        return self.shapes[-1]

    @property
    def dims(self) -> list[int | None]:
        """The shape of ONNX's value, with None for the batch."""
        return [1 if axis is None else None if axis == 0 else self.shape[axis - 1] for axis in self.axes]

    def append(self, layer: Layer, weights: dict[str, np.ndarray] | None = None) -> None:
        """Add a layer, with its weights if it has any."""
        self.shapes.append(base.output_shape(layer, self.shape))
        self.layers.append(layer)
        if weights is not None:
            self.weights[id(innermost(layer))] = weights

    def pop(self) -> Any:
        self.shapes.pop()
        return self.layers.pop()

    # ------------------------------------------------------------------ axes

    def arrange(self, order: Sequence[int]) -> None:
        """Bring ONNX's axes into this order in our layout. The batch must be first."""
        sources = [self.axes[i] for i in order]
        if sources[:1] != [0]:
            raise refuse("the batch as an axis of its own", f"axes {self.axes}")
        sizes = tuple(1 if axis is None else self.shape[axis - 1] for axis in sources[1:])
        moving = [axis for axis in sources[1:] if axis is not None and self.shape[axis - 1] > 1]
        if moving != sorted(moving):
            ours = range(1, len(self.shape) + 1)
            dims = [axis for axis in sources[1:] if axis is not None] + [axis for axis in ours if axis not in sources]
            self.append(layers.ChannelsLast() if dims == [*ours[1:], 1] else layers.Permute(tuple(dims)))
        self.reshape(sizes)
        self.axes = [list(order).index(i) for i in range(len(order))]

    def in_rows(self) -> None:
        """Bring the axes into ONNX's order, but the batch first."""
        self.with_last(None)

    def with_last(self, last: int | None) -> None:
        """Bring the axes into ONNX's order, but the batch first and the axis `last` of ONNX's value last."""
        batch = self.axes.index(0)
        middle = [i for i in range(len(self.axes)) if i not in (batch, last)]
        self.arrange([batch, *middle, *([] if last is None else [last])])

    def reshape(self, sizes: Shape) -> None:
        """Add a layer that gives samples this shape, unless they have it."""
        if math.prod(sizes) != math.prod(self.shape):
            raise refuse(f"{math.prod(self.shape)} numbers in each sample", f"the shape {sizes}")
        if sizes == self.shape:
            return
        while self.layers and isinstance(self.layers[-1], (layers.Reshape, layers.Flatten)):
            self.pop()
        if sizes != self.shape:
            self.append(layers.Flatten() if len(sizes) == 1 else layers.Reshape(sizes))

    def view(self, target: list[int]) -> None:
        """Reshape ONNX's value: 0 keeps a size, -1 is computed, and the batch keeps its place or is joined with time."""
        dims, count = self.dims, math.prod(self.shape)
        sizes: list[int | None] = [dims[i] if n == 0 and i < len(dims) else n for i, n in enumerate(target)]
        known = math.prod(n for n in sizes if n is not None and n != -1)
        if sizes.count(-1) > 1 or any(n is not None and (n == 0 or n < -1) for n in sizes) or not known:
            raise refuse("a shape", target)
        if None in sizes:
            sizes = [count // known if n == -1 else n for n in sizes]
        elif -1 in sizes and known == count:
            sizes[sizes.index(-1)] = None
        elif sizes[:1] == [-1] and self.outside and known == count * self.outside[-1][1][-1][0]:
            return self._leave(sizes)
        elif sizes[:1] == [-1] and dims[:1] == [None] and self.shape and known * self.shape[0] == count:
            return self._enter(sizes)
        else:
            raise refuse("a shape that keeps the batch", target)
        place = sizes.index(None)
        if dims.index(None) != place or dims[:place] != sizes[:place]:
            raise refuse("the batch at its place", f"the shape {target} for {dims}")
        own = [axis for axis, n in zip(self.axes, dims, strict=True) if n != 1]
        if [n for n in sizes if n != 1] == [n for n in dims if n != 1]:  # only axes of size 1 come and go
            remaining = iter(own)
            self.axes = [None if n == 1 else next(remaining) for n in sizes]
            return None
        self.in_rows()
        self.reshape(tuple(n for n in sizes if n is not None))
        self.axes = [i + 1 if i < place else 0 if i == place else i for i in range(len(sizes))]
        return None

    def _enter(self, sizes: list[int | None]) -> None:
        """Begin a TimeDistributed: ONNX joins the batch and the first axis."""
        self.in_rows()
        if len(self.shape) < 2:
            raise refuse("a shape that keeps the batch", sizes)
        self.outside.append((self.layers, self.shapes))
        self.layers, self.shapes = [], [self.shape[1:]]
        self.axes = list(range(len(self.shape) + 1))
        self.view([0, *(n for n in sizes[1:] if n is not None)])

    def _leave(self, sizes: list[int | None]) -> None:
        """End the innermost TimeDistributed."""
        self.in_rows()
        inner, shape = self.layers, self.shape
        self.layers, self.shapes = self.outside.pop()
        self.append(layers.TimeDistributed(inner[0] if len(inner) == 1 else layers.Sequential(inner)))
        self.axes = list(range(len(shape) + 2))
        self.view([0, *(n for n in sizes[1:] if n is not None)])

    # ------------------------------------------------------------------ biases

    def add_bias(self, bias: np.ndarray) -> bool:
        """Give the last layer this bias if it is a product without a bias. Return whether it was."""
        last = self.layers[-1] if self.layers else None
        inner: Any = None if last is None else innermost(last)
        kinds = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv2DTranspose)
        if not isinstance(inner, kinds) or inner.use_bias or bias.shape != self.shape[-1:]:
            return False
        new = replace(inner, use_bias=True)
        weights = self.weights.pop(id(inner))
        self.layers[-1] = swap_layers(last, {id(inner): new})
        self.weights[id(new)] = weights | {"bias": bias[None]}
        return True
