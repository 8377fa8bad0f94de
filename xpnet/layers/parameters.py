"""Which parameters a network holds, and which of them train.

A layer object that appears in a network more than once has one set of parameters (tied weights). A link (later, first) is a
pair of paths to the same layer object. The first place holds the parameters, and the trees at the other places are empty.
They are filled before the forward pass, and the gradients of all places are added after the backward pass.

The tree holds the parameters of frozen layers, too. Their gradients and optimizer states are empty trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import add as plus

from xpnet.layers.base import Container, Layer, walk
from xpnet.tree import Tree, join, leaves, map_leaves, named_leaves, subtree, with_subtree

Links = tuple[tuple[str, str], ...]


def links(network: Layer) -> Links:
    """Return the links between layers that may have parameters or statistics."""
    return tuple(_links(network, "", {}, False))


def _links(layer: Layer, path: str, first: dict[int, tuple[str, bool]], frozen: bool) -> Iterator[tuple[str, str]]:
    if id(layer) in first:
        first_path, first_frozen = first[id(layer)]
        if frozen != first_frozen:
            raise ValueError(
                "A layer object that appears twice has one set of parameters, so it must be frozen at both places or at neither. "
                f"Freeze both, or make two layers. Received: the same {type(layer).__name__} at {first_path} and {path}, frozen "
                f"only at {path if frozen else first_path}"
            )
        yield path, first_path
    elif holds_parameters(layer):
        first[id(layer)] = path, frozen
        if isinstance(layer, Container):
            for name, child in named_leaves(layer.children):
                yield from _links(child, join(path, name), first, frozen or layer.freezes)


def holds_parameters(layer: Layer) -> bool:
    """Whether a layer or one inside it may have parameters or statistics."""
    return any(type(inner).init is not Layer.init for _, inner in walk(layer) if not isinstance(inner, Container))


def require_one_form(links: Links, params: Tree) -> None:
    """Raise ValueError if the places of one layer need parameters of different shapes."""
    for later, first in links:
        forms = [{name: leaf.shape for name, leaf in named_leaves(subtree(params, path))} for path in (first, later)]
        if forms[1] and forms[0] != forms[1]:
            raise ValueError(
                f"Layers {first} and {later} are one layer object with one set of parameters, so their inputs must have the same "
                f"width. Otherwise make two layers. Received: parameters of shapes {forms[0]} and {forms[1]}"
            )


def empty(tree: Tree, links: Links) -> Tree:
    """Return the tree with empty trees at later places."""
    for later, _ in links:
        tree = with_subtree(tree, later, {})
    return tree


def fill(tree: Tree, links: Links) -> Tree:
    """Return the tree with the subtree of each first place repeated at its later places."""
    for later, first in links:
        tree = with_subtree(tree, later, subtree(tree, first))
    return tree


def add(tree: Tree, links: Links, mean: bool = False) -> Tree:
    """Return the tree with the sum or mean over all places at the first place, and empty trees at the others."""
    places = dict.fromkeys((first for _, first in links), 1)
    for later, first in reversed(links):  # layers inside a shared container are added last
        if leaves(part := subtree(tree, later)):  # otherwise an inner Sequential has already added it
            tree = with_subtree(tree, first, map_leaves(plus, subtree(tree, first), part))
            places[first] += 1
    for first, count in places.items() if mean else ():
        tree = with_subtree(tree, first, map_leaves(lambda total: total / count, subtree(tree, first)))  # noqa: B023
    return empty(tree, links)


def frozen_paths(network: Layer) -> list[str]:
    """Return the paths of the outermost frozen layers, without the later places of shared layers."""
    return list(_frozen_paths(network, "", {later for later, _ in getattr(network, "links", ())}))


def _frozen_paths(layer: Layer, path: str, shared: set[str]) -> Iterator[str]:
    if isinstance(layer, Container) and layer.freezes:
        yield path
    elif isinstance(layer, Container):
        for name, child in named_leaves(layer.children):
            if (place := join(path, name)) not in shared:
                yield from _frozen_paths(child, place, shared)


def trainable(network: Layer, params: Tree) -> Tree:
    """Return the parameters that the optimizer sees, with an empty tree for each frozen layer."""
    for path in frozen_paths(network):
        params = with_subtree(params, path, {})
    return params
