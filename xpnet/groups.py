"""Groups: who computes the rows of a batch. Each member of a group computes a part, and the group adds up their gradients.

A member has a `rank`, its group's `size`, and ``reduce(tree)``, which returns the sum of the members' trees. All members must
call `reduce` in the same order. Only layers that mix the rows of a batch, such as batch normalization, call it.

A part of a batch knows three things that a whole batch does not: the scale of the loss's gradient (``"share"``), the place of
its rows for random numbers (`RowsKey`), and, for its record, how many rows it has. Therefore the sums over the parts equal
those over the batch up to rounding, for any number of members.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from xpnet.backend import Backend, namespace
from xpnet.backend.workers import workers
from xpnet.random import RowsKey
from xpnet.tree import Array, Tree, map_leaves, named_leaves

PER_ROW = ("x", "y", "weight")  # the entries of a batch that have a row for each sample
TINY = 1e-37  # the smallest sum of weights to divide by, because 0/0 is NaN


@dataclass(frozen=True)
class Alone:
    """A group of one, which computes the whole batch."""

    size: ClassVar[int] = 1
    members: ClassVar[tuple[Member, ...]] = ()

    def gradients(self, step: Any, state: Tree, batch: dict[str, Any]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Return ``step.gradients`` for the whole batch."""
        return step.gradients(state, batch)

    def outputs(self, inference: Any, state: Tree, batch: dict[str, Any]) -> Array:
        """Return ``inference.outputs`` for the whole batch."""
        return inference.outputs(state, batch)


@dataclass(frozen=True)
class Member:
    """One of the threads of a `Threads`."""

    rank: int
    size: int

    def reduce(self, tree: Tree) -> Tree:
        return workers(self.size).reduce(self.rank, tree)


@dataclass(frozen=True)
class Threads:
    """A group of `size` threads of this process. The calling thread is one of them, and it alone updates the parameters."""

    size: int

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(Member(rank, self.size) for rank in range(self.size))

    def gradients(self, step: Any, state: Tree, batch: dict[str, Any]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Return ``step.gradients`` for the whole batch: the sum over the parts, in the order of the members."""
        parts = divide(batch, self.size)
        if len(parts) < self.size:
            return step.gradients(state, batch)
        members = step.members
        results = workers(self.size).run(lambda rank: members[rank].gradients(state, parts[rank]))
        grads, statistics, records = zip(*results, strict=True)
        return add(grads), statistics[0], step.scores.merge(records, [part["x"].shape[0] for part in parts])

    def outputs(self, inference: Any, state: Tree, batch: dict[str, Any]) -> Array:
        """Return ``inference.outputs`` for the whole batch."""
        parts = divide({"x": batch["x"]}, self.size)
        if len(parts) < self.size:
            return inference.outputs(state, batch)
        results = workers(self.size).run(lambda rank: inference.outputs(state, parts[rank]))
        return namespace(results[0]).concat(results, axis=0)


Group = Alone | Threads
ALONE = Alone()


def parts_of(backend: Backend, measured: Any, params: Tree, rows: int) -> int:
    """Return into how many parts to divide a batch of so many rows. `measured` is a `layers.shapes.Measured`."""
    parts = backend.parts(rows * measured.activations, measured.parameters)
    return parts if parts == 1 or may_divide(backend, measured, params) else 1


def may_divide(backend: Backend, measured: Any, params: Tree) -> bool:
    """Whether threads can compute parts of a batch; not for networks of several seeds, whose axis comes before the rows."""
    single = all(tuple(leaf.shape) == measured.form[name] for name, leaf in named_leaves(params))
    return backend.divides and measured.divisible and single


def group_of(size: int) -> Group:
    """Return the group of this number of threads."""
    return ALONE if size == 1 else Threads(size)


def divide(batch: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Return `size` parts of a batch, whose numbers of rows differ by at most 1, or the batch alone if it has fewer rows."""
    total = batch["x"].shape[0]
    if total < size:
        return [batch]
    edges = [total * i // size for i in range(size + 1)]
    whole = None if batch.get("weight") is None else namespace(batch["weight"]).sum(batch["weight"])
    parts = []
    for begin, end in pairwise(edges):
        part = batch | {name: batch[name][begin:end, ...] for name in PER_ROW if name in batch}
        if "key" in batch:
            part["key"] = RowsKey(batch["key"], begin, end - begin, total)
        part["share"] = (end - begin) / total if whole is None else _share(part["weight"], whole)
        parts.append(part)
    return parts


def _share(weight: Array, whole: Array) -> Array:
    xp = namespace(weight)
    return xp.sum(weight) / xp.maximum(whole, TINY)


def add(trees: tuple[Tree, ...]) -> Tree:
    """Return the sum of trees of new arrays, from first to last, in the memory of the first."""
    total = trees[0]
    for tree in trees[1:]:
        total = map_leaves(_plus, total, tree)
    return total


def _plus(a: Array, b: Array) -> Array:
    a += b
    return a
