"""Groups: who computes the rows of a batch. Each member of a group computes a part, and the group adds up their gradients.

`Threads` are in one process, and `xpnet.ranks.Ranks` are processes, each of which holds the parameters.

A member has a `rank`, its group's `size`, and ``reduce(tree)``, which returns the sum of the members' trees. All members must
call `reduce` in the same order. Only layers that mix the rows of a batch, such as batch normalization, call it.

A part of a batch knows three things that a whole batch does not: the scale of the loss's gradient (``"share"``), the place of
its rows for random numbers (`RowsKey`), and, for its record, how many rows it has. Therefore the sums over the parts equal
those over the batch up to rounding, for any number of members.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

from xpnet.backend import Backend, namespace
from xpnet.backend.workers import workers
from xpnet.random import RowsKey
from xpnet.tree import Array, Tree, map_leaves, named_leaves

if TYPE_CHECKING:
    from xpnet.ranks import Ranks

Method = TypeVar("Method", bound=Callable[..., Any])
PER_ROW = ("x", "y", "weight")  # the entries of a batch that have a row for each sample
TINY = 1e-37  # the smallest sum of weights to divide by, because 0/0 is NaN


class Group(Protocol):
    """Who computes the rows of a batch."""

    @property
    def members(self) -> tuple[Any, ...]:
        """The members that compute in this process."""
        ...

    def gradients(self, step: Any, state: Tree, batch: dict[str, Any]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Return ``step.gradients`` for the whole batch."""
        ...

    def outputs(self, inference: Any, state: Tree, batch: dict[str, Any]) -> Array:
        """Return ``inference.outputs`` for the whole batch."""
        ...


@dataclass(frozen=True)
class Alone:
    """A group of one, which computes the whole batch."""

    rank: ClassVar[int] = 0
    size: ClassVar[int] = 1
    members: ClassVar[tuple[Member, ...]] = ()

    def gradients(self, step: Any, state: Tree, batch: dict[str, Any]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Return ``step.gradients`` for the whole batch."""
        return step.gradients(state, batch)

    def outputs(self, inference: Any, state: Tree, batch: dict[str, Any]) -> Array:
        """Return ``inference.outputs`` for the whole batch."""
        return inference.outputs(state, batch)

    def any(self, flag: bool) -> bool:
        return flag

    def in_turn(self, items: list[Any]) -> list[Any]:
        return items

    def begin(self, plan: Any, state: Any) -> None:
        """A run begins."""

    @contextmanager
    def together(self, method: str, model: Any) -> Iterator[None]:
        """A ``with`` block for one process."""
        yield


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
        return joined(step.scores, rows_of(parts), results)

    def outputs(self, inference: Any, state: Tree, batch: dict[str, Any]) -> Array:
        """Return ``inference.outputs`` for the whole batch."""
        parts = divide({"x": batch["x"]}, self.size)
        if len(parts) < self.size:
            return inference.outputs(state, batch)
        results = workers(self.size).run(lambda rank: inference.outputs(state, parts[rank]))
        return in_order(results)


ALONE = Alone()
_process: Alone | Ranks = ALONE
_by_itself = ContextVar("xpnet_by_itself", default=False)  # in the current thread


def process() -> Alone | Ranks:
    """Return the group of this process with others; see `xpnet.distributed.init`."""
    return ALONE if _by_itself.get() else _process


def enter(ranks: Ranks) -> None:
    """Make this process one of several, for all models."""
    global _process
    _process = ranks


@contextmanager
def by_itself() -> Iterator[None]:
    """A ``with`` block in which this thread computes whole batches without the other processes."""
    token = _by_itself.set(True)
    try:
        yield
    finally:
        _by_itself.reset(token)


def collective(method: Method) -> Method:
    """Decorate a method of a model that all processes must call together."""

    @functools.wraps(method)
    def called(model: Any, /, *arguments: Any, **options: Any) -> Any:
        with process().together(method.__name__, model):
            return method(model, *arguments, **options)

    return cast(Method, called)


def parts_of(backend: Backend, measured: Any, params: Tree, rows: int) -> int:
    """Return into how many parts to divide a batch of so many rows. `measured` is a `layers.shapes.Measured`."""
    parts = backend.parts(rows * measured.activations, measured.parameters)
    return parts if parts == 1 or (backend.divides and may_divide(measured, params)) else 1


def may_divide(measured: Any, params: Tree) -> bool:
    """Whether parts of a batch can be computed; not for networks of several seeds, whose axis comes before the rows."""
    return measured.divisible and all(tuple(leaf.shape) == measured.form[name] for name, leaf in named_leaves(params))


def pieces_of(backend: Backend, measured: Any, params: Tree, rows: int) -> int:
    """Return the number of pieces in which to compute `rows` rows, one after the other."""
    if not (backend.divides and measured.separable and may_divide(measured, params)):
        return 1
    return backend.pieces(rows * measured.activations, measured.parameters)


def group_of(size: int) -> Group:
    """Return the group of this number of threads."""
    return ALONE if size == 1 else Threads(size)


def edges(total: int, size: int) -> list[int]:
    """Return the first rows of `size` parts of nearly equal size, and the number of rows."""
    return [total * i // size for i in range(size + 1)]


def divide(batch: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Return `size` parts of a batch, whose numbers of rows differ by at most 1, or the batch alone if it has fewer rows."""
    total = batch["x"].shape[0]
    if size == 1 or total < size:
        return [batch]
    whole = whole_weight(batch)
    arrays = {name: batch[name] for name in PER_ROW if name in batch}
    return [
        part_of(batch, {name: x[begin:end, ...] for name, x in arrays.items()}, begin, whole)
        for begin, end in pairwise(edges(total, size))
    ]


def whole_weight(batch: dict[str, Any]) -> Array | None:
    """Return the sum of the weights of a batch."""
    return None if batch.get("weight") is None else namespace(batch["weight"]).sum(batch["weight"])


def part_of(batch: dict[str, Any], arrays: dict[str, Array], begin: Any, whole: Array | None) -> dict[str, Any]:
    """Return the part of a batch whose rows are `arrays`, from row number `begin` on. `whole` is the batch's weight."""
    total, rows = batch["x"].shape[0], arrays["x"].shape[0]
    part = batch | arrays
    if "key" in batch:
        key = batch["key"] if isinstance(batch["key"], RowsKey) else RowsKey(batch["key"], 0, total, total)
        part["key"] = key.part(begin, begin + rows)
    part["share"] = rows / total if whole is None else share(arrays["weight"], whole)
    if "share" in batch:
        part["share"] *= batch["share"]
    return part


def accumulated(
    gradients: Callable[[Any], Any], scores: Any, batch: dict[str, Any], size: int
) -> tuple[Tree, Tree, Tree]:
    """Return ``gradients(batch)``, computed in `size` pieces, or in one for each row, one after the other."""
    total = batch["x"].shape[0]
    size = min(size, total)
    if size == 1:
        return gradients(batch)  # x may be sparse
    xp = namespace(batch["x"])
    if not hasattr(xp, "accumulate"):
        pieces = divide(batch, size)
        return joined(scores, rows_of(pieces), map(gradients, pieces))
    # a loop over pieces of equal size, and a smaller piece for the other rows
    rows, whole = -(-total // size), whole_weight(batch)
    count, begin = total // rows, total // rows * rows
    arrays = {name: batch[name] for name in PER_ROW if name in batch}
    equal = {name: xp.reshape(x[:begin, ...], (count, rows, *x.shape[1:])) for name, x in arrays.items()}
    grads, (statistics, records) = xp.accumulate(
        lambda i, piece: gradients(part_of(batch, piece, i * rows, whole)), equal
    )
    records = map_leaves(lambda x: xp.moveaxis(x, 0, -1), records)
    loop = grads, map_leaves(itemgetter(0), statistics), scores.merge_stacked(records, xp.full((count,), rows))
    if begin == total:
        return loop
    rest = {name: x[begin:, ...] for name, x in arrays.items()}
    return joined(scores, [begin, total - begin], [loop, gradients(part_of(batch, rest, begin, whole))])


def joined(scores: Any, rows: list[int], results: Iterable[Any]) -> tuple[Tree, Tree, Tree]:
    """Return the gradients, statistics and record of a batch from those of its parts, which have these numbers of rows.

    The gradients are new arrays. They are added up from first to last, in the memory of the first.
    """
    results = iter(results)
    total, statistics, record = next(results)
    records = [record]
    for grads, _, record in results:
        total = map_leaves(_plus, total, grads)
        records.append(record)
        del grads  # before the next part is computed
    return total, statistics, scores.merge(records, rows)


def rows_of(parts: list[dict[str, Any]]) -> list[int]:
    """Return the number of rows in each part."""
    return [part["x"].shape[0] for part in parts]


def in_order(outputs: list[Array]) -> Array:
    """Return the outputs of a batch from those of its parts."""
    return outputs[0] if len(outputs) == 1 else namespace(outputs[0]).concat(outputs, axis=0)


def share(weight: Array, whole: Array) -> Array:
    xp = namespace(weight)
    return xp.sum(weight) / xp.maximum(whole, TINY)


def _plus(a: Array, b: Array) -> Array:
    a += b
    return a
