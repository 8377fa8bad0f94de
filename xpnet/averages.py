"""Loss and metrics over many steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backend import quiet
from xpnet.metrics.base import Metric, means
from xpnet.tree import Tree, map_leaves

# Steps are merged in groups of a fixed size, because chunk lengths depend on the clock, and each grouping rounds differently
MERGED_AT_ONCE = 64
_FIRST, _REST = slice(MERGED_AT_ONCE), slice(MERGED_AT_ONCE, None)


class Averages:
    """Loss and metrics over many steps, from their records."""

    def __init__(self, metrics: tuple[Metric, ...]):
        self.metrics = metrics
        self.parts: dict[str, Tree] = {}
        self.weight = np.zeros(0)

    @quiet
    def add(self, records: dict[str, Tree], rows: int | list[int]) -> Averages:
        """Add the records of steps, host arrays with one entry for each step. Without weights, a step has its rows as weight."""
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
    def values(self) -> dict[str, Any]:
        """Return the values so far, such as ``{"loss": ..., "accuracy": ...}``."""
        merged = self._merge(self.parts, self.weight)
        networks = np.shape(merged["loss"])
        values = {m.name: self._value(m, merged[m.name], networks) for m in self.metrics if m.name in merged}
        return {"loss": merged["loss"].tolist()} | values

    def _value(self, metric: Metric, terms: tuple[Any, ...], networks: tuple[int, ...]) -> Any:
        if metric.sums:
            terms = tuple(term * self.weight.sum() for term in terms)
        values = [metric.result(*one) for one in zip(*terms, strict=True)] if networks else metric.result(*terms)
        return bounded(metric, values)


def _join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([a, b], axis=-1)


def bounded(metric: Metric, values: Any) -> Any:
    """Clip values to the metric's bounds, and return Python floats or nested lists of them."""
    return np.clip(values, *metric.bounds).tolist()
