"""Compares the time of xpnet.sklearn with scikit-learn's, and prints a Markdown table.

    python -m tests.benchmarks.sklearn_speed
    python -m tests.benchmarks.sklearn_speed --only iris,digits
    python -m tests.benchmarks.sklearn_speed --json results.json

The first command takes less than five minutes on two cores. Each case runs in a separate process, and there both libraries do
the same work by turns. MNIST has float32 samples in batches of 200, and the solver is "adam". All libraries, JAX too, are
loaded before the first time is taken. A case with JAX runs in a new process for each round, so that every round compiles. In
the busy cases, as many other processes as threads run without pause. Run it on a machine that is otherwise idle.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import cli
from tests.benchmarks.busy import other_work
from tests.benchmarks.report import describe_machine, machine_text, table
from tests.benchmarks.worker import measure


@dataclass(frozen=True)
class Case:
    """Work that both libraries do.

    Attributes
    ----------
    data : {"mnist", "iris", "digits", "diabetes"}
    work : {"fit", "predict_proba", "predict", "partial_fit"}
        A fit of new estimators, or calls of a method of fitted ones.
    rows : int
        The number of samples in each call. 0 means all.
    calls : int
        The number of calls in each time.
    epochs : int
        `max_iter`. With MNIST, the training never stops earlier.
    backend : {"numpy", "one thread", "jax"}
        Where xpnet computes.
    busy : bool
        Whether other processes keep the cores busy.
    rounds : int, optional
        The default is that of the command, and for short work 7 or more.
    goal : float
        scikit-learn's time divided by xpnet's is at least this.
    """

    data: str
    work: str = "fit"
    hidden: tuple[int, ...] = (100,)
    dtype: str = "float32"
    rows: int = 0
    calls: int = 1
    epochs: int = 200
    backend: str = "numpy"
    busy: bool = False
    rounds: int | None = None
    goal: float = 1.0

    @property
    def title(self) -> str:
        parts = [
            self.data,
            self.dtype,
            str(self.hidden) if self.data == "mnist" else "",
            f"{self.epochs} epoch{'s' * (self.epochs > 1)}" * (self.work == "fit" and self.data == "mnist"),
            f"{self.rows:,} row{'s' * (self.rows > 1)}" if self.rows else "",
            self.backend * (self.backend != "numpy"),
            "busy" * self.busy,
        ]
        return f"{self.work}: " + ", ".join(part for part in parts if part)


LARGE = (256, 128)
MNIST = partial(Case, "mnist", epochs=5, goal=1.5)
BUSY = partial(Case, "mnist", rows=10_000, epochs=1, busy=True, goal=3.0)
CASES = {
    "mnist": MNIST(),
    "mnist-large": MNIST(hidden=LARGE),
    "mnist-one-thread": MNIST(backend="one thread", goal=1.0),
    "mnist-large-one-thread": MNIST(hidden=LARGE, backend="one thread", goal=1.0),
    "jax": MNIST(hidden=LARGE, epochs=20, backend="jax", goal=2.0),
    "busy": BUSY(),
    "busy-large": BUSY(hidden=LARGE),
    "busy-one-thread": BUSY(backend="one thread"),
    "busy-large-one-thread": BUSY(hidden=LARGE, backend="one thread"),
    "busy-large-jax": BUSY(hidden=LARGE, rows=0, epochs=20, backend="jax", rounds=1),
    **{
        f"{data}{suffix}": Case(data, dtype=dtype)
        for data in ("iris", "digits", "diabetes")
        for suffix, dtype in (("", "float64"), ("-float32", "float32"))
    },
    "partial-iris": Case("iris", "partial_fit", dtype="float64", rows=10, calls=100),
    "partial-digits": Case("digits", "partial_fit", dtype="float64", rows=20, calls=100),
    "partial-diabetes": Case("diabetes", "partial_fit", dtype="float64", rows=20, calls=100),
    "proba-iris": Case("iris", "predict_proba", dtype="float64", rows=1, calls=200),
    "proba-mnist": Case("mnist", "predict_proba", rows=1, calls=200, epochs=1),
    "predict-iris": Case("iris", "predict", dtype="float64", rows=1, calls=200),
    "predict-mnist": Case("mnist", "predict", rows=1, calls=200, epochs=1),
    "predict-diabetes": Case("diabetes", "predict", dtype="float64", rows=1, calls=200),
}


# ---------------------------------------------------------------------- in the process of a case


def read(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and test samples with their targets. Small data sets are tested on their training samples."""
    from sklearn import datasets

    import xpnet

    if case.data != "mnist":
        X, y = getattr(datasets, f"load_{case.data}")(return_X_y=True)
        y = y.astype(case.dtype) if case.data == "diabetes" else y
        return X.astype(case.dtype), y, X.astype(case.dtype), y
    try:
        train, test = xpnet.datasets.mnist(download=False)
    except xpnet.DatasetError:
        rng = np.random.default_rng(0)
        train = test = rng.integers(0, 256, (1000, 28, 28), np.uint8), rng.integers(0, 10, 1000)
    (X, y), (X_test, y_test) = ((x.reshape(-1, 784).astype(case.dtype) / 255, y) for x, y in (train, test))
    kept = (case.rows if case.work == "fit" else 2000) or len(X)
    return X[:kept], y[:kept], X_test, y_test


def estimators(case: Case) -> dict[str, Any]:
    """Return a new estimator of each library."""
    from sklearn import neural_network

    import xpnet.sklearn
    from xpnet.backend import make_backend

    name = "MLPRegressor" if case.data == "diabetes" else "MLPClassifier"
    settings: dict[str, Any] = {"hidden_layer_sizes": case.hidden, "max_iter": case.epochs, "random_state": 0}
    if case.data == "mnist":
        settings |= {"tol": 0.0, "n_iter_no_change": case.epochs}
    backend = make_backend("numpy", threads=1) if case.backend == "one thread" else make_backend(case.backend)
    return {
        "xpnet": getattr(xpnet.sklearn, name)(**settings, backend=backend),
        "scikit-learn": getattr(neural_network, name)(**settings),
    }


def work(case: Case, X: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return a function for each library that does the case's work once and returns an estimator."""
    made = estimators(case)
    if case.work == "fit":
        return {name: partial(estimator.fit, X, y) for name, estimator in made.items()}
    settings = {"classes": np.unique(y)} if case.data != "diabetes" else {}
    start = {"partial_fit": {"X": X[: case.rows], "y": y[: case.rows]} | settings}.get(case.work, {"X": X[: case.rows]})

    def call(estimator: Any, method: Callable[..., Any]) -> Any:
        for _ in range(case.calls):
            method(**start)
        return estimator

    for estimator in made.values():
        estimator.partial_fit(X, y, **settings) if case.work == "partial_fit" else estimator.fit(X, y)
    return {name: partial(call, estimator, getattr(estimator, case.work)) for name, estimator in made.items()}


def run(case: Case, rounds: int) -> dict[str, Any]:
    """Return the seconds of each library in each round, and its score (accuracy or R²) at the end."""
    X, y, X_test, y_test = read(case)
    seconds: dict[str, list[float]] = {"xpnet": [], "scikit-learn": []}
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functions = work(case, X, y)
        if case.work != "fit" or case.data != "mnist":  # short work: the first call is slower
            for function in functions.values():
                function()
        for i in range(rounds):
            for name in list(functions)[:: -1 if i % 2 else 1]:
                start = time.perf_counter()
                estimator = functions[name]()
                seconds[name].append((time.perf_counter() - start) / case.calls)
                scores[name] = float(estimator.score(X_test, y_test))
    return {"seconds": seconds, "scores": scores}


def task(spec: dict) -> dict:
    """The task of `tests.benchmarks.worker`."""
    case = Case(**{**spec["settings"], "hidden": tuple(spec["settings"]["hidden"])})
    return run(case, spec["rounds"])


# ---------------------------------------------------------------------- the command


def measured(name: str, case: Case, rounds: int, threads: int) -> dict[str, Any]:
    """Measure a case in one process, or with JAX in one for each round. The result has ``"error"`` if it failed."""
    processes, in_each = (rounds, 1) if case.backend == "jax" else (1, rounds)
    spec = {"task": "sklearn", "case": name, "variant": "both", "rounds": in_each, "settings": asdict(case)}
    results = []
    for _ in range(processes):
        with other_work(threads if case.busy else 0):
            results.append(measure(spec, threads))
        if "error" in results[-1]:
            return results[-1]
    seconds = {key: [s for r in results for s in r["seconds"][key]] for key in results[0]["seconds"]}
    return results[-1] | {"seconds": seconds}


def row(case: Case, result: dict[str, Any]) -> list[str]:
    if "error" in result:
        return [case.title, "-", "-", f"not measured: {result['error']}", f"{case.goal:g}", "-"]
    ours, theirs = result["seconds"]["xpnet"], result["seconds"]["scikit-learn"]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    scores = ", ".join(f"{result['scores'][name]:.3f}" for name in ("scikit-learn", "xpnet"))
    return [
        case.title,
        _duration(statistics.median(theirs)),
        _duration(statistics.median(ours)),
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})",
        f"{case.goal:g}",
        scores,
    ]


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = cli.parser("tests.benchmarks.sklearn_speed", __doc__)
    parser.add_argument("--only", default=",".join(CASES), help="cases, separated by commas; default: all")
    parser.add_argument(
        "--rounds", type=cli.count, default=3, help="default: %(default)s; short cases run 7 rounds or more"
    )
    parser.add_argument(
        "--threads", type=cli.count, default=2, help="the threads of both libraries; default: %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    args = parser.parse_args(arguments)
    names = args.only.split(",")
    if unknown := set(names) - set(CASES):
        parser.error(f"choose from {', '.join(CASES)}. Received: {', '.join(sorted(unknown))}")

    machine = describe_machine(args.threads, "scikit-learn's data sets and MNIST")
    print(f"# xpnet.sklearn and scikit-learn\n\n{machine_text(machine)}\n", flush=True)
    results: dict[str, Any] = {"environment": machine}
    for name in names:
        case = CASES[name]
        short = case.data != "mnist" or case.work != "fit"
        rounds = case.rounds or (max(args.rounds, 7) if short else args.rounds)
        results[name] = measured(name, case, rounds, args.threads)
        print(name, row(case, results[name]), file=sys.stderr, flush=True)
    header = ["work", "scikit-learn", "xpnet", "times as fast (rounds)", "goal", "score: scikit-learn, xpnet"]
    print(table(header, [row(CASES[name], results[name]) for name in names]))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return results


if __name__ == "__main__":
    main()
