"""Loss and metrics over a data set, and predictions: functions of a batch, run over many batches."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.averages import Averages, bounded
from xpnet.backend import Backend, quiet
from xpnet.callbacks import Callback
from xpnet.callbacks.base import call, watching
from xpnet.groups import ALONE, Alone, group_of, parts_of, pieces_of, process
from xpnet.layers.base import Shape
from xpnet.layers.shapes import Measured
from xpnet.metrics.base import BinnedMetric
from xpnet.progress import Progress
from xpnet.sources import InOrder
from xpnet.step import Evaluation, Inference
from xpnet.tree import Array, Tree, map_leaves

if TYPE_CHECKING:
    from xpnet.ranks import Ranks


def run_batches(
    backend: Backend,
    function: Inference | Evaluation,
    state: Tree,
    data: InOrder,
    progress: Progress,
    measured: Measured,
    begin: Callable[[int, dict[str, Any]], None],
    ranks: Alone | Ranks = ALONE,
) -> Iterator[tuple[int, Any]]:
    """Yield ``(rows, result of function)`` for each batch, or for those of this rank: every size-th.

    ``begin(batch, {})`` is called before each batch.
    """
    state = {"params": state["params"], "statistics": state["statistics"]}
    own = None if data.steps is None else len(range(ranks.rank, data.steps, ranks.size))
    progress.start(type(function).__name__, steps=own)
    for number, batch in enumerate(data.every(ranks.rank, ranks.size)):
        begin(number, {})
        rows = batch["x"].shape[0]
        processes = process().size  # each has one thread
        parts = parts_of(backend, measured, state["params"], rows) if processes == 1 else 1
        pieces = pieces_of(backend, measured, state["params"], rows // parts)
        divided = function if parts * pieces == 1 else function.divided(group_of(parts), pieces)
        with backend.limited_threads(rows * measured.multiplications, max(parts, processes)):
            result = backend.call(divided, state, batch)
        yield rows, result
        progress.update(1)


def evaluate(
    backend: Backend,
    function: Evaluation,
    state: Tree,
    data: InOrder,
    verbose: str | int,
    measured: Measured,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Return the loss and metrics over a data set as Python numbers."""
    metrics, watchers, started = function.scores.metrics, watching(callbacks, "test"), []
    ranks = ALONE if process().any(bool(watchers)) else process()  # a callback of batches sees all of them
    averages = Averages(metrics)  # over the batches so far, for callbacks
    begin = functools.partial(call, watchers, "on_test_batch_begin")
    with data, Progress(verbose) as progress:
        call(callbacks, "on_test_begin", {})
        batches = run_batches(backend, function, state, data, progress, measured, begin, ranks)
        for number, (rows, result) in enumerate(batches):
            started.append((rows, backend.to_host(result) if watchers else result))
            if watchers:
                averages.add(map_leaves(lambda value: value[None], started[-1][1][0]), rows)
                logs = _in_order(function, averages, [kept for _, (_, kept) in started])
                call(watchers, "on_test_batch_end", number, logs)
        results = [result for _, result in started]
        own = results if watchers or not results else backend.to_host(results)
        home = ranks.in_turn(list(own))
        records = map_leaves(lambda *values: np.stack(values), *[record for record, _ in home])
        averages = Averages(metrics).add(records, ranks.in_turn([rows for rows, _ in started]))
        values = _in_order(function, averages, [kept for _, kept in home])
        progress.end(values)
        call(callbacks, "on_test_end", values)
    return values


def _in_order(function: Evaluation, averages: Averages, kept: list[tuple[np.ndarray, ...]]) -> dict[str, Any]:
    """Return the loss and all metrics in the order of the model."""
    values = averages.values() | _exact_values(function.scores.binned, kept)
    return {name: values[name] for name in ("loss", *(metric.name for metric in function.scores.metrics))}


def predict(
    backend: Backend,
    function: Inference,
    state: Tree,
    data: InOrder,
    verbose: str | int,
    measured: Measured,
    axis: int,
    answer: Callable[[Array], Array],
    callbacks: Sequence[Callback] = (),
) -> Array:
    """Return ``answer(z)`` for the network's outputs z over a data set, as a new array. `axis` is the axis of rows."""
    watchers, outputs = watching(callbacks, "predict"), []
    begin = functools.partial(call, watchers, "on_predict_batch_begin")
    with data, Progress(verbose) as progress:
        call(callbacks, "on_predict_begin", {})
        for number, (_, z) in enumerate(run_batches(backend, function, state, data, progress, measured, begin)):
            outputs.append(z)
            if watchers:
                call(watchers, "on_predict_batch_end", number, {"outputs": answer(z)})
        progress.end()
        call(callbacks, "on_predict_end", {})
    return answer(backend.namespace.concat(outputs, axis=axis))


@quiet
def _exact_values(metrics: tuple[BinnedMetric, ...], batches: list[tuple[np.ndarray, ...]]) -> dict[str, Any]:
    """Return the metrics of all rows, from the targets, predictions and weights of each batch."""
    if not metrics:
        return {}
    y, z, *weights = zip(*batches, strict=True)
    y, z = np.concatenate(y), np.concatenate(z, axis=-2).astype(float)
    weight = np.concatenate(*weights).astype(float) if weights else np.ones(len(y))
    y, z, weight = y[weight > 0], z[..., weight > 0, :], weight[weight > 0]
    return {
        metric.name: bounded(
            metric, [metric.exact(y, one, weight) for one in z] if z.ndim > 2 else metric.exact(y, z, weight)
        )
        for metric in metrics
    }


def in_target_form(answer: Array, target_shape: Shape | None, leading: int) -> Array:
    """Drop or add the axis of a single unit to match the targets, so that ``y - predict(x)`` is never broadcast.

    Parameters
    ----------
    answer : array
    target_shape : tuple of int, optional
        The shape of one sample's targets. If it is None, `answer` is returned unchanged.
    leading : int
        The number of axes before the axis of samples.
    """
    if target_shape is None:
        return answer
    axes = leading + 1 + len(target_shape)
    if answer.ndim == axes + 1 and answer.shape[-1] == 1:
        return answer[..., 0]
    return answer[..., None] if answer.ndim == axes - 1 and target_shape[-1] == 1 else answer


def named_values(logs: dict[str, Any]) -> Any:
    """Return a named tuple that can be pickled although its class is created here."""
    values = collections.namedtuple("Evaluation", logs)  # type: ignore[misc]
    values.__reduce__ = lambda self: (named_values, (self._asdict(),))  # type: ignore
    return values(**logs)


def prefixed(prefix: str, logs: dict[str, Any]) -> dict[str, Any]:
    """Return the same values under names that begin with `prefix`."""
    return {prefix + name: value for name, value in logs.items()}
