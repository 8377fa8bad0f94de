"""Measures training on data that do not fit into memory: the memory that it takes, and what reading ahead saves.

    python -m tests.benchmarks.big_data --gigabytes 2,20
    python -m tests.benchmarks.big_data --ahead

The first command trains one epoch on a sparse file for each size. The file takes no room on the disk, but its samples are read
like those of any other file. Anonymous memory (RssAnon in /proc/self/status) is the memory that the process itself holds. Pages
of the mapped file are not part of it, because the system drops them when it needs room. The second command trains from a source
that sleeps for the time of a step before each batch, and divides the time with reading ahead by the sum of reading and
training.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.benchmarks import cli
from xpnet import SGD, Callback, Model
from xpnet.layers import Dense, ReLU

FEATURES, BATCH = 3072, 256


def anonymous() -> float:
    """Return the anonymous memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1e3


@contextmanager
def peak_memory():
    """Yield a list; at the end of the block it holds the largest anonymous memory inside."""
    peak, done = [anonymous()], threading.Event()

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def sparse(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    np.memmap(path, dtype, "w+", shape=shape).flush()
    return np.memmap(path, dtype, "r", shape=shape)


def small_model() -> Model:
    return Model([Dense(32), ReLU(), Dense(10)], "softmax_cross_entropy", SGD(0.01))


def train(gigabytes: float) -> dict[str, float]:
    rows = int(gigabytes * 1e9 / (4 * FEATURES))
    with tempfile.TemporaryDirectory() as folder:
        x = sparse(Path(folder, "x"), (rows, FEATURES), np.float32)
        y = sparse(Path(folder, "y"), (rows,), np.int64)
        before, begin = anonymous(), time.perf_counter()
        with peak_memory() as peak:
            small_model().fit(x, y, batch_size=BATCH, verbose=0)
        seconds = time.perf_counter() - begin
    return {"before": before, "peak": peak[0], "seconds": seconds}


class Slow:
    """Batches that each take some time to read. They are in memory, so that nothing else takes time."""

    def __init__(self, batches: int, seconds: float):
        self.batches, self.seconds = batches, seconds
        self.batch = np.ones((BATCH, FEATURES), np.float32), np.zeros(BATCH, int)

    def __iter__(self):
        for _ in range(self.batches):
            time.sleep(self.seconds)
            yield self.batch


class Sleeps(Callback):
    """Makes each step take this time, without using a core."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self.seconds)


def ahead(batches: int = 40, seconds: float = 0.05) -> float:
    """Return the time of an epoch, divided by the sum of the times of reading and training."""

    def epoch(read: float, step: float) -> float:
        model = small_model().build((FEATURES,))
        begin = time.perf_counter()
        model.fit(Slow(batches, read), callbacks=[Sleeps(step)], verbose=0)
        return time.perf_counter() - begin

    return epoch(seconds, seconds) / (epoch(seconds, 0) + epoch(0, seconds))


def main(arguments=None) -> None:
    parser = cli.parser("tests.benchmarks.big_data", __doc__)
    parser.add_argument("--gigabytes", type=cli.sizes, default=(), help="the sizes of the files, such as 2,20")
    parser.add_argument("--ahead", action="store_true", help="measure what reading ahead saves")
    chosen = parser.parse_args(arguments)
    for size in chosen.gigabytes:
        found = train(size)
        print(
            f"{size:g} GB: {found['peak']:.0f} MB of anonymous memory at the peak, {found['before']:.0f} MB before, "
            f"{found['seconds']:.1f} s"
        )
    if chosen.ahead:
        print(f"time with reading ahead / reading + training: {ahead():.2f}")


if __name__ == "__main__":
    main()
