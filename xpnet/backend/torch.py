"""PyTorch, on any of its devices, without autograd."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch
import numpy as np
import torch

from xpnet.backend.base import Backend, keep_freed_memory, register_namespace
from xpnet.backend.namespaces import Namespace
from xpnet.errors import BackendNotAvailableError


# array-api-compat converts numbers to tensors: a call takes 9 µs for 100 x 100 elements instead of 3
def maximum(x1, x2, /):
    return torch.clamp(x1, min=x2) if isinstance(x2, float) else array_api_compat.torch.maximum(x1, x2)


def minimum(x1, x2, /):
    return torch.clamp(x1, max=x2) if isinstance(x2, float) else array_api_compat.torch.minimum(x1, x2)


def sliding_windows(x, axis, size, stride, dilation):
    """See `xpnet.backend.indexing.sliding_windows`."""
    return x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]


xp = Namespace(array_api_compat.torch, maximum=maximum, minimum=minimum, sliding_windows=sliding_windows)
register_namespace(torch.Tensor, xp)


# PyTorch has few functions for these types, so they are converted to wider signed ones
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


class TorchBackend(Backend):
    def owns(self, x: Any) -> bool:
        return isinstance(x, torch.Tensor)

    def _from_numpy(self, x: np.ndarray) -> torch.Tensor:
        if x.dtype.kind == "u" and x.dtype.itemsize > 1:
            x = _signed(x)
        shared = torch.from_numpy if x.flags.writeable else torch.tensor  # a tensor cannot be read-only
        return shared(x).to(self.device)

    def asarray(self, x: Any, dtype: Any = None) -> torch.Tensor:
        if isinstance(x, torch.Tensor) and x.dtype in UNSIGNED:
            x = _signed(x.cpu().numpy())
        x = super().asarray(x, dtype)
        return x.detach() if x.requires_grad else x

    def threads_in_use(self) -> int | None:
        return torch.get_num_threads() if self.device.type == "cpu" else None

    def synchronize(self) -> None:
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def gather(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.index_select(x, 0, index)  # 4 µs faster than array-api-compat's take

    @torch.no_grad()
    def call(self, function, *args):
        return super().call(function, *args)

    @torch.no_grad()
    def scan_eagerly(self, step, state, batches, data):
        return super().scan_eagerly(step, state, batches, data)


def _signed(x: np.ndarray) -> np.ndarray:
    if x.dtype.itemsize == 8 and x.size and x.max() > np.iinfo(np.int64).max:
        raise ValueError(f"Integers must be at most 2**63 - 1 in PyTorch. Pass x.astype(float). Received: {x.max()}")
    return x.astype({2: np.int32, 4: np.int64, 8: np.int64}[x.dtype.itemsize])


def create(device: Any, dtype: str) -> TorchBackend:
    try:
        chosen = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        no_cuda = " For CUDA, install a CUDA build of PyTorch and a driver." * (not torch.cuda.is_available())
        raise BackendNotAvailableError(
            f"The device must be one that PyTorch can use on this machine ({str(error).splitlines()[0]}). Use "
            f'device="cpu" or another.{no_cuda} Received: device={device!r}'
        ) from error
    keep_freed_memory()
    return TorchBackend("torch", xp, chosen, getattr(torch, dtype))
