"""NumPy on the CPU, the default backend, which is always available."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import array_api_compat.numpy
import numpy as np

from xpnet.backend import blas, workers
from xpnet.backend.base import Backend, keep_freed_memory, register_namespace
from xpnet.backend.indexing import sliding_windows
from xpnet.backend.namespaces import Namespace
from xpnet.checks import count
from xpnet.tree import Tree, map_leaves

MANY = 4096  # numbers, for which a fast loop matters more than a fast call


# NumPy's and array-api-compat's functions wrap these in Python: np.sum takes 2.7 µs for 10 x 100 numbers, and this sum 1.3
def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    return np.add.reduce(x, axis=axis, dtype=dtype, keepdims=keepdims)


def max(x, /, *, axis=None, keepdims=False):
    return np.maximum.reduce(x, axis=axis, keepdims=keepdims)


def argmax(x, /, *, axis=None, keepdims=False):
    return np.asarray(x.argmax(axis=axis, keepdims=keepdims))


# Clipping many numbers takes 0.3 of the time of comparing them with a number. NaN stays NaN in both
def maximum(x1, x2, /):
    return x1.clip(x2, np.inf) if type(x2) is float and x1.size > MANY else np.maximum(x1, x2)


def minimum(x1, x2, /):
    return x1.clip(-np.inf, x2) if type(x2) is float and x1.size > MANY else np.minimum(x1, x2)


def astype(x, dtype, /, *, copy=True, device=None):
    return x.astype(dtype, copy=copy)


def reshape(x, /, shape, *, copy=None):
    return x.reshape(shape) if copy is None else np.reshape(x, shape, copy=copy)


def take(x, indices, /, *, axis=None):
    return x.take(indices, axis=axis)


# np.matmul keeps the interpreter's lock if the product has fewer than 500 numbers, and other threads wait. np.dot does not
def matmul(x1, x2, /):
    return np.dot(x1, x2) if x1.ndim == x2.ndim == 2 else np.matmul(x1, x2)


def add_row(x, row, /):
    """See `xpnet.backend.indexing.add_row`. A repeated row makes long inner loops, which take 0.3 of the time for 16 columns."""
    repeats = 2 * MANY // row.shape[-1]
    if repeats < 2 or x.shape[0] < 8 * repeats or not x.flags.c_contiguous:
        x += row
        return x
    end = x.shape[0] // repeats * repeats
    long_rows = x[:end].reshape(-1, repeats * row.shape[-1])  # a view
    long_rows += np.tile(row, (1, repeats))
    x[end:] += row
    return x


class Labels:
    """The class of each column of arrays (..., classes, batch), read and written by its index; see `losses.classification`."""

    def __init__(self, labels, like):
        *networks, classes, batch = like.shape
        index = np.multiply(labels, batch, dtype=np.intp)
        index += np.arange(batch)
        if networks:
            index = index + np.arange(0, like.size, classes * batch).reshape(*networks, 1)
        self.index = index.reshape(*networks, 1, batch)

    def read(self, x):
        return x.reshape(-1).take(self.index)

    def replace(self, x, value):
        x.reshape(-1)[self.index] = value  # x is contiguous, so this is a view
        return x


xp = Namespace(
    array_api_compat.numpy, argmax=argmax, astype=astype, matmul=matmul, max=max, maximum=maximum, minimum=minimum,
    reshape=reshape, sum=sum, take=take, add_row=add_row, Labels=Labels,
    sliding_windows=partial(sliding_windows, np.lib.stride_tricks.as_strided),
)  # fmt: skip
for array_type in (np.ndarray, np.float32, np.float64):
    register_namespace(array_type, xp)


@dataclass(frozen=True, repr=False)
class NumpyBackend(Backend):
    """The NumPy backend. `threads` is the number of threads; None applies the rules of `xpnet.backend.blas` and `workers`."""

    divides = True

    threads: int | None = None

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + (f", threads={self.threads}>" if self.threads else ">")

    def __reduce__(self):
        return create, (self.device, self.float_name, self.threads)

    def parts(self, activations, parameters):
        divide = workers.pay(activations, parameters) and not workers.working()
        return (self.threads or workers.cores()) if divide else 1

    def pieces(self, activations, parameters):
        return workers.pieces(activations, parameters)

    def limited_threads(self, multiplications, parts=1):
        return blas.limited(multiplications, self.threads if parts == 1 else 1)

    def threads_in_use(self):
        return self.threads or blas.process.number()

    def asarray(self, x: Any, dtype: Any = None) -> np.ndarray:
        if dtype is None and type(x) is np.ndarray and x.dtype == self.dtype:  # 0.2 µs instead of 5 for each parameter
            return x
        return super().asarray(x, dtype)

    def copy(self, tree: Tree) -> Tree:
        return map_leaves(np.array, tree)

    def owns(self, x: Any) -> bool:
        return type(x) is np.ndarray and x.dtype.kind in "fiub" and x.dtype.isnative

    def _rows(self, values: np.ndarray) -> list[np.ndarray]:
        return list(values)

    def _stack(self, values: tuple) -> np.ndarray:
        return np.array(values)


def create(device: Any, dtype: str, threads: int | None = None) -> NumpyBackend:
    if device not in (None, "cpu"):
        raise ValueError(f'NumPy\'s device must be "cpu". For others, use another backend. Received: device={device!r}')
    keep_freed_memory()
    return NumpyBackend("numpy", xp, "cpu", getattr(np, dtype), None if threads is None else count("threads", threads))
