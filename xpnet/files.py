"""Opening a file without waiting, and replacing a file as a whole."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

StrPath = str | os.PathLike[str]


def as_path(value: Any, name: str = "path") -> Path:
    """Return the value as a Path; raise TypeError if it is not a path."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(
            f'{name} must be a path such as "model.safetensors" or a pathlib.Path. Received: {name}={value!r:.100}'
        )
    return Path(value)


def without_waiting(path: str, flags: int) -> int:
    """Open without blocking until the other end of a pipe is open."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that is renamed to ``path`` once it is complete on disk, so that nobody reads a partial file.

    Each writer uses a unique temporary name, so any number of processes may write the same ``path`` at once. The new file
    keeps the permissions of the old one. If ``path`` is a symbolic link, the file that it points to is replaced.
    """
    path = path.resolve()
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        raise FileExistsError(
            f"{path} must be a regular file or new. Choose another name. Received: another kind of file"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name[:200]}.{os.urandom(16).hex()}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)  # a full disk has no name, and the temporary name says nothing
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, pattern: re.Pattern[str]) -> None:
    """Delete the temporary files of writers that were killed, for paths that match. No other process may be writing these."""
    for path in folder.glob("*.part"):
        written = re.fullmatch(r"(.*)\.[0-9a-f]{32}\.part", path.name)
        if written and pattern.fullmatch(str(folder / written[1])):
            path.unlink(missing_ok=True)
