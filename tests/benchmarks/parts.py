"""Compares a training step of the whole batch with the same step in parts, one for each thread, in one process.

    python -m tests.benchmarks.parts CNN CNN/16 LSTM/512

A case may have another batch size behind a slash. Both steps run in turns, and each turn takes about 60 ms. The command prints
the median times, the processor time of all threads, the median of the ratios of neighboring turns, and the two numbers of the
rules in `xpnet.backend.workers`. With ``--one-thread`` the whole batch uses one BLAS thread. With ``--torch``, PyTorch's eager
step takes the place of the whole batch, with as many threads as parts. A large part is computed in pieces, the whole batch never,
so ``--parts 1 --one-thread`` shows what the pieces gain.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from tests.benchmarks import ours, peers
from tests.benchmarks.cases import CASES, LEARNING_RATE, Case
from xpnet.backend import blas, make_backend, workers
from xpnet.groups import group_of, pieces_of
from xpnet.step import Inference, training_step

TURN_SECONDS = 0.06


def case_of(text: str) -> Case:
    """Return the case with this name and, behind a slash, batch size."""
    name, _, batch = text.partition("/")
    return replace(CASES[name], batch=int(batch)) if batch else CASES[name]


def data_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return random samples and labels."""
    rng = np.random.default_rng(0)
    rows = max(4 * case.batch, 2000)
    return rng.random((rows, *case.input_shape), dtype=np.float32), rng.integers(0, 10, rows)


class TorchRunner:
    """Training steps of PyTorch."""

    def __init__(self, case: Case, threads: int):
        import torch

        torch.set_num_threads(threads)
        x, y = data_of(case)
        self.torch, self.rows, self.batch, self.step = torch, len(x), case.batch, peers.torch_step(case, x, y)

    def __call__(self, steps: int) -> tuple[float, float]:
        index = self.torch.randint(0, self.rows, (steps, self.batch))
        begin, used = time.perf_counter(), time.process_time()
        for i in range(steps):
            self.step(index[i])
        return (time.perf_counter() - begin) / steps * 1e6, (time.process_time() - used) / steps * 1e6


class Runner:
    """Training steps in a number of parts."""

    def __init__(self, case: Case, parts: int, blas_threads: int | None, in_pieces: bool):
        model, rng = ours.model(case, "numpy").build(case.input_shape), np.random.default_rng(0)
        x, y = data_of(case)
        self.rows, self.batch, self.data = len(x), case.batch, model.prepare(x, y)
        self.backend, self.state, self.rng = model.backend, model.state, rng
        self.measured = model.measured[case.input_shape]
        params, rows = model.state["params"], case.batch // parts
        self.pieces = pieces_of(self.backend, self.measured, params, rows) if in_pieces else 1
        inference = Inference(model.network, self.backend.dtype, group_of(parts), self.pieces)
        self.step = training_step(inference, model._scores, model.optimizer)
        self.limit = blas.limited(self.batch * self.measured.multiplications, 1 if parts > 1 else blas_threads)

    def __call__(self, steps: int) -> tuple[float, float]:
        """Return the wall time and the processor time of a step, in µs."""
        index = self.rng.integers(0, self.rows, (steps, self.batch))
        batches = {"learning_rate": np.full(steps, LEARNING_RATE / 100), "index": index}
        with self.limit:
            begin, used = time.perf_counter(), time.process_time()
            self.state, _ = self.backend.scan(self.step, self.state, batches, self.data)
            return (time.perf_counter() - begin) / steps * 1e6, (time.process_time() - used) / steps * 1e6


def compare(text: str, parts: int, blas_threads: int | None, turns: int, torch: bool = False) -> str:
    """Return a row of the table for one case."""
    case = case_of(text)
    whole = TorchRunner(case, parts) if torch else Runner(case, 1, blas_threads, False)
    divided = Runner(case, parts, blas_threads, True)
    for runner in (whole, divided):
        runner(2)
    steps = max(1, int(TURN_SECONDS * 1e6 / min(whole(2)[0], divided(2)[0])))
    times = np.array(
        [(whole(steps), divided(steps)) for _ in range(turns)]
    )  # turns, whole or divided, wall or processor
    (a, a_cpu), (b, b_cpu) = np.median(times, axis=0)
    wall, cpu = np.median(times[:, 1] / times[:, 0], axis=0)
    activations, parameters = case.batch * divided.measured.activations, divided.measured.parameters
    rule = "yes" if workers.pay(activations, parameters) else "no"
    return (
        f"| {text} | {activations / 1e6:.2f} | {activations / parameters:.1f} | {rule} | {divided.pieces} | "
        f"{a:,.0f} ({a_cpu:,.0f}) | {b:,.0f} ({b_cpu:,.0f}) | {wall:.2f} ({cpu:.2f}) |"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", metavar="CASE", help=f"one of {', '.join(CASES)}, perhaps with /BATCH")
    parser.add_argument("--parts", type=int, default=make_backend("numpy").parts(10**12, 1), help="default: the cores")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--one-thread", action="store_true", help="the whole batch uses one BLAS thread")
    parser.add_argument("--torch", action="store_true", help="compare with PyTorch's eager step")
    options = parser.parse_args(argv)
    print(f"{options.parts} parts; wall time and, in parentheses, processor time, in µs")
    other = "PyTorch" if options.torch else "whole"
    print(f"| case | activations, millions | for each parameter | rule | pieces | {other} | parts | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for text in options.cases:
        print(compare(text, options.parts, 1 if options.one_thread else None, options.turns, options.torch), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
