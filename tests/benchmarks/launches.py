"""The work of a training step on a CUDA device: ``.venv-cuda/bin/python -m tests.benchmarks.launches`` on the emulated device.

It counts kernels, matrix products, copies and temporary arrays, without timing them. The counts of n steps are subtracted from
those of 2n steps, which removes the work that occurs once in a chunk. A replayed graph launches each of its nodes once.
"""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace

import numpy as np

from tests.benchmarks import cli, ours
from tests.benchmarks.cases import CASES, LEARNING_RATE, Case
from tests.benchmarks.report import table
from xpnet import SGD, Adam
from xpnet.backend import make_backend

COUNTED = ("W1", "W2", "W3", "W7", "CNN", "LSTM")
OPTIMIZERS = {"SGD": SGD(LEARNING_RATE), "Adam": Adam(0.001)}
STEPS = 4  # the third step is captured


def counts() -> Counter:
    """Return the counts so far, after waiting for all streams."""
    importlib.import_module("cupy").cuda.runtime.deviceSynchronize()
    return Counter(importlib.import_module("fakecuda").counts())


def count_step(case: Case, optimizer: str, graphs: bool) -> dict[str, float]:
    """Return counts of one step: `kernels`, `products`, `moves` within the device, their sum `nodes`, `temporaries`, `bytes`.

    `bytes` is the size of the temporaries. A replay creates none.
    """
    cupy = importlib.import_module("cupy")

    class Allocations(cupy.cuda.MemoryHook):
        name = "allocations"

        def __init__(self):
            self.found = Counter()

        def malloc_preprocess(self, device_id, size, mem_size):
            self.found.update(temporaries=1, bytes=size)

    backend = make_backend("cupy", graphs=graphs)
    model = ours.model(case, backend)
    model.optimizer = replace(OPTIMIZERS[optimizer])
    model.build(case.input_shape)
    rng, rows = np.random.default_rng(0), case.batch
    data = {
        "x": backend.asarray(rng.random((rows, *case.input_shape), np.float32)),
        "y": backend.asarray(rng.integers(0, 10, rows)),
    }

    def asked(steps: int) -> Counter:
        batches = {"index": np.tile(np.arange(rows), (steps, 1)), "learning_rate": np.full(steps, LEARNING_RATE)}
        step, state, before = model.training_step, backend.copy(model.state), counts()
        with Allocations() as memory:
            backend.scan(step, state, batches, data)
        return counts() - before + memory.found

    asked(STEPS)  # compiles and captures
    once, twice = asked(STEPS), asked(2 * STEPS)
    found = {
        name: (twice[name] - once[name]) / STEPS for name in ("launches", "products", "moves", "temporaries", "bytes")
    }
    found["kernels"] = found.pop("launches")
    return found | {"nodes": found["kernels"] + found["products"] + found["moves"]}


def rows(cases: list[str]) -> list[list[str]]:
    """Return a row of the table for each case and optimizer."""
    lines = []
    for name in cases:
        for optimizer in OPTIMIZERS:
            eager, graph = (count_step(CASES[name], optimizer, graphs) for graphs in (False, True))
            eager_parts, graph_parts = (
                [f"{found[part]:g}" for part in ("nodes", "kernels", "products")] for found in (eager, graph)
            )
            memory = [f"{eager['temporaries']:g}", f"{eager['bytes'] / 1e6:.2f}"]
            lines.append([name, optimizer, *eager_parts, *graph_parts, *memory])
    return lines


def main(arguments=None) -> None:
    parser = cli.parser("tests.benchmarks.launches", __doc__)
    parser.add_argument(
        "--cases",
        nargs="+",
        default=list(COUNTED),
        choices=list(CASES),
        metavar="CASE",
        help=f"some of {', '.join(CASES)}; default: {' '.join(COUNTED)}",
    )
    args = parser.parse_args(arguments)
    header = [
        "case",
        "optimizer",
        "eager",
        "kernels",
        "products",
        "graph's nodes",
        "kernels",
        "products",
        "temporaries",
        "MB",
    ]
    print(table(header, rows(args.cases)))


if __name__ == "__main__":
    main()
