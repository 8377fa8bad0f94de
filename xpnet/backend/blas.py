"""The number of threads in NumPy's matrix products.

On a busy machine, a product that is split between threads waits for the thread whose core is occupied. A training step of
784-100-30-10 then took five times as long as on an idle machine, but with one thread only 1.5 times as long. On an idle machine,
products of this size gain little from a second thread.
"""

from __future__ import annotations

import threading

from threadpoolctl import ThreadpoolController

SMALL = 10_000_000  # multiplications in a forward pass, which take 0.2 ms on one core


class BlasThreads:
    """Sets the number of threads of the BLAS libraries in this process during runs.

    The number belongs to the process. If several runs overlap, the last one to begin sets it, and the last one to end
    restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._thread = 0
        self.libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def begin(self, threads: int | None) -> None:
        """Set the number. None means the number before any run."""
        with self._lock:
            if not self._running:
                self._before = [library.get_num_threads() for library in self.libraries]
            self._running += 1
            self._set([threads] * len(self._before) if threads else self._before)

    def end(self) -> None:
        """Restore the number unless another run is active."""
        with self._lock:
            self._running -= 1
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

    def _set(self, numbers: list[int]) -> None:
        if (thread := threading.get_ident()) != self._thread:
            self._thread = thread
            for library in self.libraries:
                if hasattr(library, "clear_controlling_thread"):  # threadpoolctl 3.8 obeys only the first thread
                    library.clear_controlling_thread(force=True)
        for library, number in zip(self.libraries, numbers, strict=True):
            library.set_num_threads(number)


process = BlasThreads()


class LimitedThreads:
    """A ``with`` block whose matrix products use `threads` threads. None means the number outside the block.

    It is a class because a class is faster than a generator. It costs 3 µs, while the prediction of one row takes 30 µs.
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
