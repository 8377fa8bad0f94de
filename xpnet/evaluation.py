"""Inference and evaluation: functions of a batch, run over many batches."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.backend import Backend, device, namespace, quiet, to_numpy
from xpnet.checks import require_batch_size
from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.losses import Loss
from xpnet.metrics.base import BinnedMetric, Metric, means
from xpnet.progress import Progress
from xpnet.tree import Array, Tree, map_leaves

EVALUATION_BATCH = 512  # rows at once where the caller does not say
# Steps, by their number alone: how many a chunk holds depends on the clock, and sums of other groups round differently
MERGED_AT_ONCE = 64
_FIRST, _REST = slice(MERGED_AT_ONCE), slice(MERGED_AT_ONCE, None)


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
        """The record, without the metrics that are exact from all rows, and of each row what those want."""
        z = super().__call__(state, batch)
        loss, _ = self.loss(batch["y"], z, batch.get("weight"))
        if not self.binned:
            return self.record(batch, z, loss), ()
        merged = tuple(metric for metric in self.metrics if metric not in self.binned)
        y, rows, weight = self.loss.rows(batch["y"], z, batch.get("weight"))
        kept = (y, self.loss.activation(rows), *([] if weight is None else [weight]))
        return replace(self, metrics=merged).record(batch, z, loss), kept

    @property
    def binned(self) -> tuple[BinnedMetric, ...]:
        """The metrics that `evaluate` has from all rows rather than from the records."""
        return tuple(metric for metric in self.metrics if isinstance(metric, BinnedMetric))

    def record(self, batch: dict[str, Array], z: Array, loss: Array) -> dict:
        """The batch's loss and merged metric terms, and its total weight if it has weights."""
        xp = namespace(z)
        record = {"loss": loss}
        y, z, weight = self.loss.rows(batch["y"], z, batch.get("weight"))
        if weight is not None:
            weight = xp.astype(weight, z.dtype, copy=False)
            record["weight"] = xp.sum(weight)
        elif any(metric.sums for metric in self.metrics):
            record["weight"] = xp.full((), z.shape[-2], dtype=z.dtype, device=device(z))
        prediction = self.loss.activation(z) if any(metric.on_predictions for metric in self.metrics) else None
        for metric in self.metrics:
            record[metric.name] = metric.state(y, prediction if metric.on_predictions else z, weight)
        return record


def run_batches(
    backend: Backend,
    function: Inference,
    state: Tree,
    data: dict[str, Array],
    batch_size: int | None,
    progress: Progress,
    multiplications: int,
) -> Iterator[tuple[int, Any]]:
    """Yield ``(rows, function's result)`` for one batch after the other; a row takes so many multiplications."""
    if batch_size is not None:
        require_batch_size(batch_size)
    rows, size = data["x"].shape[0], batch_size or EVALUATION_BATCH
    state = {"params": state["params"], "statistics": state["statistics"]}
    progress.start(type(function).__name__, steps=-(-rows // size))
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        batch = {name: values[start:stop, ...] for name, values in data.items()}
        with backend.limited_threads((stop - start) * multiplications):
            result = backend.call(function, state, batch)
        yield stop - start, result
        progress.update(1)


def evaluate(
    backend: Backend,
    function: Evaluation,
    state: Tree,
    data: dict[str, Array],
    batch_size: int | None,
    verbose: str | int,
    multiplications: int,
) -> dict:
    """Loss and metrics over a data set, as Python numbers."""
    with Progress(verbose) as progress:
        started = list(run_batches(backend, function, state, data, batch_size, progress, multiplications))
        home = [map_leaves(to_numpy, result) for _, result in started]  # all are started before one is read
        records = map_leaves(lambda *values: np.stack(values), *[record for record, _ in home])
        values = Averages(function.metrics).add(records, [rows for rows, _ in started]).values()
        values |= _exact_values(function.binned, [kept for _, kept in home])
        values = {name: values[name] for name in ("loss", *(metric.name for metric in function.metrics))}
        progress.end(values)
    return values


@quiet
def _exact_values(metrics: tuple[BinnedMetric, ...], batches: list[tuple[np.ndarray, ...]]) -> dict:
    """Metrics of all rows, from the targets, predictions and weights of each batch."""
    if not metrics:
        return {}
    y, z, *weights = zip(*batches, strict=True)
    y, z = np.concatenate(y), np.concatenate(z, axis=-2).astype(float)
    weight = np.concatenate(*weights).astype(float) if weights else np.ones(len(y))
    y, z, weight = y[weight > 0], z[..., weight > 0, :], weight[weight > 0]
    return {
        metric.name: _bounded(
            metric, [metric.exact(y, one, weight) for one in z] if z.ndim > 2 else metric.exact(y, z, weight)
        )
        for metric in metrics
    }


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
    """Loss and metrics over many steps, from their records."""

    def __init__(self, metrics: tuple[Metric, ...]):
        self.metrics = metrics
        self.parts: dict[str, Tree] = {}
        self.weight = np.zeros(0)

    @quiet
    def add(self, records: dict[str, Tree], rows: int | list[int]) -> Averages:
        """Add the records of some steps: host arrays, one entry a step. Without weights, steps weigh their rows."""
        weight = np.broadcast_to(np.asarray(records.get("weight", rows), dtype=float), np.shape(records["loss"])[:1])
        named = {name: values for name, values in records.items() if name != "weight"}
        parts = map_leaves(lambda v: np.ascontiguousarray(np.moveaxis(np.asarray(v, dtype=float), 0, -1)), named)
        self.parts = map_leaves(_join, self.parts, parts) if self.parts else parts
        self.weight = np.append(self.weight, weight)
        while len(self.weight) >= MERGED_AT_ONCE:
            first, rest = (map_leaves(lambda v, s=s: v[..., s], self.parts) for s in (_FIRST, _REST))
            merged = map_leaves(lambda v: v[..., None], self._merge(first, self.weight[_FIRST]))
            self.parts = map_leaves(_join, merged, rest)
            self.weight = np.append(self.weight[_FIRST].sum(), self.weight[_REST])
        return self

    def _merge(self, parts: dict[str, Tree], weight: np.ndarray) -> dict[str, Tree]:
        merged = {m.name: m.merge(parts[m.name], weight) for m in self.metrics if m.name in parts}
        return {name: merged[name] if name in merged else means((values,), weight)[0] for name, values in parts.items()}

    @quiet
    def values(self) -> dict:
        """``{"loss": ..., "accuracy": ...}`` so far."""
        merged = self._merge(self.parts, self.weight)
        networks = np.shape(merged["loss"])
        values = {m.name: self._value(m, merged[m.name], networks) for m in self.metrics if m.name in merged}
        return {"loss": merged["loss"].tolist()} | values

    def _value(self, metric: Metric, terms: tuple, networks: tuple) -> Any:
        if metric.sums:
            terms = tuple(term * self.weight.sum() for term in terms)
        values = [metric.result(*one) for one in zip(*terms, strict=True)] if networks else metric.result(*terms)
        return _bounded(metric, values)


def _join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([a, b], axis=-1)


def _bounded(metric: Metric, values: Any) -> Any:
    """A float or nested lists of floats; of K networks trained at once a list of these."""
    return np.clip(values, *metric.bounds).tolist()


def prefixed(prefix: str, logs: dict) -> dict:
    """The same values under names that begin with `prefix`."""
    return {prefix + name: value for name, value in logs.items()}
