"""Models from ONNX files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet import layers, losses
from xpnet.backend import Backend
from xpnet.errors import ConversionError
from xpnet.files import StrPath
from xpnet.interchange.onnx_calls import Call
from xpnet.interchange.onnx_files import Node, OnnxFile, read
from xpnet.interchange.onnx_flow import Flow, refuse
from xpnet.interchange.onnx_operators import OPERATORS
from xpnet.interchange.onnx_patterns import FORMULAS, match
from xpnet.interchange.onnx_values import Values
from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.model import Model
from xpnet.optimizers import Optimizer
from xpnet.random import ShapesOnly
from xpnet.settings import check_shape
from xpnet.tree import join, named_leaves

MOST_LAYERS = 10_000
BY_LAST_LAYER = {layers.Softmax: losses.softmax_cross_entropy, layers.Sigmoid: losses.binary_cross_entropy}


def load_onnx(
    path: StrPath,
    loss: str | Loss | None = None,
    optimizer: str | Optimizer = "sgd",
    metrics: Sequence[str | Metric] = (),
    *,
    input_shape: Shape | None = None,
    backend: str | Backend | None = None,
) -> Model:
    """Read the network of an ONNX file, with its weights. `Model.predict` returns what the file computes.

    The file may come from `save_onnx` or from another program, such as PyTorch. Its operators must be those that xpnet's layers
    have: the table in docs/export.md lists them. Images have the order of axes that they have in the file.

    Parameters
    ----------
    path : path-like
        A file with one input and one output, of opset 13 or newer. Its numbers may be in a second file of the same folder.
    loss : str or Loss, optional
        If the network ends with the activation that the loss includes, this layer is left out, because `predict` applies it.
        By default ``"softmax_cross_entropy"`` after a softmax, ``"binary_cross_entropy"`` after a sigmoid, otherwise
        ``"mean_squared_error"``.
    optimizer, metrics, backend : optional
        As in `Model`.
    input_shape : tuple of int, optional
        The shape of one sample, for files in which a size besides the batch may vary.

    Returns
    -------
    Model

    Raises
    ------
    ConversionError
        The file is damaged, or it has an operator or a setting that no layer has. The message names the node.
    ImportError
        The package onnx is missing (the extra ``onnx``).
    """
    loss = None if loss is None else losses.get(loss)
    try:
        file = read(path)
        return _model(_Network(file, input_shape).flow, loss, optimizer, metrics, backend)
    except (OSError, ImportError):
        raise
    except ConversionError as error:
        raise ConversionError(f"{os.fspath(path)}: {error}") from error
    except Exception as error:
        raise ConversionError(
            f"{os.fspath(path)}: Expected a complete ONNX file. Received: {type(error).__name__}: {error!s:.500}"
        ) from error


def _model(flow: Flow, loss: Any, optimizer: Any, metrics: Any, backend: str | Backend | None) -> Model:
    """Build the model, without an activation that its loss includes, and set the weights."""
    last: Any = flow.layers[-1] if flow.layers else None
    if loss is None:
        loss = BY_LAST_LAYER.get(type(last), losses.mean_squared_error)
        if len(flow.shape) > 1 and type(last) in BY_LAST_LAYER:
            loss = losses.PerPosition(loss)
    loss = losses.get(loss)
    if type(last).__name__ == loss.row_loss.built_in:
        flow.pop()
    network = layers.Sequential(flow.layers or [layers.Identity()])
    weights = {
        join(path, name): array
        for path, layer in base.walk(network)
        for name, array in flow.weights.get(id(layer), {}).items()
    }
    params, _, statistics = base.init(network, ShapesOnly(), flow.shapes[0])
    for name, needed in [*named_leaves(params), *named_leaves(statistics)]:
        if (found := weights[name].shape) != needed.shape:
            raise ConversionError(
                f"Expected weights that fit the input: {name} of shape {needed.shape}. Received: shape {found}"
            )
    model = Model(network, loss, optimizer, metrics, backend=backend).build(flow.shapes[0])
    model.load_state_dict(weights)
    if flow.axes == [0]:  # one number for each sample
        model.target_shape = ()
    return model


class _Step(NamedTuple):
    """A step from one value to the next: an operator, or a formula of several operators."""

    value: str
    node: Node
    formula: Callable[[Flow, dict[str, Any]], None] | None = None
    found: dict[str, Any] | None = None


class _Network:
    """The layers of a graph. A chain is followed from its end to its beginning, and then built."""

    def __init__(self, file: OnnxFile, input_shape: Shape | None):
        self.values, self.count = Values(file), 0
        rank = len(file.input_shape)
        sizes = file.input_shape[1:] if input_shape is None else check_shape(input_shape)
        if rank < 2 or any(n is None for n in sizes) or len(sizes) != rank - 1:
            raise ConversionError(
                "Expected the shape of one sample. Pass input_shape=..., without the batch. Received: an input of shape "
                f"{file.input_shape}, and input_shape={input_shape}"
            )
        self.batch = file.input_shape[0]
        self.flow = Flow(check_shape(sizes), range(rank), {})
        self.flow.at_input = True
        self.values.dims[file.input] = self.flow.dims
        self.build(self.flow, file.input, file.output)
        if self.flow.outside:
            raise refuse("a network for each sample", "an output for each step of all samples")
        if self.flow.tokens and not layers.Sequential(self.flow.layers).integer_input:
            raise refuse("an embedding of tokens", "an input that is converted to integers")
        if len(self.flow.axes) != 1 or math.prod(self.flow.shape) != 1:
            self.flow.in_rows()
            if self.flow.axes != list(range(len(self.flow.axes))):
                raise refuse("an output with the batch first", f"axes {self.flow.axes}")

    def build(self, flow: Flow, start: str, end: str) -> None:
        """Add the layers between two values to a flow; all paths to the end go through the start."""
        for step in reversed(self.steps(start, end)):
            try:
                self.add(flow, step)
            except ValueError as error:
                if isinstance(error, ConversionError) and str(error).startswith("Node "):
                    raise
                raise ConversionError(f"{step.node}: {error}") from error
            self.values.dims[step.value] = flow.dims

    def steps(self, start: str, end: str) -> list[_Step]:
        """Return the steps from the end back to the start. Parallel branches form one step."""
        found = []
        while end != start:
            self.count += 1
            if self.count > MOST_LAYERS:
                raise ConversionError(f"Expected a network of at most {MOST_LAYERS:,} layers. Received: more")
            node = self.values.producers.get(end)
            if node is None or end not in self.values.data:
                raise ConversionError(f"Expected an output that depends on the input. Received: {end!r:.100}")
            step = _Step(end, node)
            end = self.values.common(self.values.data_inputs(node))
            for expression, formula in FORMULAS:
                variables = match(expression, step.value, self.values.producers, self.values.data)
                if variables is not None:
                    step, end = _Step(step.value, node, formula, variables), variables["x"]
                    break
            found.append(step)
        return found

    def add(self, flow: Flow, step: _Step) -> None:
        node, inputs = step.node, self.values.data_inputs(step.node)
        if step.formula is not None and step.found is not None:
            known = {name: v[0] if isinstance(v, tuple) else self.values.constant(v) for name, v in step.found.items()}
            step.formula(flow, known)
        elif len(inputs) > 1 or node.operator in ("Concat", "Sum"):
            start = self.values.common(inputs)
            self.join(flow, node, [self.branch(flow, start, name) for name in node.inputs])
        elif node.operator not in OPERATORS:
            raise refuse("an operator that layers have (docs/export.md lists them)", node.operator)
        elif node.inputs.count(inputs[0]) > 1:
            raise refuse("different inputs", "the same value twice")
        else:
            constants = [self.values.constant(name) for name in node.inputs]
            if node.operator == "Reshape" and self.batch is not None and constants[1] is not None:
                constants[1] = _without_batch(constants[1], self.batch, flow)
            call = Call(node, constants, step.value)
            OPERATORS[node.operator](flow, call)
            if call.attributes:
                raise refuse("attributes that a layer has", ", ".join(map(str, call.attributes)))

    def branch(self, flow: Flow, start: str, end: str) -> Flow:
        if end not in self.values.data:
            raise refuse("values that depend on the data", f"the constant {end!r:.100}")
        new = Flow(flow.shape, flow.axes, flow.weights)
        self.build(new, start, end)
        if new.outside:
            raise refuse("a network for each sample", "an output for each step of all samples")
        return new

    def join(self, flow: Flow, node: Node, branches: list[Flow]) -> None:
        """Add the layer that joins branches."""
        first = next((branch for branch in branches if branch.layers), branches[0])
        if any(branch.axes != first.axes for branch in branches):
            if {*first.axes} != {*range(len(first.axes))}:
                first.in_rows()
            for branch in branches:
                branch.arrange([first.axes.index(axis) for axis in range(len(first.axes))])
        parts = [_layer(branch.layers) for branch in branches]
        if node.operator in ("Add", "Sum"):
            flow.append(layers.Add(tuple(parts)))
        elif node.operator == "Concat":
            axis = node.attributes.get("axis", 0)
            if not -len(first.axes) <= axis < len(first.axes) or first.axes[axis] in (None, 0):
                raise refuse("an axis of the samples", f"axis={axis}")
            flow.append(layers.Concatenate(tuple(parts), first.axes[axis]))  # type: ignore[arg-type]
        else:
            raise refuse("Add, Sum or Concat of values from several branches", node.operator)
        flow.axes = first.axes


def _layer(inner: list[Layer]) -> Layer:
    return inner[0] if len(inner) == 1 else layers.Sequential(inner) if inner else layers.Identity()


def _without_batch(shape: np.ndarray, batch: int, flow: Flow) -> np.ndarray:
    """Return a shape in which a fixed batch size is replaced by 0, which keeps the size."""
    place = flow.axes.index(0)
    if -1 in shape.tolist()[:place] or shape.ndim != 1 or place >= shape.size or shape[place] != batch or flow.outside:
        return shape
    return np.where(np.arange(shape.size) == place, 0, shape)
