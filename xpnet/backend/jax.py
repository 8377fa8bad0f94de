"""JAX. The training loop is one ``jax.jit`` around ``jax.lax.scan``."""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xpnet.backend.base import Backend, register_namespace, unpickle
from xpnet.backend.namespaces import Namespace
from xpnet.checks import count
from xpnet.errors import BackendNotAvailableError

# JAX before 0.8 has it in jax.experimental
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64


SMALL = 1 << 20  # bytes


def zeros_like(x, /, *, dtype=None, device=None):
    """Zeros from the host, because JAX would compile `jnp.zeros_like` for each shape."""
    if isinstance(x, jax.core.Tracer):  # inside code that JAX compiles
        return jnp.zeros_like(x, dtype=dtype, device=device)
    return jax.device_put(np.zeros(x.shape, dtype or x.dtype), device or x.sharding)


def accumulate(function, arrays):
    """Return the sum of ``function(i, rows)[0]`` over all i, and the stacks of its other results.

    `rows` are the i-th entries of all arrays. The calls run one after the other in the same memory, and are compiled once.
    """
    first = {name: x[0] for name, x in arrays.items()}
    count = len(arrays["x"])
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, 0, first)[0])

    def body(total, piece):
        i, rows = piece
        value, *others = function(i, spread.get()(rows))
        return jax.tree.map(jnp.add, total, value), others

    return jax.lax.scan(body, total, (jnp.arange(count), arrays))


xp = Namespace(jnp, zeros_like=zeros_like)
compiled_xp = Namespace(jnp, accumulate=accumulate)  # inside code that JAX compiles
spread: ContextVar[Callable] = ContextVar("spread")  # `JaxBackend.spread` of the backend that compiles


@contextlib.contextmanager
def float32_products():
    """A ``with`` block with float32 matrix products, which JAX rounds to fewer bits on GPUs and TPUs by default."""
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    with jax.default_matmul_precision(asked or "highest"):
        yield


class JaxBackend(Backend):
    compiles = True
    exchanges = False
    jit_options: ClassVar[dict[str, Any]] = {}

    def owns(self, x: Any) -> bool:
        return isinstance(x, jax.Array)

    def scope(self):
        """Return a ``with`` block in which JAX has float64 if this backend needs it."""
        return enable_x64(True) if self.float_name == "float64" else contextlib.nullcontext()

    def enable(self) -> None:
        if self.float_name == "float64":
            jax.config.update("jax_enable_x64", True)

    def _from_numpy(self, x: np.ndarray) -> jax.Array:
        self.require_representable(x)
        if self.device.platform == "cpu" and x.nbytes > SMALL:
            x = aligned(x)
        return jax.device_put(x, self.device)

    def require_representable(self, x: np.ndarray) -> None:
        if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and x.size and not jax.config.read("jax_enable_x64"):
            lowest, highest = x.min(), x.max()
            if lowest < -(2**31) or highest >= 2**31:  # JAX would silently truncate them to 32 bits
                raise ValueError(
                    'Integers must fit into 32 bits in JAX. Pass dtype="float64" to set_backend, or set jax_enable_x64. '
                    f"Received: integers from {lowest} to {highest}"
                )

    def _device_name(self) -> str:
        return f"{self.device.platform}:{self.device.id}"

    def copy(self, tree):
        return jax.device_put(tree, self.device, may_alias=False)

    def synchronize(self) -> None:
        jax.effects_barrier()
        jnp.zeros((), device=self.device).block_until_ready()

    def gather(self, x: jax.Array, index: jax.Array) -> jax.Array:
        return x.at[index].get(mode="promise_in_bounds")

    def call(self, function, *args):
        return _compiled(function, (self, "call"), self.compile_call)(*args)

    def compile_call(self, function):
        @partial(jax.jit, **self.jit_options)
        @float32_products()
        def call(*args):
            return function()(*[self.spread(arg) if isinstance(arg, dict) else arg for arg in args])

        return call

    def scan(self, step, state, batches, data):
        floats = {name: x.astype(self.float_name, copy=False) for name, x in batches.items() if x.dtype.kind == "f"}
        # jit moves host arrays 10 times faster than asarray
        return _compiled(step, self, self.compile_scan)(state, batches | floats, data)

    def spread(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Divide the rows of a batch among devices, inside compiled code. Other arrays stay as they are."""
        return arrays

    def compile_scan(self, step):
        @partial(jax.jit, donate_argnames="state", **self.jit_options)
        @float32_products()
        def scan(state, batches, data):
            def body(state, batch):
                batch = dict(batch)
                spread.set(self.spread)
                return step()(state, self.spread(batch | self.rows(data, batch.pop("index", None))))

            return jax.lax.scan(body, state, batches)

        return scan

    @float32_products()
    def scan_eagerly(self, step, state, batches, data):
        return super().scan_eagerly(step, state, batches, data)


class JaxDevices(JaxBackend):
    """Several devices. Each holds all data and parameters, and computes some rows of every batch. They are one "device".

    The step is the same function as on one device. Its batch is divided by rows, so the compiler divides the operations on
    it, and adds up the gradients. Results are those of one device up to rounding.
    """

    def __repr__(self) -> str:
        return f"<xpnet backend jax on {self.device.num_devices} devices of {self._platform}, {self.float_name}>"

    def __reduce__(self):
        return unpickle, ("jax", self._platform, self.float_name, self.device.num_devices)

    @property
    def _platform(self) -> str:
        return self.device.mesh.devices.flat[0].platform

    @property
    def jit_options(self) -> dict[str, Any]:  # type: ignore[override]
        return {"out_shardings": self.device}  # all results on all devices

    def _from_numpy(self, x):
        self.require_representable(x)
        return jax.device_put(x, self.device)

    def spread(self, arrays):
        by_rows = NamedSharding(self.device.mesh, PartitionSpec("rows"))
        batch = {name: arrays[name] for name in ("x", "y", "weight") if name in arrays}
        return arrays | jax.lax.with_sharding_constraint(batch, by_rows)


def aligned(x: np.ndarray) -> np.ndarray:
    """Return `x`, or a copy, in memory that JAX can share: it begins at a multiple of 64 bytes.

    JAX copies other arrays, in five times the processor time of NumPy's copy.
    """
    if x.ctypes.data % 64 == 0:
        return x
    memory = np.empty(x.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


# The compiled code of each function. It holds only a weak reference to the function, so it is released with the function.
# jax.jit with a static argument would keep both forever.
compiled_functions: weakref.WeakKeyDictionary[Any, dict[Any, Callable]] = weakref.WeakKeyDictionary()


def _compiled(function: Callable, kind: Any, make: Callable) -> Callable:
    made = compiled_functions.setdefault(function, {})
    if kind not in made:
        made[kind] = make(weakref.ref(function))
    return made[kind]


def create(device: Any, dtype: str, devices: int | None = None) -> JaxBackend:
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    try:
        chosen = _device(device)
    except (RuntimeError, IndexError, ValueError) as error:
        raise BackendNotAvailableError(
            f'The device must be one that JAX can use ({str(error).splitlines()[0]}). Use a name such as "cpu" or "cuda:0". '
            f"This machine has {jax.devices()}. Received: device={device!r}"
        ) from error
    example = jax.device_put(np.zeros(0), chosen)
    register_namespace(type(example), xp)
    # the type of what stands for an array in code that is compiled
    jax.eval_shape(lambda x: register_namespace(type(x), compiled_xp), example)
    if devices is None:
        return JaxBackend("jax", xp, chosen, getattr(jnp, dtype))
    here = jax.devices(chosen.platform)
    if count("devices", devices) > len(here):
        raise BackendNotAvailableError(
            f"devices must be at most {len(here)}, the number of JAX's {chosen.platform} devices. On a CPU, the environment "
            f"variable XLA_FLAGS=--xla_force_host_platform_device_count=4 makes four. Received: {devices=}"
        )
    mesh = Mesh(np.array(here[:devices]), ("rows",))
    return JaxDevices("jax", xp, NamedSharding(mesh, PartitionSpec()), getattr(jnp, dtype))


def _device(device: Any) -> Any:
    if not isinstance(device, (str, type(None))):
        return device
    platform, _, number = (device or "").partition(":")
    return jax.devices(platform or None)[int(number or 0)]
