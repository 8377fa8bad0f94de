"""Threads that wait for work, so that a training step can use several cores.

A hand-over to another thread and back takes 60 µs with plain locks, and 90 to 200 µs with a `ThreadPoolExecutor`, barriers or
events. While the workers compute, `xpnet.backend.blas` limits matrix products to one thread each.

Matrix products use several cores without workers, but NumPy's other operations do not. Workers pay where these take much of a
step: where a batch has many more activations than the network has parameters. docs/scaling.md has the measurements.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend import blas
from xpnet.tree import Tree, map_leaves

MANY = 40  # activations for each parameter
LARGE = 1_500_000  # activations in a batch: with 1,200,000, dividing gains nothing
PIECE = 4_000_000  # activations that a thread computes at once: with 19,000,000, a step takes 1.7 times as long


def pay(activations: int, parameters: int) -> bool:
    """Whether a step with so many activations in its batch is faster with workers."""
    return activations >= max(LARGE, MANY * parameters)


def pieces(activations: int, parameters: int) -> int:
    """Return the number of pieces into which to cut a thread's rows with `activations` activations.

    The arrays of a piece fit into the cache, and into memory that malloc keeps. The gradients of all pieces are added up, so
    there must be many activations for each parameter.
    """
    return max(1, -(-activations // PIECE)) if activations >= MANY * parameters else 1


def cores() -> int:
    """Return the number of cores that this process may use.

    The number of BLAS threads follows OMP_NUM_THREADS and the limits that threadpoolctl and joblib set. The others are the
    process's affinity and the quota of its container.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(blas.process.outside(), affinity, quota() or affinity))


def quota(folder: str = "/sys/fs/cgroup") -> int | None:
    """Return the number of cores, rounded up, whose time the container of this process may use, or None for no limit."""
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):  # version 2 and 1 of Linux' control groups
        try:
            file = Path(folder, name)
            time, *period = file.read_text().split()
            every = period[0] if period else file.with_name("cpu.cfs_period_us").read_text()
            return -(-int(time) // int(every)) if int(time) > 0 else None
        except (OSError, ValueError):  # another system, or "max"
            continue
    return None


class Workers:
    """`size` - 1 threads. The thread that calls `run` is the first worker."""

    def __init__(self, size: int):
        self.size = size
        self._running = threading.Lock()  # one run at a time
        self._go, self._done = ([_thread.allocate_lock() for _ in range(size)] for _ in range(2))
        self._function: Callable[[int], Any] | None = None
        self._results: list[Any] = []
        self._meeting = threading.Barrier(size)
        self._trees: list[list[Any]] = [[None] * size, [None] * size]
        self._turns = [0] * size  # which list is next, for each worker
        for lock in (*self._go, *self._done):
            lock.acquire()
        for rank in range(1, size):
            threading.Thread(target=self._work, args=(rank,), name=f"xpnet worker {rank}", daemon=True).start()

    def run(self, function: Callable[[int], Any]) -> list[Any]:
        """Return ``[function(0), ..., function(size - 1)]``, computed at the same time. If some raise an error, raise one."""
        with self._running:
            self._function, self._results = function, [None] * self.size
            try:
                for go in self._go[1:]:
                    go.release()
                self._call(0, function, Exception)
                for done in self._done[1:]:
                    done.acquire()
            except BaseException:  # an interrupt, after which it is not known what the workers do
                self._end()
                raise
            results, self._function, self._results = self._results, None, []
        if errors := [result.error for result in results if isinstance(result, _Raised)]:
            self._meeting.reset()
            self._turns = [0] * self.size
            raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
        return results

    def reduce(self, rank: int, tree: Tree) -> Tree:
        """Return the sum of the trees of all workers, each of which calls `reduce` inside `run`, in the order of the ranks."""
        turn = self._turns[rank]
        self._turns[rank] = 1 - turn  # two lists take turns, because a slow worker may still read the first one
        trees = self._trees[turn]
        trees[rank] = tree
        self._meeting.wait()
        return map_leaves(lambda *values: sum(values[1:], start=values[0]), *trees)

    def _work(self, rank: int) -> None:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while True:
                self._go[rank].acquire()
                if (function := self._function) is None:
                    return
                self._call(
                    rank, function, BaseException
                )  # SystemExit would end the thread, and `run` would wait for it
                del function  # it holds arrays
                self._done[rank].release()

    def _call(self, rank: int, function: Callable[[int], Any], caught: type[BaseException]) -> None:
        _current.working = True
        try:
            self._results[rank] = function(rank)
        except caught as error:
            self._results[rank] = _Raised(error)
            self._meeting.abort()  # the others would wait for this worker
        finally:
            _current.working = False

    def _end(self) -> None:
        """End the threads after what they are doing. The next run creates new ones."""
        _pools.pop(self.size, None)
        self._function = None
        self._meeting.abort()
        for go in self._go[1:]:
            with suppress(RuntimeError):  # it waits to be taken already
                go.release()


class _Raised:
    def __init__(self, error: BaseException):
        self.error = error


_pools: dict[int, Workers] = {}
_creating = threading.Lock()
_current = threading.local()  # its `working` is whether the current thread computes as a worker


def _forked() -> None:
    """Forget the threads, which do not survive a fork, and the lock, which one of them may have held."""
    global _creating
    _pools.clear()
    _creating = threading.Lock()
    _current.working = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def working() -> bool:
    """Whether the current thread computes as a worker, and cannot wait for workers itself."""
    return getattr(_current, "working", False)


def workers(size: int) -> Workers:
    """Return this process's workers."""
    if size not in _pools:
        with _creating:
            if size not in _pools:
                _pools[size] = Workers(size)
    return _pools[size]
