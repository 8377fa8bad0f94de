"""Finding the four files of an IDX data set, on disk or at a mirror, and checking their content."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xpnet.datasets.files import Split, StrPath, replacing, unpack
from xpnet.datasets.idx import parse_idx
from xpnet.errors import DatasetError, optional_import

logger = logging.getLogger(__name__)

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class IdxSet:
    """A data set of four IDX files.

    Attributes
    ----------
    name : str
        Also the name of its folder, in a data folder and in the cache.
    mirrors : tuple of str
        Where ``FILE.gz`` is served: addresses that end in ``/``, the best first.
    checksums : mapping
        For each of ``FILES``, ``"algorithm:digest"`` of its *uncompressed* content: whether the file is
        compressed, and by whom, does not matter.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: Mapping[str, str]


def load(dataset: IdxSet, data_dir: StrPath | None, download: bool) -> tuple[Split, Split]:
    """``(x_train, y_train), (x_test, y_test)``: each file from the first folder that has it, or a mirror."""
    folders = data_folders(dataset.name, data_dir)
    arrays = {}
    for file in FILES:
        for path in (folder / name for folder in folders for name in (file, f"{file}.gz")):
            if path.is_file():
                arrays[file] = parse_idx(verified(path.read_bytes(), dataset.checksums[file], path), path)
                break
    missing = [file for file in FILES if file not in arrays]
    if missing:
        searched = f"{dataset.name}: found no {', '.join(missing)} (plain or .gz) in\n{listed(folders)}"
        if not download:
            raise DatasetError(f"{searched}\nPut them there, or set XPNET_DATA, or allow the download.")
        arrays |= fetch(dataset, missing, searched)
    x_train, y_train, x_test, y_test = (arrays[file] for file in FILES)
    return (x_train, y_train), (x_test, y_test)


def data_folders(name: str, data_dir: StrPath | None) -> list[Path]:
    """The folders that may hold the set, in order: below ``data_dir``, below ``$XPNET_DATA``, the cache."""
    roots = [Path(root).expanduser() for root in (data_dir, os.environ.get("XPNET_DATA")) if root]
    return [folder for root in roots for folder in (root / name, root)] + [cache_folder(name)]


def cache_folder(name: str) -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/xpnet/NAME``, by default ``~/.cache/xpnet/NAME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "xpnet" / name


def verified(content: bytes, checksum: str, origin: object) -> bytes:
    """The uncompressed content, if it has the checksum; ``origin`` names it in the error."""
    content = unpack(content, origin)
    algorithm, expected = checksum.split(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DatasetError(
            f"{origin}: expected uncompressed content with {algorithm} {expected}, found {found} "
            f"({len(content):,} bytes). The file is damaged: replace it; or it belongs to another data set: "
            "give each set a folder of its own, named after it."
        )
    return content


def fetch(dataset: IdxSet, files: Sequence[str], searched: str) -> dict[str, np.ndarray]:
    """Download the files, and keep them in the cache. Where a mirror fails, the next one carries on."""
    try:
        pooch = optional_import("pooch", "data")
    except ImportError as error:
        error.add_note(f"It is needed for the download, because {searched}")
        raise
    get = pooch.HTTPDownloader(timeout=30, progressbar=bool(sys.stderr and sys.stderr.isatty()))
    arrays: dict[str, np.ndarray] = {}
    failures = []
    for mirror in dataset.mirrors:
        try:
            for file in files[len(arrays) :]:
                url = f"{mirror}{file}.gz"
                logger.info("downloading %s", url)
                buffer = io.BytesIO()
                get(url, buffer, None)
                content = verified(buffer.getvalue(), dataset.checksums[file], url)
                arrays[file] = parse_idx(content, url)
                keep(content, cache_folder(dataset.name) / file)
        except DatasetError as error:
            failures.append(str(error))
        except OSError as error:  # no connection, or an HTTP status: all errors of requests are OSErrors
            failures.append(f"{url}: {error}")
    if len(arrays) < len(files):
        raise DatasetError(
            f"{searched}\nand could not download them:\n{listed(failures)}\n"
            "Check the connection, or put the files into a folder above, or set XPNET_DATA to their folder."
        )
    return arrays


def keep(content: bytes, path: Path) -> None:
    """Write to the cache; where that is impossible (a read-only home, a full disk), say so and go on."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        logger.warning("cannot keep %s (%s); it will be downloaded again next time", path, error)


def listed(items: Sequence[object]) -> str:
    return "\n".join(f"  {item}" for item in items)
