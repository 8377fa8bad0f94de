"""The values in the graph of an ONNX file: which depend on the data, which are known, and what all paths to a value share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.interchange.onnx_files import Node, OnnxFile
from xpnet.interchange.onnx_flow import refuse

MOST = 1000  # numbers in a value that is computed from shapes
EFFORT = 10_000_000  # steps in the search for common ancestors


class Values:
    """The values of a graph by name.

    Attributes
    ----------
    producers : dict of str to Node
        The node that computes a value.
    data : set of str
        The values that depend on the numbers in the input, not only on its shape.
    dims : dict of str to list
        The shapes of the values that layers have been built for, with None for the batch.
    """

    def __init__(self, file: OnnxFile):
        self.producers = {name: node for node in file.nodes for name in node.outputs if name}
        self.data = {file.input}
        self.dims: dict[str, list[int | None]] = {}
        self.known: dict[str, np.ndarray | None] = dict(file.constants)
        self.ancestor, self.depth, self.effort = {file.input: file.input}, {file.input: 0}, EFFORT
        for node in file.nodes:
            inputs = self.data_inputs(node)
            if inputs and node.operator != "Shape":
                above = self.common(inputs)
                for name in filter(None, node.outputs):
                    self.data.add(name)
                    self.ancestor[name], self.depth[name] = above, self.depth[above] + 1

    def data_inputs(self, node: Node) -> list[str]:
        """The different inputs that depend on the data."""
        return [name for name in dict.fromkeys(node.inputs) if name in self.data]

    def common(self, names: list[str]) -> str:
        """The last value through which all paths from the input to these values go."""
        first = names[0]
        for other in names[1:]:
            while first != other:
                if self.depth[first] < self.depth[other]:
                    first, other = other, first
                first = self.ancestor[first]
                self.effort -= 1
                if self.effort < 0:
                    raise refuse("a network of simple branches", "a graph with too many paths")
        return first

    def constant(self, name: str) -> np.ndarray | None:
        """The value if it is known without the data. The size of the batch is written as 0."""
        if name in self.data or not name:
            return None
        if name not in self.known:
            node = self.producers[name]
            if node.operator not in FOLDED:
                raise refuse("constants, and values computed from shapes", f"{node} of constants")
            if node.operator == "Shape":
                dims = self.dims.get(node.inputs[0])
                if dims is None:
                    raise refuse("the shape of a value between layers", f"the shape of {node.inputs[0]!r:.100}")
                whole = slice(node.attributes.get("start", 0), node.attributes.get("end"))
                self.known[name] = np.array([n or 0 for n in dims], np.int64)[whole]
            else:
                self.known[name] = FOLDED[node.operator](node, *map(self.constant, node.inputs))
        return self.known[name]


def _small(*arrays: np.ndarray | None) -> None:
    if sum(array.size for array in arrays if array is not None) > MOST:
        raise refuse(f"at most {MOST} numbers in a value that is computed from shapes", "more")


def _cast(node: Node, x: Any) -> Any:
    kinds = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
    if node.attributes.get("to") not in kinds:
        raise refuse("floating-point numbers or integers", f"the type {node.attributes.get('to')}")
    return x.astype(kinds[node.attributes["to"]])


def _concat(node: Node, *parts: Any) -> Any:
    _small(*parts)
    return np.concatenate(parts, axis=node.attributes["axis"])


def _multiply(node: Node, a: Any, b: Any) -> Any:
    _small(np.broadcast_to(np.empty(()), np.broadcast_shapes(a.shape, b.shape)))
    return a * b


def _gather(node: Node, x: Any, i: Any) -> Any:
    _small(i)
    return np.take(x, i, axis=node.attributes.get("axis", 0))


def _slice(node: Node, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    if not x.ndim:  # an expanded number
        return x
    _small(x, starts, ends)
    axes = range(len(starts)) if axes is None else axes.tolist()
    steps = np.ones_like(starts) if steps is None else steps
    index = [slice(None)] * x.ndim
    for axis, *part in zip(axes, starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        index[axis] = slice(*part)
    return x[tuple(index)]


def _full(node: Node, shape: Any) -> Any:
    """An array of one number. If its shape has the batch, it can only be an initial state of zeros."""
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32))).reshape(())
    if not value and (0 in shape.tolist() or np.prod(shape.astype(float)) > MOST):
        return value
    if 0 in shape.tolist():
        raise refuse("zeros for each sample", f"the number {value}")
    _small(np.broadcast_to(value, shape.tolist()))
    return np.full(shape.tolist(), value)


def _expand(node: Node, x: Any, shape: Any) -> Any:
    """Zeros of any shape: only the value matters, so it is one number."""
    if x.any():
        raise refuse("zeros", "other repeated numbers")
    return np.zeros((), x.dtype)


def _axes(axes: Any) -> Any:
    return None if axes is None else tuple(axes.reshape(-1).tolist())


FOLDED: dict[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _full,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": lambda node, x: x,
    "Mul": _multiply,
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Shape": lambda node, x: x,
    "Slice": _slice,
    "Squeeze": lambda node, x, axes=None: np.squeeze(x, _axes(axes)),
    "Transpose": lambda node, x: np.transpose(x, node.attributes.get("perm")),
    "Unsqueeze": lambda node, x, axes: np.expand_dims(x, _axes(axes)),
}
