"""What all readers share: gzip is seen through when reading, and no file is ever left half-written."""

from __future__ import annotations

import gzip
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xpnet.errors import DatasetError

Split = tuple[np.ndarray, np.ndarray]  # images (or rows of pixels) and their labels
StrPath = str | os.PathLike[str]

GZIP_MAGIC = b"\x1f\x8b"


def unpack(content: bytes, origin: object) -> bytes:
    """What is inside, if the content is gzip, else the content; ``origin`` names it in an error.

    The first bytes decide, not the file name: some servers and browsers unpack on the way.
    """
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DatasetError(
            f"{origin}: expected a complete gzip file, found {len(content):,} bytes that do not unpack "
            f"({error}). The file is damaged; replace it."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the name ``path`` only once all is written: nobody ever reads half of it.

    Each writer has a temporary name of its own, so any number of processes may write one ``path`` at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
