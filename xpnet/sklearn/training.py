"""Stochastic gradient descent over epochs, with the orders of samples that the estimator draws."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.random import step_keys
from xpnet.signals import deferred_signals
from xpnet.sklearn.engine import Engine, count_multiplications
from xpnet.sklearn.rates import Solver
from xpnet.sklearn.rows import on_device
from xpnet.sklearn.step import PenalizedStep
from xpnet.tree import Array, Tree, map_leaves

STEPS_AT_ONCE = 128  # Ctrl-C waits for the end of these steps, and JAX compiles each number of steps once
DENSE_BYTES = 1 << 26  # the size of sparse samples that are made dense at once


Work = Generator[
    Any, Any, None
]  # a fit: yields a `Job` and receives a trainer, then yields orders and receives losses. Without epochs, yields None


@dataclass
class Job:
    """The training that a fit needs.

    Attributes
    ----------
    engine : Engine
    solver : Solver
    alpha : float
    arrays : callable
        ``arrays(backend)`` returns ``"params"`` and ``"statistics"``.
    X, targets, batch_size, seed
        As in `Trainer`.
    watched : bool
        Whether the fit uses the arrays between epochs.
    """

    engine: Engine
    solver: Solver
    alpha: float
    arrays: Callable[[Backend], dict[str, Tree]]
    X: Any
    targets: dict[str, np.ndarray]
    batch_size: int
    seed: int | None
    watched: bool


def alone(work: Work) -> None:
    """Make a fit."""
    train_alone(work, next(work))


def train_alone(work: Work, job: Job | None) -> None:
    """Finish a fit that has yielded its job."""
    if job is None:
        next(work, None)
        return
    backend = job.engine.backend
    with backend.scope(), deferred_signals() as check:
        arrays, step = job.arrays(backend), job.engine.step(job.solver.rule, job.alpha)
        multiplications = count_multiplications(arrays["params"])
        trainer = Trainer(
            backend, step, job.solver, arrays, job.X, job.targets, job.batch_size, multiplications, job.seed
        )
        try:
            order = work.send(trainer)
            while True:
                try:
                    loss = trainer.epoch(order, check)
                except KeyboardInterrupt as interrupt:
                    work.throw(interrupt)
                order = work.send(loss)
        except StopIteration:
            pass


class Trainer:
    """Trains on one data set, epoch by epoch.

    Parameters
    ----------
    backend : Backend
    step : PenalizedStep
    solver : Solver
    arrays : dict of trees
        ``"params"`` and ``"statistics"``, on the device.
    X : array or sparse matrix
    targets : dict of arrays
        ``"y"`` and, with weights, ``"weight"``, with a row for each sample.
    batch_size : int
    multiplications : int
        The number of multiplications for one sample.
    seed : int, optional
        The seed of dropout.

    Attributes
    ----------
    arrays : dict of trees
        The current parameters, statistics and optimizer state.
    best : dict of trees, optional
        The arrays that `keep_best` kept.
    """

    best: dict[str, Tree] | None = None

    def __init__(
        self,
        backend: Backend,
        step: PenalizedStep,
        solver: Solver,
        arrays: dict[str, Tree],
        X: Any,
        targets: dict[str, Array],
        batch_size: int,
        multiplications: int,
        seed: int | None,
    ):
        self.backend, self.step, self.solver, self.seed = backend, step, solver, seed
        memory = solver.rule.init(arrays["params"]) if solver.memory is None else solver.memory
        self.arrays = arrays | {"optimizer": map_leaves(backend.asarray, memory)}
        self.rows, self.batch_size, self.multiplications = X.shape[0], batch_size, multiplications
        self.data = {name: backend.asarray(values) for name, values in targets.items()}
        self.sparse = X.tocsr() if hasattr(X, "tocsr") and backend.name != "numpy" else None
        self.most = STEPS_AT_ONCE
        if self.sparse is None:
            self.data["x"] = on_device(backend, X)
        else:
            bytes_of_batch = batch_size * X.shape[1] * X.dtype.itemsize
            self.most = max(1, min(self.most, DENSE_BYTES // bytes_of_batch))

    def epoch(self, order: np.ndarray, check: Callable[[], None]) -> float:
        """Train on the samples in this order. Return their mean loss. `check` may raise between chunks of steps."""
        total = 0.0
        for index in self._chunks(order):
            check()
            steps, rows = index.shape
            first = self.solver.steps
            columns = {"learning_rate": self.solver.rates(steps)}
            if self.seed is not None:
                columns["key"] = step_keys(self.seed, first + np.arange(steps))
            if self.sparse is not None:
                columns["x"] = np.stack([self.sparse[batch].toarray() for batch in index])
            if self.sparse is not None or rows < self.rows:  # in one batch of all samples, the order does not matter
                columns["index"] = index
            with self.backend.limited_threads(rows * self.multiplications):
                # scan may overwrite its arguments. A copy keeps the state complete until the chunk is done
                arrays, records = self.backend.scan(self.step, self.backend.copy(self.arrays), columns, self.data)
            self.arrays, self.solver.memory = arrays, arrays["optimizer"]
            total += rows * float(np.sum(self.backend.to_host(records["loss"]), dtype=float))
        return total / self.rows

    def keep_best(self) -> None:
        """Keep the current arrays, which later epochs do not overwrite."""
        self.best = self.arrays

    def _chunks(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Yield row numbers of shape (steps, batch). The last batch may be smaller."""
        full = self.rows // self.batch_size
        whole = order[: full * self.batch_size].reshape(full, self.batch_size)
        yield from np.array_split(whole, -(-full // self.most)) if full > self.most else [whole]
        if len(rest := order[full * self.batch_size :]):
            yield rest[None]
