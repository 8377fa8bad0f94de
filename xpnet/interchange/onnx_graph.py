"""An ONNX graph under construction. Converters write formulas with ONNX's operators: ``op.Add(op.MatMul(x, W), b)``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.layers.base import Shape

OPSET = 17  # the version of ONNX's operators in exported files; ONNX Runtime reads it since 1.12 (2022)


@dataclass
class Graph:
    """The nodes and constants of a graph, and a method for each operator of ONNX.

    ``op.Conv(x, W, b, strides=[2, 2])`` adds a node and returns the name of its output; keywords are ONNX's attributes. With
    ``outputs=2`` it returns two names. An input is a name or a NumPy array, which becomes a constant of the file. Equal
    constants are stored once, so shared weights remain shared. An input of None is omitted.

    Parameters
    ----------
    helper, numpy_helper : module
        `onnx.helper` and `onnx.numpy_helper`.
    """

    helper: Any
    numpy_helper: Any
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    path: str = ""
    known: dict[Any, str] = field(default_factory=dict)

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        if not operator[0].isupper():
            raise AttributeError(operator)

        def add(*inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
            name = self._name(operator)
            results = [name, *(f"{name}.{i}" for i in range(1, outputs))]
            names = ["" if x is None else x if isinstance(x, str) else self._constant(np.asarray(x)) for x in inputs]
            self.nodes.append(self.helper.make_node(operator, names, results, name, **attributes))
            return name if outputs == 1 else results

        return add

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """A ``with`` block in which new nodes are named after the layer at this path."""
        outer, self.path = self.path, path
        yield
        self.path = outer

    def _constant(self, array: np.ndarray) -> str:
        content = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        if content not in self.known:
            name = self.known[content] = self._name("constant")
            self.constants.append(self.numpy_helper.from_array(array, name))
        return self.known[content]

    def _name(self, kind: str) -> str:
        return f"{self.path}/{kind}.{len(self.nodes) + len(self.constants)}"


@dataclass(frozen=True)
class LayerContext:
    """What a converter knows about a layer besides its input.

    Attributes
    ----------
    layer : Layer
        The settings.
    weights : dict of str to array
        Parameters and running statistics, float32; the tree of the parameters for a container.
    shape, output_shape : tuple of int
        The shape of one sample of the input and of the output.
    children : sequence of callable
        For each layer in a container, a function ``child(x) -> y`` that adds it to the graph.
    """

    layer: Any
    weights: Any
    shape: Shape
    output_shape: Shape
    children: Sequence[Callable[[str], str]]


Converter = Callable[[Any, str, LayerContext], str]  # (op, x, at) -> y
