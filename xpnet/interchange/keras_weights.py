"""Weights from the files of Keras 3, without Keras: HDF5 files, alone or in a .keras archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from xpnet import layers
from xpnet.errors import ConversionError
from xpnet.files import StrPath
from xpnet.interchange.keras_files import KerasFile, opened
from xpnet.interchange.weighted_layers import WeightedLayer, Weights, require_shape, set_weights, weighted_layers
from xpnet.layers.base import Container, Layer
from xpnet.model import Model
from xpnet.tree import join, named_leaves
from xpnet.weights import ORDER

BASES = {  # Keras' names of classes in files
    layers.Dense: "dense", layers.Conv1D: "conv1d", layers.Conv2D: "conv2d", layers.Conv2DTranspose: "conv2d_transpose",
    layers.BatchNormalization: "batch_normalization", layers.GroupNormalization: "group_normalization",
    layers.LayerNormalization: "layer_normalization", layers.RMSNormalization: "rms_normalization",
    layers.Embedding: "embedding", layers.MultiHeadAttention: "multi_head_attention", layers.SimpleRNN: "simple_rnn",
    layers.LSTM: "lstm", layers.GRU: "gru",
}  # fmt: skip
RECURRENT = (layers.SimpleRNN, layers.LSTM, layers.GRU)
PROJECTIONS = ("query_dense", "key_dense", "value_dense")


def load_keras_weights(model: Model, path: StrPath, names: Mapping[str, str] | None = None) -> None:
    """Set all weights from a file that Keras 3 wrote with ``save_weights("….weights.h5")`` or ``save("….keras")``.

    Layers of the same class are assigned in order: the second Dense of the network gets the weights of Keras' second Dense.
    A `Sequential` inside the network may or may not be a layer in Keras, too. Settings are not compared.

    Parameters
    ----------
    model : Model
        A built model with one seed.
    path : path-like
    names : mapping of str to str, optional
        The group in the file for the path of a layer, as in ``{"0": "layers/dense_1"}``. It is needed for custom Keras
        classes, and for layers in branches if Keras has them in another order.

    Raises
    ------
    ConversionError
        The file is damaged or of another kind; a layer is missing, left over or has other sizes; a value is not finite. The
        message names the layer. The model is unchanged.
    ImportError
        The package h5py is missing (the extra ``keras``).
    """
    places, values = weighted_layers(model), {}
    with opened(path) as file:
        groups = _assigned(model.network, places, file, names or {})
        for place in places:
            parts = {part: _inside(groups[place.path], part) for part in _form(place)}
            for part, shapes in _form(place).items():
                _require_shapes(place, parts[part], file, shapes)
            values[place.path] = _ours(place, {part: file.arrays(group) for part, group in parts.items()})
    set_weights(model, values)


# ------------------------------------------------------------------ layouts


def _form(place: WeightedLayer) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of a layer's arrays in Keras, by the group inside the layer's group.

    Rows, (1, c) here, are (c,) in Keras.
    """
    if type(place.layer) not in BASES:
        known = ", ".join(sorted(cls.__name__ for cls in BASES))
        raise ConversionError(
            f"{place}: only these layers share their weights with Keras: {known}. Set the weights of others with set_weights. "
            f"Received: {place.layer!r:.200}"
        )
    if isinstance(place.layer, layers.MultiHeadAttention):
        heads, (width, d) = place.layer.num_heads, place.weights["output_weight"].shape
        key_dim = width // heads
        each = [(d, heads, key_dim), (heads, key_dim)]
        return {**dict.fromkeys(PROJECTIONS, each), "output_dense": [(heads, key_dim, d), (d,)]}
    shapes = [w.shape if "weight" in name else w.shape[1:] for name, w in _in_order(place)]
    if isinstance(place.layer, layers.GRU):
        shapes[2:] = [(2, *shapes[2])]  # both biases
    return {"cell" if isinstance(place.layer, RECURRENT) else "": shapes}


def _ours(place: WeightedLayer, found: dict[str, list[np.ndarray]]) -> Weights:
    """The weights of a layer from Keras' arrays."""
    if isinstance(place.layer, layers.MultiHeadAttention):
        kernels, biases = zip(*(found[part] for part in PROJECTIONS), strict=True)
        (output, output_bias), (width, d) = found["output_dense"], place.weights["output_weight"].shape
        return {
            "weight": np.concatenate([kernel.reshape(d, width) for kernel in kernels], axis=1),
            "bias": np.concatenate([bias.reshape(1, width) for bias in biases], axis=1),
            "output_weight": output.reshape(width, d),
            "output_bias": output_bias[None],
        }
    (arrays,) = found.values()
    if isinstance(place.layer, layers.GRU):
        arrays = [*arrays[:2], *arrays[2]]
    return {name: x.reshape(w.shape) for (name, w), x in zip(_in_order(place), arrays, strict=True)}


def _in_order(place: WeightedLayer) -> list[tuple[str, np.ndarray]]:
    return sorted(place.weights.items(), key=lambda pair: ORDER.index(pair[0]))


def _require_shapes(place: WeightedLayer, group: str, file: KerasFile, shapes: list[tuple[int, ...]]) -> None:
    found = file.shapes(group)
    if len(found) != len(shapes):
        raise ConversionError(
            f"{place}: {group} must hold {len(shapes)} arrays of shapes {', '.join(map(str, shapes))}. Received: {len(found)} "
            "arrays"
        )
    for i, (received, shape) in enumerate(zip(found, shapes, strict=True)):
        require_shape(place, f"{group}/vars/{i}", received, shape)


# ------------------------------------------------------------------ names


def _assigned(network: Layer, places: list[WeightedLayer], file: KerasFile, names: Mapping[str, str]) -> dict[str, str]:
    """The group of each layer by its path. The groups of all layers must be those of the file."""
    known = {place.path.removesuffix(".forwards").removesuffix(".backwards"): None for place in places}
    if unknown := names.keys() - known.keys():
        raise ConversionError(
            f"names must map paths of layers with weights, {', '.join(known)}, to groups of the file. Received: "
            f"{', '.join(sorted(map(str, unknown)))}"
        )
    forms = {place.path: _form(place) for place in places}
    for nested in (True, False):
        groups = _counted(network, names, nested)
        needed = {_inside(groups[path], part) for path, form in forms.items() for part in form}
        if needed == file.groups.keys():
            return groups
    missing, left = sorted(needed - file.groups.keys()), sorted(file.groups.keys() - needed)
    raise ConversionError(
        "The file must have the weights of all layers, and no others. Build a model with the same layers, or pass "
        f"names={{path: group}}. Expected: {', '.join(missing) or 'nothing more'}. Received: "
        f"{', '.join(left) or 'nothing more'}"
    )


def _counted(network: Layer, given: Mapping[str, str], nested: bool) -> dict[str, str]:
    """The groups of layers in a file by path: named after the class and counted in each container, as Keras does.

    If `nested`, a Sequential inside the network is a container in Keras too. Otherwise its layers belong to the network.
    """
    counts: Counter[str] = Counter()
    seen: dict[int, dict[str, str]] = {}  # for a layer object, the groups of the layers inside it, by their paths in it

    def own(path: str, group: str) -> str:
        counts[group] += 1
        return given.get(path) or (group if counts[group] == 1 else f"{group}_{counts[group] - 1}")

    def visit(layer: Layer, path: str, container: str) -> dict[str, str]:
        if id(layer) not in seen:
            seen[id(layer)] = new(layer, path, container)
        return seen[id(layer)]

    def inside(layer: Layer, path: str, container: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, child in named_leaves(layer.children if isinstance(layer, Container) else layer):
            found |= {join(name, p): group for p, group in visit(child, join(path, name), container).items()}
        return found

    def new(layer: Layer, path: str, container: str) -> dict[str, str]:
        if isinstance(layer, layers.Bidirectional):
            group = own(path, f"{container}/bidirectional")
            return {"forwards": f"{group}/forward_layer", "backwards": f"{group}/backward_layer"}
        if isinstance(layer, layers.TimeDistributed):
            group = own(path, f"{container}/time_distributed") + "/layer"
            found = inside(layer.layer, path, f"{group}/layers")
            return dict.fromkeys(found, group) if len(found) == 1 else found
        if isinstance(layer, layers.Sequential) and nested and path:
            return inside(layer, path, own(path, f"{container}/sequential") + "/layers")
        if isinstance(layer, Container):
            return inside(layer, path, container)
        return {"": own(path, f"{container}/{BASES[type(layer)]}")} if type(layer) in BASES else {}

    return visit(network, "", "layers")


def _inside(group: str, part: str) -> str:
    return f"{group}/{part}" if part else group
