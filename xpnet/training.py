"""The training step, and the loop that runs it.

One step is a pure function, state in, state out. What varies between steps (row numbers, learning rate, random key)
is data in the batch, so the backend can run many steps at once: `Backend.scan`. The loop hands it chunks of steps, as
long as the next callback, validation or progress update allows, and fetches the records of a whole chunk in one
transfer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpnet import schedules
from xpnet.backend import Backend, to_numpy
from xpnet.callbacks import Callback, History
from xpnet.checks import number
from xpnet.divergence import AllFinite, Chunk, diagnose, first_non_finite
from xpnet.errors import DivergenceError
from xpnet.evaluation import Averages, Evaluation, prefixed
from xpnet.layers import base
from xpnet.optimizers import Optimizer
from xpnet.progress import Progress
from xpnet.random import host_rng, step_keys
from xpnet.signals import deferred_signals
from xpnet.tree import Array, Tree, map_leaves

CHUNK_SECONDS = 0.2  # how long a chunk may take: Ctrl-C and the progress bar wait for its end


@dataclass(frozen=True)
class TrainingStep(Evaluation):
    """``state, record = step(state, batch)``: forward, loss, backward, update."""

    optimizer: Optimizer

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> Any:
        params = state["params"]
        x = self.floating(batch["x"])
        z, backward, statistics = base.forward(self.network, params, x, batch.get("key"), state["statistics"])
        loss, dz = self.loss(batch["y"], z, batch.get("weight"))
        _, grads = backward(dz, need_dx=False)
        params, optimizer = self.optimizer.update(params, grads, state["optimizer"], batch["learning_rate"])
        return {"params": params, "optimizer": optimizer, "statistics": statistics}, self.record(batch, z, loss)


@dataclass
class Plan:
    """What `fit` was asked to do, checked; of the data, `rows` takes part."""

    data: dict[str, Array]
    rows: np.ndarray
    validation: dict[str, Array] | None
    batch_size: int
    epochs: range
    seed: int
    shuffle: bool
    with_replacement: bool
    validation_epochs: Callable[[int], bool]
    validation_batch_size: int | None
    record_every: int | None
    history: History = field(default_factory=History)


class Loop:
    """One run of `fit` on a model: chunks of steps, epochs, records, callbacks."""

    def __init__(self, model: Any, plan: Plan, callbacks: list[Callback], progress: Progress):
        self.model, self.plan, self.callbacks, self.progress = model, plan, callbacks, progress
        self.backend: Backend = model.backend
        # nothing to gather
        self.whole = plan.batch_size == len(plan.rows) == plan.data["x"].shape[0] and not plan.with_replacement
        idle = Callback.on_train_batch_end
        self.every_step = [c for c in callbacks if getattr(c.on_train_batch_end, "__func__", None) is not idle]
        self.all_finite = model.workshop.keep(model.backend.name, AllFinite(model.network))
        self.finite = model.state  # what the last chunk left: known to be finite
        self.step_seconds: float | None = None

    def run(self) -> History:
        self._call("on_train_begin")
        with deferred_signals() as interrupted:
            try:
                self._epochs(interrupted)
            except (KeyboardInterrupt, DivergenceError) as error:
                self._call("on_train_interrupt", error)
                raise
        self._call("on_train_end")
        return self.plan.history

    def _epochs(self, interrupted: Callable[[], None]) -> None:
        history = self.plan.history
        for epoch in self.plan.epochs:
            self._call("on_epoch_begin", epoch)
            logs = self._epoch(epoch, interrupted)
            self.model.epoch += 1
            history.epoch.append(epoch)
            if "val_loss" in logs:
                history.validation_epoch.append(epoch)
            history.add(history.history, logs)
            self.progress.end(logs)
            self._call("on_epoch_end", epoch, logs)
            interrupted()
            if self.model.stop_training:
                break

    def _epoch(self, epoch: int, interrupted: Callable[[], None]) -> dict:
        self.model.match_optimizer_state()
        self.step: TrainingStep = self.model.training_step
        self.rate = schedules.get(self.model.optimizer.learning_rate)
        size, order, averages = self.plan.batch_size, self._order(), Averages(self.step.metrics)
        self.progress.start(f"Epoch {epoch + 1}/{self.plan.epochs.stop}", steps=-(-len(order) // size))
        full = len(order) - len(order) % size
        blocks = [order[:full].reshape(-1, size)] + ([order[None, full:]] if full < len(order) else [])
        self.epoch_start = self.model.step
        for block in blocks:
            start = 0
            while start < len(block):
                interrupted()
                rows = block[start : start + self._chunk_length(len(block))]
                averages.add(self._chunk(rows), rows.shape[1])
                start += len(rows)
                self.progress.update(len(rows), averages.values())
        logs = averages.values()
        if self.plan.validation is not None and self.plan.validation_epochs(epoch):
            logs |= self._validate()
        return logs

    def _validate(self) -> dict:
        plan = self.plan
        return prefixed("val_", self.model.evaluate_prepared(plan.validation, plan.validation_batch_size))

    def _order(self) -> np.ndarray:
        rows, rng = self.plan.rows, host_rng(self.plan.seed, "shuffle", self.model.epoch)
        if self.plan.with_replacement:
            return rows[rng.integers(0, len(rows), size=len(rows))]
        return rows[rng.permutation(len(rows))] if self.plan.shuffle else rows

    def _chunk_length(self, steps: int) -> int:
        """How many steps to run at once, of a block of `steps` equal batches."""
        if self.every_step:
            return 1
        if self.backend.compiles:  # each length is compiled once: few different ones
            length = max(-(-steps // 10), 100)
        else:
            length = max(1, int(CHUNK_SECONDS / self.step_seconds)) if self.step_seconds else 1
        if self.plan.record_every and self.plan.validation is not None:
            length = min(length, self.plan.record_every - self.model.step % self.plan.record_every)
            if self.backend.compiles:
                length = 1 << length.bit_length() - 1  # the largest power of two that is not above it
        return length

    def _chunk(self, rows: np.ndarray) -> dict:
        """Run one chunk -> its records as host arrays, one entry a step."""
        model, numbers = self.model, self.model.step + np.arange(len(rows))
        batches = {"learning_rate": self._learning_rates(numbers)}
        if not self.whole:
            batches["index"] = rows
        if self.step.network.random:
            batches["key"] = step_keys(self.plan.seed, numbers)
        multiplications = rows.shape[1] * model.multiplications[tuple(self.plan.data["x"].shape[1:])]
        begin = time.perf_counter()
        with self.backend.limited_threads(multiplications):
            # scan reuses the memory it is given: with a copy the model stays whole until the chunk is done
            state, records = self.backend.scan(self.step, self.backend.copy(model.state), batches, self.plan.data)
            finite = self.backend.call(self.all_finite, state)
            records = map_leaves(to_numpy, records)
            self.step_seconds = (time.perf_counter() - begin) / len(rows)
            if not (finite and np.all(np.isfinite(records["loss"]))):
                seen = first_non_finite(state) or "loss"
                step = replace(self.step, network=model.network)
                self._diverged(Chunk(step, model.state, batches, self.plan.data, model.step, seen))
        self.finite = state
        model.state, model.step = state, model.step + len(rows)
        if model.unproven is not model.network and not self.backend.compiles:  # compiled code holds no check
            model.unproven = model.network
            self.step = model.training_step
        self._record_iterations(records, *rows.shape)
        for callback in self.every_step:
            callback.on_train_batch_end(
                model.step - 1, Averages(self.step.metrics).add(records, rows.shape[1]).values()
            )
        self._require_unmoved()
        return records

    def _learning_rates(self, steps: np.ndarray) -> np.ndarray:
        origin = self.epoch_start if getattr(self.rate, "restart_every_epoch", False) else 0
        asked = [int(step - origin) for step in steps]
        rates = [self.rate(step) for step in asked]
        if not all(type(rate) is float and 0 <= rate < math.inf for rate in rates):
            values = [rate.item() if getattr(rate, "shape", None) == () else rate for rate in rates]
            rates = [number(f"learning_rate({i})", value, "[0, inf)") for i, value in zip(asked, values, strict=True)]
        return np.array(rates)

    def _record_iterations(self, records: dict, steps: int, rows: int) -> None:
        """Keep the mini-batch values of every k-th step and, with validation data, the validation values after it."""
        every, end, history = self.plan.record_every, self.model.step, self.plan.history
        if not every:
            return
        for i in range(steps):
            if (end - steps + i + 1) % every == 0:
                one = map_leaves(lambda values, i=i: values[i : i + 1], records)
                logs = {"step": end - steps + i} | Averages(self.step.metrics).add(one, rows).values()
                if self.plan.validation is not None:
                    logs |= self._validate()
                history.add(history.iterations, logs)

    def _call(self, event: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*args)
        self._require_unmoved()

    def _require_unmoved(self) -> None:
        if self.model.backend != self.backend:
            raise RuntimeError(
                f"A model moves between fits, not in a callback. Received: model.to({self.model.backend}) during fit"
            )

    def _diverged(self, chunk: Chunk) -> None:
        self.model.state, self.model.step, error = diagnose(self.backend, chunk, self.finite)
        raise error
