"""Weights in the names and layouts of PyTorch's modules."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.errors import ConversionError, optional_import
from xpnet.files import StrPath
from xpnet.interchange.torch_layout import flattened_orders
from xpnet.interchange.weighted_layers import (
    WeightedLayer,
    Weights,
    converted,
    require_shape,
    set_weights,
    weighted_layers,
)
from xpnet.layers.base import Layer
from xpnet.model import Model
from xpnet.tree import join

Layout = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]  # to PyTorch's, and back
Group = tuple[str, str]  # the name of a module, and the ending of a recurrent module's names, such as "l0_reverse"


def _transpose(weight):
    return weight.T


def _swap_gates(columns):
    """z, r, n <-> r, z, n"""
    first, second, third = np.split(columns, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


SAME: Layout = lambda x: x, lambda x: x
MATRIX: Layout = _transpose, _transpose  # (in, out) <-> (out, in)
ROW: Layout = lambda row: row[0], lambda vector: vector[None]  # (1, c) <-> (c,)
KERNEL: Layout = lambda W: np.moveaxis(W, (-1, -2), (0, 1)), lambda W: np.moveaxis(W, (0, 1), (-1, -2))
GATES: Layout = lambda W: _swap_gates(W).T, lambda W: _swap_gates(W.T)
GATE_BIASES: Layout = lambda b: _swap_gates(b)[0], lambda b: _swap_gates(b[None])

_DENSE = {"weight": ("weight", MATRIX), "bias": ("bias", ROW)}
_CONVOLUTION = {"weight": ("weight", KERNEL), "bias": ("bias", ROW)}
_NORMALIZATION = {"gamma": ("weight", ROW), "beta": ("bias", ROW)}
_RECURRENT = {
    "weight": ("weight_ih", MATRIX), "recurrent_weight": ("weight_hh", MATRIX), "bias": ("bias_ih", ROW),
    "recurrent_bias": ("bias_hh", ROW),
}  # fmt: skip
FORMS: dict[type, dict[str, tuple[str, Layout]]] = {  # our name -> PyTorch's name and layout
    layers.Dense: _DENSE,
    layers.Conv1D: _CONVOLUTION,
    layers.Conv2D: _CONVOLUTION,
    layers.Conv2DTranspose: _CONVOLUTION,
    layers.BatchNormalization: _NORMALIZATION | {"mean": ("running_mean", ROW), "variance": ("running_var", ROW)},
    layers.GroupNormalization: _NORMALIZATION,
    layers.LayerNormalization: _NORMALIZATION,
    layers.RMSNormalization: {"gamma": ("weight", ROW)},
    layers.Embedding: {"weight": ("weight", SAME)},
    layers.PositionEmbedding: {"weight": ("weight", SAME)},
    layers.MultiHeadAttention: {
        "weight": ("in_proj_weight", MATRIX), "bias": ("in_proj_bias", ROW),
        "output_weight": ("out_proj.weight", MATRIX), "output_bias": ("out_proj.bias", ROW),
    },
    layers.SimpleRNN: _RECURRENT,
    layers.LSTM: _RECURRENT,
    layers.GRU: {
        "weight": ("weight_ih", GATES), "recurrent_weight": ("weight_hh", GATES), "bias": ("bias_ih", GATE_BIASES),
        "recurrent_bias": ("bias_hh", GATE_BIASES),
    },
}  # fmt: skip
ONE_BIAS = (layers.SimpleRNN, layers.LSTM)  # b is the sum of PyTorch's two biases
TWO_WAYS = {"forwards": "l0", "backwards": "l0_reverse"}  # the layers in a Bidirectional


def to_torch_state_dict(model: Model, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the weights as PyTorch's `torch.nn` modules name and store them, for ``module.load_state_dict``.

    Parameters
    ----------
    model : Model
        A built model with one seed.
    names : mapping of str to str, optional
        The name of the PyTorch module for the path of a layer, as in ``{"0": "conv1", "4": "fc"}``. By default it is the
        path, which fits a `torch.nn.Sequential` with the same layers.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    ConversionError
        A layer's weights have no equivalent in PyTorch's modules, or a name does not belong to a layer with weights.
    ImportError
        PyTorch is missing.
    """
    torch = optional_import("torch", "torch")
    places, found = weighted_layers(model), {}
    orders = flattened_orders(model.network, model.input_shape)
    groups = _groups(places, names)
    for place in places:
        prefix, ending = groups[place.path]
        weights = place.weights
        if place.path in orders:
            weights = _reordered(place.layer, weights, np.argsort(orders[place.path]))
        if isinstance(place.layer, ONE_BIAS):
            weights = weights | {"recurrent_bias": np.zeros_like(weights["bias"])}
        if isinstance(place.layer, layers.MultiHeadAttention) and len(set(weights["output_weight"].shape)) > 1:
            raise ConversionError(
                f"{place}: PyTorch's attention has key_dim = d / num_heads. Received: {place.layer!r} for d = "
                f"{weights['output_weight'].shape[1]}"
            )
        for name, array in weights.items():
            theirs, (convert, _) = _form(place)[name]
            found[_full(prefix, theirs, ending)] = torch.from_numpy(np.array(convert(array)))
        if isinstance(place.layer, layers.BatchNormalization):
            found[_full(prefix, "num_batches_tracked", ending)] = torch.tensor(model.step)
    return found


def load_torch_state_dict(
    model: Model, state_dict: Mapping[str, Any] | StrPath, names: Mapping[str, str] | None = None
) -> None:
    """Set all weights from the `state_dict` of a PyTorch module.

    `names` assigns PyTorch's modules to the layers. Without it, they are assigned by name if each layer's path is the name of a
    module, and otherwise in order, so the first module with weights belongs to the first layer with weights. Layouts are
    converted. Weights after a `Flatten` of images are reordered, because PyTorch flattens (channels, height, width).

    Parameters
    ----------
    model : Model
        A built model with one seed.
    state_dict : mapping of str to array, or path-like
        ``module.state_dict()``, ``torch.load(path, weights_only=True)``, or the path of a safetensors file. In a file, the
        modules have no order.
    names : mapping of str to str, optional
        The name of the PyTorch module for the path of a layer, as in ``{"0": "conv1", "4": "fc"}``. Other
        layers have modules named after their paths.

    Raises
    ------
    ConversionError
        A module is missing, left over or has other sizes; a value is not finite; the file is damaged or not a safetensors
        file. The message names the layer. The model is unchanged.
    """
    places = weighted_layers(model)
    modules = _modules(state_dict if isinstance(state_dict, Mapping) else _read(state_dict))
    groups, has_order = _groups(places, names), isinstance(state_dict, Mapping)
    if names is None and has_order and len(modules) == len(places) and not {*groups.values()} <= {*modules}:
        groups = {place.path: group for place, group in zip(places, modules, strict=True)}
    _require_all(places, groups, modules)
    orders = flattened_orders(model.network, model.input_shape)
    values = {}
    for place in places:
        weights = _from_module(place, groups[place.path], modules[groups[place.path]])
        if place.path in orders:
            weights = _reordered(place.layer, weights, orders[place.path])
        values[place.path] = weights
    set_weights(model, values)


def _form(place: WeightedLayer) -> dict[str, tuple[str, Layout]]:
    form = FORMS.get(type(place.layer))
    if form is None:
        known = ", ".join(sorted(cls.__name__ for cls in FORMS))
        raise ConversionError(
            f"{place}: only these layers share their weights with PyTorch: {known}. Copy the weights of others with state_dict() "
            f"and load_state_dict(). Received: {place.layer!r:.200}"
        )
    return form


def _groups(places: list[WeightedLayer], names: Mapping[str, str] | None) -> dict[str, Group]:
    """Return the name of the module, and the ending of its arrays' names, for the path of each layer."""
    groups, known, names = {}, [], names or {}
    for place in places:
        parent, _, last = place.path.rpartition(".")
        module, ending = place.path, ""
        if "weight_ih" in dict(_form(place).values()):
            module, ending = (parent, TWO_WAYS[last]) if last in TWO_WAYS else (place.path, "l0")
        groups[place.path] = names.get(module, module), ending
        known.append(module)
    if unknown := names.keys() - {*known}:
        raise ConversionError(
            f"names must map paths of layers with weights, {', '.join(known)}, to names of modules. Received: "
            f"{', '.join(sorted(map(str, unknown)))}"
        )
    return groups


def _modules(state_dict: Mapping[str, Any]) -> dict[Group, dict[str, Any]]:
    """The arrays of each module, in order, without the count of batches, which has no equivalent here."""
    modules: dict[Group, dict[str, Any]] = {}
    for name, value in state_dict.items():
        full = re.fullmatch(r"(?s)(?:(.*)\.)?([^.]+?)(?:_(l\d+(?:_reverse)?))?", str(name))
        module, last, ending = full.groups("") if full else ("", str(name), "")
        if last == "num_batches_tracked":
            continue
        parent, _, inner = module.rpartition(".")
        if inner == "out_proj" and any(key.startswith(join(parent, "in_proj_")) for key in state_dict):
            module, last = parent, f"out_proj.{last}"
        modules.setdefault((module, ending), {})[last] = value
    return modules


def _require_all(places: list[WeightedLayer], groups: dict[str, Group], modules: dict[Group, dict]) -> None:
    missing = [group for group in groups.values() if group not in modules]
    if missing or len(modules) > len({*groups.values()}):
        expected = ", ".join(f"{_named(groups[place.path])} for {place}" for place in places)
        listed = ", ".join(map(_named, modules)) or "no arrays"
        raise ConversionError(
            "The state_dict must have the arrays of one module for each layer with weights. Pass names={path: module}, or build "
            f"a model with the same layers. Expected {expected:.1000}. Received: {listed:.1000}"
        )


def _named(group: Group) -> str:
    return _full(group[0], "*", group[1])


def _from_module(place: WeightedLayer, group: Group, module: dict[str, Any]) -> Weights:
    """The weights of a layer from the arrays of its PyTorch module."""
    form, (prefix, ending) = _form(place), group
    ours = dict(place.weights)
    if isinstance(place.layer, ONE_BIAS):
        ours["recurrent_bias"] = ours["bias"]
    expected = {form[name][0] for name in ours}
    if expected != module.keys():
        raise ConversionError(
            f"{place}: its module, {prefix or 'the state_dict'}, must hold {', '.join(sorted(expected))}. Received: "
            f"{', '.join(sorted(module))}"
        )
    weights = {}
    for name, old in ours.items():
        theirs, (convert, back) = form[name]
        full = _full(prefix, theirs, ending)
        array = converted(full, module[theirs])
        require_shape(place, full, array.shape, convert(old).shape)
        weights[name] = back(array)
    if isinstance(place.layer, ONE_BIAS):
        weights["bias"] = weights["bias"] + weights.pop("recurrent_bias")
    return weights


def _reordered(layer: Layer, weights: Weights, order: np.ndarray) -> Weights:
    """The weights with features in another order: the rows of a matrix, or the numbers of a row."""
    if isinstance(layer, layers.Dense):
        return weights | {"weight": weights["weight"][order]}
    return {name: row[:, order] for name, row in weights.items()}


def _full(module: str, name: str, ending: str) -> str:
    return join(module, f"{name}_{ending}" if ending else name)


def _read(path: StrPath) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    if not isinstance(path, (str, os.PathLike)):
        raise ConversionError(
            "state_dict must be a mapping of names to arrays, module.state_dict(), or the path of a safetensors file. "
            f"Received: a {type(path).__name__}"
        )
    if Path(path).suffix in (".pt", ".pth", ".bin", ".pkl"):
        raise ConversionError(
            "A .pt file is a pickle, which can run code, so xpnet does not read it. Pass torch.load(path, weights_only=True), or "
            f"a safetensors file. Received: {path}"
        )
    try:
        return optional_import("safetensors.numpy", "torch").load_file(path)
    except OSError:
        raise
    except Exception as error:
        raise ConversionError(
            f"{path}: Expected a complete safetensors file. Received: {type(error).__name__}: {error}"
        ) from error
