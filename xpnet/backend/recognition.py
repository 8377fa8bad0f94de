"""Which objects hold data, and how they are read: by type, never by timing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import array_api_compat
import numpy as np

ARRAYS, ROWS, SAMPLES, BATCHES = "arrays", "rows", "samples", "batches"
READ = (SAMPLES, BATCHES)  # x and y come together


def kind(x: Any, y: Any, predicts: bool = False) -> str:
    """Return how to read this data: as arrays, by rows on disk, by samples of a dataset, or in batches."""
    if y is None and not isinstance(x, np.ndarray):
        if _is_torch_dataset(x):
            return SAMPLES
        if _gives_batches(x, predicts):
            return BATCHES
    return ROWS if is_stored(x) or is_stored(y) else ARRAYS


def _is_array(x: Any) -> bool:
    """Whether an array library, a table or NumPy's conversion makes an array of `x`."""
    names = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__", "toarray")
    return array_api_compat.is_array_api_obj(x) or any(hasattr(x, name) for name in names)


def is_stored(x: Any) -> bool:
    """Whether `x` is read row by row: a memory-mapped file, a dataset in chunks, or an object that only gives its rows."""
    if isinstance(x, np.ndarray):
        return getattr(x, "_mmap", None) is not None
    if isinstance(x, (Sequence, Mapping, Set, memoryview)) or not hasattr(x, "__getitem__"):
        return False
    if _is_array(x):
        return all(hasattr(x, name) for name in ("__array__", "shape", "dtype", "chunks"))
    return hasattr(x, "shape") or hasattr(x, "__len__")


def _gives_batches(x: Any, predicts: bool) -> bool:
    if isinstance(x, (str, bytes, Mapping, Set)) or _is_array(x) or hasattr(x, "shape"):
        return False
    if isinstance(x, Sequence):
        return not predicts  # to `predict`, a list is an array
    return isinstance(x, Iterable) or (hasattr(x, "__getitem__") and hasattr(x, "__len__"))


def _is_torch_dataset(x: Any) -> bool:
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is None or not isinstance(x, torch_data.Dataset):
        return False
    if isinstance(x, torch_data.IterableDataset):
        raise ValueError(
            "An IterableDataset needs a DataLoader, which makes its batches: fit(DataLoader(dataset, batch_size=32)). "
            f"Received: {type(x).__name__}"
        )
    return True
