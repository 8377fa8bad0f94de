"""Rules that treat every element alike: a library may apply one to all the leaves of its trees at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.tree import Tree, from_leaves, leaves, map_leaves, map_to_trees

# A library's own way, by the type of its arrays: (rule, groups of leaves) -> the rule's result for each group
in_one_go: dict[type, Callable[[Callable, list[tuple]], list]] = {}


def map_elements(rule: Callable, tree: Tree, *others: Tree) -> Tree:
    """`map_leaves` for a rule that computes each element from the elements at the same place, and from numbers.

    The trees are handed over: results may lie in their memory.
    """
    results = _in_one_go(rule, tree, *others)
    return map_leaves(rule, tree, *others) if results is None else from_leaves(tree, results)


def map_elements_to_trees(rule: Callable, tree: Tree, *others: Tree) -> tuple[Tree, ...]:
    """`map_to_trees` for such a rule with several results."""
    results = _in_one_go(rule, tree, *others)
    if results is None:
        return map_to_trees(rule, tree, *others)
    return tuple(from_leaves(tree, values) for values in zip(*results, strict=True))


def _in_one_go(rule: Callable, *trees: Tree) -> list[Any] | None:
    if not in_one_go:  # no such library is in use: not a microsecond is spent here
        return None
    groups = list(zip(*map(leaves, trees), strict=True))
    apply = in_one_go.get(type(groups[0][0])) if groups else None
    return apply(rule, groups) if apply else None
