"""Ranks: processes that compute parts of each batch and exchange sums; see `xpnet.distributed`.

Every process runs the same program. It computes the gradients of its rows, all processes add them up in the order of their
ranks, and each updates its own copy of the parameters. `Exchange` is what a library such as MPI must offer.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, takewhile
from typing import Any, Protocol

import numpy as np

from xpnet.backend import Backend, device, namespace, size, to_numpy
from xpnet.groups import edges, share
from xpnet.random import RowsKey
from xpnet.tree import Array, Tree, from_leaves, leaves, map_leaves

CHECKSUM = "checksum of the parameters"
SMALL = 1 << 12  # so many numbers are sent to all processes, because one message is faster than two
BLOCK = 1 << 18  # the most numbers that are exchanged at once. Larger arrays are added up without joining them first


class Exchange(Protocol):
    """How processes exchange arrays. All processes must call the same methods in the same order."""

    def prepare(self, backend: Backend) -> None:
        """Choose how `sum` moves the arrays of this backend."""
        ...

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Return the values of all processes, shape (processes, values), in the order of their ranks."""
        ...

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the objects of all processes, in the order of their ranks."""
        ...

    def sum(self, values: Array) -> Array:
        """Return the sum of one-dimensional arrays, the same bits in all processes and in all runs."""
        ...

    def failed(self, error: BaseException) -> None:
        """Return if all processes have failed, and otherwise `end`."""
        ...

    def end(self, error: BaseException, text: str = "") -> None:
        """End all processes with a message that names this one: `text` or the traceback. Errors of all are reported once."""
        ...


class Ranks:
    """A group of processes, of which this one has the number `rank`. Each has all parameters and updates them in the same way.

    The gradients are added in the order of the ranks. Therefore all processes compute the same bits, and `size` processes
    compute the bits of `size` threads. `local_rank` is the number of this process among those of its machine.
    """

    def __init__(self, rank: int, size: int, exchange: Exchange, local_rank: int = 0):
        self.rank, self.size, self.exchange, self.local_rank = rank, size, exchange, local_rank

    @property
    def members(self) -> tuple[Ranks, ...]:
        return (self,)

    def gradients(self, step: Any, state: Tree, batch: dict[str, Any]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Return ``step.gradients`` for the whole batch, of ``batch["rows"]`` rows, of which `batch` holds those of this rank."""
        total = batch["rows"]
        if total < self.size:  # every rank has all rows
            return step.gradients(state, batch)
        grads, statistics, record = step.members[0].gradients(state, self.part(batch))
        records, statistics = zip(*self.gather((record, statistics)), strict=True)
        rows = [end - begin for begin, end in pairwise(edges(total, self.size))]
        return self.reduce(grads), statistics[0], step.scores.merge(records, rows)

    def outputs(self, inference: Any, state: Tree, batch: dict[str, Any]) -> Array:
        """Return ``inference.outputs`` for rows of any batch."""
        return inference.outputs(state, batch)

    def bounds(self, total: int) -> tuple[int, int]:
        """Return the first row of this rank, and the first of the next, in a batch of so many rows."""
        whole = edges(total, self.size)
        return (0, total) if total < self.size else (whole[self.rank], whole[self.rank + 1])

    def part(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the rows of this rank as a part of their batch."""
        total = batch["rows"]
        begin, end = self.bounds(total)
        part = batch | {"share": (end - begin) / total}
        if "key" in batch:
            part["key"] = RowsKey(batch["key"], begin, end - begin, total)
        if (weight := batch.get("weight")) is not None:
            part["share"] = share(weight, self.reduce(namespace(weight).sum(weight)))
        return part

    def gather(self, tree: Tree) -> tuple[Tree, ...]:
        """Return the trees of all ranks, in their order. A leaf is an array or a number."""
        host = [np.asarray(to_numpy(leaf)) for leaf in leaves(tree)]
        sent = np.frombuffer(b"".join(values.tobytes() for values in host), np.uint8)
        ends = np.cumsum([values.nbytes for values in host], dtype=int)[:-1]
        return tuple(
            from_leaves(tree, map(_like, leaves(tree), host, np.split(one, ends)))
            for one in (self.exchange.gather(sent) if host else [sent] * self.size)
        )

    def reduce(self, tree: Tree) -> Tree:
        """Return the sum of the trees of all ranks."""
        arrays = leaves(tree)
        if sum(size(x) if hasattr(x, "shape") else 1 for x in arrays) <= SMALL:
            return map_leaves(lambda *values: sum(values[1:], start=values[0]), *self.gather(tree))
        joined = self._sum([x for x in arrays if size(x) < BLOCK])
        return map_leaves(lambda x: next(joined if size(x) < BLOCK else self._sum([x])), tree)

    def _sum(self, arrays: list[Array]) -> Iterator[Array]:
        xp = namespace(arrays[0])
        flat = [xp.reshape(x, (-1,)) for x in arrays]
        total = self.exchange.sum(flat[0] if len(flat) == 1 else xp.concat(flat))
        begins = np.cumsum([0, *map(size, arrays)]).tolist()
        yield from (xp.reshape(total[a:b], x.shape) for x, (a, b) in zip(arrays, pairwise(begins), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether this is true for any rank."""
        return any(self.gather(int(flag)))

    def in_turn(self, items: list[Any]) -> list[Any]:
        """Return the items of all ranks, each of which has every `size`-th: one of rank 0, one of rank 1, and so on."""
        lists = self.exchange.gather_objects(items)
        return [lists[i % self.size][i // self.size] for i in range(sum(map(len, lists)))]

    def require(self, backend: Backend, divisible: bool) -> None:
        """Prepare to exchange a backend's arrays. Raise ValueError if its steps cannot. Warn if batches cannot be divided."""
        if not backend.exchanges:
            raise ValueError(
                f"A step of {backend.name} is compiled or captured as a whole, and cannot wait for other processes. Use the "
                f'backend "numpy", "torch", or "cupy" without graphs. Received: {backend}'
            )
        if not divisible and self.rank == 0:
            warnings.warn(
                "Every rank computes whole batches, because a layer or the loss is not from xpnet and may mix the rows of a "
                f"batch, or there are several seeds. The result is right, but {self.size} ranks are as fast as one.",
                stacklevel=2,
            )
        if divisible:
            self.exchange.prepare(backend)

    def require_same(self, values: dict[str, Any]) -> None:
        """Raise RuntimeError in all ranks unless they call this with equal values. It names the first that differs."""
        found = self.exchange.gather_objects(values)
        for name in sorted({name for one in found for name in one}):
            mine = [one.get(name) for one in found]
            for rank, value in enumerate(mine):
                if value != mine[0]:
                    first, other = _apart(repr(mine[0]), repr(value))
                    raise RuntimeError(
                        "All ranks must run the same program on the same data: the same models, and the same calls of fit and "
                        f"evaluate, with the same arguments. Received: {name}={first} in rank 0, {other} in rank {rank}"
                    )

    def begin(self, plan: Any, state: Any) -> None:
        """Raise RuntimeError unless all ranks begin the same run with the same parameters."""
        source = plan.source
        facts = vars(plan.settings) | {
            name: getattr(source, name) for name in ("samples", "steps", "shape", "weighted")
        }
        first = {f"first {name}": values.tolist() for name, values in source.example.items()}
        run = {"seed": state.seed, "step": state.step, "epoch": state.epoch, CHECKSUM: _checksum(state.arrays)}
        self.require_same({name: value for name, value in facts.items() if name != "verbose"} | first | run)

    @contextmanager
    def together(self, method: str, model: Any) -> Iterator[None]:
        """A ``with`` block that all ranks enter with equal models. The job ends if only some leave it with an error.

        `evaluate` also needs equal parameters. Those of `fit` are compared in `begin`, after they have been drawn or read.
        """
        facts = {"call": method, "name of the backend": model.backend.name, "float type": model.backend.float_name}
        facts |= {name: _text(getattr(model, name)) for name in ("network", "loss", "optimizer", "metrics")}
        if method == "evaluate":
            state = model.state or {}
            facts[CHECKSUM] = _checksum([state[name] for name in ("params", "statistics") if name in state])
        self.require_same(facts)
        try:
            yield
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self.exchange.failed(error)
            raise


def _checksum(tree: Tree) -> int:
    return zlib.crc32(b"".join(to_numpy(array).tobytes() for array in leaves(tree)))


def _text(part: Any) -> str:
    """Return the `repr` without addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))


def _apart(one: str, other: str) -> list[str]:
    """Return at most 100 characters of each text, from shortly before their first difference on."""
    equal = (a == b for a, b in zip(one, other, strict=False))
    begin = max(sum(takewhile(bool, equal)) - 40, 0)
    return [("..." if begin else "") + text[begin : begin + 100] for text in (one, other)]


def _like(leaf: Any, host: np.ndarray, received: np.ndarray) -> Any:
    """Return the values of another rank in the form of `leaf`, whose host array is `host`."""
    values = np.frombuffer(received.tobytes(), host.dtype).reshape(host.shape).copy()
    if not hasattr(leaf, "dtype"):
        return values.item()
    return namespace(leaf).asarray(values, device=device(leaf))
