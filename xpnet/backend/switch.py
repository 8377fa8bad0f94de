"""The current backend: the process default, the override of a context, or the environment variable XPNET_BACKEND."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import array_api_compat
import numpy as np

from xpnet.backend.base import Backend
from xpnet.checks import require_choice, unknown_name
from xpnet.errors import BackendNotAvailableError, install_command
from xpnet.tree import Array

log = logging.getLogger("xpnet")

EXTRAS = {
    "numpy": "",  # installed with xpnet
    "cupy": "cuda12",
    "torch": "torch",
    "jax": "jax",
    "array_api_strict": "test",
}
_BY_PACKAGE = {"cupy": "cupy", "torch": "torch", "jax": "jax", "jaxlib": "jax", "array_api_strict": "array_api_strict"}
_ELSEWHERE = {
    "pytorch": '"torch"',
    "cuda": '"cupy", or "torch" with device="cuda"',
    "gpu": '"cupy" or "auto"',
    "cpu": '"numpy"',
}

_default: Backend | None = None
_override: ContextVar[Backend | None] = ContextVar("xpnet_backend", default=None)
_fallback_said = False


def set_backend(name: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any) -> Backend:
    """Choose the backend for every model and array created from now on, in all threads.

    Parameters
    ----------
    name : {"numpy", "cupy", "torch", "jax", "array_api_strict", "auto"} or Backend
        ``"auto"`` means CuPy if a CUDA device responds, and NumPy otherwise.
    device : optional
        A device in the library's notation, such as ``"cuda:1"``. The default is the library's default device.
    dtype : {"float32", "float64"}, default "float32"
        The default float type. With JAX, ``"float64"`` enables ``jax_enable_x64``.
    threads : int, optional
        NumPy only: the number of threads in all matrix products. By default, steps with fewer than ten million
        multiplications in their forward pass use one thread. Larger steps use the current number (from the cores of the
        process, ``OPENBLAS_NUM_THREADS`` or threadpoolctl). Where a batch has many more activations than the network has
        parameters, as in small convolutional networks, the threads compute parts of the batch instead; see docs/scaling.md.
        The same number gives the same bits, but a different number may round differently. The number belongs to the process,
        and xpnet sets it while it computes. If several models compute at once, the last one to begin sets it, and the last
        one to end restores the previous number.
    devices : int, optional
        JAX only: the number of devices that compute the rows of each batch. Each holds all data and parameters.
    graphs : bool, default False
        CuPy only: capture the training step in a CUDA graph and replay it. This was tested on an emulated device, not yet on
        a GPU.

    Returns
    -------
    Backend

    Raises
    ------
    BackendNotAvailableError
        The package, the driver or the device is missing.
    ValueError
        The name, the form of the device, the dtype or an option is invalid.
    """
    global _default
    backend = make_backend(name, device=device, dtype=dtype, **options)
    backend.enable()
    _default = backend
    return _default


@contextmanager
def use_backend(
    name: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any
) -> Iterator[Backend]:
    """Like `set_backend`, but only inside a ``with`` block and for the current thread or task."""
    backend = make_backend(name, device=device, dtype=dtype, **options)
    backend.enable()
    token = _override.set(backend)
    try:
        yield backend
    finally:
        _override.reset(token)


def get_backend() -> Backend:
    """Return the current backend, from the enclosing `use_backend`, `set_backend` or XPNET_BACKEND; otherwise NumPy."""
    backend = _override.get() or _default
    return backend if backend is not None else set_backend(os.environ.get("XPNET_BACKEND") or "numpy")


def make_backend(name: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any) -> Backend:
    """Return a backend without making it the current one. The arguments are those of `set_backend`."""
    if isinstance(name, Backend):
        if device is not None or dtype is not None or options:
            raise ValueError(
                "A Backend object already has its device and settings, so no other arguments may be given. "
                f"Received: {device=}, {dtype=}, {options}"
            )
        return name
    if dtype is not None:
        require_choice("dtype", dtype, "float32", "float64")
    if name == "auto":
        return _auto(device, dtype, options)
    if name not in EXTRAS:
        raise unknown_name("The backend must be one of", name, [*EXTRAS, "auto"], _ELSEWHERE)
    try:
        library = importlib.import_module(f"xpnet.backend.{name}")
    except Exception as error:  # a broken library raises OSError, RuntimeError, ...
        if importlib.util.find_spec(name) is not None:
            raise BackendNotAvailableError(
                f"The package {name} is installed, but cannot be imported. Reinstall it. Received: {error}"
            ) from error
        raise BackendNotAvailableError(
            f"The package {name} is not installed. Run: {install_command(EXTRAS[name])}"
            + (" (or cuda13 instead of cuda12; nvidia-smi shows the CUDA version)" if name == "cupy" else "")
        ) from error
    unknown = options.keys() - inspect.signature(library.create).parameters
    if unknown:
        raise ValueError(f"The backend {name} has no option {', '.join(sorted(unknown))}. Omit it. Received: {options}")
    return library.create(device, dtype or "float32", **options)


def backend_of_array(x: Any) -> Backend | None:
    """Return the backend of an array's library, device and floating type, or None for NumPy arrays and anything else."""
    name = _BY_PACKAGE.get(type(x).__module__.partition(".")[0])
    if name is None or not hasattr(x, "dtype"):
        return None
    backend = make_backend(name, device=array_api_compat.device(x))
    dtype = str(x.dtype).rpartition(".")[2]
    return backend.computing_in(dtype) if dtype in ("float32", "float64") else backend


def _auto(device: Any, dtype: str | None, options: dict[str, Any]) -> Backend:
    global _fallback_said
    try:
        return make_backend("cupy", device=device, dtype=dtype, **options)
    except BackendNotAvailableError as error:
        if not _fallback_said:
            log.warning("Backend auto: training on the CPU with NumPy. %s", error)
            _fallback_said = True
        return make_backend("numpy", dtype=dtype)


def available_backends() -> dict[str, str]:
    """Return each backend's name with ``"usable"`` or the reason why it is not. This imports every installed library."""
    reasons = {}
    for name in EXTRAS:
        try:
            reasons[name] = f"usable ({make_backend(name).device})"
        except BackendNotAvailableError as error:
            reasons[name] = str(error)
    return reasons


def asarray(x: Any, dtype: Any = None) -> Array:
    """Move `x` to the current backend. Arrays that are already there are not copied; see `Backend.asarray`."""
    return get_backend().asarray(x, dtype)


def show_versions() -> None:
    """Print the versions, BLAS library and backends for a bug report."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    print(f"Python           {platform.python_version()}, {platform.platform()}")
    for package in ("xpnet", "numpy", "array-api-compat", "cupy", "torch", "jax", "array-api-strict", "scikit-learn"):
        print(f"{package:16} {_version(package)}")
    print(f"BLAS             {blas.get('name', 'unknown')} {blas.get('version', '')}, {os.cpu_count()} CPUs")
    for name, reason in available_backends().items():
        print(f"{name:16} {reason}")
    print(f"in force         {get_backend()}")


def _version(package: str) -> str:
    metadata = importlib.import_module("importlib.metadata")  # takes 10 ms, so only bug reports import it
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package == "cupy" else (package,):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "not installed"
