"""The number of threads in NumPy's matrix products.

On a busy machine, a product that is split between threads waits for the thread whose core is occupied. A training step of
784-100-30-10 then took five times as long as on an idle machine, but with one thread only 1.5 times as long. On an idle machine,
products of this size gain little from a second thread.
"""

from __future__ import annotations

import os
import threading

from threadpoolctl import ThreadpoolController

SMALL = 10_000_000  # multiplications in a forward pass, which take 0.2 ms on one core


class BlasThreads:
    """Sets the number of threads of the BLAS libraries in this process during runs.

    The number belongs to the process. If several runs overlap, the last one to begin sets it, and the last one to end
    restores it. After a fork, the child continues only the runs of the thread that forked.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._own = threading.local()  # its `runs` are those of the current thread
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers
        # threadpoolctl 3.8 obeys the thread that has set a number until it is released, and ignores the others
        releases = [getattr(library, "clear_controlling_thread", None) for library in self.libraries]
        self._release = next(filter(None, releases), None)  # for all libraries

    def begin(self, threads: int | None) -> None:
        """Set the number. None means the number before any run."""
        with self._lock:
            if not self._running:
                self._before = [library.get_num_threads() for library in self.libraries]
            self._running += 1
            self._own.runs = self._own_runs() + 1
            self._set([threads] * len(self._before) if threads else self._before)

    def end(self) -> None:
        """Restore the number unless another run is active."""
        with self._lock:
            self._running -= 1
            self._own.runs -= 1
            if not self._running:
                self._set(self._before)

    def number(self) -> int | None:
        """Return the current number of threads."""
        return max((library.get_num_threads() for library in self.libraries), default=None)

    def outside(self) -> int:
        """Return the number of threads before any run, or 1 if no library can be limited."""
        with self._lock:
            numbers = self._before if self._running else [library.get_num_threads() for library in self.libraries]
        return max(numbers, default=1)

    def _own_runs(self) -> int:
        return getattr(self._own, "runs", 0)

    def _forked(self) -> None:
        """Forget the runs of threads that the child does not have, one of which may have held the lock."""
        self._lock, others = threading.Lock(), self._running > self._own_runs()
        self._running = self._own_runs()
        if others and not self._running:
            self._set(self._before)

    def _set(self, numbers: list[int]) -> None:
        if self._release:
            self._release(force=True)
        for library, number in zip(self.libraries, numbers, strict=True):
            library.set_num_threads(number)
        if self._release:
            self._release(force=True)


process = BlasThreads()


class LimitedThreads:
    """A ``with`` block whose matrix products use `threads` threads. None means the number outside the block.

    It is a class because a class is faster than a generator, which the prediction of one row would notice.
    """

    def __init__(self, threads: int | None):
        self.threads = threads

    def __enter__(self) -> None:
        process.begin(self.threads)

    def __exit__(self, *error: object) -> None:
        process.end()


def limited(multiplications: int, threads: int | None) -> LimitedThreads:
    """Return a block with `threads` threads. None means one thread below `SMALL` multiplications, else the current number."""
    return LimitedThreads(threads or (1 if multiplications < SMALL else None))
