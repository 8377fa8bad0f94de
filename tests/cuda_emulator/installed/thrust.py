"""Replaces CuPy's precompiled Thrust module, whose kernels need a GPU, with the sorts of `sort.cpp` on the current stream."""

import ctypes
import math

import cupy.cuda
import fakecuda
import numpy as np

available = True
_sort = fakecuda.library("libfakesort.so").fk_sort
_sort.argtypes = (
    [ctypes.c_void_p, ctypes.c_char, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    + [ctypes.c_size_t] * 2
    + [ctypes.c_int]
)


def get_build_version():
    return 200800


def _call(dtype, data, index, rows, n, lexical=0):
    dtype = np.dtype(dtype)
    status = _sort(
        cupy.cuda.get_current_stream().ptr, dtype.kind.encode(), dtype.itemsize, data, index, rows, n, lexical
    )
    if status == 801:
        raise NotImplementedError(f"Sorting arrays with dtype '{dtype}' is not supported")
    cupy.cuda.runtime.check_status(status)


def sort(dtype, data, keys, shape):
    _call(dtype, data, None, math.prod(shape[:-1]), shape[-1])


def argsort(dtype, index, data, keys, shape):
    _call(dtype, data, index, math.prod(shape[:-1]), shape[-1])


def lexsort(dtype, index, keys, k, n):
    _call(dtype, keys, index, k, n, 1)
