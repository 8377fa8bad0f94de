"""Metrics, computed as in training."""

import functools

import numpy as np
import pytest

from xpnet.averages import Averages
from xpnet.backend import to_numpy
from xpnet.tree import map_leaves


@functools.lru_cache(64)
def state_of(metric):
    """Return the method `state`, as one object for all equal metrics: JAX compiles each object again."""
    return metric.state


def compute(xp, metric, y, z, weight=None, batch_size=None):
    """Return the metric of host arrays, merged over batches; for K networks, K values."""
    averages, rows, size = Averages((metric,)), len(y), batch_size or len(y)
    for i in range(0, rows, size):
        part = slice(i, i + size)
        w = None if weight is None else xp.asarray(np.asarray(weight, dtype=float)[part])
        state = xp.call(state_of(metric), xp.asarray(y[part]), xp.asarray(z[..., part, :]), w)
        record = {"loss": np.zeros(z.shape[:-2]), metric.name: map_leaves(to_numpy, state)}
        if w is not None:
            record["weight"] = to_numpy(w).sum()
        averages.add(map_leaves(lambda value: value[None], record), len(y[part]))
    return averages.values()[metric.name]


def from_sklearn(name, module="sklearn.metrics"):
    """Return a function of scikit-learn. A test that calls it is skipped if scikit-learn is not installed."""
    return lambda *args, **settings: getattr(pytest.importorskip(module), name)(*args, **settings)
