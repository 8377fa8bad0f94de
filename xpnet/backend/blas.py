"""How many threads NumPy's matrix products use.

With other work on the cores, each product that is split between threads waits for the one whose core is taken: a step of
784-100-30-10 took five times as long as on a quiet machine, and half as long again with one thread. A quiet machine gains little
from a second thread in products of that size.
"""

from __future__ import annotations

import threading

from threadpoolctl import ThreadpoolController

SMALL = 10_000_000  # multiplications of a forward pass: 0.2 ms on one core


class BlasThreads:
    """The number of threads of the BLAS libraries in this process, set while something runs.

    The number belongs to the process. Where several runs overlap, the last one to begin sets it and the last one to end
    restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def begin(self, threads: int | None) -> None:
        """Set the number; None is what it was before anything ran."""
        with self._lock:
            if not self._running:
                self._before = [library.get_num_threads() for library in self.libraries]
            self._running += 1
            self._set([threads] * len(self._before) if threads else self._before)

    def end(self) -> None:
        """Restore the number unless something else still runs."""
        with self._lock:
            self._running -= 1
            if not self._running:
                self._set(self._before)

    def _set(self, numbers: list[int]) -> None:
        for library, number in zip(self.libraries, numbers, strict=True):
            library.set_num_threads(number)


process = BlasThreads()


class LimitedThreads:
    """A ``with`` block whose matrix products use `threads` threads; None is the number in force outside.

    A class, and not a generator: it costs 3 µs, and the prediction of one row takes 30.
    """

    def __init__(self, threads: int | None):
        self.threads = threads

    def __enter__(self) -> None:
        process.begin(self.threads)

    def __exit__(self, *error: object) -> None:
        process.end()


def limited(multiplications: int, threads: int | None) -> LimitedThreads:
    """`threads` if given; else one below `SMALL` multiplications, and from there on the number in force outside."""
    return LimitedThreads(threads or (1 if multiplications < SMALL else None))
