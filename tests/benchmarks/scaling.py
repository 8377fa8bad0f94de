"""Measures how training steps scale with threads and MPI ranks, and compares their times with the model of docs/scaling.md.

    mpiexec -n 3 python -m tests.benchmarks.scaling CNN LSTM/512 W3 W8

A case may have another batch size behind a slash. Strong scaling divides this batch among the workers. Weak scaling gives a
batch of this size to each worker. All numbers of workers take turns in one job. Each turn takes about 60 ms, and ranks without
work sleep. Each worker has one BLAS thread. Times are medians over the turns. Without ``mpiexec``, only threads are measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks import cli, ours
from tests.benchmarks.cases import CASES, LEARNING_RATE, Case
from tests.benchmarks.parts import TURN_SECONDS, case_of, data_of
from xpnet.backend import blas, make_backend
from xpnet.backend.workers import cores, workers
from xpnet.distributed import MpiExchange
from xpnet.errors import optional_import
from xpnet.groups import ALONE, Threads, pieces_of
from xpnet.ranks import BLOCK, SMALL, Ranks
from xpnet.step import Inference, training_step

MPI = optional_import("mpi4py.MPI", "mpi")
WORLD = MPI.COMM_WORLD
MANY = 1 << 22  # numbers in a large sum
RECORD = {"loss": np.float32(1), "accuracy": np.float32(1)}


class Runner:
    """Training steps of a group, with `rows` rows in each batch."""

    def __init__(self, case: Case, rows: int, group: Any, blas_threads: int = 1):
        model = ours.model(case, "numpy").build(case.input_shape)
        self.rows, self.group, self.data = rows, group, model.prepare(*data_of(case))
        self.limit = blas.limited(0, blas_threads)
        self.backend, self.state, self.rng = model.backend, model.state, np.random.default_rng(0)
        measured = model.measured[case.input_shape]
        pieces = pieces_of(self.backend, measured, self.state["params"], rows // group.size)
        inference = Inference(model.network, self.backend.dtype, group, pieces)
        self.step, self.bytes = training_step(inference, model._scores, model.optimizer), 4 * measured.parameters

    def __call__(self, steps: int) -> float:
        """Return the seconds of a step."""
        index = self.rng.integers(0, len(self.data["x"]), (steps, self.rows))
        if isinstance(self.group, Ranks):
            index = index[:, slice(*self.group.bounds(self.rows))]
            self.group.gather(0)
        rate, rows = np.full(steps, LEARNING_RATE / 100), np.full(steps, self.rows)
        batches = {"learning_rate": rate, "index": index, "rows": rows}
        with self.limit:
            begin = time.perf_counter()
            self.state, _ = self.backend.scan(self.step, self.state, batches, self.data)
            seconds = (time.perf_counter() - begin) / steps
        if self.limit.threads > 1:
            time.sleep(0.1)  # OpenBLAS' threads look for more work for a while, and would disturb the next turn
        return seconds


def at_once(*runners: Runner) -> Callable[[int], float]:
    """Return a function that runs steps that have nothing to do with each other in two threads."""
    return lambda steps: float(np.mean(workers(2).run(lambda rank: runners[rank](steps))))


def on(ranks: int, function: Callable[[], float]) -> float:
    """Return the result of rank 0 for a function that the first ranks call while the others sleep."""

    def meet() -> None:  # a blocking function of MPI would keep a core busy
        request = WORLD.Ibarrier()
        while not request.Test():
            time.sleep(0.001)

    meet()
    result = function() if WORLD.rank < ranks else 0.0
    meet()
    return WORLD.bcast(result)


def in_turns(measured: dict[str, tuple[int, Callable[[int], float]]], turns: int) -> dict[str, float]:
    """Return the median seconds of a repetition of each function. `measured` has the number of ranks that call it too."""
    times: dict[str, list[float]] = {name: [] for name in measured}
    steps = {}
    for name, (ranks, function) in measured.items():
        on(ranks, lambda run=function: run(2))
        steps[name] = max(1, int(TURN_SECONDS / on(ranks, lambda run=function: run(2))))
    for _ in range(turns):
        for name, (ranks, function) in measured.items():
            times[name].append(on(ranks, lambda run=function, n=steps[name]: run(n)))
    return {name: float(np.median(values)) for name, values in times.items()}


def repeated(function: Callable[[], Any]) -> Callable[[int], float]:
    """Return a function that measures the seconds of a call."""

    def run(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - begin) / calls

    return run


def constants(teams: dict[int, Ranks], turns: int) -> dict[str, float]:
    """Return the quantities of the model that do not depend on the network, in seconds and in bytes per second."""
    make_backend("numpy")  # it keeps freed memory
    tree = {"weight": np.ones(MANY, np.float32)}
    meetings = repeated(lambda: workers(2).run(lambda rank: [workers(2).reduce(rank, RECORD) for _ in range(100)]))
    measured = {
        "t": (1, repeated(lambda: workers(2).run(lambda rank: None))),
        "b": (1, lambda calls: meetings(max(1, calls // 100)) / 100),
    }
    for n, team in teams.items():
        measured[f"alpha {n}"] = (n, repeated(lambda team=team: team.gather(RECORD)))
        measured[f"sum {n}"] = (n, repeated(lambda team=team: team.reduce(tree)))
    found = in_turns(measured, turns)
    found["gamma"] = 4 * MANY / found["sum 1"]
    if 2 in teams:
        found["beta"] = 4 * MANY / (found["sum 2"] - found["sum 1"])
    return found


def steps_of(case: Case, teams: dict[int, Ranks], turns: int) -> tuple[dict[str, float], int]:
    """Return the seconds of each kind of step, and the bytes of the parameters."""
    half = [Runner(case, case.batch // 2, ALONE) for _ in range(2)]
    measured: dict[str, tuple[int, Callable[[int], float]]] = {
        "whole": (1, Runner(case, case.batch, ALONE)),
        "half": (1, half[0]),
        "half, threads": (1, at_once(*half)),
        "BLAS": (1, Runner(case, case.batch, ALONE, 2)),
    }
    if 2 in teams:
        measured["half, ranks"] = (2, half[0])
    groups = {"threads 2": (1, 2, Threads(2))} | {f"ranks {n}": (n, n, team) for n, team in teams.items() if n > 1}
    for name, (ranks, n, group) in groups.items():
        measured[f"{name} strong"] = (ranks, Runner(case, case.batch, group))
        measured[f"{name} weak"] = (ranks, Runner(case, case.batch * n, group))
    return in_turns(measured, turns), half[0].bytes


def predicted(kind: str, n: int, part: float, size: int, batch: int, q: dict[str, float]) -> float:
    """Return the seconds of a step of n workers, in which one worker alone takes `part` seconds for its rows.

    `size` and `batch` are the bytes of the parameters and of the whole batch.
    """
    if kind == "threads":
        return q["c threads"] * part + q["t"] + ((n - 1) * size + (n - 1) / n * batch) / q["gamma"]
    crowd = math.ceil(n / cores())
    local = crowd * (q["c ranks"] * part + size / q["gamma"])
    numbers = size // 4
    exchanges = 2 if numbers <= SMALL else 1 + 2 * -(-numbers // BLOCK)
    return local + exchanges * q[f"alpha {n}"] + 2 * (n - 1) / n * size / q["beta"]


def rows(text: str, teams: dict[int, Ranks], q: dict[str, float], turns: int) -> tuple[str, list[str]]:
    """Return the row of a case in the table of its quantities, and its rows in the table of times."""
    case = case_of(text)
    times, size = steps_of(case, teams, turns)
    batch = 4 * case.batch * math.prod(case.input_shape)
    whole, half = times["whole"], times["half"]
    share = 2 * half / whole - 1
    c = {f"c {kind}": times.get(f"half, {kind}", math.nan) / half for kind in ("threads", "ranks")}
    first = (
        f"| {text} | {size / 1e6:.2f} | {whole * 1e3:.2f} | {share:.2f} | {c['c threads']:.2f} | {c['c ranks']:.2f} | "
        f"{times['BLAS'] * 1e3:.2f} |"
    )
    others = []
    for kind, n in (("threads", 2), *(("ranks", n) for n in teams if n > 1)):
        cells = []
        for scaling, part in (("strong", whole * (share + (1 - share) / n)), ("weak", whole)):
            time = times[f"{kind} {n} {scaling}"]
            larger = 1 if scaling == "strong" else n
            model = predicted(kind, n, part, size, larger * batch, q | c)
            gain = larger * whole / time
            cells.append(f"{time * 1e3:.2f} | {model * 1e3:.2f} | {time / model:.2f} | {gain:.2f}")
        others.append(f"| {text} | {n} {kind} | {' | '.join(cells)} |")
    return first, others


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser("tests.benchmarks.scaling", __doc__)
    parser.add_argument(
        "cases", nargs="+", type=cli.case, metavar="CASE", help=f"one of {', '.join(CASES)}, perhaps with /BATCH"
    )
    parser.add_argument("--turns", type=cli.count, default=9)
    options = parser.parse_args(arguments)
    split = {n: WORLD.Split(int(WORLD.rank >= n), WORLD.rank) for n in range(1, WORLD.size + 1)}
    teams = {n: Ranks(comm.rank, n, MpiExchange(MPI, comm)) for n, comm in split.items()}
    q = constants(teams, options.turns)
    found = [rows(text, teams, q, options.turns) for text in options.cases]
    if WORLD.rank == 0:
        print(f"{cores()} cores; t {q['t'] * 1e6:.0f} us, b {q['b'] * 1e6:.0f} us, gamma {q['gamma'] / 1e9:.1f} GB/s")
        for n in list(teams)[1:]:
            print(
                f"{n} ranks: alpha {q[f'alpha {n}'] * 1e6:.0f} us, a sum of {4 * MANY / 1e6:.1f} MB {q[f'sum {n}'] * 1e3:.2f} ms"
            )
        if 2 in teams:
            print(f"beta {q['beta'] / 1e9:.1f} GB/s")
        print(
            "| case | P, MB | T1, ms | s | c of threads | c of ranks | T1 with two BLAS threads |\n|---|---|---|---|---|---|---|"
        )
        print(*[first for first, _ in found], sep="\n")
        print("| case | workers | strong, ms | model | ratio | speed-up | weak, ms | model | ratio | speed-up |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        print(*[row for _, others in found for row in others], sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
