"""A network as data for the page's script: a list of layers, each with its shapes, settings and arrays."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.backend import to_numpy
from xpnet.checks import require_one_network
from xpnet.layers.base import Container, Shape
from xpnet.layers.frozen import Frozen
from xpnet.layers.parameters import frozen_paths
from xpnet.layers.sequential import Sequential
from xpnet.layers.shapes import Place, walk_shapes
from xpnet.layers.windows import Window
from xpnet.tree import Tree, subtree

# The kinds of layers in network.js: layer class -> kind
ELEMENTWISE = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "SELU": "selu", "GELU": "gelu", "SiLU": "silu",
               "Softplus": "softplus", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softmax": "softmax", "LogSoftmax": "log_softmax",
               "Rescaling": "rescaling", "GlobalAveragePooling2D": "global_average", "GlobalMaxPooling2D": "global_max",
               "Flatten": "identity", "Reshape": "identity", "Identity": "identity"}  # fmt: skip
RANDOM = ("Dropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D", "RandomFlip", "RandomRotation",
          "RandomTranslation")  # the identity at inference  # fmt: skip
LOSSES = {"SoftmaxCrossEntropy": "softmax", "BinaryCrossEntropy": "sigmoid", "CategoricalCrossEntropy": "probabilities",
          "MeanSquaredError": "linear"}  # fmt: skip


def describe(model: Any, encode: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
    """Return the network in inference mode as values for JSON. `encode` converts arrays.

    Raises
    ------
    ValueError
        The page's script does not have a layer or the loss, a layer is at several places, or the model has several seeds. The
        message names it.
    """
    loss = type(model.loss).__name__
    if loss not in LOSSES or getattr(model.loss, "label_smoothing", None):
        raise ValueError(
            f"playground needs one of the losses {', '.join(LOSSES)}, without label smoothing. Received: {model.loss!r}"
        )
    require_one_network("playground", model)
    if model.network.links:
        later, first = model.network.links[0]
        raise ValueError(
            "playground cannot show one layer object at several places, whose gradients are added. Received: the layer at "
            f"{first} and {later}"
        )
    params, statistics = (model.built_state()[name] for name in ("params", "statistics"))
    fixed = frozen_paths(model.network)
    described = []
    for place in walk_shapes(model.network, model.input_shape):
        if isinstance(place.layer, (Sequential, Frozen)):
            continue
        frozen = any(place.path == path or place.path.startswith(f"{path}.") for path in fixed)
        kind, settings, arrays = _layer(place, subtree(params, place.path), subtree(statistics, place.path))
        described.append(
            {"path": place.path, "name": type(place.layer).__name__, "kind": kind, "input": place.input_shape,
             "output": place.output_shape, "frozen": frozen, "settings": settings,
             "arrays": {name: encode(np.asarray(array)) for name, array in arrays.items()}}
        )  # fmt: skip
    return {"layers": described, "output": LOSSES[loss]}


def _layer(place: Place, params: Tree, statistics: Tree) -> tuple[str, dict[str, Any], dict[str, Any]]:
    layer, name = place.layer, type(place.layer).__name__
    own = getattr(layers, name, None) is type(layer) if name in layers.__all__ else False
    arrays = {} if isinstance(layer, Container) else {key: to_numpy(p) for key, p in params.items()}
    settings = {field.name: getattr(layer, field.name) for field in fields(layer)}  # type: ignore[arg-type]
    if own and name in RANDOM:
        return "identity", {}, {}
    if own and name in ELEMENTWISE:
        return ELEMENTWISE[name], {key: value for key, value in settings.items() if key != "target_shape"}, {}
    if own and name == "Dense":
        return "dense", {}, arrays
    if own and name == "Conv2D" and layer.groups == 1:  # type: ignore[attr-defined]
        return "conv", _windows(place.input_shape, settings, layer.kernel_size), arrays  # type: ignore[attr-defined]
    if own and name in ("MaxPooling2D", "AveragePooling2D"):
        kind = "max_pool" if name == "MaxPooling2D" else "average_pool"
        return kind, _windows(place.input_shape, settings, layer.pool_size), {}  # type: ignore[attr-defined]
    if own and name == "BatchNormalization":
        mean, variance = (to_numpy(statistics[key]).astype(float) for key in ("mean", "variance"))
        scale = arrays.get("gamma", 1.0) / np.sqrt(variance + layer.epsilon)  # type: ignore[attr-defined]
        return "scale", {}, {"scale": scale, "shift": arrays.get("beta", 0.0) - mean * scale}
    supported = sorted(
        {"Dense", "Conv2D", "MaxPooling2D", "AveragePooling2D", "BatchNormalization", *ELEMENTWISE, *RANDOM}
    )
    raise ValueError(
        f"The playground cannot compute layer {place.path}, {name}. Its script has these layers, also inside Sequential and "
        f"Frozen: {', '.join(supported)} (Conv2D without groups). Received: {layer!r}"
    )


def _windows(input_shape: Shape, settings: dict[str, Any], kernel: tuple[int, ...]) -> dict[str, Any]:
    strides, dilation = settings["strides"], settings.get("dilation_rate", (1, 1))
    windows = [
        Window.fit(*setting, settings["padding"])
        for setting in zip(input_shape[:-1], kernel, strides, dilation, strict=True)
    ]
    return {"kernel": kernel, "strides": strides, "dilation": dilation, "before": [window.before for window in windows]}


def encoded(x: np.ndarray, dtype: str) -> dict[str, Any]:
    """Return an array as base64 with little-endian numbers."""
    data = np.ascontiguousarray(x, np.dtype(dtype).newbyteorder("<"))
    return {"shape": x.shape, "dtype": dtype, "data": base64.b64encode(data.tobytes()).decode("ascii")}
