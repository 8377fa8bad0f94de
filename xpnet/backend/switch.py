"""Which backend is in force: the process default, a context's override, the environment variable XPNET_BACKEND."""

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

import numpy as np

from xpnet.backend.base import Backend
from xpnet.checks import require_choice, unknown_name
from xpnet.errors import BackendNotAvailableError, install_command
from xpnet.tree import Array

log = logging.getLogger("xpnet")

EXTRAS = {
    "numpy": "",  # comes with xpnet
    "cupy": "cuda12",
    "torch": "torch",
    "jax": "jax",
    "array_api_strict": "test",
}
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
    """Choose the backend of every model and array made from now on, in all threads.

    Parameters
    ----------
    name : {"numpy", "cupy", "torch", "jax", "array_api_strict", "auto"} or Backend
        ``"auto"`` is CuPy when a CUDA device answers, else NumPy.
    device : optional
        The library's name for a device, such as ``"cuda:1"``; the library's default when not given.
    dtype : {"float32", "float64"}, optional
        The default float type, ``"float32"`` unless given. On JAX ``"float64"`` turns on ``jax_enable_x64``.
    threads : int, optional
        NumPy only: how many threads matrix products use, whatever their size. When not given, steps with fewer than ten
        million multiplications in their forward pass use one thread, and larger ones as many as are in force (by the cores of
        the process, ``OPENBLAS_NUM_THREADS``, threadpoolctl). The same number gives the same bits; another one may round
        differently. The number belongs to the process, and xpnet sets it while it computes: where several models compute at
        once, the last one to begin sets it, and the last one to end restores what it was.
    graphs : bool, default False
        CuPy only, and tested on an emulated device, not yet on a GPU: capture the training step in a CUDA graph and replay it.

    Raises
    ------
    BackendNotAvailableError
        The package, the driver or the device is missing.
    ValueError
        The name, the device's form, the dtype or an option is not known.
    """
    global _default
    _default = make_backend(name, device=device, dtype=dtype, **options)
    return _default


@contextmanager
def use_backend(
    name: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any
) -> Iterator[Backend]:
    """Like `set_backend`, inside a ``with`` block and for the current thread or task alone."""
    token = _override.set(make_backend(name, device=device, dtype=dtype, **options))
    try:
        yield get_backend()
    finally:
        _override.reset(token)


def get_backend() -> Backend:
    """The backend in force: of the enclosing `use_backend`, of `set_backend`, of XPNET_BACKEND, else NumPy."""
    backend = _override.get() or _default
    return backend if backend is not None else set_backend(os.environ.get("XPNET_BACKEND") or "numpy")


def make_backend(name: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any) -> Backend:
    """A backend by name, not put in force; the arguments are those of `set_backend`."""
    if isinstance(name, Backend):
        if device is not None or dtype is not None or options:
            raise ValueError(
                f"A Backend object has its device and dtype; give neither. Received: {device=}, {dtype=}, {options}"
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
            raise BackendNotAvailableError(f"The package {name} is installed but does not load: {error}") from error
        raise BackendNotAvailableError(
            f"The package {name} is not installed. Run: {install_command(EXTRAS[name])}"
            + (" (or cuda13 in place of cuda12; nvidia-smi shows the CUDA version)" if name == "cupy" else "")
        ) from error
    unknown = options.keys() - inspect.signature(library.create).parameters
    if unknown:
        raise ValueError(f"The backend {name} has no option {', '.join(sorted(unknown))}. Received: {options}")
    return library.create(device, dtype or "float32", **options)


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
    """Each backend's name with ``"usable"`` or the reason why not; this imports every installed one."""
    reasons = {}
    for name in EXTRAS:
        try:
            reasons[name] = f"usable ({make_backend(name).device})"
        except BackendNotAvailableError as error:
            reasons[name] = str(error)
    return reasons


def asarray(x: Any, dtype: Any = None) -> Array:
    """Bring `x` to the backend in force; what is there already is not copied, see `Backend.asarray`."""
    return get_backend().asarray(x, dtype)


def show_versions() -> None:
    """Print what a bug report needs: versions, BLAS, backends."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    print(f"Python           {platform.python_version()}, {platform.platform()}")
    for package in ("xpnet", "numpy", "array-api-compat", "cupy", "torch", "jax", "array-api-strict", "scikit-learn"):
        print(f"{package:16} {_version(package)}")
    print(f"BLAS             {blas.get('name', 'unknown')} {blas.get('version', '')}, {os.cpu_count()} CPUs")
    for name, reason in available_backends().items():
        print(f"{name:16} {reason}")
    print(f"in force         {get_backend()}")


def _version(package: str) -> str:
    metadata = importlib.import_module("importlib.metadata")  # 10 ms that only a bug report needs
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package == "cupy" else (package,):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "not installed"
