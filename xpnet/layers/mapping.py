"""Networks made from other networks, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.layers.base import Container, Layer, Wrapper, walk
from xpnet.tree import from_leaves, join, leaves, map_leaves, named_leaves


def map_layers(network: Layer, change: Callable[[str, Layer], Layer]) -> Layer:
    """Return `network` with ``change(path, layer)`` in place of every layer, inner layers first.

    A container object that appears several times is rebuilt once, so layers that share their parameters still do.
    """
    rebuilt: dict[int, Layer] = {}

    def visit(path: str, layer: Layer) -> Layer:
        if isinstance(layer, Container) and id(layer) not in rebuilt:
            named = list(named_leaves(layer.children))
            new = [visit(join(path, name), child) for name, child in named]
            same = all(child is old for child, (_, old) in zip(new, named, strict=True))
            rebuilt[id(layer)] = layer if same else layer.with_children(from_leaves(layer.children, new))
        return change(path, rebuilt.get(id(layer), layer))

    return visit("", network)


def swap_layers(network: Any, new: dict[int, Layer]) -> Any:
    """Return `network` with each layer whose id is in `new` replaced."""
    if id(network) not in new:
        same = network
        if isinstance(network, Container):
            children = map_leaves(lambda child: swap_layers(child, new), network.children)
            if any(a is not b for a, b in zip(leaves(children), leaves(network.children), strict=True)):
                same = network.with_children(children)
        new[id(network)] = same
    return new[id(network)]


def in_group(network: Layer, member: Any) -> Layer:
    """Return `network` for a member of a group, which gets only some rows of each batch; see `xpnet.groups`.

    A layer whose results for a row depend on the other rows has a method `in_group`. It returns the layer that takes its place
    and calls ``member.reduce``.
    """
    mixing = [layer for _, layer in walk(network) if hasattr(layer, "in_group")]
    return swap_layers(network, {id(layer): layer.in_group(member) for layer in mixing})


def innermost(layer: Layer) -> Layer:
    """Return the layer inside all wrappers."""
    return innermost(layer.layer) if isinstance(layer, Wrapper) else layer
