"""array-api-strict, for tests: NumPy that rejects everything that the standard does not guarantee."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np

from xpnet.backend.base import Backend


class StrictBackend(Backend):
    def owns(self, x: Any) -> bool:
        return type(x).__module__.startswith("array_api_strict")

    def _from_numpy(self, x: np.ndarray) -> Any:
        return xp.asarray(x, device=self.device, copy=True)

    def _device_name(self) -> str:
        return self.device._device


def create(device: Any, dtype: str) -> StrictBackend:
    known = xp.__array_namespace_info__().devices()
    chosen = device if device in known else xp.Device(device or "CPU_DEVICE")
    return StrictBackend("array_api_strict", xp, chosen, getattr(xp, dtype))
