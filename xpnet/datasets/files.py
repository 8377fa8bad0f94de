"""Shared code of the readers and writers: opening a file, and labeled data.

Every error while a file is read is a :class:`DatasetError` that names the file. The readers refuse pipes and devices,
which may never end, and they never read past a stated limit.
"""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from xpnet.errors import DatasetError
from xpnet.files import StrPath, as_path, without_waiting

Split = tuple[np.ndarray, np.ndarray]  # images (or rows of values) and their labels

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 2**30  # 1 GiB: the default limit of a reader
MAX_LABEL = 2**16 - 1
LONGEST_LINE = 2**24
ARCHIVES = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


class _Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class Labeled(_Pair):
    """A pair ``x, y`` with the names of its labels, ``class_names[label]``.

    Attributes
    ----------
    x, y : ndarray
        The data, one row or image for each label, and the labels ``(n,)``.
    class_names : tuple of str
        The name of each label, from 0 up.
    """

    class_names: tuple[str, ...]

    def __new__(cls, x: np.ndarray, y: np.ndarray, class_names: tuple[str, ...] = ()) -> Labeled:
        pair = super().__new__(cls, x, y)
        pair.class_names = class_names
        return pair


def label_type(largest: int) -> np.dtype:
    """The smallest unsigned type for labels up to `largest`: uint8 or uint16."""
    return np.dtype(np.uint8 if largest < 256 else np.uint16)


@contextmanager
def opened(path: StrPath) -> Iterator[BinaryIO]:
    """Yield an open regular file; an error inside becomes a DatasetError."""
    with errors_named(path), open(as_path(path), "rb", opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DatasetError(
                f"{path}: expected a regular file. Save the content to a file and read that. Received: a pipe, a socket or a "
                "device, which may never end"
            )
        yield file


@contextmanager
def reading(path: StrPath) -> Iterator[BinaryIO]:
    """Yield the uncompressed content of a regular file; an error inside becomes a DatasetError."""
    with opened(path) as file:
        yield unpacked(file, path)


@contextmanager
def errors_named(origin: object) -> Iterator[None]:
    """Turn a read error into a DatasetError that names the origin of the content and the remedy."""
    try:
        yield
    except DatasetError:
        raise
    except UnicodeError as error:
        raise DatasetError(
            f"{origin}: expected text in UTF-8, or in UTF-16 with a byte order mark. Save the file as UTF-8. Received: other "
            f"bytes ({error})"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(
            f"{origin}: expected a complete gzip file. Replace the file, which is damaged. Received: a file that cannot be "
            f"decompressed ({error})"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise DatasetError(
            f"{origin}: expected a readable file. Check the path and its permissions. Received: {error}"
        ) from error


def unpacked(file: BinaryIO, origin: object) -> BinaryIO:
    """Return the decompressed stream if the stream is gzip, else the stream itself; ``origin`` names it in errors.

    The first bytes decide, not the file name, because some servers and browsers decompress a file in transit.
    """
    start = file.read(6)
    file.seek(0)
    for magic, kind in ARCHIVES.items():
        if start.startswith(magic):
            raise DatasetError(
                f"{origin}: expected a plain or gzip file. Unpack the archive and read the file inside. Received: a {kind} "
                "archive"
            )
    return gzip.GzipFile(fileobj=file) if start.startswith(GZIP_MAGIC) else file  # type: ignore[return-value]


def lines(stream: BinaryIO, origin: object, max_bytes: int) -> Iterator[str]:
    """Yield the lines of a text with their line ends; raise DatasetError if the text exceeds a limit."""
    start = stream.read(2)
    stream.seek(0)
    encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    text = io.TextIOWrapper(io.BufferedReader(Bounded(stream, origin, max_bytes)), encoding, newline="")
    for number in itertools.count(1):
        line = text.readline(LONGEST_LINE)
        if not line:
            return
        if len(line) == LONGEST_LINE or "\0" in line:
            raise DatasetError(
                f"{origin}, line {number}: expected lines of text. Check that the file is CSV, in UTF-8 or in UTF-16 with a "
                f"byte order mark. Received: a zero byte or a line of {LONGEST_LINE:,} characters"
            )
        yield line


class Bounded(io.RawIOBase):
    """A stream that raises DatasetError after `max_bytes`."""

    def __init__(self, stream: BinaryIO, origin: object, max_bytes: int):
        self.stream, self.origin, self.max_bytes, self.left = stream, origin, max_bytes, max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.stream.read(len(buffer))
        self.left -= len(block)
        if self.left < 0:
            raise DatasetError(
                f"{self.origin}: expected at most {self.max_bytes:,} bytes of text. If the file is correct, pass a larger "
                "max_bytes. Received: more"
            )
        buffer[: len(block)] = block
        return len(block)
