"""Sums of CuPy arrays over processes with a GPU each, which NCCL moves from GPU to GPU; see `xpnet.distributed`."""

from __future__ import annotations

import importlib
import threading
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cupy

from xpnet.backend.base import Backend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CuPy's warning if the library is missing; `connect` says so
    nccl = importlib.import_module("cupy.cuda.nccl")

PATIENCE = 60.0  # seconds in which NCCL must have connected the processes


def gpu(backend: Backend) -> bytes:
    """Return what identifies the backend's GPU among those of all machines."""
    return cupy.cuda.runtime.getDeviceProperties(backend.device.id)["uuid"]


def connect(backend: Backend, gpus: tuple[bytes, ...], rank: int, gather: Callable[[Any], list[Any]]) -> Sum | None:
    """Connect the processes, which all call this. Return None in all of them, with a warning of rank 0, if that fails in any.

    `gpus` are those of all processes, and ``gather(value)`` returns the values of all of them, in the order of the ranks.
    """
    communicator, reason = _communicator(backend, gpus, rank, gather)
    if not reason:
        return Sum(communicator, rank, len(gpus))
    if communicator is not None:
        communicator.abort()
    if rank == 0:
        warnings.warn(f"Gradients pass through the memory of the host, because {reason}", stacklevel=2)
    return None


def _communicator(backend: Backend, gpus: tuple[bytes, ...], rank: int, gather: Any) -> tuple[Any, str]:
    """Return the communicator of this process, if there is one, and why NCCL cannot be used: the same in all processes."""
    if len(set(gpus)) < len(gpus):
        return None, (
            "NCCL needs a GPU for each rank, and some ranks use the same one. Each chooses its own with "
            'set_backend("cupy", device=ranks.local_rank)'
        )
    unique_id, failure = _attempt(_unique_id, rank)
    unique_ids, failures = zip(*gather((unique_id, failure)), strict=True)
    found: list[Any] = []
    if not any(failures):
        arguments = backend, len(gpus), unique_ids[0], rank
        # NCCL's constructor returns only when all processes have called it. Therefore another thread waits for it
        threading.Thread(target=lambda: found.append(_attempt(_create, *arguments)), daemon=True).start()
    limit = time.monotonic() + PATIENCE
    while not any(failures):
        states = gather(found[0][1] if found else "it did not connect in time" if time.monotonic() > limit else None)
        if all(state == "" for state in states):
            break
        failures = tuple(state or "" for state in states)
        time.sleep(0.01)
    reasons = [f"NCCL failed in rank {number}: {failure}" for number, failure in enumerate(failures) if failure]
    return found[0][0] if found else None, reasons[0] if reasons else ""


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return the function's result and "", or None and its error."""
    try:
        return function(*arguments), ""
    except Exception as error:
        return None, str(error) or type(error).__name__


def _unique_id(rank: int) -> Any:
    """Return in rank 0 what all processes need for the same communicator."""
    if not nccl.available:
        version = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise ImportError(f"CuPy does not find its library. Install it: pip install nvidia-nccl-cu{version}")
    return nccl.get_unique_id() if rank == 0 else None


def _create(backend: Backend, size: int, unique_id: Any, rank: int) -> Any:
    with backend.scope():
        return nccl.NcclCommunicator(size, unique_id, rank)


class Sum:
    """The sum of an array over all processes, on their GPUs and on the current stream."""

    def __init__(self, communicator: Any, rank: int, size: int):
        self.communicator, self.rank, self.size = communicator, rank, size
        self.device = communicator.device_id()

    def owns(self, values: Any) -> bool:
        """Whether `values` is an array on the GPU of this process."""
        return isinstance(values, cupy.ndarray) and values.device.id == self.device

    def __call__(self, values: cupy.ndarray) -> cupy.ndarray:
        """Return the sum: each rank adds one slice of all values, always in the order of the ranks, and sends it to the others.

        NCCL's own sum has no fixed order. It moves as many bytes, 2 (n - 1) / n of the values.
        """
        values, count, stream = cupy.ascontiguousarray(values), len(values), cupy.cuda.get_current_stream().ptr
        length, width = -(-count // self.size), values.itemsize
        slices = cupy.empty((self.size, length), values.dtype)
        total = cupy.empty(self.size * length, values.dtype)
        own = min(length, max(0, count - self.rank * length))  # the last slices may be shorter, or empty
        nccl.groupStart()
        for peer, (begin, end) in enumerate(pairwise(min(i * length, count) for i in range(self.size + 1))):
            if begin < end:
                sent = values.data.ptr + begin * width, (end - begin) * width
                self.communicator.send(*sent, nccl.NCCL_UINT8, peer, stream)
            if own:
                self.communicator.recv(slices[peer].data.ptr, own * width, nccl.NCCL_UINT8, peer, stream)
        nccl.groupEnd()
        for one in slices[1:]:
            slices[0] += one
        self.communicator.allGather(slices.data.ptr, total.data.ptr, length * width, nccl.NCCL_UINT8, stream)
        return total[:count]
