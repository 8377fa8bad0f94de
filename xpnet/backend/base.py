"""What a backend is: an array library, a device on it, a default float type, and how to move arrays and loop there."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import array_api_compat
import numpy as np

from xpnet.backend.conversion import real_numbers, to_numpy
from xpnet.tree import Array, Tree, map_leaves

T = TypeVar("T")
_namespaces: dict[type, Any] = {}


def namespace(x: Array) -> Any:
    """The Array API namespace of `x`: a dictionary look-up by type, 50 ns where inspecting the array costs 700."""
    try:
        return _namespaces[type(x)]
    except KeyError:
        return _namespaces.setdefault(type(x), array_api_compat.array_namespace(x))


def register_namespace(array_type: type, functions: Any) -> None:
    """Make `functions` the namespace of arrays of this type."""
    _namespaces[array_type] = functions


def unregister_namespace(array_type: type) -> None:
    _namespaces.pop(array_type, None)


# What becomes infinite or NaN is reported by the divergence guard, not by a warning in the middle of it.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


@dataclass(frozen=True)
class Backend:
    """An array library made ready to compute on: everything xpnet knows about it.

    The mathematics never asks for a backend; it takes the namespace from its arrays. A `Model` holds a backend to move
    arrays to the device and back, and to run its training loop. Each library's module in this package overrides what
    that library does differently.

    Attributes
    ----------
    name : str
        As in `set_backend`.
    namespace : module
        The Array API namespace, from array-api-compat.
    device : object
        The library's own device object.
    dtype : object
        The default float type, the library's float32 or float64.
    """

    name: str
    namespace: Any
    device: Any
    dtype: Any = field(repr=False)

    compiles = False  # does `scan` compile once more for each new number of steps?

    def __repr__(self) -> str:
        return f"<xpnet backend {self.name} on {self.device}, {self.float_name}>"

    def __reduce__(self):
        return _unpickle, (self.name, self._device_name(), self.float_name)

    def _device_name(self) -> Any:
        """The device in a form that can be pickled and that the library's `create` takes."""
        return str(self.device)

    @cached_property
    def float_name(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return "float64" if self.dtype == self.namespace.float64 else "float32"

    def owns(self, x: Any) -> bool:
        """Whether `x` is an array of this backend's library."""
        raise NotImplementedError

    @quiet
    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Bring `x` to this backend's device.

        An array of this library is used where it is when device and type are right already; anything else goes through
        host memory, except that CuPy shares what another library has in CUDA memory. Floating point becomes the backend's
        default float type unless `dtype` says otherwise; integers and booleans keep their type.
        """
        xp = self.namespace
        if not self.owns(x):
            x = real_numbers(x)
            if dtype is None and x.dtype.kind == "f":
                x = x.astype(self.float_name, copy=False)
            x = self._from_numpy(np.ascontiguousarray(x, x.dtype.newbyteorder("=")).reshape(x.shape))
        elif xp.isdtype(x.dtype, "complex floating"):
            raise ValueError(f"Arrays must hold real numbers. Received: an array of dtype {x.dtype}")
        elif array_api_compat.device(x) != self.device:
            x = array_api_compat.to_device(x, self.device)
        if dtype is None and xp.isdtype(x.dtype, "real floating"):
            dtype = self.dtype
        return x if dtype is None or x.dtype == dtype else xp.astype(x, dtype)

    def scope(self) -> AbstractContextManager:
        """A ``with`` block for computing on this backend's device.

        Only CuPy has a current device of each thread, to which new arrays go and whose memory alone kernels may use. Every method
        of a `Model` computes inside such a block; so should what is done beside it with arrays of a backend on another device.
        """
        return nullcontext()

    def _from_numpy(self, x: np.ndarray) -> Array:
        return self.namespace.asarray(x, device=self.device)

    def copy(self, tree: Tree) -> Tree:
        """New memory for every array of a tree."""
        return map_leaves(lambda x: self.namespace.asarray(x, copy=True), tree)

    def to_host(self, tree: Tree) -> Tree:
        """`to_numpy` of every array of a tree, in one transfer where transfers cost."""
        return map_leaves(to_numpy, tree)

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked to."""

    def gather(self, x: Array, index: Array) -> Array:
        """Rows of `x`: ``x[index]``; every index must be in range, and is not checked."""
        return self.namespace.take(x, index, axis=0)

    def rows(self, data: dict[str, Array], index: Array | None) -> dict[str, Array]:
        """The rows of every array of `data`; without an index the arrays themselves."""
        return data if index is None else {name: self.gather(values, index) for name, values in data.items()}

    def limited_threads(self, multiplications: int) -> AbstractContextManager:
        """A ``with`` block for steps whose forward pass takes so many multiplications: few need no second thread.

        Only NumPy's backend has such a rule. It depends on shapes and settings and on no timing, so a run repeats bit for bit.
        """
        return nullcontext()

    @quiet
    def call(self, function: Callable, *args: Any) -> Any:
        """``function(*args)``, compiled where the library compiles; `function` is pure and hashable."""
        return function(*args)

    def scan(self, step: Callable, state: Tree, batches: dict[str, np.ndarray], data: dict[str, Array]) -> tuple:
        """Run ``state, record = step(state, batch)`` over many mini-batches -> the last state, all records.

        Parameters
        ----------
        step : callable
            A pure, hashable function: no branch on array values and no state of its own, so that it can be compiled.
        state : tree
            Handed over: its memory may be reused.
        batches : dict of host arrays
            What varies from step to step, one row a step. ``"index"`` holds row numbers into `data`; without it every
            step gets all rows. One-dimensional entries arrive in the step as numbers, others as arrays on the device.
        data : dict of arrays
            The data set on the device; each step finds its rows in its batch under the same name.

        Returns
        -------
        state : tree
        records : tree
            Each record stacked over the steps, still on the device: one transfer fetches them all.
        """
        return self.scan_eagerly(step, state, batches, data)

    @quiet
    def scan_eagerly(
        self, step: Callable, state: Tree, batches: dict[str, np.ndarray], data: dict[str, Array]
    ) -> tuple:
        """`scan` as a loop in Python, where nothing is compiled: the step may read values."""
        columns = {
            name: values.tolist() if values.ndim == 1 else self._rows(values) for name, values in batches.items()
        }
        records = []
        for values in zip(*columns.values(), strict=True):
            batch = dict(zip(columns, values, strict=True))
            state, record = step(state, batch | self.rows(data, batch.pop("index", None)))
            records.append(record)
        return state, map_leaves(lambda *values: self._stack(values), *records)

    def _rows(self, values: np.ndarray) -> list[Array]:
        return self.namespace.unstack(self._from_numpy(values))

    def _stack(self, values: tuple) -> Array:
        return self.namespace.stack(values)


def in_scope(method: Callable) -> Callable:
    """Run a function inside the scope of its first argument's backend."""

    @functools.wraps(method)
    def run(owner: Any, *args: Any, **settings: Any) -> Any:
        with owner.backend.scope():
            return method(owner, *args, **settings)

    return run


def all_in_scope(cls: type[T]) -> type[T]:
    """`in_scope` for every public method that a class defines: there is no other way to its arrays."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, in_scope(method))
    return cls


def _unpickle(name: str, device: Any, dtype: str) -> Backend:
    return importlib.import_module(f"xpnet.backend.{name}").create(device, dtype)


def device(x: Array) -> Any:
    """Where `x` is; None, meaning the compiler's choice, for the values that `jax.jit` traces."""
    return getattr(x, "device", None)


def size(x: Array) -> int:
    """The number of elements (``x.size`` is a method on torch)."""
    return math.prod(x.shape)


def keep_freed_memory() -> None:
    """Have glibc reuse what a step frees, rather than return it and be given fresh pages in the next step.

    Freeing a block of just under 32 MiB raises the sizes from which malloc returns memory to 32 and 64 MiB, for good
    (mallopt(3), "dynamic mmap threshold"). Without it a step of a small convolutional network took 6,900 page faults.
    Elsewhere it does nothing.
    """
    np.empty(31 << 20, np.uint8)
