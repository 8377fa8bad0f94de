"""The training loop: epochs, chunks of steps, records and callbacks.

The loop passes chunks of steps to the backend (`Backend.scan`). A chunk ends where the next callback, validation or progress
update is due, and its records come back in one transfer. The loop changes a `TrainingState`, and does not know `Model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import schedules
from xpnet.averages import Averages
from xpnet.callbacks import Callback
from xpnet.callbacks.base import call, watching
from xpnet.checks import number, require_range
from xpnet.divergence import AllFinite, Failed, diagnose, first_non_finite
from xpnet.errors import DivergenceError
from xpnet.evaluation import evaluate, prefixed
from xpnet.groups import ALONE, Alone, group_of, process
from xpnet.history import History
from xpnet.optimizers import Optimizer
from xpnet.plan import Plan
from xpnet.progress import Progress
from xpnet.random import step_keys
from xpnet.signals import deferred_signals
from xpnet.sources import Batches, Chunk
from xpnet.state import TrainingState
from xpnet.step import Evaluation, Inference, TrainingStep, training_step
from xpnet.tree import map_leaves

if TYPE_CHECKING:
    from xpnet.ranks import Ranks

SHARES = "xpnet.sources.shares"  # imported where there are several processes
CHUNK_SECONDS = 0.2  # the target duration of a chunk, because Ctrl-C and the progress bar wait for its end


class Loop:
    """One run of `fit`, which changes `state` according to `plan`.

    Parameters
    ----------
    state : TrainingState
        The state of a built model. It is complete and finite between chunks of steps. If `position` is not 0, the run
        continues within the epoch.
    plan : Plan
    callbacks : sequence of Callback
    progress : Progress
    """

    def __init__(self, state: TrainingState, plan: Plan, callbacks: Sequence[Callback], progress: Progress):
        self.state, self.plan, self.callbacks, self.progress = state, plan, callbacks, progress
        self.backend, self.settings, self.network = plan.backend, plan.settings, plan.checked
        self.largest_rate = float(np.finfo(self.backend.float_name).max)
        self.every_step = watching(callbacks, "train")
        self.all_finite = plan.keep(AllFinite(plan.network))
        self.seed, self.parts = state.seeds[0], state.parts
        self.finite = state.arrays  # the result of the last chunk, known to be finite
        self.step_seconds: float | None = None
        self.logs: dict[str, Any] = {}  # the values of the last epoch

    @property
    def ranks(self) -> Alone | Ranks:
        """The processes that compute the parts of each batch."""
        return process() if self.parts == process().size else ALONE

    def run(self, restore: Callable[[], None] | None = None) -> History:
        """Train until the last epoch.

        To resume a run, `restore` sets `state` and the states of the callbacks once more. It is called after the events that
        the run had before, so that these events change nothing.
        """
        state, first = self.state, self.settings.initial_epoch + len(self.state.history.epoch)
        call(self.callbacks, "on_train_begin", {})
        if restore is not None:
            if state.position:
                call(self.callbacks, "on_epoch_begin", first, {})
            restore()
        state.history.params = self.settings.described(self.plan.source, self.callbacks, self.plan.class_weight)
        self.ranks.begin(self.plan, state)
        stopped = state.stop_training and not state.position and restore is not None
        with deferred_signals(self.ranks.any) as interrupted:
            try:
                self._epochs(range(first, first if stopped else self.settings.epochs), interrupted)
            except (KeyboardInterrupt, DivergenceError) as error:
                handled = [callback.on_train_interrupt(error) for callback in self.callbacks]
                if not any(handled):
                    raise
        call(self.callbacks, "on_train_end", self.logs)
        return self.state.history

    def _epochs(self, epochs: range, interrupted: Callable[[], None]) -> None:
        state = self.state
        for epoch in epochs:
            if not state.position:
                call(self.callbacks, "on_epoch_begin", epoch, {})
            logs = self.logs = self._epoch(epoch, interrupted)
            state.epoch, state.position = state.epoch + 1, 0
            history = state.history
            history.epoch.append(epoch)
            if "val_loss" in logs:
                history.validation_epoch.append(epoch)
            history.add(history.history, logs)
            self.progress.end(logs)
            recorded = set(logs)
            call(self.callbacks, "on_epoch_end", epoch, logs)
            history.add(history.history, {name: logs[name] for name in logs if name not in recorded})
            call(self.callbacks, "on_pause", logs)
            interrupted()
            state.stop_training = self.ranks.any(state.stop_training)
            if state.stop_training:
                break

    def _epoch(self, epoch: int, interrupted: Callable[[], None]) -> dict[str, Any]:
        state, source = self.state, self.plan.source
        self.begin_epoch()
        if not state.position:
            state.averages = Averages(self.plan.scores.metrics)
        self.progress.start(f"Epoch {epoch + 1}/{self.settings.epochs}", steps=source.steps)
        if state.position:
            self.progress.update(state.position)
        with self._batches(state.epoch, state.position, len(state.history.epoch)) as batches:
            while (chunk := batches.take(self._chunk_length(batches.alike))) is not None:
                interrupted()
                call(self.every_step, "on_train_batch_begin", state.position, {})
                records = self.train(chunk)
                state.averages.add(records, chunk.rows)
                state.position += chunk.steps
                self._report(records, chunk.steps, chunk.rows)
                state.stop_training = self.ranks.any(state.stop_training)
                if state.stop_training:
                    break
                if state.position != source.steps:
                    call(self.callbacks, "on_pause", None)
        logs = state.averages.values()
        if self.plan.validation is not None and self.settings.validates_after(epoch):
            logs |= self._validate()
        return logs

    def _batches(self, epoch: int, position: int, done: int) -> Batches:
        """Return the batches of an epoch, or the rows of this process in them."""
        source, ranks = self.plan.source, self.ranks
        if isinstance(ranks, Alone):
            return source.epoch(self.seed, epoch, position, done)
        source.read_only(ranks.bounds)
        return import_module(SHARES).SharedBatches(source.epoch(self.seed, epoch, position, done), ranks)

    def begin_epoch(self) -> None:
        """Make the training step of the epoch's optimizer, which a callback may have set before the epoch."""
        state = self.state
        if not state.position:
            state.match_optimizer(self.plan.network)
            state.epoch_optimizer = state.optimizer
        self._use(state.epoch_optimizer)

    def _use(self, optimizer: Optimizer) -> None:
        self.optimizer, self.rate = optimizer, schedules.get(optimizer.learning_rate)
        self.step = self._step()
        self.epoch_start = self.state.step - self.state.position

    def _step(self) -> TrainingStep:
        group = group_of(self.parts) if isinstance(self.ranks, Alone) else self.ranks
        pieces = self.plan.pieces(self.state.arrays["params"], self.parts)
        inference = Inference(self.network, self.backend.dtype, group, pieces, self.settings.micro_batch_size)
        return self.plan.keep(training_step(inference, self.plan.scores, self.optimizer))

    def _validate(self) -> dict[str, Any]:
        plan = self.plan
        function = plan.keep(Evaluation(Inference(plan.network, self.backend.dtype), plan.scores))
        assert plan.validation is not None
        measured = plan.measured[plan.validation.shape]
        state, callbacks = self.state.arrays, self.callbacks
        logs = evaluate(self.backend, function, state, plan.validation, 0, measured, callbacks)
        return prefixed("val_", logs)

    def _chunk_length(self, steps: int | None) -> int:
        """Return the number of steps to run at once, where an epoch has `steps` batches of the same size."""
        if self.every_step:
            return 1
        if self.backend.compiles:  # use few different lengths, because each length is compiled once
            length = max(-(-(steps or 0) // 10), 100)
        else:
            length = max(1, int(CHUNK_SECONDS / self.step_seconds)) if self.step_seconds else 1
        step, every = self.state.step, self.settings.record_every
        stops = [callback.next_pause(step) for callback in self.callbacks]
        if every and self.plan.validation is not None:
            stops.append(step + every - step % every)
        allowed = min((stop - step for stop in stops if stop is not None), default=length)
        if allowed < length:
            length = 1 << allowed.bit_length() - 1 if self.backend.compiles else allowed  # a power of two
        return length

    def one_step(self) -> dict[str, Any]:
        """Take a step with the first batch, outside any epoch, even in a callback. Return its loss and metrics."""
        self.state.match_optimizer(self.plan.network)
        self.parts = self.plan.parts(self.state.arrays["params"])
        self._use(self.state.optimizer)
        chunk = self._batches(0, 0, 0).take(1)
        assert chunk is not None
        return Averages(self.plan.scores.metrics).add(self.train(chunk), chunk.rows).values()

    def train(self, chunk: Chunk) -> dict[str, Any]:
        """Take one step for each batch of the chunk. Return the records as host arrays, with one entry for each step."""
        while (records := self._train(chunk)) is None:
            pass  # train again without the networks that diverged
        return records

    def _train(self, chunk: Chunk) -> dict[str, Any] | None:
        """Return the records of the chunk, or None if networks diverged and were removed."""
        state, numbers = self.state, self.state.step + np.arange(chunk.steps)
        batches = {"learning_rate": self._learning_rates(numbers)} | chunk.columns
        if self.network.needs_key:
            batches["key"] = step_keys(self.seed, numbers)
        multiplications = chunk.rows * self.plan.measured[self.plan.source.shape].multiplications
        begin = time.perf_counter()
        with self.backend.limited_threads(multiplications, self.parts):
            # scan may overwrite its arguments. A copy keeps the state complete until the chunk is done
            arrays, records = self.backend.scan(self.step, self.backend.copy(state.arrays), batches, chunk.data)
            records, finite = self.backend.to_host((records, self.backend.call(self.all_finite, arrays)))
            self.step_seconds = (time.perf_counter() - begin) / chunk.steps
            if not (finite and np.all(np.isfinite(records["loss"]))):
                seen = first_non_finite(arrays) or "loss"
                step = self.step.with_network(self.plan.network)
                self._diverged(Failed(step, state.arrays, batches, chunk.data, state.step, seen))
                return None
        self.finite = state.arrays = arrays
        state.step += chunk.steps
        if self.network is not self.plan.network and not self.backend.compiles:  # compiled code contains no checks
            self.network = self.plan.network
            self.step = self._step()
        return records

    def _learning_rates(self, steps: np.ndarray) -> np.ndarray:
        origin = self.epoch_start if getattr(self.rate, "restart_every_epoch", False) else 0
        asked = [int(step - origin) for step in steps]
        rates: list[Any] = [self.rate(step) for step in asked]
        if not all(type(rate) is float and 0 <= rate <= self.largest_rate for rate in rates):
            values = [rate.item() if getattr(rate, "shape", None) == () else rate for rate in rates]
            rates = [number(f"learning_rate({i})", value, "[0, inf)") for i, value in zip(asked, values, strict=True)]
            named = {f"learning_rate({i})": rate for i, rate in zip(asked, rates, strict=True)}
            require_range(self.backend.float_name, named)
        return np.array(rates)

    def _report(self, records: dict[str, Any], steps: int, rows: int) -> None:
        """Show and record the steps that were taken. The state already includes them."""
        values = self.state.averages.values()
        self.progress.update(steps, values)
        self._record_iterations(records, steps, rows)
        call(self.every_step, "on_train_batch_end", self.state.position - 1, values)

    def _record_iterations(self, records: dict[str, Any], steps: int, rows: int) -> None:
        """Record the mini-batch values of every k-th step and, with validation data, the validation values after it."""
        every, end, history = self.settings.record_every, self.state.step, self.state.history
        if not every:
            return
        for i in range(steps):
            if (end - steps + i + 1) % every == 0:
                one = map_leaves(lambda values, i=i: values[i : i + 1], records)
                logs = {"step": end - steps + i} | Averages(self.plan.scores.metrics).add(one, rows).values()
                if self.plan.validation is not None:
                    logs |= self._validate()
                history.add(history.iterations, logs)

    def _diverged(self, failed: Failed) -> None:
        """Raise the error, or remove the networks that diverged from the state before the chunk."""
        state, survive = self.state, self.plan.survive
        state.arrays, state.step, error = diagnose(self.backend, failed, self.finite)
        if survive is None:
            raise error
        state.arrays, state.step = survive(error, failed.state), failed.first
