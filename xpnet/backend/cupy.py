"""CuPy, on a CUDA GPU."""

from __future__ import annotations

import functools
import importlib
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import array_api_compat.cupy
import cupy
import numpy as np

from xpnet.backend.base import Backend, namespace, register_namespace
from xpnet.backend.cuda_kernels import COPIES, CudaKernels
from xpnet.backend.fusion import fused, register_kernels
from xpnet.backend.indexing import sliding_windows
from xpnet.backend.namespaces import Namespace
from xpnet.errors import BackendNotAvailableError, install_command
from xpnet.tree import Array, Tree, from_leaves, leaves

NO_DRIVER, NO_DEVICE = 35, 100  # cudaErrorInsufficientDriver, cudaErrorNoDevice
CUDA = 2  # kDLCUDA, DLPack's number for CUDA devices


def sign(x: Array, /) -> Array:
    """Return -1, 0, 1 or NaN. CuPy's `sign` returns 0 for NaN, and array-api-compat's waits for the device to count NaNs."""
    return cupy.where(x == x, cupy.sign(x), x) if x.dtype.kind == "f" else cupy.sign(x)


def clip(x: Array, /, min: Any = None, max: Any = None) -> Array:
    """Clip `x` to bounds. array-api-compat's `clip` waits for the device."""
    if min is not None:
        x = cupy.maximum(x, min)
    return x if max is None else cupy.minimum(x, max)


def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Σ x1 x2 over an axis, for real numbers. array-api-compat computes a matrix product for each row."""
    return cupy.sum(x1 * x2, axis=axis)


kernels = CudaKernels(cupy)


def concat(arrays, /, *, axis=0):
    if axis is None or not 1 < len(arrays) <= COPIES:
        return array_api_compat.cupy.concat(arrays, axis=axis)  # type: ignore[attr-defined]
    return kernels.concat(arrays, axis)


def stack(arrays, /, *, axis=0):
    axis %= arrays[0].ndim + 1
    return concat([cupy.expand_dims(x, axis) for x in arrays], axis=axis)


xp = Namespace(
    array_api_compat.cupy, concat=concat, stack=stack, sign=sign, clip=clip, vecdot=vecdot,
    sliding_windows=functools.partial(sliding_windows, cupy.lib.stride_tricks.as_strided),
)  # fmt: skip
register_namespace(cupy.ndarray, xp)
register_kernels(cupy.ndarray, kernels)


@dataclass(frozen=True, repr=False)
class CupyBackend(Backend):
    """The CuPy backend. CuPy puts new arrays on the current device, not on their operands', so `scope` sets the current device.

    Attributes
    ----------
    graphs : bool
        Whether `scan` captures its step in a CUDA graph and replays it; see `xpnet.backend.cuda_graph`.
    """

    graphs: bool = False

    @property
    def exchanges(self) -> bool:  # type: ignore[override]
        return not self.graphs

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + (", graphs>" if self.graphs else ">")

    def __hash__(self) -> int:  # CuPy's devices are not hashable
        return hash((self.name, self.device.id, self.float_name, self.graphs))

    def __reduce__(self):
        return create, (self.device.id, self.float_name, self.graphs)

    def owns(self, x: Any) -> bool:
        return isinstance(x, cupy.ndarray)

    def scope(self) -> AbstractContextManager:
        return self.device

    def asarray(self, x: Any, dtype: Any = None) -> cupy.ndarray:
        with self.device:
            return super().asarray(x if self.owns(x) else _where_it_lies(x), dtype)

    def _from_numpy(self, x: np.ndarray) -> cupy.ndarray:
        return cupy.asarray(x)

    def send(self, arrays):
        """Upload host arrays on a side stream, while the computing stream computes.

        CuPy's pool reuses the memory of an upload for a later upload as soon as Python frees it. Therefore only the copies below
        read this memory, and later uploads wait for them. The arrays that are returned belong to the computing stream.
        """
        with self.device, upload_stream(self.device.id) as side:
            # CuPy copies each array to pinned memory, which it keeps until the upload has ended
            sent = {name: cupy.asarray(x) for name, x in arrays.items()}
            arrived = side.record()

        def receive():
            with self.device:
                computing = cupy.cuda.get_current_stream()
                computing.wait_event(arrived)
                received = {name: x.copy() for name, x in sent.items()}
                side.wait_event(computing.record())
                sent.clear()
            return received

        return receive

    def copy(self, tree: Tree) -> Tree:
        with self.device:
            return super().copy(tree)

    def to_host(self, tree: Tree) -> Tree:
        arrays = leaves(tree)
        with self.device:
            # One transfer for all arrays, because each transfer waits for the device
            packed = cupy.concatenate([x.ravel().view("uint8") for x in arrays]).get()
        parts = np.split(packed, np.cumsum([x.nbytes for x in arrays])[:-1])
        return from_leaves(tree, [part.view(x.dtype).reshape(x.shape) for part, x in zip(parts, arrays, strict=True)])

    def synchronize(self) -> None:
        self.device.synchronize()

    def gather(self, x: cupy.ndarray, index: cupy.ndarray) -> cupy.ndarray:
        return cupy.take(x, index, axis=0)

    def rows(self, data, index):
        if index is None:
            return data

        def rule(index, *arrays):
            return tuple([namespace(x).take(x, index, axis=0) for x in arrays])

        return dict(zip(data, fused(rule, index, *data.values()), strict=True))

    def call(self, function, *args):
        with self.device:
            return super().call(function, *args)

    def scan(self, step, state, batches, data):
        if not self.graphs:
            return super().scan(step, state, batches, data)
        with self.device:
            return graph_scan(self.device.id, self.float_name)(step, state, batches, data)

    def scan_eagerly(self, step, state, batches, data):
        with self.device:
            return super().scan_eagerly(step, state, batches, data)


def _where_it_lies(x: Any) -> Any:
    """Return another library's array in CUDA memory as a CuPy array with the same memory, or any other `x` unchanged."""
    if array_api_compat.is_torch_array(x):
        x = x.detach()  # PyTorch does not export tensors that require gradients
    if getattr(x, "__dlpack_device__", lambda: (None,))()[0] == CUDA:
        return cupy.from_dlpack(x)
    return cupy.asarray(x) if hasattr(x, "__cuda_array_interface__") else x


@functools.cache
def upload_stream(device: int) -> Any:
    """Return the stream for uploads that overlap computation on a device. `device` must be the current one."""
    return cupy.cuda.Stream(non_blocking=True)


@functools.cache
def graph_scan(device: int, float_name: str) -> Any:
    """Return the `GraphScan` of a device, with its stream, cuBLAS workspace and graphs. `device` must be the current one."""
    cuda_graph = importlib.import_module("xpnet.backend.cuda_graph")
    return cuda_graph.GraphScan(cupy, xp, float_name)


def create(device: Any, dtype: str, graphs: bool = False) -> CupyBackend:
    """Create the backend on a device: a number, a name such as ``"cuda:1"``, a CuPy device, or None for the current one.

    The thread's current device does not change.
    """
    count = _device_count()
    number = str(getattr(device, "id", device)).removeprefix("cuda:")
    if device in (None, "cuda", "gpu"):
        number = str(cupy.cuda.Device().id)
    if not number.isdigit() or int(number) >= count:
        raise BackendNotAvailableError(
            f'The device must be one of the {count} CUDA device(s) that CuPy finds, numbered from 0. Use "cuda:0" or 0. '
            f"Received: device={device!r}"
        )
    chosen = cupy.cuda.Device(int(number))
    with chosen, _explained(f"CuPy finds the CUDA device {number}, but cannot compute on it."):
        x = cupy.ones((2, 2), dtype=dtype)
        x @ x + x  # loads cuBLAS, and NVRTC for compilation
        upload_stream(chosen.id)  # created before several threads use it
    if graphs:
        with chosen, _explained("CuPy can compute, but graphs=True is not available."):
            graph_scan(chosen.id, dtype)
    return CupyBackend("cupy", xp, chosen, getattr(np, dtype), graphs)


def _device_count() -> int:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        remedy = {
            NO_DRIVER: "Install or update the NVIDIA driver, which is missing or older than CuPy's CUDA version",
            NO_DEVICE: "Check CUDA_VISIBLE_DEVICES and, in a container, --gpus all, because the driver reports no device",
        }.get(error.status, "Check the NVIDIA driver and CUDA_VISIBLE_DEVICES")
        raise BackendNotAvailableError(
            f"CuPy is installed, but needs a CUDA device. {remedy} (nvidia-smi shows the driver and the devices), or use "
            f'set_backend("numpy"). Received: {error}'
        ) from error
    if not count:
        raise BackendNotAvailableError(
            "CuPy is installed, but needs a CUDA device. Check CUDA_VISIBLE_DEVICES and, in a container, --gpus all, or use "
            'set_backend("numpy"). Received: a driver that reports no device'
        )
    return count


@contextmanager
def _explained(what: str):
    """Turn any exception into an error that says what to run."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackendNotAvailableError(
            f"{what} If a CUDA library (NVRTC, cuBLAS, headers) is missing or does not fit, this installs all of them: "
            f"{install_command('cuda12')} (or cuda13 instead of cuda12; nvidia-smi shows the CUDA version). Received: {reason}"
        ) from error
