"""Compares many networks on a leading axis with the same networks one after the other, and prints two Markdown tables.

    python -m tests.benchmarks.many
    python -m tests.benchmarks.many --rounds 1 --quick

Both ways of the same work run by turns. Values are medians of the time of the ordinary way divided by the time of ours; more than
1 means that ours is faster. Run it on a machine that is otherwise idle.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV

from tests.benchmarks import cli
from tests.benchmarks.report import describe_machine, machine_text, table
from xpnet import Adam, Model
from xpnet.backend import blas
from xpnet.layers import Dense, ReLU
from xpnet.sklearn import BatchedGridSearchCV, MLPClassifier

NETWORKS = [  # inputs, hidden units, classes, samples, batch, epochs
    (4, 16, 3, 150, 32, 20), (4, 256, 3, 150, 32, 20), (64, 64, 10, 1797, 100, 3), (784, 64, 10, 5000, 100, 1),
    (784, 256, 10, 5000, 100, 1),
]  # fmt: skip
COUNTS = (3, 8, 16)
SEARCHES = [("iris", 16, 200), ("iris", 100, 200), ("digits", 16, 20), ("digits", 64, 20), ("digits", 256, 10)]
GRID = {"learning_rate_init": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]}


def ratio(ordinary: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> str:
    """Return the median of the ratios of `rounds` pairs, after one pair that does not count."""
    ratios = []
    for _ in range(rounds + 1):
        times = []
        for work in (ordinary, ours):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        ratios.append(times[0] / times[1])
    return f"{statistics.median(ratios[1:]):.1f}"


def train(network: tuple[int, ...], x: np.ndarray, y: np.ndarray, *seeds: Any) -> None:
    """Train a new model for each entry of `seeds`, which may hold several seeds itself."""
    _, units, classes, _, batch, epochs = network
    for seed in seeds:
        model = Model([Dense(units), ReLU(), Dense(classes)], "softmax_cross_entropy", Adam(0.001), seed=seed)
        model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)


def fits(networks: list[tuple[int, ...]], rounds: int) -> Iterator[list[str]]:
    """Yield a row for each network: K fits of models with one seed, against one `fit` of a model with K seeds."""
    rng = np.random.default_rng(0)
    for network in networks:
        inputs, units, classes, n, batch, _ = network
        job = partial(train, network, rng.random((n, inputs), dtype=np.float32), rng.integers(0, classes, n))
        found = [ratio(partial(job, *range(K)), partial(job, range(K)), rounds) for K in COUNTS]
        yield [f"{inputs}-{units}-{classes}, {n:,} samples, batch {batch}", *found]


def searches(cases: list[tuple[str, int, int]], rounds: int) -> Iterator[list[str]]:
    """Yield a row for each search of six learning rates with five folds, in one process and with ``n_jobs=2``."""
    for name, units, epochs in cases:
        X, y = (load_iris if name == "iris" else load_digits)(return_X_y=True)
        network = MLPClassifier((units,), max_iter=epochs, random_state=0, n_iter_no_change=10**6)
        ours = BatchedGridSearchCV(network, GRID, cv=5)
        theirs = (GridSearchCV(network, GRID, cv=5, n_jobs=jobs) for jobs in (1, 2))
        found = [ratio(partial(search.fit, X, y), partial(ours.fit, X, y), rounds) for search in theirs]
        yield [f"{name}, ({units},), {epochs} epochs", *found]


def main(arguments: list[str] | None = None) -> None:
    parser = cli.parser("tests.benchmarks.many", __doc__)
    parser.add_argument("--rounds", type=cli.count, default=3, help="default: 3")
    parser.add_argument("--quick", action="store_true", help="one row of each table, only for testing")
    options = parser.parse_args(arguments)
    most = 1 if options.quick else None
    warnings.simplefilter("ignore")  # of fits that have not converged
    print(
        machine_text(describe_machine(blas.process.outside(), "random numbers and scikit-learn's data sets")),
        end="\n\n",
    )
    print(table(["network", *(f"K = {K}" for K in COUNTS)], list(fits(NETWORKS[:most], options.rounds))), end="\n\n")
    print(table(["search", "one process", "n_jobs=2"], list(searches(SEARCHES[:most], options.rounds))))


if __name__ == "__main__":
    main()
