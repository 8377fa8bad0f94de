"""Finding the four files of an IDX data set, on disk or at a mirror, and checking their content."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xpnet.datasets.download import download, may_pass
from xpnet.datasets.files import Split, StrPath, errors_named, reading, replacing, unpacked
from xpnet.datasets.idx import idx_array, idx_content
from xpnet.errors import DatasetError

logger = logging.getLogger(__name__)

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
LARGEST = 2**26  # bytes, plain or packed: a good deal more than any file of the sets
WAITS = (0.0, 1.0, 5.0)  # seconds before each round of the mirrors


@dataclass(frozen=True)
class IdxSet:
    """A data set of four IDX files.

    Attributes
    ----------
    name : str
        Also the name of its folder, in a data folder and in the cache.
    mirrors : tuple of str
        Where ``FILE.gz`` is served: https addresses that end in ``/``, the best first.
    checksums : mapping
        For each of ``FILES``, ``"algorithm:digest"`` of its *uncompressed* content: whether the file is
        compressed, and by whom, does not matter.
    archives : mapping
        For some of ``FILES``, the SHA-256 of ``FILE.gz`` as published. A download must have it too.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: Mapping[str, str]
    archives: Mapping[str, str] = field(default_factory=dict)


def load(dataset: IdxSet, data_dir: StrPath | None, download: bool) -> tuple[Split, Split]:
    """``(x_train, y_train), (x_test, y_test)``: each file from the first folder that has it, or a mirror."""
    folders = data_folders(dataset.name, data_dir)
    arrays = {file: array for file in FILES if (array := find(dataset, file, folders, download)) is not None}
    missing = [file for file in FILES if file not in arrays]
    if missing:
        searched = f"{dataset.name}: found no {', '.join(missing)} (plain or .gz) in\n{listed(folders)}"
        if not download:
            raise DatasetError(f"{searched}\nPut them there, or set XPNET_DATA, or allow the download.")
        arrays |= fetch(dataset, missing, searched)
    x_train, y_train, x_test, y_test = (arrays[file] for file in FILES)
    return (x_train, y_train), (x_test, y_test)


def find(dataset: IdxSet, file: str, folders: Sequence[Path], download: bool) -> np.ndarray | None:
    """The array in the first of the folders that has the file; a damaged one in the cache counts as none."""
    for path in (folder / name for folder in folders for name in (file, f"{file}.gz")):
        if os.path.isfile(path):
            try:
                with reading(path) as stream:
                    return idx_array(verified(stream, dataset.checksums[file], path))
            except DatasetError as error:
                if path.parent != cache_folder(dataset.name) or not download:
                    raise
                logger.warning("%s\nIt is in the cache, so it is downloaded again.", error)
    return None


def data_folders(name: str, data_dir: StrPath | None) -> list[Path]:
    """The folders that may hold the set, in order: below ``data_dir``, below ``$XPNET_DATA``, the cache."""
    folders = []
    for root in (data_dir, os.environ.get("XPNET_DATA")):
        if root:
            path = Path(os.path.expanduser(root))
            folders += [path / name, path]
    cache = cache_folder(name)
    return [*folders, cache] if cache else folders


def cache_folder(name: str) -> Path | None:
    """Where downloads are kept: ``$XDG_CACHE_HOME/xpnet/NAME``, by default ``~/.cache/xpnet/NAME``, if there is a home."""
    root = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    return root / "xpnet" / name if root.is_absolute() else None


def verified(stream: BinaryIO, checksum: str, origin: object) -> bytearray:
    """The content of an IDX file, if it has the checksum; ``origin`` names it in the error."""
    content = idx_content(stream, origin, LARGEST)
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
    """Download the files, and keep them in the cache.

    Where a mirror fails, the next one carries on; a mirror whose failure may pass is tried again after all others.
    """
    arrays: dict[str, np.ndarray] = {}
    failures: dict[str, None] = {}  # in order, and each once
    mirrors = list(dataset.mirrors)
    for wait in WAITS:
        if mirrors:
            time.sleep(wait)
        for mirror in list(mirrors):
            for file in (file for file in files if file not in arrays):
                url = f"{mirror}{file}.gz"
                try:
                    content = fetch_file(dataset, file, url)
                except Exception as error:  # whatever is wrong with one mirror, the next may be right
                    text = str(error) if isinstance(error, DatasetError) else f"{url}: {error or type(error).__name__}"
                    failures[text] = None
                    if not may_pass(error):
                        mirrors.remove(mirror)
                    break
                keep(content, cache_folder(dataset.name), file)
                arrays[file] = idx_array(content)
            if len(arrays) == len(files):
                return arrays
    raise DatasetError(
        f"{searched}\nand could not download them:\n{listed(list(failures))}\n"
        "Check the connection, or put the files into a folder above, or set XPNET_DATA to their folder."
    )


def fetch_file(dataset: IdxSet, file: str, url: str) -> bytearray:
    """The content of one file from one mirror, if it is the right one."""
    logger.info("downloading %s", url)
    body = download(url, LARGEST)
    expected = dataset.archives.get(file)
    if expected and (found := hashlib.sha256(body).hexdigest()) != expected:
        raise DatasetError(f"{url}: expected a file with sha256 {expected}, found {found} ({len(body):,} bytes).")
    with errors_named(url):
        return verified(unpacked(io.BytesIO(body), url), dataset.checksums[file], url)


def keep(content: bytes | bytearray, folder: Path | None, file: str) -> None:
    """Write to the cache; where that is impossible (no home, a read-only one, a full disk), say so and go on."""
    try:
        if folder is None:
            raise OSError("no home directory; XDG_CACHE_HOME may name another")
        with replacing(folder / file) as cached:
            cached.write(content)
    except OSError as error:
        logger.warning("cannot keep %s (%s); it will be downloaded again next time", file, error)


def listed(items: Sequence[object]) -> str:
    return "\n".join(f"  {item}" for item in items)
