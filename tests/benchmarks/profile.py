"""Shows where the time of a training step goes: ``python -m tests.benchmarks.profile --case W2 --backend numpy``.

Each piece of each step is timed. The minimum is the undisturbed cost of a piece, which is reliable even on a busy machine. On JAX
a step is part of one compiled program, so use ``jax.profiler`` there.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from tests.benchmarks import cli, ours
from tests.benchmarks.cases import CASES, LEARNING_RATE, floor_step, read_data, write_data
from tests.benchmarks.report import table
from xpnet.backend import to_numpy
from xpnet.layers import Sequential
from xpnet.layers.base import Wrapper
from xpnet.step import TrainingStep
from xpnet.tree import map_leaves


class Clock:
    """The seconds of every call, by the name of the piece."""

    def __init__(self, synchronize: Callable[[], None]):
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.synchronize = synchronize

    def timed(self, name: str, function: Callable) -> Callable:
        """Return `function` with its calls timed under `name`."""

        def call(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.synchronize()
            self.seconds[name].append(time.perf_counter() - start)
            return result

        return call


@dataclass(frozen=True, eq=False)
class Timed(Wrapper):
    """A layer whose passes are timed."""

    name: str
    clock: Clock

    def forward(self, params, x, **extra):
        y, backward, *more = self.clock.timed(f"{self.name} forward", self.layer.forward)(params, x, **extra)
        return y, self.clock.timed(f"{self.name} backward", backward), *(more or [None])


class Proxy:
    """Wraps an object and times one of its methods."""

    def __init__(self, target, method: str, name: str, clock: Clock):
        self.target, self.method, self.timed = target, method, clock.timed(name, getattr(target, method))

    def __call__(self, *args):
        return self.timed(*args)

    def __getattr__(self, name):
        return self.timed if name == self.method else getattr(self.target, name)


def timed_step(step: TrainingStep, clock: Clock) -> TrainingStep:
    """Return `step` with its pieces timed."""
    layers = step.inference.network.layers
    network = Sequential([Timed(layer, f"{i} {type(layer).__name__}", clock) for i, layer in enumerate(layers)])
    scores = Proxy(step.scores, "__call__", "metrics", clock)
    scores.loss = Proxy(step.scores.loss, "__call__", "loss", clock)
    optimizer = Proxy(step.optimizer, "update", "optimizer", clock)
    return replace(step.with_network(network), scores=scores, optimizer=optimizer)


def profile(case, backend: str, x, y, steps: int, chunks: int) -> list[tuple[str, float, float]]:
    """Return (piece, minimum, median µs) for the pieces of a step, and then for the step, the scan and `fit`."""
    model = ours.model(case, backend).build(case.input_shape)
    library, step = model.backend, model.training_step
    clock = Clock(library.synchronize)
    data = {"x": library.asarray(x), "y": library.asarray(y)}
    order = np.random.default_rng(0).permutation(case.steps * case.batch).reshape(case.steps, case.batch)
    timed_gather = {name: clock.timed(f"gather {name}", library.gather) for name in data}

    def gather(values, index):
        return timed_gather["x" if values is data["x"] else "y"](values, index)

    def chunk(library, step, i):
        batches = {
            "index": order[np.arange(i * steps, (i + 1) * steps) % case.steps],
            "learning_rate": np.full(steps, LEARNING_RATE),
        }
        model.state, records = library.scan(step, model.state, batches, data)
        map_leaves(to_numpy, records)

    def times(chunk, step, library=library):
        for i in range(chunks + 1):
            chunk(library, step, i)
            if i == 0:
                clock.seconds.clear()  # the first chunk was a warm-up
        return {name: (min(seconds), statistics.median(seconds)) for name, seconds in clock.seconds.items()}

    gathering = replace(library)
    object.__setattr__(gathering, "gather", gather)
    found = times(chunk, timed_step(step, clock), gathering)
    found["sum of these"] = tuple(sum(column) for column in zip(*found.values(), strict=True))
    found |= times(chunk, clock.timed("the step, without gathering", step))
    whole = times(clock.timed("chunk", chunk), step)["chunk"]
    found[f"scan, {steps} steps, per step"] = tuple(seconds / steps for seconds in whole)
    found[f"fit, {case.steps} steps per epoch, per step"] = fit_times(case, backend, x, y)
    floor = clock.timed("GEMM floor", floor_step(case))
    found |= times(lambda *_: [floor() for _ in range(steps)], step)
    return [(name, least * 1e6, median * 1e6) for name, (least, median) in found.items()]


def fit_times(case, backend, x, y, epochs: int = 7) -> tuple[float, float]:
    """Return the minimum and median seconds of a step in `fit`."""
    stamps: list[float] = []
    ours.fit(case, x, y, epochs, lambda *_: stamps.append(time.perf_counter()), backend)
    seconds = [(b - a) / case.steps for a, b in pairwise(stamps)]
    return min(seconds), statistics.median(seconds)


def main(arguments=None) -> None:
    parser = cli.parser("tests.benchmarks.profile", __doc__)
    parser.add_argument(
        "--case",
        default="W2",
        choices=list(CASES),
        metavar="CASE",
        help=f"one of {', '.join(CASES)}; default: %(default)s",
    )
    parser.add_argument("--backend", default="numpy", choices=["numpy", "torch"], help="default: %(default)s")
    parser.add_argument("--steps", type=cli.count, default=50, help="the steps in a chunk; default: %(default)s")
    parser.add_argument("--chunks", type=cli.count, default=20, help="default: %(default)s")
    args = parser.parse_args(arguments)
    case = CASES[args.case]
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        x, y = read_data(Path(folder), case)
    rows = profile(case, args.backend, x, y, args.steps, args.chunks)
    floor = rows[-1][1]
    print(f"{case.name} {case.title} on {args.backend}\n")
    header = ["piece", "minimum, µs", "median, µs", "minimum / GEMM floor"]
    print(table(header, [[name, f"{a:,.1f}", f"{b:,.1f}", f"{a / floor:.2f}"] for name, a, b in rows]))


if __name__ == "__main__":
    main()
