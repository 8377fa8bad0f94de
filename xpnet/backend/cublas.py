"""Matrix products that call cuBLAS directly, because CuPy's products cannot be captured in a CUDA graph.

cuBLAS stores matrices by columns, so it reads a matrix stored by rows as its transpose. The row-major product c = a b is
therefore requested as cᵀ = bᵀ aᵀ, without moving an operand. According to NVIDIA's documentation, cuBLAS can be captured if it
does not allocate its workspace itself, so this module provides one.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import weakref
from typing import Any

import numpy as np

from xpnet.tree import Array

NORMAL, TRANSPOSED = 0, 1  # cublasOperation_t
REAL_32F, REAL_64F = 0, 1  # cudaDataType_t
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70  # cublasComputeType_t
DEFAULT_ALGORITHM = -1  # cublasGemmAlgo_t
WORKSPACE_BYTES = 32 << 20  # recommended for Hopper in the cuBLAS manual
STATUS = {
    1: "not initialized", 3: "allocation failed", 7: "invalid value", 8: "architecture mismatch", 11: "mapping error",
    13: "execution failed", 14: "internal error", 15: "not supported", 16: "license error",
}  # fmt: skip

_int, _pointer, _stride = ctypes.c_int, ctypes.c_void_p, ctypes.c_longlong
_MATRIX = [_pointer, _int, _int]  # address, data type, leading dimension
_SIZES = [_pointer, _int, _int, _int, _int, _int, _pointer]  # handle, two operations, m, n, k, alpha
ARGUMENTS = {
    "cublasCreate_v2": [_pointer],
    "cublasDestroy_v2": [_pointer],
    "cublasSetStream_v2": [_pointer, _pointer],
    "cublasSetWorkspace_v2": [_pointer, _pointer, ctypes.c_size_t],
    "cublasGemmEx": [*_SIZES, *_MATRIX, *_MATRIX, _pointer, *_MATRIX, _int, _int],
    "cublasGemmStridedBatchedEx": [
        *_SIZES, *_MATRIX, _stride, *_MATRIX, _stride, _pointer, *_MATRIX, _stride, _int, _int, _int,
    ],
}  # fmt: skip


def load_library() -> Any:
    """Load the cuBLAS that CuPy uses, and declare the types of the arguments."""
    path = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas").abs_path
    return declare(ctypes.CDLL(path))


def declare(library: Any) -> Any:
    """Declare the argument types of the functions, because ctypes passes undeclared integers as 32 bits."""
    for name, types in ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, ctypes.c_int
    return library


def layout(x: Array) -> tuple[int, int] | None:
    """Return how cuBLAS can read the matrices in the last two axes of `x`, or None if it cannot.

    Returns
    -------
    operation : int
        NORMAL for a matrix stored by rows, TRANSPOSED for the transpose of one, such as ``x.mT``.
    leading dimension : int
        The number of elements from one stored row to the next.
    """
    (rows, columns), (down, right) = x.shape[-2:], (stride // x.itemsize for stride in x.strides[-2:])
    for operation, outer, inner, count, length in (
        (NORMAL, down, right, rows, columns),
        (TRANSPOSED, right, down, columns, rows),
    ):
        # The stride of an axis with one element has no meaning
        if (inner == 1 or length == 1) and (outer >= length or count == 1):
            return operation, max(outer if count > 1 else 0, length, 1)
    return None


def batch_stride(x: Array, batch: tuple[int, ...]) -> int | None:
    """Return the elements from one matrix of `x` to the next, with leading axes broadcast to `batch`; None if they vary."""
    missing = len(batch) - len(x.shape[:-2])
    sizes = (1,) * missing + tuple(x.shape[:-2])
    strides = (0,) * missing + tuple(x.strides[:-2])
    step = following = None
    for n, size, stride in zip(reversed(batch), reversed(sizes), reversed(strides), strict=True):
        if n == 1:
            continue
        stride = 0 if size == 1 else stride // x.itemsize
        if stride < 0 or (following is not None and stride != following):
            return None
        step = stride if step is None else step
        following = stride * n
    return step or 0


class Gemm:
    """``gemm(a, b)`` is ``a @ b`` on one stream, with a separate handle and workspace.

    Only one product at a time may use the workspace, so each stream needs its own `Gemm`.

    Parameters
    ----------
    cp : module
        CuPy, which allocates memory.
    stream : cupy.cuda.Stream
    library : optional
        cuBLAS. The default is the result of `load_library`.
    tf32 : bool, optional
        Whether to round float32 operands to a mantissa of 10 bits for the tensor cores. The default comes from CUPY_TF32, as
        in CuPy.
    """

    def __init__(self, cp: Any, stream: Any, library: Any = None, tf32: bool | None = None):
        self.cp = cp
        self.library = load_library() if library is None else library
        tf32 = int(os.environ.get("CUPY_TF32", "0")) > 0 if tf32 is None else tf32
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        one_64, zero_64 = ctypes.c_double(1), ctypes.c_double(0)
        self.kinds = {  # data type, compute type, alpha, beta
            "float32": (REAL_32F, COMPUTE_32F_FAST_TF32 if tf32 else COMPUTE_32F, one, zero),
            "float64": (REAL_64F, COMPUTE_64F, one_64, zero_64),
        }
        handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(handle))
        self.handle = handle.value
        weakref.finalize(
            self, self.library.cublasDestroy_v2, self.handle
        ).atexit = False  # CUDA has already shut down at exit
        self.workspace = cp.empty(WORKSPACE_BYTES, dtype="uint8")
        self._call("cublasSetStream_v2", self.handle, stream.ptr)  # first, because it resets the workspace
        self._call("cublasSetWorkspace_v2", self.handle, self.workspace.data.ptr, WORKSPACE_BYTES)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed: {STATUS.get(status, 'unknown error')} (status {status})")

    def takes(self, a: Array, b: Array) -> bool:
        """Whether this class can multiply operands of these types."""
        return all(getattr(x, "dtype", np.dtype("O")).name in self.kinds for x in (a, b))

    def __call__(self, a: Array, b: Array) -> Array:
        """Return ``a @ b`` for (..., m, k) and (..., k, n), with leading axes broadcast. (k,) means one row or one column."""
        dtype = np.promote_types(a.dtype, b.dtype)
        row, column = a.ndim == 1, b.ndim == 1
        a = (a[None, :] if row else a).astype(dtype, copy=False)
        b = (b[:, None] if column else b).astype(dtype, copy=False)
        (m, k), (k_b, n) = a.shape[-2:], b.shape[-2:]
        if k != k_b:
            raise ValueError(f"matmul needs equal inner sizes. Received: shapes {a.shape} and {b.shape}")
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        c = self.cp.empty((*batch, m, n), dtype=dtype)
        if not k:
            c.fill(0)
        elif c.size:
            self._product(a, b, c, batch)
        if row and column:
            return c[..., 0, 0]
        return c[..., 0, :] if row else c[..., 0] if column else c

    def _product(self, a: Array, b: Array, c: Array, batch: tuple[int, ...]) -> None:
        a, a_operation, a_leading, a_stride = self._readable(a, batch)
        b, b_operation, b_leading, b_stride = self._readable(b, batch)
        (m, k), n, count = a.shape[-2:], b.shape[-1], math.prod(batch)
        if max(m, n, k, count, a_leading, b_leading) > 2**31 - 1:
            raise ValueError(
                f"cuBLAS needs sizes below 2**31. Use smaller batches. Received: shapes {a.shape} and {b.shape}"
            )
        kind, compute, one, zero = self.kinds[c.dtype.name]
        start = self.handle, b_operation, a_operation, n, m, k, ctypes.byref(one)
        b_matrix, a_matrix, c_matrix = ((x.data.ptr, kind, ld) for x, ld in ((b, b_leading), (a, a_leading), (c, n)))
        beta = ctypes.byref(zero)
        if count == 1:
            self._call("cublasGemmEx", *start, *b_matrix, *a_matrix, beta, *c_matrix, compute, DEFAULT_ALGORITHM)
        else:
            self._call(
                "cublasGemmStridedBatchedEx", *start, *b_matrix, b_stride, *a_matrix, a_stride, beta,
                *c_matrix, m * n, count, compute, DEFAULT_ALGORITHM,
            )  # fmt: skip

    def _readable(self, x: Array, batch: tuple[int, ...]) -> tuple:
        """Return `x`, copied if cuBLAS cannot read it, with its operation, leading dimension and stride."""
        form, stride = layout(x), batch_stride(x, batch)
        if stride is None:
            x = self.cp.broadcast_to(x, (*batch, *x.shape[-2:]))
        if stride is None or form is None:
            x = self.cp.ascontiguousarray(x)
            form, stride = layout(x), batch_stride(x, batch)
        assert form is not None
        return x, *form, stride
