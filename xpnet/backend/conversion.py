"""Conversion of user input to NumPy arrays of real numbers, or an error that explains what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import array_api_compat
import numpy as np

from xpnet.tree import Array


def to_numpy(x: Array) -> np.ndarray:
    """Convert an array of any library, or anything that NumPy accepts, to a NumPy array.

    Arrays in host memory are not copied, so the result may share memory with `x`.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError("Arrays must not be masked. Fill masked values with x.filled(value). Received: a masked array")
    if isinstance(x, np.ndarray):
        return np.asarray(x)  # np.matrix and other subclasses have different operators
    if array_api_compat.is_torch_array(x):
        return x.detach().cpu().resolve_conj().numpy()
    if array_api_compat.is_cupy_array(x):
        return x.get()
    if type(x).__module__.startswith("array_api_strict"):
        return np.from_dlpack(x)
    return np.asarray(x)


def real_numbers(x: Any) -> np.ndarray:
    """Like `to_numpy`, for arrays and tables of real numbers or truth values.

    Raises
    ------
    ValueError
        `x` contains anything else. The message names it and says how to convert it to numbers.
    """
    what = "None" if x is None else f"an object of type {type(x).__name__}"
    none = ValueError(f"An array of numbers is needed. Pass a NumPy array or a list of numbers. Received: {what}")
    if isinstance(x, (dict, set)) or x is None:
        raise none
    if isinstance(x, Iterator) or _gives_batches(x):
        raise ValueError(
            "An array of numbers is needed, with all samples. Pass batches (x, y) alone, as in fit(batches). Join other "
            f"batches with x = np.concatenate(batches). Received: {what}"
        )
    if hasattr(x, "toarray") and not hasattr(x, "__array__"):
        raise ValueError(f"A dense array of numbers is needed. Convert it with x.toarray(). Received: {what}")
    try:
        array = _table(x) if hasattr(x, "iloc") else to_numpy(x)
    except (ValueError, TypeError, RuntimeError) as error:
        if not hasattr(x, "shape"):
            raise ValueError(
                "An array of numbers is needed, with rows of the same length. Pad shorter rows, or join arrays of the same "
                f"shape with np.stack. Received: {what} that NumPy cannot convert ({error})"
            ) from error
        if array_api_compat.is_torch_array(x):
            raise ValueError(
                "A dense tensor with a NumPy dtype is needed. Convert it with x.to_dense() or x.float(). "
                f"Received: a tensor of dtype {x.dtype} and layout {x.layout}"
            ) from error
        raise
    if array.dtype.kind in "OUS" and not array.ndim:
        raise none
    if array.dtype.kind not in "fiub":
        dates = hasattr(x, "iloc") and any(getattr(dtype, "kind", "O") in "mM" for dtype in _dtypes(x))
        remedy = _remedy(np.empty(0, "M8[s]") if dates else array)
        raise ValueError(f"Arrays must hold real numbers. {remedy} Received: {_described(x, array)}")
    return array


def _gives_batches(x: Any) -> bool:
    """Whether `x` can only be iterated over, like PyTorch's DataLoader and TensorFlow's Dataset."""
    return hasattr(x, "__iter__") and not hasattr(x, "__getitem__") and not hasattr(x, "__array__")


def _table(x: Any) -> np.ndarray:
    """Convert a pandas table or column. If it mixes numbers, truth values or pandas' types, choose one NumPy type."""
    array = to_numpy(x)
    kinds = {getattr(dtype, "kind", "O") for dtype in _dtypes(x)}
    if array.dtype.kind != "O" or not kinds <= set("fiub"):
        return array
    if kinds == {"b"}:
        kind: type = bool
    else:
        kind = float if "f" in kinds else int
    try:
        return x.to_numpy(dtype=kind)
    except (ValueError, TypeError):  # a missing value becomes NaN, which is checked later
        return x.to_numpy(dtype=float, na_value=np.nan)


def _dtypes(x: Any) -> list:
    """Return the dtypes of a pandas table's columns, or of a column."""
    return list(x.dtypes) if x.ndim == 2 else [x.dtype]


def _described(x: Any, array: np.ndarray) -> str:
    if hasattr(x, "iloc") and x.ndim == 2:
        columns = [
            f"{name!r} ({dtype})" for name, dtype in x.dtypes.items() if getattr(dtype, "kind", "O") not in "fiub"
        ]
        return f"a table with columns {', '.join(columns[:5])}{' and more' if len(columns) > 5 else ''}"
    made = "" if hasattr(x, "dtype") else f" from a {type(x).__name__}"
    return f"an array of dtype {array.dtype}{made}"


def _remedy(array: np.ndarray) -> str:
    kind = array.dtype.kind
    if kind == "c":
        return "Split complex numbers with np.stack([x.real, x.imag], axis=-1)."
    if kind in "mM" or any(isinstance(value, (date, timedelta)) for value in array.flat):
        return "Convert dates and durations to numbers, for example with x / np.timedelta64(1, 'D')."
    if kind == "V":
        return "Convert the fields to columns with numpy.lib.recfunctions.structured_to_unstructured(x)."
    first: Any = next((value for value in array.flat if value is not None), 0)
    if isinstance(first, (list, tuple)) or np.ndim(first) > 0:
        return "Join arrays of the same shape with np.stack(list(x)), and pad shorter ones."
    try:
        numbers = array.astype(float)
    except (ValueError, TypeError):
        return (
            "Convert text to numbers: y = np.unique(y, return_inverse=True)[1] for labels, or pandas.get_dummies(x) for "
            "columns."
        )
    if kind == "O" and np.any(array == None):  # noqa: E711, elementwise
        return "Fill or drop missing values (None). x.astype(float) converts them to NaN."
    whole = np.all(numbers == np.rint(numbers))
    return f"Convert these numbers with x.astype(float){', or astype(int) for labels' if whole else ''}."
