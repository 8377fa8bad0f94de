"""Compares a training step of the whole batch with the same step in parts and pieces, and with PyTorch's.

    python -m tests.benchmarks.parts CNN CNN/16 LSTM/512

A case may have another batch size behind a slash. Every measurement runs in a fresh process, because the threads of a BLAS or of
PyTorch keep the cores busy for a while, and all variants take turns in each round. The command prints the median times of a step,
the processor time of all threads, the medians of the ratios to the whole batch, and the numbers of the rules in
`xpnet.backend.workers`.

- whole: the whole batch at once, with as many BLAS threads as parts.
- parts: a part for each thread, in pieces if it is large, whatever the rule says. With ``--parts 1``, pieces only.
- PyTorch, with ``--torch``: its eager step, with as many threads as parts.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np

from tests.benchmarks import cli, ours, peers
from tests.benchmarks.cases import CASES, LEARNING_RATE, Case
from tests.benchmarks.worker import measure
from xpnet.backend import blas, make_backend, workers
from xpnet.groups import group_of, pieces_of
from xpnet.step import Inference, training_step

TURN_SECONDS = 0.06
TURNS = 15


def case_of(text: str) -> Case:
    """Return the case with this name and, behind a slash, batch size."""
    name, _, batch = text.partition("/")
    return replace(CASES[name], batch=int(batch)) if batch else CASES[name]


def data_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return random samples and labels."""
    rng = np.random.default_rng(0)
    rows = max(4 * case.batch, 2000)
    return rng.random((rows, *case.input_shape), dtype=np.float32), rng.integers(0, 10, rows)


# ---------------------------------------------------------------------- in the process of a measurement


class TorchRunner:
    """Training steps of PyTorch."""

    def __init__(self, case: Case, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.facts: dict[str, Any] = {}
        x, y = data_of(case)
        self.torch, self.rows, self.batch, self.step = torch, len(x), case.batch, peers.torch_step(case, x, y)

    def __call__(self, steps: int) -> None:
        for index in self.torch.randint(0, self.rows, (steps, self.batch)):
            self.step(index)


class Runner:
    """Training steps in a number of parts, each in pieces, or of the whole batch at once."""

    def __init__(self, case: Case, threads: int, whole: bool):
        model, rng = ours.model(case, "numpy").build(case.input_shape), np.random.default_rng(0)
        x, y = data_of(case)
        self.rows, self.batch, self.data = len(x), case.batch, model.prepare(x, y)
        self.backend, self.state, self.rng = model.backend, model.state, rng
        measured, parts = model.measured[case.input_shape], 1 if whole else threads
        pieces = 1 if whole else pieces_of(self.backend, measured, self.state["params"], case.batch // parts)
        self.facts = {
            "activations": case.batch * measured.activations,
            "parameters": measured.parameters,
            "pieces": pieces,
        }
        inference = Inference(model.network, self.backend.dtype, group_of(parts), pieces)
        self.step = training_step(inference, model._scores, model.optimizer)
        self.limit = blas.limited(self.batch * measured.multiplications, 1 if parts > 1 else None)

    def __call__(self, steps: int) -> None:
        index = self.rng.integers(0, self.rows, (steps, self.batch))
        batches = {"learning_rate": np.full(steps, LEARNING_RATE / 100), "index": index}
        with self.limit:
            self.state, _ = self.backend.scan(self.step, self.state, batches, self.data)


def task(spec: dict) -> dict[str, Any]:
    """The task of `tests.benchmarks.worker`: the median wall and processor time of a step, in µs."""
    case, threads, variant = case_of(spec["case"]), spec["threads"], spec["variant"]
    runner = TorchRunner(case, threads) if variant == "PyTorch" else Runner(case, threads, variant == "whole")
    runner(2)
    begin = time.perf_counter()
    runner(2)
    steps = max(1, int(2 * TURN_SECONDS / (time.perf_counter() - begin)))
    wall, cpu = [], []
    for _ in range(spec["turns"]):
        begin, used = time.perf_counter(), time.process_time()
        runner(steps)
        wall.append((time.perf_counter() - begin) / steps * 1e6)
        cpu.append((time.process_time() - used) / steps * 1e6)
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu)} | runner.facts


# ---------------------------------------------------------------------- the command


def row(text: str, variants: list[str], threads: int, rounds: int, turns: int) -> str:
    """Return a row of the table for one case."""
    spec = {"task": "parts", "case": text, "turns": turns}
    found = [{variant: measure(spec | {"variant": variant}, threads) for variant in variants} for _ in range(rounds)]
    if errors := {result["error"] for one in found for result in one.values() if "error" in result}:
        return f"| {text} | not measured: {', '.join(sorted(errors))} |"
    facts = found[0]["parts"]
    rule = workers.pay(facts["activations"], facts["parameters"])
    cells = [
        f"{facts['activations'] / 1e6:.2f}", f"{facts['activations'] / facts['parameters']:.1f}", "yes" if rule else "no",
        f"{facts['pieces']}",
    ]  # fmt: skip
    for variant in variants:
        wall, cpu = (statistics.median(one[variant][kind] for one in found) for kind in ("wall", "cpu"))
        ratios = [one[variant]["wall"] / one["whole"]["wall"] for one in found]
        cells.append(f"{wall:,.0f} ({cpu:,.0f})" + f" {statistics.median(ratios):.2f}" * (variant != "whole"))
    return f"| {text} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser("tests.benchmarks.parts", __doc__)
    parser.add_argument(
        "cases", nargs="+", type=cli.case, metavar="CASE", help=f"one of {', '.join(CASES)}, perhaps with /BATCH"
    )
    parser.add_argument(
        "--parts", type=cli.count, default=make_backend("numpy").parts(10**12, 1), help="default: the cores"
    )
    parser.add_argument("--rounds", type=cli.count, default=3, help="default: %(default)s")
    parser.add_argument("--turns", type=cli.count, default=TURNS, help="in each round; default: %(default)s")
    parser.add_argument("--torch", action="store_true", help="also measure PyTorch's eager step")
    options = parser.parse_args(arguments)
    variants = ["whole", "parts", *["PyTorch"] * options.torch]
    print(f"{options.parts} parts; wall time, in parentheses processor time, in µs, and the ratio to the whole batch")
    print(f"| case | activations, millions | for each parameter | rule | pieces | {' | '.join(variants)} |")
    print("|---" * (5 + len(variants)) + "|")
    for text in options.cases:
        print(row(text, variants, options.parts, options.rounds, options.turns), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
