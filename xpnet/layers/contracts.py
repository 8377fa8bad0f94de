"""Checks of custom layers against the layer protocol, in the first training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xpnet.checks import is_custom
from xpnet.layers.base import Container, Layer, Shape, walk
from xpnet.layers.mapping import map_layers
from xpnet.layers.observed import Observed
from xpnet.layers.shapes import walk_shapes
from xpnet.tree import Array, Tree, named_leaves


def checked(network: Layer, input_shape: Shape) -> Layer:
    """Return `network` with checks around its custom layers, or `network` itself if it has only xpnet's layers.

    The checks compare what a layer returns with the protocol. They run in the first training step, so they call custom layers
    only on real samples, and later steps cost nothing extra. A check raises TypeError if `forward` or `backward` does not
    return a tuple of the right form. It raises ValueError if an output does not match `output_shape`, a gradient does not match
    its parameter, or new statistics do not match the old ones. The message names the layer.
    """
    if not any(is_custom(layer) for _, layer in walk(network)):
        return network
    shapes = {(place.path, type(place.layer)): place.output_shape for place in walk_shapes(network, input_shape)}

    def change(path: str, layer: Layer) -> Layer:
        if (layer.needs_key or layer.has_statistics) and type(layer).__call__ is Layer.__call__:
            raise TypeError(
                f"{_name(path, layer)}: a layer with needs_key or has_statistics must define its inference, __call__, which "
                "draws nothing and returns only the output. Received: a class without __call__"
            )
        return Observed(layer, path, Contract(shapes[path, type(layer)])) if is_custom(layer) else layer

    return map_layers(network, change)


@dataclass(frozen=True)
class Contract:
    """Raises an error if the results of a layer break the protocol."""

    output_shape: Shape

    def outputs(self, path, layer, params, x, statistics, result):
        name, wants_three = _name(path, layer), layer.has_statistics or isinstance(layer, Container)
        if not (isinstance(result, tuple) and len(result) == 2 + wants_three and callable(result[1])):
            form = "y, backward, statistics" if wants_three else "y, backward"
            raise TypeError(f"{name}: forward must return {form}. Received: {_form(result)}")
        y = result[0]
        if isinstance(y, tuple):
            return  # several outputs, which `Model` rejects
        expected = (*y.shape[: y.ndim - len(self.output_shape)], *self.output_shape) if hasattr(y, "shape") else ()
        if tuple(getattr(y, "shape", ())) != expected or x.shape[0] not in expected[:2]:
            raise ValueError(
                f"{name}: forward must return an output of shape {tuple(self.output_shape)}, as output_shape or init says, for "
                f"each sample of x, which has shape {tuple(x.shape)}. Received: {_form(y)}"
            )
        if not layer.integer_input:
            _require_type(f"{name}: the output", y, x)
        if layer.has_statistics and not isinstance(layer, Container):
            _require_alike(name, "statistic", statistics, result[2])

    def gradients(self, path, layer, params, x, dy, need_dx, result):
        name = _name(path, layer)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"{name}: backward must return dx, grads. Received: {_form(result)}")
        dx, grads = result
        if need_dx and not layer.integer_input and tuple(getattr(dx, "shape", ())) != tuple(x.shape):
            raise ValueError(f"{name}: dx must have the shape of x, {tuple(x.shape)}. Received: {_form(dx)}")
        if need_dx and not layer.integer_input:
            _require_type(f"{name}: dx", dx, x)
        # A container returns no gradients for frozen and shared layers
        _require_alike(name, "gradient", params, grads, partial=isinstance(layer, Container))


def _require_alike(name: str, kind: str, tree: Tree, result: Tree, partial: bool = False) -> None:
    """Raise ValueError unless `result` has the names (if `partial`, some of the names), shapes and types of `tree`."""
    wanted, got = dict(named_leaves(tree)), dict(named_leaves(result))
    if got.keys() - wanted.keys() or (not partial and wanted.keys() - got.keys()):
        raise ValueError(f"{name}: {kind}s must have the names {list(wanted)}. Received: {list(got)}")
    for leaf, value in got.items():
        what, shape, received = f"{name}: the {kind} {leaf!r}", tuple(wanted[leaf].shape), tuple(value.shape)
        if received != shape:
            raise ValueError(f"{what} must have shape {shape}, as init says. Received: {received}")
        _require_type(what, value, wanted[leaf])


def _require_type(what: str, x: Array, like: Array) -> None:
    if x.dtype != like.dtype:
        raise ValueError(
            f"{what} must have dtype {like.dtype}. Use Python floats, and create arrays with dtype=x.dtype, because NumPy's "
            f"numbers and default arrays are float64. Received: {x.dtype}"
        )


def _name(path: str, layer: Layer) -> str:
    return f"Layer {path}, {type(layer).__name__}"


def _form(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: {', '.join(type(part).__name__ for part in value)}"
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
