"""Formulas that CuPy computes with a single kernel, and other libraries one operation at a time.

A rule is a function of arrays, written in the Array API. It must be pure, except for in-place operators. If it changes an array
in place, it must return the array, because a kernel leaves the original unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from xpnet.tree import Tree, from_leaves, leaves

_kernels: dict[type, Any] = {}  # by the type of array


def register_kernels(array_type: type, kernels: Any) -> None:
    """Let an object with the methods of `xpnet.backend.cuda_kernels.CudaKernels` compute rules for this type of array."""
    _kernels[array_type] = kernels


def unregister_kernels(array_type: type) -> None:
    _kernels.pop(array_type, None)


def kernels_of(array_type: type) -> Any:
    """Return the object registered for this type of array, or None."""
    return _kernels.get(array_type)


def fused(rule: Callable, *arrays: Any) -> Any:
    """Return ``rule(*arrays)``, an array or a tuple of arrays."""
    kernels = _kernels.get(type(arrays[0]))
    return rule(*arrays) if kernels is None else kernels.apply(rule, arrays)


def formula(rule: Callable) -> Callable:
    """Decorate a function whose arguments are all arrays, so that every call computes it as a rule."""

    @functools.wraps(rule)
    def apply(*arrays: Any) -> Any:
        return fused(rule, *arrays)

    return apply


def map_elements(rule: Callable, tree: Tree, *others: Tree) -> Tree:
    """Like `map_leaves`, for a rule that computes each element from numbers and the elements at the same place.

    The memory of the trees may be reused for the results.
    """
    return from_leaves(tree, for_each(rule, zip(*map(leaves, (tree, *others)), strict=True)))


def map_elements_to_trees(rule: Callable, tree: Tree, *others: Tree) -> tuple[Tree, ...]:
    """Like `map_elements`, for a rule that returns several values. Return one tree for each value."""
    results = for_each(rule, zip(*map(leaves, (tree, *others)), strict=True))
    return tuple(from_leaves(tree, values) for values in zip(*results, strict=True))


def for_each(rule: Callable, groups: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return ``[rule(*arrays) for arrays in groups]`` for such a rule."""
    if _kernels:
        groups = list(groups)
        if groups and (kernels := _kernels.get(type(groups[0][0]))):
            return kernels.map(rule, groups)
    return [rule(*arrays) for arrays in groups]
