"""The IDX format of the MNIST family, all big-endian:

0 0 | type code | number of axes | length of each axis (uint32) | values, last axis fastest
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from xpnet.datasets.files import StrPath, unpack
from xpnet.errors import DatasetError

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: StrPath) -> np.ndarray:
    """Read an IDX file, plain or gzip, into an array of its shape and type.

    Parameters
    ----------
    path : path-like
        Such as ``train-images-idx3-ubyte`` or ``train-images-idx3-ubyte.gz``.

    Returns
    -------
    ndarray
        In the machine's byte order, and writable.
    """
    return parse_idx(unpack(Path(path).read_bytes(), path), path)


def parse_idx(content: bytes, origin: object) -> np.ndarray:
    """The array in the content of an IDX file; ``origin`` names the file in an error."""
    start = 4 + 4 * content[3] if len(content) >= 4 else 4
    if len(content) < start or content[:2] != b"\0\0" or content[2] not in DTYPES:
        raise DatasetError(
            f"{origin}: expected an IDX file, which begins with two zero bytes, a type code, the number of "
            f"axes and their lengths; found {len(content):,} bytes that begin with {content[:8]!r}."
        )
    dtype = np.dtype(DTYPES[content[2]])
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DatasetError(
            f"{origin}: expected {expected:,} bytes for an IDX file of shape {shape} and type {dtype.name}, "
            f"found {len(content):,}. The file is damaged; replace it."
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))  # a copy: the bytes themselves are read-only
