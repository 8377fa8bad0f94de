"""Trees: parameters, gradients and optimizer states are dicts and tuples with arrays at their ends.

A `Dense` layer's parameters are ``{"weight": W, "bias": b}``; a `Sequential`'s are the tuple of its layers' trees. A
leaf's name is its path, such as ``"0.weight"``. Leaves are taken in one order: tuples by position, dicts by sorted key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Array = Any  # an array of any Array API library
Tree = Any  # an array, or a dict, tuple or list of trees


def map_leaves(function: Callable, tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to the leaves at the same place of trees of the same form -> a tree of that form."""
    if isinstance(tree, dict):
        return {key: map_leaves(function, tree[key], *[other[key] for other in others]) for key in sorted(tree)}
    if isinstance(tree, (tuple, list)):
        return tuple([map_leaves(function, *branches) for branches in zip(tree, *others, strict=True)])
    return function(tree, *others)


def named_leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """Yield ``(name, leaf)``."""
    if isinstance(tree, dict):
        branches: Iterable = sorted(tree.items())
    elif isinstance(tree, (tuple, list)):
        branches = enumerate(tree)
    else:
        yield prefix, tree
        return
    for key, branch in branches:
        yield from named_leaves(branch, f"{prefix}.{key}" if prefix else str(key))


def leaves(tree: Tree) -> list[Array]:
    """All leaves."""
    return [leaf for _, leaf in named_leaves(tree)]


def from_leaves(like: Tree, values: Iterable[Array]) -> Tree:
    """A tree of the form of `like` with `values` as its leaves."""
    remaining = iter(values)
    return map_leaves(lambda _: next(remaining), like)


def map_to_trees(function: Callable, tree: Tree, *others: Tree) -> tuple[Tree, ...]:
    """Like `map_leaves` for a function that returns several values: one tree for each."""
    results = [function(*group) for group in zip(*map(leaves, (tree, *others)), strict=True)]
    return tuple(from_leaves(tree, values) for values in zip(*results, strict=True))
