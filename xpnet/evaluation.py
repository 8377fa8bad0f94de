"""Inference and evaluation: functions of a batch, run over many batches."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend, namespace, to_numpy
from xpnet.callbacks import progress
from xpnet.checks import require_positive
from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.losses import Loss
from xpnet.losses.base import TINY
from xpnet.metrics import Metric
from xpnet.tree import Array, Tree, map_leaves

EVALUATION_BATCH = 512  # rows at once where the caller does not say


@dataclass(frozen=True)
class Inference:
    """``z = inference(state, batch)``: the network's output."""

    network: Layer
    dtype: Any

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> Any:
        return base.infer(self.network, state["params"], self.floating(batch["x"]), state["statistics"])

    def floating(self, x: Array) -> Array:
        """Bytes and other integers become floating point here, a batch at a time, unless the network wants integers."""
        return x if x.dtype == self.dtype or self.network.integer_input else namespace(x).astype(x, self.dtype)


@dataclass(frozen=True)
class Evaluation(Inference):
    """``record = evaluation(state, batch)``: loss and metrics by inference, as means over the batch."""

    loss: Loss
    metrics: tuple[Metric, ...]

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> Any:
        z = super().__call__(state, batch)
        loss, _ = self.loss(batch["y"], z, batch.get("weight"))
        return self.record(batch, z, loss)

    def record(self, batch: dict[str, Array], z: Array, loss: Array) -> dict:
        """The batch's loss and mean metric terms, and its total weight if it has weights."""
        xp = namespace(z)
        y, z, weight = self.loss.rows(batch["y"], z, batch.get("weight"))
        if weight is None:
            record, mean = {"loss": loss}, lambda term: xp.sum(term, axis=-1) / term.shape[-1]
        else:
            total = xp.sum(weight)
            scale = weight / xp.maximum(total, TINY)
            record, mean = {"loss": loss, "weight": total}, lambda term: xp.sum(term * scale, axis=-1)
        prediction = self.loss.activation(z) if any(metric.on_predictions for metric in self.metrics) else None
        for metric in self.metrics:
            terms = metric.terms(y, prediction if metric.on_predictions else z)
            if not isinstance(terms, tuple) or {getattr(term, "shape", None) for term in terms} != {z.shape[:-1]}:
                shapes = [getattr(term, "shape", None) for term in terms] if isinstance(terms, tuple) else []
                raise ValueError(
                    f"{metric.name}.terms must return a tuple of arrays of shape {tuple(z.shape[:-1])}, a number for each "
                    f"sample. Received: {type(terms).__name__} {[shape and tuple(shape) for shape in shapes]}"
                )
            record[metric.name] = tuple(mean(term) for term in terms)
        return record


def run_batches(
    backend: Backend,
    function: Inference,
    state: Tree,
    data: dict[str, Array],
    batch_size: int | None,
    verbose: int,
    multiplications: int,
) -> Iterator[tuple[int, Any]]:
    """Yield ``(rows, function's result)`` for one batch after the other; a row takes so many multiplications."""
    if batch_size is not None:
        require_positive(batch_size=batch_size)
    rows, size = data["x"].shape[0], batch_size or EVALUATION_BATCH
    state = {"params": state["params"], "statistics": state["statistics"]}
    for start in progress(range(0, rows, size), verbose):
        stop = min(start + size, rows)
        batch = {name: values[start:stop, ...] for name, values in data.items()}
        with backend.limited_threads((stop - start) * multiplications):
            result = backend.call(function, state, batch)
        yield stop - start, result


def evaluate(
    backend: Backend,
    function: Evaluation,
    state: Tree,
    data: dict[str, Array],
    batch_size: int | None,
    verbose: int,
    multiplications: int,
) -> dict:
    """Loss and metrics over a data set, as Python numbers."""
    averages = Averages(function.metrics)
    for rows, record in list(
        run_batches(backend, function, state, data, batch_size, verbose, multiplications)
    ):  # all started before one is read
        averages.add(map_leaves(lambda value: to_numpy(value)[None], record), rows)
    return averages.means()


def in_target_form(answer: Array, target_shape: Shape | None, leading: int) -> Array:
    """Without or with the axis of a single unit, as the targets came, so that ``y - predict(x)`` is never broadcast.

    Parameters
    ----------
    answer : array
    target_shape : tuple of int, optional
        Of one sample's targets; as the network has it if it is not known.
    leading : int
        The number of axes before that of the samples.
    """
    if target_shape is None:
        return answer
    axes = leading + 1 + len(target_shape)
    if answer.ndim == axes + 1 and answer.shape[-1] == 1:
        return answer[..., 0]
    return answer[..., None] if answer.ndim == axes - 1 and target_shape[-1] == 1 else answer


def named_values(logs: dict) -> Any:
    """A named tuple that can be pickled although its class is made here."""
    values = collections.namedtuple("Evaluation", logs)  # type: ignore[misc]
    values.__reduce__ = lambda self: (named_values, (self._asdict(),))  # type: ignore
    return values(**logs)


class Averages:
    """Weighted means of records over many steps."""

    def __init__(self, metrics: tuple[Metric, ...]):
        self.metrics = {metric.name: metric for metric in metrics}
        self.sums: Tree = None
        self.total = 0.0

    def add(self, records: dict, batch_rows: int) -> Averages:
        """Add the records of some steps: host arrays, one entry a step."""
        records = dict(records)
        losses = np.asarray(records["loss"])
        weight = np.asarray(records.pop("weight", np.full(len(losses), batch_rows)), dtype=float)
        sums = map_leaves(lambda values: np.tensordot(weight, values, 1), records)
        self.sums = sums if self.sums is None else map_leaves(np.add, self.sums, sums)
        self.total += weight.sum()
        return self

    def means(self) -> dict:
        """``{"loss": ..., "accuracy": ...}`` so far."""
        means = map_leaves(lambda value: value / max(self.total, np.finfo(float).tiny), self.sums)
        values = {name: m if name == "loss" else self.metrics[name].combine(*m) for name, m in means.items()}
        order = ["loss", *self.metrics]
        return {name: _plain(values[name]) for name in order}


def _plain(value: Any) -> Any:
    """A float, or one float for each of K networks trained at once."""
    return float(value) if np.ndim(value) == 0 else [float(v) for v in value]


def prefixed(prefix: str, logs: dict) -> dict:
    """The same values under names that begin with `prefix`."""
    return {prefix + name: value for name, value in logs.items()}
