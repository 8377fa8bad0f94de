"""ONNX files as plain values. Nothing in a file is trusted: it is data, and every part is checked when it is used."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet.errors import ConversionError, optional_import
from xpnet.files import StrPath, as_path, without_waiting

OLDEST = 13  # the oldest opset whose operators are read
MOST_NODES = 100_000
REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceSum")


@dataclass(frozen=True)
class Node:
    """An operator: the names of its inputs and outputs ("" if omitted), and its attributes as Python values and arrays."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"Node {self.name or self.outputs[0]:.100}, {self.operator:.50}"


class OnnxFile(NamedTuple):
    """The graph of a file. The shape of the input has None for a size that is not fixed."""

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    input: str
    input_shape: tuple[int | None, ...]
    output: str


def read(path: StrPath) -> OnnxFile:
    """Read a file with one input and one output.

    Raises
    ------
    ConversionError
        The file is not a complete ONNX file, or it has several inputs or outputs, custom operators or control flow.
    """
    path = as_path(path)
    proto = optional_import("onnx", "onnx").ModelProto()
    proto.ParseFromString(_content(path, 0, None))
    graph = proto.graph
    opset = {one.domain: one.version for one in proto.opset_import}.get("", 0)
    if opset < OLDEST:
        raise ConversionError(f"Expected an ONNX file of opset {OLDEST} or newer. Received: opset {opset}")
    if len(graph.node) > MOST_NODES:
        raise ConversionError(f"Expected at most {MOST_NODES:,} nodes. Received: {len(graph.node):,}")
    if graph.sparse_initializer or proto.functions:
        raise ConversionError(
            "Expected a graph without sparse constants and functions. Received: a graph that has them"
        )
    constants = {tensor.name: _array(tensor, path.parent) for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        names = [one.name for one in inputs], [one.name for one in graph.output]
        raise ConversionError(f"Expected one input and one output, as a Model has. Received: {names!s:.300}")
    known = {"", inputs[0].name, *constants}
    nodes = []
    for node_proto in graph.node:
        node = _node(node_proto, path.parent, opset)
        new = [name for name in node.outputs if name]
        if not {*node.inputs} <= known or known & {*new} or len({*new}) < len(new) or not new:
            raise ConversionError(
                f"{node}: expected inputs from nodes before it, and new outputs. Received: {node!s:.300}"
            )
        known.update(new)
        if node.operator == "Constant":
            constants[node.outputs[0]] = _constant(node)
        elif node.operator in REDUCTIONS and len(node.inputs) == 2:  # since opset 13 or 18, the axes are an input
            axes = constants.get(node.inputs[1])
            if axes is None or axes.ndim != 1 or axes.size > 8:
                raise ConversionError(f"{node}: expected constant axes. Received: {node.inputs[1]!r:.100}")
            nodes.append(replace(node, inputs=node.inputs[:1], attributes=node.attributes | {"axes": axes.tolist()}))
        else:
            nodes.append(node)
    if graph.output[0].name not in known:
        raise ConversionError(f"Expected an output that a node computes. Received: {graph.output[0].name!r:.100}")
    dims = inputs[0].type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)
    return OnnxFile(tuple(nodes), constants, inputs[0].name, shape, graph.output[0].name)


def _node(proto: Any, folder: Path, opset: int) -> Node:
    helper = optional_import("onnx.helper", "onnx")
    attributes: dict[str, Any] = {}
    node = Node(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output) or ("",), attributes)
    if proto.domain not in ("", "ai.onnx"):
        raise ConversionError(f"{node}: expected ONNX's own operators. Received: the domain {proto.domain!r:.100}")
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == attribute.TENSOR:
            value = _array(value, folder)
        elif attribute.type in (attribute.INTS, attribute.FLOATS):
            value = list(value)
        elif attribute.type == attribute.STRING:
            value = value.decode()
        elif attribute.type == attribute.STRINGS:
            value = [text.decode() for text in value]
        elif attribute.type not in (attribute.INT, attribute.FLOAT):
            expected = f"numbers, text or a tensor as {attribute.name!r:.100}"
            raise ConversionError(f"{node}: expected {expected}. Received: another type")
        if attribute.type in (attribute.INT, attribute.INTS) and any(
            abs(n) > 2**31 for n in np.atleast_1d(value).tolist()
        ):
            expected = f"sizes below 2³¹ as {attribute.name!r:.100}"
            raise ConversionError(f"{node}: expected {expected}. Received: {value!s:.100}")
        attributes[attribute.name] = value
    return node


def _constant(node: Node) -> np.ndarray:
    values = list(node.attributes.values())
    if len(values) != 1 or isinstance(values[0], str):
        raise ConversionError(f"{node}: expected one value of numbers. Received: {list(node.attributes)!r:.100}")
    return np.asarray(values[0])


def _array(tensor: Any, folder: Path) -> np.ndarray:
    """The array of a tensor, whose numbers may be in a second file of the same folder."""
    name, helper = tensor.name, optional_import("onnx.numpy_helper", "onnx")
    if any(size < 0 for size in tensor.dims) or len(tensor.dims) > 32:
        raise ConversionError(f"Expected a shape of the constant {name!r:.100}. Received: {list(tensor.dims)!r:.100}")
    if tensor.data_location == tensor.EXTERNAL:
        place = {entry.key: entry.value for entry in tensor.external_data}
        location = place.get("location", "")
        if not location or location in (".", "..") or set(location) & set("/\\\0"):
            raise ConversionError(
                f"Expected the data of {name!r:.100} in a file of the same folder. Received: {location!r:.200}"
            )
        size = np.dtype(optional_import("onnx.helper", "onnx").tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        for count in tensor.dims:
            size *= count
        content = _content(folder / location, int(place.get("offset", 0)), size)
        tensor = type(tensor)(name=name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
    array = helper.to_array(tensor)
    if array.dtype.kind not in "fiub":
        raise ConversionError(f"Expected numbers as the constant {name!r:.100}. Received: {array.dtype}")
    return array


def _content(path: Path, offset: int, size: int | None) -> bytes:
    """Part of a regular file that is not a symbolic link; all of it if `size` is None."""

    def opener(name: str, flags: int) -> int:
        return without_waiting(name, flags | (0 if size is None else getattr(os, "O_NOFOLLOW", 0)))

    with open(path, "rb", opener=opener) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConversionError(f"Expected a regular file at {path}. Received: a pipe, a socket or a device")
        length = status.st_size if size is None else size
        if not 0 <= offset <= offset + length <= status.st_size:
            raise ConversionError(
                f"Expected {length:,} bytes at {offset:,} in {path}. Received: {status.st_size:,} bytes"
            )
        file.seek(offset)
        return file.read(length)
