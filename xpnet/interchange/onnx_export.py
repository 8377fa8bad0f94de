"""Models as ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import xpnet
from xpnet.backend import size, to_numpy
from xpnet.errors import ConversionError, optional_import
from xpnet.evaluation import in_target_form
from xpnet.files import StrPath, as_path, replacing
from xpnet.interchange.onnx_graph import OPSET, Converter, Graph, LayerContext
from xpnet.interchange.onnx_layers import ANSWERS, CONVERTERS
from xpnet.interchange.weighted_layers import require_one_network
from xpnet.layers import base
from xpnet.layers.base import Container, Layer, Shape
from xpnet.losses import Loss
from xpnet.model import Model
from xpnet.tree import Tree, join, map_leaves, named_leaves, subtree
from xpnet.weights import named_weights

IR_VERSION = 8  # the version of the file format that came with the opset
LARGEST = 2**31 - 2**20  # bytes of weights, because protocol buffers, and so ONNX files, cannot exceed 2 GB


def save_onnx(
    model: Model, path: StrPath, *, logits: bool = False, converters: Mapping[type, Converter] | None = None
) -> None:
    """Write a model's predictions as an ONNX file, which ONNX Runtime and other programs run without xpnet.

    The file has one input, "input" of shape (batch, *model.input_shape), and one output, "output". The size of the batch may
    vary. Numbers are float32, and tokens are int64. Layers that act only in training are left out. The operators are those of
    opset 17.

    Parameters
    ----------
    model : Model
        A built model with one seed.
    path : path-like
        An existing file is replaced once the new one is complete on disk.
    logits : bool, default False
        By default, the output is that of `Model.predict`, which includes the activation of the loss. If True, it is that of
        `Model.predict_logits`.
    converters : mapping of class to callable, optional
        How ONNX computes custom layers: ``{Softsign: lambda op, x, at: op.Softsign(x)}``. `op` has a method for each operator
        of ONNX, x is the name of the input, and `at` has ``at.layer``, ``at.weights`` and the shapes; see
        `xpnet.interchange.onnx_graph`. A converter returns the name of the output.

    Raises
    ------
    ConversionError
        A layer or the loss has no converter, the model has several seeds, or the file would be larger than 2 GB. The message
        names the layer. Nothing is written.
    ImportError
        The package onnx is missing (the extra ``onnx``).
    RuntimeError
        The model has no parameters yet.
    """
    path, onnx = as_path(path), optional_import("onnx", "onnx")
    helper = optional_import("onnx.helper", "onnx")
    weights, known = _host_weights(model), {**CONVERTERS, **(converters or {})}
    op = Graph(helper, optional_import("onnx.numpy_helper", "onnx"))
    shape = model.input_shape
    z = _convert(op, known, weights, model.network, "", shape, "input")
    y = z if logits else _answer(op, model, z)
    op.nodes.append(helper.make_node("Identity", [y], ["output"], "output"))

    element = onnx.TensorProto.INT64 if model.network.integer_input else onnx.TensorProto.FLOAT
    x_info = helper.make_tensor_value_info("input", element, ["batch", *shape])
    y_info = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["batch", *_output_shape(model, logits)])
    graph = helper.make_graph(op.nodes, "xpnet", [x_info], [y_info], op.constants)
    proto = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="xpnet",
        producer_version=xpnet.__version__,
    )
    try:
        optional_import("onnx.checker", "onnx").check_model(proto, full_check=True)
    except Exception as error:
        raise ConversionError(
            f"The converters must return a valid graph of opset {OPSET}. Received: {type(error).__name__}: {error}"
        ) from error
    with replacing(path) as file:
        file.write(proto.SerializeToString())


def _host_weights(model: Model) -> dict[str, Tree]:
    """Return parameters and statistics as float32 host arrays, repeated at every place of a shared layer."""
    state = model.built_state()
    require_one_network(model)
    total = 4 * sum(size(x) for x in named_weights(state).values())
    if total > LARGEST:
        raise ConversionError(
            f"An ONNX file can hold at most 2 GB. Use a smaller network. Received: weights of {total:,} bytes"
        )
    host = {
        part: map_leaves(lambda x: to_numpy(x).astype(np.float32), state[part]) for part in ("params", "statistics")
    }
    return {part: model.network.filled(tree) for part, tree in host.items()}


def _convert(
    op: Any, known: Mapping[type, Converter], weights: dict[str, Tree], layer: Layer, path: str, shape: Shape, x: str
) -> str:
    """Add a layer, and all layers inside it, to the graph. Return the name of its output."""
    name = f"Layer {path}, {type(layer).__name__}" if path else type(layer).__name__
    converter = known.get(type(layer))
    if converter is None:
        raise ConversionError(
            f"{name}: save_onnx needs a converter for this class. Pass converters={{{type(layer).__name__}: f}} with a function "
            f"f(op, x, at) that computes it with ONNX's operators. Received: {layer!r:.200}"
        )
    own, children = subtree(weights["params"], path), []
    if isinstance(layer, Container):
        inner = zip(named_leaves(layer.children), layer.input_shapes(shape), strict=True)
        children = [
            partial(_convert, op, known, weights, child, join(path, key), child_shape)
            for (key, child), child_shape in inner
        ]
    elif layer.has_statistics:
        own = own | subtree(weights["statistics"], path)
    with op.inside(path):
        y = converter(op, x, LayerContext(layer, own, shape, base.output_shape(layer, shape), children))
    if not isinstance(y, str):
        raise ConversionError(f"{name}: a converter must return the name of its output. Received: {y!r:.200}")
    return y


def _answer(op: Any, model: Model, z: str) -> str:
    """Add the operations that `Model.predict` applies to the network's outputs."""
    loss, shape = model.loss.row_loss, model.measured[model.input_shape].output_shape
    converter = ANSWERS.get(type(loss))
    if converter is not None:
        z = converter(op, z, LayerContext(loss, {}, shape, shape, []))
    elif type(loss).activation is not Loss.activation or not (loss.of_classes or type(loss).decide is Loss.decide):
        raise ConversionError(
            f"save_onnx can write the predictions of xpnet's losses. Pass logits=True. Received: {model.loss!r:.200}"
        )
    answer = _output_shape(model, logits=False)
    return z if len(answer) == len(shape) else op.Reshape(z, np.array([0, *answer]))


def _output_shape(model: Model, logits: bool) -> Shape:
    """The shape of one sample of `Model.predict_logits` or `Model.predict`."""
    z = np.empty((0, *model.measured[model.input_shape].output_shape))
    if logits:
        return z.shape[1:]
    answer = z[..., : z.shape[-1] // model.loss.row_loss.outputs_per_target]
    return in_target_form(answer, model.target_shape, 0).shape[1:]
