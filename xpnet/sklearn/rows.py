"""Samples as SciPy's sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backend import Backend


class SparseRows:
    """A sparse matrix with the operations that `Dense` and `Backend.gather` use: x @ W, xᵀ @ dy and rows by number.

    Products are dense, so only the first layer sees this class. It works on NumPy; other backends receive dense rows.
    """

    def __init__(self, matrix: Any):
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def take(self, index: np.ndarray, axis: int) -> SparseRows:
        return SparseRows(self.matrix[index])

    @property
    def mT(self) -> SparseRows:
        return SparseRows(self.matrix.T)

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        return self.matrix @ other


def on_device(backend: Backend, X: Any) -> Any:
    """Move samples to the device. Only NumPy keeps sparse samples sparse."""
    if hasattr(X, "tocsr"):
        return SparseRows(X.tocsr()) if backend.name == "numpy" else backend.asarray(X.toarray())
    return backend.asarray(X)
