"""A backend: an array library, a device, a default float type, and how to move arrays and run loops there."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import array_api_compat
import numpy as np

from xpnet.backend.conversion import real_numbers, to_numpy
from xpnet.tree import Array, Tree, map_leaves

T = TypeVar("T")
_namespaces: dict[type, Any] = {}


def namespace(x: Array) -> Any:
    """Return the Array API namespace of `x`. The lookup by type takes 50 ns, while inspecting the array would take 700 ns."""
    try:
        return _namespaces[type(x)]
    except KeyError:
        return _namespaces.setdefault(type(x), array_api_compat.array_namespace(x))


def register_namespace(array_type: type, functions: Any) -> None:
    """Make `functions` the namespace of arrays of this type."""
    _namespaces[array_type] = functions


def unregister_namespace(array_type: type) -> None:
    _namespaces.pop(array_type, None)


# The divergence guard reports infinite and NaN values, so NumPy's warnings are not needed.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


@dataclass(frozen=True)
class Backend:
    """An array library that is ready to compute on a device, and everything that xpnet knows about it.

    The mathematics never asks for a backend. It gets the namespace from its arrays. A `Model` holds a backend to move arrays
    to the device and back, and to run its training loop. Each library's module overrides what that library does differently.

    Attributes
    ----------
    name : str
        The name in `set_backend`.
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

    compiles = False  # whether `scan` compiles again for each new number of steps
    divides = False  # whether threads can compute parts of a batch
    exchanges = True  # whether a step can exchange arrays with other processes

    def __repr__(self) -> str:
        return f"<xpnet backend {self.name} on {self.device}, {self.float_name}>"

    def __reduce__(self):
        return unpickle, (self.name, self._device_name(), self.float_name)

    def _device_name(self) -> Any:
        """Return the device in a form that can be pickled and that the library's `create` accepts."""
        return str(self.device)

    @cached_property
    def float_name(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return "float64" if self.dtype == self.namespace.float64 else "float32"

    def computing_in(self, float_name: str) -> Backend:
        """Return this backend with the default type ``"float32"`` or ``"float64"``."""
        return self if self.float_name == float_name else self._in_other_type

    @cached_property
    def _in_other_type(self) -> Backend:
        other = "float32" if self.float_name == "float64" else "float64"
        return replace(self, dtype=getattr(self.namespace, other))

    def owns(self, x: Any) -> bool:
        """Whether `x` is an array of this backend's library."""
        raise NotImplementedError

    @quiet
    def asarray(self, x: Any, dtype: Any = None) -> Array:
        """Move `x` to this backend's device.

        An array of this library with the right device and type is returned without a copy. Anything else goes through host
        memory, except that CuPy shares arrays of other libraries in CUDA memory. Floating-point numbers get the backend's
        default float type unless `dtype` is given. Integers and booleans keep their type.
        """
        xp = self.namespace
        if not self.owns(x):
            x = real_numbers(x)
            if dtype is None and x.dtype.kind == "f":
                x = x.astype(self.float_name, copy=False)
            x = self._from_numpy(np.ascontiguousarray(x, x.dtype.newbyteorder("=")).reshape(x.shape))
        elif xp.isdtype(x.dtype, "complex floating"):
            raise ValueError(
                "Arrays must hold real numbers. Split complex numbers into real and imaginary parts. "
                f"Received: an array of dtype {x.dtype}"
            )
        elif array_api_compat.device(x) != self.device:
            x = array_api_compat.to_device(x, self.device)
        if dtype is None and xp.isdtype(x.dtype, "real floating"):
            dtype = self.dtype
        return x if dtype is None or x.dtype == dtype else xp.astype(x, dtype)

    def scope(self) -> AbstractContextManager:
        """Return a ``with`` block for computing on this backend's device.

        Only CuPy needs it. In CuPy, each thread has a current device, which receives new arrays, and kernels can use only
        its memory. Every method of a `Model` computes inside such a block. Your own code should do so too if the backend is
        on another device.
        """
        return nullcontext()

    def enable(self) -> None:
        """Let the library have this backend's float type outside of `scope` too, because the backend becomes the current one."""

    def _from_numpy(self, x: np.ndarray) -> Array:
        return self.namespace.asarray(x, device=self.device)

    def send(self, arrays: dict[str, np.ndarray]) -> Callable[[], dict[str, Array]]:
        """Begin to upload host arrays, in any thread. The thread that computes calls the result once to get them.

        Only CuPy uploads them in advance. Other backends return the host arrays, which `scan` and `asarray` move later.
        """
        return lambda: arrays

    def require_representable(self, x: np.ndarray) -> None:
        """Raise ValueError if a host array holds integers that this library would change. `asarray` calls it, `scan` does not."""

    def copy(self, tree: Tree) -> Tree:
        """Copy every array of a tree to new memory."""
        return map_leaves(lambda x: self.namespace.asarray(x, copy=True), tree)

    def to_host(self, tree: Tree) -> Tree:
        """Apply `to_numpy` to every array of a tree, in a single transfer if transfers are expensive."""
        return map_leaves(to_numpy, tree)

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""

    def gather(self, x: Array, index: Array) -> Array:
        """Return the rows ``x[index]``. Every index must be in range; this is not checked."""
        return self.namespace.take(x, index, axis=0)

    def rows(self, data: dict[str, Array], index: Array | None) -> dict[str, Array]:
        """Return the rows of every array of `data`, or the arrays themselves if `index` is None.

        For row numbers of shape (K, batch), the rows have the shape (K, batch, ...).
        """
        if index is None:
            return data
        if index.ndim == 1:
            return {name: self.gather(values, index) for name, values in data.items()}
        xp = self.namespace
        rows = self.rows(data, xp.reshape(index, (-1,)))
        return {name: xp.reshape(x, (*index.shape, *x.shape[1:])) for name, x in rows.items()}

    def parts(self, activations: int, parameters: int) -> int:
        """Return into how many parts to divide a batch, so that threads compute them at the same time.

        Only NumPy's backend divides batches. The number depends on the sizes of a forward pass and on settings, not on timings.
        """
        return 1

    def pieces(self, activations: int, parameters: int) -> int:
        """Return the number of pieces in which one thread computes rows with `activations` activations in total.

        Only NumPy's backend returns more than 1, because its operations are faster on arrays that fit into the cache.
        """
        return 1

    def limited_threads(self, multiplications: int, parts: int = 1) -> AbstractContextManager:
        """Return a ``with`` block that may limit the number of threads, depending on the multiplications in a forward pass.

        Only NumPy's backend limits them. The limit depends on shapes and settings, not on timings, so runs repeat bit for bit.
        """
        return nullcontext()

    def threads_in_use(self) -> int | None:
        """Return the number of threads that large operations use, if it is known. The last bits of results depend on it."""
        return None

    @quiet
    def call(self, function: Callable, *args: Any) -> Any:
        """Return ``function(*args)``, compiled if the library compiles. `function` must be pure and hashable."""
        return function(*args)

    def scan(self, step: Callable, state: Tree, batches: dict[str, np.ndarray], data: dict[str, Array]) -> tuple:
        """Run ``state, record = step(state, batch)`` over many mini-batches.

        Parameters
        ----------
        step : callable
            A pure, hashable function without branches on array values, so that it can be compiled.
        state : tree
            `scan` may overwrite its memory.
        batches : dict of host arrays, or arrays that `send` has uploaded
            The values that vary from step to step, with one row for each step. ``"index"`` holds the row numbers in `data`
            for a step, (batch,) or (K, batch). Without it, every step gets all rows. A step receives one-dimensional entries
            as numbers, and others as arrays on the device.
        data : dict of arrays
            The data set on the device. Each step receives its rows in its batch under the same name.

        Returns
        -------
        state : tree
        records : tree
            The records, stacked over the steps and still on the device, so that one transfer can fetch all of them.
        """
        return self.scan_eagerly(step, state, batches, data)

    def eager(self) -> Backend:
        """Return this backend for steps that record their values: with `scan_eagerly` as its `scan`, and undivided batches."""
        backend = copy(self)
        vars(backend).update(scan=self.scan_eagerly, divides=False)
        return backend

    @quiet
    def scan_eagerly(
        self, step: Callable, state: Tree, batches: dict[str, np.ndarray], data: dict[str, Array]
    ) -> tuple:
        """Like `scan`, as a Python loop without compilation, so the step may read values."""
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
    """Decorate a function to run inside the scope of its first argument's backend."""

    @functools.wraps(method)
    def run(owner: Any, *args: Any, **settings: Any) -> Any:
        with owner.backend.scope():
            return method(owner, *args, **settings)

    return run


def all_in_scope(cls: type[T]) -> type[T]:
    """Decorate every public method that a class defines with `in_scope`."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, in_scope(method))
    return cls


def unpickle(name: str, device: Any, dtype: str, *options: Any) -> Backend:
    """Return a backend as `make_backend` does, but leave JAX's `jax_enable_x64` as it is."""
    return importlib.import_module(f"xpnet.backend.{name}").create(device, "float32", *options).computing_in(dtype)


def device(x: Array) -> Any:
    """Return the device of `x`, or None (the compiler's choice) for values that `jax.jit` traces."""
    return getattr(x, "device", None)


def size(x: Array) -> int:
    """Return the number of elements, because ``x.size`` is a method in PyTorch."""
    return math.prod(x.shape)


def keep_freed_memory() -> None:
    """Make glibc reuse the memory that a step frees, instead of returning it to the system and getting fresh pages.

    malloc returns memory to the system above two thresholds. Freeing a block of just under 32 MiB permanently raises them to 32
    and 64 MiB (mallopt(3), "dynamic mmap threshold"). Without this, a step of a small convolutional network took 6,900 page
    faults. With other C libraries it has no effect.
    """
    np.empty(31 << 20, np.uint8)
