"""CuPy on a CUDA GPU."""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy as xp
import cupy
import numpy as np

from xpnet.backend.base import Backend
from xpnet.errors import BackendNotAvailableError


class CupyBackend(Backend):
    def owns(self, x: Any) -> bool:
        return isinstance(x, cupy.ndarray)

    def _from_numpy(self, x: np.ndarray) -> cupy.ndarray:
        with self.device:
            return cupy.asarray(x)

    def _device_name(self) -> int:
        return self.device.id

    def synchronize(self) -> None:
        self.device.synchronize()

    def gather(self, x: cupy.ndarray, index: cupy.ndarray) -> cupy.ndarray:
        return cupy.take(x, index, axis=0)

    def call(self, function, *args):
        with self.device:  # CuPy makes new arrays on the current device, not on their operands'
            return super().call(function, *args)

    def scan(self, step, state, batches, data):
        with self.device:
            return super().scan(step, state, batches, data)


def create(device: Any, dtype: str) -> CupyBackend:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendNotAvailableError(
            f"CuPy is installed, but no CUDA device answers: {error}. Install or update the NVIDIA driver (nvidia-smi "
            f'shows whether it runs), check CUDA_VISIBLE_DEVICES, or use set_backend("numpy").'
        ) from error
    number = 0 if device in (None, "cuda", "gpu") else device
    if isinstance(number, str):
        number = number.removeprefix("cuda:")
    if not str(number).isdigit() or int(number) >= count:
        raise BackendNotAvailableError(
            f'CuPy sees {count} CUDA device(s), numbered from 0. Use "cuda:0" or 0. Received: device={device!r}'
        )
    return CupyBackend("cupy", xp, cupy.cuda.Device(int(number)), np.dtype(dtype))
