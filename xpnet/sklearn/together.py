"""Many fits at once, on a leading axis of every array, as `xpnet.train_many` does for a `Model`.

A fit is a generator, `Work`, that asks for one epoch after the other. `Together` holds the fits of a search and runs the next
epoch of all fits with equal networks and sizes as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from xpnet.signals import deferred_signals
from xpnet.sklearn.arrays import on_host
from xpnet.sklearn.engine import count_multiplications
from xpnet.sklearn.rows import on_device
from xpnet.sklearn.step import TogetherStep
from xpnet.sklearn.training import STEPS_AT_ONCE, Job, Work, alone, train_alone
from xpnet.step import Scores, training_step
from xpnet.tree import Tree, map_leaves

LARGEST = 1 << 20  # multiplications of a step forward: in larger steps, most of the time goes into arithmetic


class Together:
    """The fits that a search makes, in its order.

    The search runs twice. First, its estimators only register their fits, and `train` makes those that can be made at once.
    The second time, each estimator receives the attributes of its fit.

    Attributes
    ----------
    made : int
        The number of fits that were made at once with others.
    seconds : float
        The time of `train` for each of them.
    """

    current: ClassVar[ContextVar[Together | None]] = ContextVar("together", default=None)

    def __init__(self) -> None:
        self.fits: list[Fit] = []
        self.known: list[tuple[Any, np.ndarray]] = []  # distinct samples, and the same on the host
        self.registers, self.made, self.next, self.seconds = True, 0, 0, 0.0

    @contextmanager
    def active(self) -> Iterator[None]:
        """A ``with`` block in which `BaseMLP` calls `run` instead of fitting."""
        token = self.current.set(self)
        try:
            yield
        finally:
            self.current.reset(token)

    def run(self, estimator: Any, X: Any, y: Any, work: Callable[[Any], Work]) -> None:
        """Register the fit ``work(X)`` of the estimator. After `train`, finish it instead."""
        if self.registers:
            X = self.same(X)
            self.fits.append(Fit(estimator, X, y, work(X)))
            return
        for place in range(self.next, len(self.fits)):
            fit = self.fits[place]
            if _equally_set(fit.estimator, estimator) and _equal(fit.X, X) and _equal(fit.y, y):
                break
        else:  # the last fit on all samples, a random split, or the choice of a search in the search
            alone(work(X))
            return
        self.next = place + 1
        fit.finish()
        vars(estimator).update(vars(fit.estimator))

    def train(self) -> None:
        """Make the fits that can be made at once with others."""
        self.registers, start, groups = False, time.perf_counter(), list[list[Fit]]()
        for fit in self.fits:
            fit.begin()
            if _can_join(fit):
                fit.job.X = self.same(fit.job.X)
                group = next((group for group in groups if _alike(group[0].job, fit.job)), None)
                if group is None:
                    groups.append(group := [])
                group.append(fit)
        with deferred_signals() as check:
            for group in groups:
                if len(group) > 1:
                    self.made += len(group)
                    Epochs(group).run(check)
        self.seconds = (time.perf_counter() - start) / max(self.made, 1)

    def same(self, X: Any) -> Any:
        """Return equal samples that are in memory already, or X: the candidates of a search have copies of the same folds."""
        if hasattr(X, "tocsr"):
            return X
        values = np.asarray(on_host(X))
        for known, others in self.known:
            if type(known) is type(X) and _equal(values, others):
                return known
        self.known.append((X, values))
        return X


class Fit:
    """A fit of an estimator. It is the trainer that its work receives."""

    best = None
    job: Any = None
    error: Exception | None = None
    running = True

    epochs: Epochs
    first: int  # the row of its first sample in the data of `epochs`
    place: int  # its place on the leading axis

    def __init__(self, estimator: Any, X: Any, y: Any, work: Work):
        self.estimator, self.X, self.y, self.work = estimator, X, y, work

    @property
    def arrays(self) -> dict[str, Tree]:
        """The current parameters and statistics."""
        return {"params": self.epochs.part("params", self.place), "statistics": self.epochs.arrays["statistics"]}

    def begin(self) -> None:
        """Check the data and draw the initial parameters."""
        self.job = self._continue(lambda: next(self.work))

    def send(self, answer: Any) -> Any:
        """Return the order of the next epoch, or None after the last one."""
        return self._continue(lambda: self.work.send(answer))

    def finish(self) -> None:
        """Make the rest of the fit, or raise its error."""
        if self.running:
            train_alone(self.work, self.job)
        if self.error is not None:
            raise self.error

    def rates(self, steps: int) -> np.ndarray:
        """Return the learning rates of the next steps, 0 if the fit has ended."""
        return self.job.solver.rates(steps) if self.running else np.zeros(steps)

    def leave(self) -> None:
        """Keep the optimizer's state of a fit that has ended."""
        if not self.running:
            self.job.solver.memory = self.epochs.part("optimizer", self.place)

    def keep_best(self) -> None:
        """Nothing to keep: only fits that end with their last epoch are made at once."""

    def _continue(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except StopIteration:
            self.running = False
        except Exception as error:
            self.running, self.error = False, error
        return None


class Epochs:
    """Runs the epochs of fits with equal networks and sizes. Fits that have ended leave the leading axis.

    If the backend compiles, they leave it when half of them have ended, so that little is compiled again.
    """

    def __init__(self, fits: Sequence[Fit]):
        self.fits = list(fits)
        job = fits[0].job
        engine, self.rule, self.rows, self.batch_size = job.engine, job.solver.rule, job.X.shape[0], job.batch_size
        self.backend = engine.backend
        self.step = engine.keep(TogetherStep(training_step(engine.inference, Scores(engine.loss, ()), self.rule)))

    def run(self, check: Callable[[], None]) -> None:
        """Make the fits. `check` may raise between chunks of steps."""
        with self.backend.scope():
            self._place()
            orders = [fit.send(fit) for fit in self.fits]
            while any(fit.running for fit in self.fits):
                losses = self._epoch(np.stack(orders), check)
                for k, fit in enumerate(self.fits):
                    if fit.running:
                        order = fit.send(float(losses[k]))
                        orders[k] = orders[k] if order is None else order
                        fit.leave()
                running = [k for k, fit in enumerate(self.fits) if fit.running]
                if 0 < len(running) < len(self.fits) and (
                    not self.backend.compiles or 2 * len(running) <= len(self.fits)
                ):
                    self._keep(running)
                    orders = [orders[k] for k in running]

    def part(self, name: str, k: int) -> Tree:
        """Return a copy of the arrays of one network."""
        return self.backend.copy(map_leaves(lambda x: x[k, ...], self.arrays[name]))

    def _place(self) -> None:
        """Move parameters and samples to the device. Fits on the same samples share them."""
        backend, xp = self.backend, self.backend.namespace
        each = [fit.job.arrays(backend) for fit in self.fits]
        self.multiplications = count_multiplications(each[0]["params"])
        params = map_leaves(lambda *same: xp.stack(same), *[arrays["params"] for arrays in each])
        self.arrays = each[0] | {"params": params, "optimizer": self.rule.init(params)}
        distinct: list[Job] = []
        for fit in self.fits:
            job = fit.job
            same = (i for i, d in enumerate(distinct) if d.X is job.X and _equal(d.targets["y"], job.targets["y"]))
            if (place := next(same, None)) is None:
                place = len(distinct)
                distinct.append(job)
            fit.epochs, fit.first = self, place * self.rows
        y = np.concat([job.targets["y"] for job in distinct])
        y = y[:, None] if y.ndim == 1 else y  # a batch of labels is (K, batch, 1), unlike one of probabilities
        self.data = {"x": xp.concat([on_device(backend, job.X) for job in distinct]), "y": backend.asarray(y)}
        self._number()

    def _keep(self, places: list[int]) -> None:
        """Keep the networks at these places of the leading axis."""
        xp, index = self.backend.namespace, self.backend.asarray(np.array(places))
        for name in ("params", "optimizer"):
            self.arrays[name] = map_leaves(lambda x: xp.take(x, index, axis=0), self.arrays[name])
        self.fits = [self.fits[k] for k in places]
        self._number()

    def _number(self) -> None:
        for k, fit in enumerate(self.fits):
            fit.place = k
        self.alpha = np.reshape([fit.job.alpha for fit in self.fits], (1, -1, 1, 1))

    def _epoch(self, orders: np.ndarray, check: Callable[[], None]) -> np.ndarray:
        """Train each network on its samples in its order, (networks, rows). Return the mean losses."""
        total, size = np.zeros(len(self.fits)), self.batch_size
        if (
            size == self.rows
        ):  # in one batch of all samples, the order does not matter, and `Trainer` keeps that of the data
            orders = np.broadcast_to(np.arange(size), orders.shape)
        orders = orders + np.array([[fit.first] for fit in self.fits])
        for start, stop in chunks(self.rows, size):
            check()
            index = np.moveaxis(orders[:, start:stop].reshape(len(self.fits), -1, min(size, stop - start)), 1, 0)
            steps, _, rows = index.shape
            rates = np.stack([fit.rates(steps) for fit in self.fits], axis=1)[:, :, None, None]
            penalty = np.broadcast_to(self.alpha / rows, (steps, len(self.fits), 1, 1))
            floats = {"learning_rate": rates, "penalty": penalty}
            columns = {name: x.astype(self.backend.float_name) for name, x in floats.items()} | {"index": index}
            with self.backend.limited_threads(rows * self.multiplications):
                self.arrays, records = self.backend.scan(self.step, self.arrays, columns, self.data)
            total += rows * np.sum(self.backend.to_host(records["loss"]), axis=0, dtype=float)
        return total / self.rows


def chunks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the limits of rows that are trained on at once, in batches of one size. The last batch may be smaller."""
    whole = rows // size * size
    for start in range(0, whole, STEPS_AT_ONCE * size):
        yield start, min(start + STEPS_AT_ONCE * size, whole)
    if whole < rows:
        yield whole, rows


def _can_join(fit: Fit) -> bool:
    """Whether a fit can be made at once with others, and gains from it."""
    job = fit.job
    if job is None:
        return False
    dense = not (job.engine.network.has_statistics or job.seed is not None or hasattr(job.X, "tocsr"))
    plain = not job.watched and "weight" not in job.targets and job.solver.memory is None
    return dense and plain and job.batch_size * sum(W.size for W in fit.estimator.coefs_) <= LARGEST


def _alike(a: Job, b: Job) -> bool:
    """Whether two jobs differ only in numbers and samples."""
    return all(
        one == other
        for one, other in (
            (a.engine.backend, b.engine.backend),
            (a.engine.network, b.engine.network),
            (a.engine.loss, b.engine.loss),
            (a.solver.rule, b.solver.rule),
            (a.batch_size, b.batch_size),
            (tuple(a.X.shape), tuple(b.X.shape)),
            (a.targets["y"].shape, b.targets["y"].shape),
        )
    )


def _equally_set(a: Any, b: Any) -> bool:
    """Whether two estimators have equal parameters. Callbacks and generators, which copies do not share, are not compared."""
    others = b.get_params(deep=False)
    return type(a) is type(b) and all(
        isinstance(value, np.random.RandomState) or name == "callbacks" or np.array_equal(value, others[name])
        for name, value in a.get_params(deep=False).items()
    )


def _equal(a: Any, b: Any) -> bool:
    if a is b or a is None or b is None:
        return a is b
    return bool(np.array_equal(np.asarray(on_host(a)), np.asarray(on_host(b))))
