"""The IDX format of the MNIST family, all big-endian:

0 0 | type code | number of axes | length of each axis (uint32) | values, last axis fastest
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

import numpy as np

from xpnet.datasets.files import MAX_BYTES, reading
from xpnet.errors import DatasetError
from xpnet.files import StrPath

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 32
BLOCK = 2**20  # memory grows with the bytes received, not with the size in the header


def read_idx(path: StrPath, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read an IDX file, plain or gzip, into an array of the shape and type that it states.

    Parameters
    ----------
    path : path-like
        Such as ``train-images-idx3-ubyte`` or ``train-images-idx3-ubyte.gz``.
    max_bytes : int, default 2**30
        The largest array to read, in bytes. The header states the size, so a larger array is refused before it takes
        memory, and a compressed file is decompressed only up to that size.

    Returns
    -------
    ndarray
        In the machine's byte order, and writable.

    Raises
    ------
    DatasetError
        The file cannot be read, is not an IDX file, differs in length from its header, or is too large.
    """
    with reading(path) as stream:
        return idx_array(idx_content(stream, path, max_bytes))


def idx_content(stream: BinaryIO, origin: object, max_bytes: int = MAX_BYTES) -> bytearray:
    """Return the bytes of an IDX file, whose length must match its header; ``origin`` names the file in errors."""
    content = bytearray(stream.read(4))
    axes = content[3] if len(content) == 4 else 0
    content += stream.read(4 * axes)
    start = 4 + 4 * axes
    if len(content) < start or content[:2] != b"\0\0" or content[2] not in DTYPES or axes > MAX_AXES:
        raise DatasetError(
            f"{origin}: expected an IDX file, which begins with two zero bytes, a type code, the number of axes "
            f"(at most {MAX_AXES}) and their lengths. Replace the file. Received: {bytes(content[:8])!r}"
        )
    dtype, shape = idx_type(content)
    size = math.prod(length or 1 for length in shape) * dtype.itemsize  # NumPy refuses an array of shape (0, 2**40)
    if size > max_bytes:
        raise DatasetError(
            f"{origin}: expected at most {max_bytes:,} bytes. If the file is correct, pass max_bytes={size}. "
            f"Received: an IDX header for shape {shape} and type {dtype.name}, {size:,} bytes"
        )
    expected = start + math.prod(shape) * dtype.itemsize
    while len(content) <= expected and (block := stream.read(min(BLOCK, expected + 1 - len(content)))):
        content += block
    if len(content) != expected:
        found = f"{len(content):,}" if len(content) < expected else "more"
        raise DatasetError(
            f"{origin}: expected {expected:,} bytes for an IDX file of shape {shape} and type {dtype.name}. "
            f"Replace the file, which is damaged. Received: {found}"
        )
    return content


def idx_type(content: bytearray) -> tuple[np.dtype, tuple[int, ...]]:
    return np.dtype(DTYPES[content[2]]), struct.unpack_from(f">{content[3]}I", content, 4)


def idx_array(content: bytearray) -> np.ndarray:
    """Return the array in the content of an IDX file, without a copy where the byte order allows it."""
    dtype, shape = idx_type(content)
    values = np.frombuffer(content, dtype, offset=4 + 4 * len(shape)).reshape(shape)
    native = dtype.newbyteorder("=")
    return values if dtype == native else values.astype(native)
