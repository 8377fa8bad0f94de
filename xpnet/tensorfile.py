"""Files of named arrays and a description: the format of safetensors, checked before anything else reads it.

A file consists of the length of its header (8 bytes), the header (JSON: type, shape and place of each array), and the arrays, one
after another. The description is JSON too, in the header's metadata. Nothing in a file is ever executed.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

import xpnet
from xpnet.checks import is_integer
from xpnet.errors import CheckpointError
from xpnet.files import StrPath, as_path, replacing, without_waiting

FORMAT = 1  # the version of the format; a file of a later version is refused
MAX_HEADER = 2**22  # bytes
MAX_ENTRIES = 200_000  # names, numbers and brackets of a header: one takes about 100 bytes of memory
DTYPES = {"F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64"}


@dataclass(frozen=True)
class Entry:
    """The type and shape of an array in a file."""

    dtype: str
    shape: tuple[int, ...]


class TensorFile(NamedTuple):
    """A file whose header has been checked: its description and its table of arrays."""

    path: Path
    description: dict[str, Any]
    table: dict[str, Entry]


def write(path: StrPath, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write a file. It replaces an existing file only when it is complete on disk.

    Raises
    ------
    CheckpointError
        An array has a type that is not in `DTYPES`; the description or the table is too long.
    OSError
        The file cannot be written. An existing file is kept.
    """
    path = as_path(path)
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES.values():
            expected = f"arrays of type {', '.join(DTYPES.values())}"
            raise CheckpointError(f"A model file holds {expected}. Received: {name} of type {array.dtype}")
    text = json.dumps({"format": FORMAT, "xpnet": xpnet.__version__, **description}, allow_nan=False)
    content = _safetensors("numpy").save(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}, {"xpnet": text}
    )
    _checked(path, io.BytesIO(content), len(content))
    with replacing(path) as file:
        file.write(content)


def read(path: StrPath) -> TensorFile:
    """Read the header of a file and check it against the file's size. Raise CheckpointError or OSError if anything is wrong."""
    path = as_path(path)
    with open(path, "rb", opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise refusal("a regular file", "a pipe, a socket or a device")
        return _checked(path, file, os.fstat(file.fileno()).st_size)


def arrays(file: TensorFile, names: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield arrays of a file, each read when its turn comes."""
    with _safetensors().safe_open(file.path, framework="numpy") as opened:
        for name in names:
            array = opened.get_tensor(name)
            if Entry(array.dtype.name, array.shape) != file.table[name]:
                raise refusal("a file that does not change while it is read", "a file that changed")
            yield array


def refusal(expected: str, received: Any) -> CheckpointError:
    """Return the error that says what a file should have held; `errors_named` adds which file."""
    text = received if isinstance(received, str) else repr(received)
    return CheckpointError(f"Expected {expected}. Received: {text:.300}")


@contextmanager
def errors_named(path: StrPath) -> Iterator[None]:
    """Turn any error while a file is loaded into a CheckpointError that names the file."""
    path = as_path(path)
    try:
        yield
    except ImportError:
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:
        expected = "a readable, complete model file of xpnet. Check the path, and replace the file if it is damaged"
        raise CheckpointError(f"{path}: {refusal(expected, f'{type(error).__name__}: {error}')}") from error


def _checked(path: Path, stream: BinaryIO, size: int) -> TensorFile:
    """Read the header, and check everything that it says about the arrays."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        expected = "a complete model file of xpnet, whose first 8 bytes are the length of its header"
        raise refusal(expected, f"a length of {length:,} in a file of {size:,} bytes")
    if length > MAX_HEADER:
        raise refusal(f"a header of at most {MAX_HEADER:,} bytes", f"one of {length:,}")
    header = _parsed(stream.read(length))
    if not isinstance(header, dict):
        raise refusal("a header that maps names to arrays", f"a {type(header).__name__}")
    metadata = header.pop("__metadata__", {})
    text = metadata.get("xpnet") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        expected = "a file that xpnet wrote. Read others with safetensors.numpy.load_file and load_state_dict"
        raise refusal(expected, "a file without xpnet's description")
    description = _parsed(text.encode())
    if not isinstance(description, dict) or not is_integer(description.get("format")) or description["format"] < 1:
        raise refusal("a description with its format's version", f"{text!r:.100}")
    if description["format"] > FORMAT:
        expected = f"format {FORMAT} or older. Upgrade xpnet, {xpnet.__version__} here"
        received = f"format {description['format']}, which xpnet {description.get('xpnet')!r:.20} wrote"
        raise refusal(expected, received)
    return TensorFile(path, description, _table(header, size - 8 - length))


def _table(header: dict[str, Any], size: int) -> dict[str, Entry]:
    """Check that the arrays fill the rest of the file, one after another."""
    table, places = {}, []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise refusal("dtype, shape and data_offsets of each array", f"{name!r:.100}: {entry!r:.100}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise refusal(f"arrays of types {', '.join(DTYPES)}", f"{name!r:.100}: {dtype!r:.100}")
        if not (_are_counts(shape) and len(shape) <= 32 and _are_counts(offsets) and len(offsets) == 2):
            raise refusal("shapes and offsets of non-negative integers", f"{name!r:.100}: {entry!r:.200}")
        begin, end = offsets
        if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise refusal("as many bytes as an array's shape needs", f"{name!r:.100}: {entry!r:.200}")
        table[name] = Entry(DTYPES[dtype], tuple(shape))
        places.append((begin, end))
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise refusal(f"an array at byte {reached:,}, without gap or overlap", f"one at {begin:,}")
        reached = end
    if reached != size:
        raise refusal(f"{reached:,} bytes of arrays", f"{size:,}")
    return table


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(is_integer(value) and 0 <= value < 2**63 for value in values)


def _parsed(text: bytes) -> Any:
    """Parse JSON without repeated names. Its number of entries is checked first."""
    if (entries := sum(text.count(sign) for sign in (b",", b"[", b"{"))) > MAX_ENTRIES:
        raise refusal(f"at most {MAX_ENTRIES:,} entries in a header", f"{entries:,}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise refusal("each name once", "a name twice")
        return found

    try:
        return json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise refusal("a header of JSON", f"{type(error).__name__}: {error}") from error


def _safetensors(module: str = "") -> Any:
    """Import safetensors, which only files need."""
    return importlib.import_module(f"safetensors.{module}" if module else "safetensors")
