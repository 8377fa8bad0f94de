"""From what people hand over to NumPy arrays of real numbers, or an error that says what to do with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import array_api_compat
import numpy as np

from xpnet.tree import Array


def to_numpy(x: Array) -> np.ndarray:
    """Bring an array of any library, or whatever NumPy understands, home as a NumPy array.

    What is in host memory already is not copied: the result may share its memory with `x`.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError(
            "Masked values have no meaning here. Fill them first: x.filled(value). Received: a masked array"
        )
    if isinstance(x, np.ndarray):
        return np.asarray(x)  # matrices and other subclasses have operators of their own
    if array_api_compat.is_torch_array(x):
        return x.detach().cpu().resolve_conj().numpy()
    if array_api_compat.is_cupy_array(x):
        return x.get()
    if type(x).__module__.startswith("array_api_strict"):
        return np.from_dlpack(x)
    return np.asarray(x)


def real_numbers(x: Any) -> np.ndarray:
    """`to_numpy` of what holds real numbers, tables of numbers and truth values included.

    Raises
    ------
    ValueError
        It holds anything else; the message names what came and how to make numbers of it.
    """
    what = "None" if x is None else f"an object of type {type(x).__name__}"
    none = ValueError(f"An array of numbers is needed, and here is none. Received: {what}")
    if isinstance(x, (dict, set)) or x is None:
        raise none
    if isinstance(x, Iterator) or _gives_batches(x):
        raise ValueError(
            "An array of numbers is needed, with all samples. Put what the batches hold together: "
            f"x = np.concatenate([x for x, y in batches]), and y likewise. Received: {what}"
        )
    if hasattr(x, "toarray") and not hasattr(x, "__array__"):
        raise ValueError(f"A dense array of numbers is needed: x.toarray(). Received: {what}")
    try:
        array = _table(x) if hasattr(x, "iloc") else to_numpy(x)
    except (ValueError, TypeError, RuntimeError) as error:
        if not hasattr(x, "shape"):
            raise ValueError(
                "An array of numbers is needed: rows of one length, np.stack of arrays of one shape. Pad what is shorter. "
                f"Received: {what} that makes none ({error})"
            ) from error
        if array_api_compat.is_torch_array(x):
            raise ValueError(
                "A dense tensor of a type that NumPy has is needed: x.to_dense(), x.float(). "
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
    """Whether `x` is iterated over and is no sequence: PyTorch's DataLoader, TensorFlow's Dataset."""
    return hasattr(x, "__iter__") and not hasattr(x, "__getitem__") and not hasattr(x, "__array__")


def _table(x: Any) -> np.ndarray:
    """A pandas table or column; where it mixes numbers, truth values or pandas' own types, as one type of NumPy."""
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
    except (ValueError, TypeError):  # a missing value: NaN, which is looked for later
        return x.to_numpy(dtype=float, na_value=np.nan)


def _dtypes(x: Any) -> list:
    """Of the columns of a pandas table, or of a column."""
    return list(x.dtypes) if x.ndim == 2 else [x.dtype]


def _described(x: Any, array: np.ndarray) -> str:
    if hasattr(x, "iloc") and x.ndim == 2:
        columns = [
            f"{name!r} ({dtype})" for name, dtype in x.dtypes.items() if getattr(dtype, "kind", "O") not in "fiub"
        ]
        return f"a table with the columns {', '.join(columns[:5])}{' and more' if len(columns) > 5 else ''}"
    made = "" if hasattr(x, "dtype") else f" from a {type(x).__name__}"
    return f"an array of dtype {array.dtype}{made}"


def _remedy(array: np.ndarray) -> str:
    kind = array.dtype.kind
    if kind == "c":
        return "Split them: np.stack([x.real, x.imag], axis=-1)."
    if kind in "mM" or any(isinstance(value, (date, timedelta)) for value in array.flat):
        return "Make numbers of dates and durations, for example x / np.timedelta64(1, 'D')."
    if kind == "V":
        return "Make columns of the fields: numpy.lib.recfunctions.structured_to_unstructured(x)."
    first: Any = next((value for value in array.flat if value is not None), 0)
    if isinstance(first, (list, tuple)) or np.ndim(first) > 0:
        return "Put arrays of one shape together: np.stack(list(x)); pad what is shorter."
    try:
        numbers = array.astype(float)
    except (ValueError, TypeError):
        return "Make numbers of text: y = np.unique(y, return_inverse=True)[1] for labels, pandas.get_dummies(x) for columns."
    if kind == "O" and np.any(array == None):  # noqa: E711, elementwise
        return "Fill or drop missing values (None): x.astype(float) makes NaN of them."
    whole = np.all(numbers == np.rint(numbers))
    return f"These are numbers in another type: x.astype(float){', or astype(int) for labels' if whole else ''}."
