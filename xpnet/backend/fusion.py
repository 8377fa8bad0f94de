"""Formulas that a library may compute in one go: one kernel on CuPy, elsewhere the operations they are written as.

A rule is a function of arrays, written in the Array API as any other. It is pure, but for in-place operators: what it changes in
place it must return, for where it is one kernel the array itself stays as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from xpnet.tree import Tree, from_leaves, leaves, map_leaves, map_to_trees

_kernels: dict[type, Any] = {}  # by the type of arrays


def register_kernels(array_type: type, kernels: Any) -> None:
    """Compute rules of arrays of this type by an object with the methods of `xpnet.backend.cuda_kernels.CudaKernels`."""
    _kernels[array_type] = kernels


def unregister_kernels(array_type: type) -> None:
    _kernels.pop(array_type, None)


def kernels_of(array_type: type) -> Any:
    """What was registered for this type of arrays; None if nothing was."""
    return _kernels.get(array_type)


def fused(rule: Callable, *arrays: Any) -> Any:
    """``rule(*arrays)``, an array or a tuple of arrays."""
    kernels = _kernels.get(type(arrays[0]))
    return rule(*arrays) if kernels is None else kernels.apply(rule, arrays)


def formula(rule: Callable) -> Callable:
    """A function of arrays alone that is always called as a rule: a decorator."""

    @functools.wraps(rule)
    def apply(*arrays: Any) -> Any:
        return fused(rule, *arrays)

    return apply


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
    if not _kernels:  # no such library is in use: not a microsecond is spent here
        return None
    groups = list(zip(*map(leaves, trees), strict=True))
    kernels = _kernels.get(type(groups[0][0])) if groups else None
    return kernels.map(rule, groups) if kernels else None
