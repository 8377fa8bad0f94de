"""Finds the four files of an IDX data set, on disk or on a mirror, and checks their content."""

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
from xpnet.datasets.files import Split, errors_named, reading, unpacked
from xpnet.datasets.idx import idx_array, idx_content
from xpnet.errors import DatasetError
from xpnet.files import StrPath, replacing

logger = logging.getLogger(__name__)

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
LARGEST = 2**26  # bytes, plain or compressed: well above any file of the sets
WAITS = (0.0, 1.0, 5.0)  # seconds before each round of the mirrors


@dataclass(frozen=True)
class IdxSet:
    """A data set of four IDX files.

    Attributes
    ----------
    name : str
        The name of the set, and of its folder in data folders and in the cache.
    mirrors : tuple of str
        The https addresses that serve ``FILE.gz``, best first. Each ends in ``/``.
    checksums : mapping
        For each of ``FILES``, ``"algorithm:digest"`` of its *uncompressed* content. It does not matter whether or how the
        file is compressed.
    archives : mapping
        For some of ``FILES``, the published SHA-256 of ``FILE.gz``, which a download must match too.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: Mapping[str, str]
    archives: Mapping[str, str] = field(default_factory=dict)


def load(dataset: IdxSet, data_dir: StrPath | None, download: bool) -> tuple[Split, Split]:
    """Return ``(x_train, y_train), (x_test, y_test)``, each file from the first folder that has it, or from a mirror."""
    folders = data_folders(dataset.name, data_dir)
    arrays = {file: array for file in FILES if (array := find(dataset, file, folders, download)) is not None}
    missing = [file for file in FILES if file not in arrays]
    if missing:
        searched = f"{dataset.name}: expected {', '.join(missing)} (plain or .gz) in one of these folders:\n{listed(folders)}\n"
        if not download:
            raise DatasetError(
                f"{searched}Put them there, set XPNET_DATA, or allow the download. Received: no such files"
            )
        arrays |= fetch(dataset, missing, searched)
    x_train, y_train, x_test, y_test = (arrays[file] for file in FILES)
    return (x_train, y_train), (x_test, y_test)


def find(dataset: IdxSet, file: str, folders: Sequence[Path], download: bool) -> np.ndarray | None:
    """Read the array from the first folder that has the file. If downloads are allowed, skip a damaged file in the cache."""
    for path in (folder / name for folder in folders for name in (file, f"{file}.gz")):
        if os.path.isfile(path):
            try:
                with reading(path) as stream:
                    return idx_array(verified(stream, dataset.checksums[file], path))
            except DatasetError as error:
                if path.parent != cache_folder(dataset.name) or not download:
                    raise
                logger.warning("%s\nThe file is in the cache, so it is downloaded again.", error)
    return None


def data_folders(name: str, data_dir: StrPath | None) -> list[Path]:
    """The folders to search, in order: below ``data_dir``, below ``$XPNET_DATA``, the cache."""
    folders = []
    for root in (data_dir, os.environ.get("XPNET_DATA")):
        if root:
            path = Path(os.path.expanduser(root))
            folders += [path / name, path]
    cache = cache_folder(name)
    return [*folders, cache] if cache else folders


def cache_folder(name: str) -> Path | None:
    """The folder for downloads, ``$XDG_CACHE_HOME/xpnet/NAME`` or ``~/.cache/xpnet/NAME``; None without a home."""
    root = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    return root / "xpnet" / name if root.is_absolute() else None


def verified(stream: BinaryIO, checksum: str, origin: object) -> bytearray:
    """Return the content of an IDX file if its checksum is correct; ``origin`` names it in the error."""
    content = idx_content(stream, origin, LARGEST)
    algorithm, expected = checksum.split(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DatasetError(
            f"{origin}: expected uncompressed content with {algorithm} {expected}. If the file is damaged, replace it. If "
            "it belongs to another data set, give each set its own folder, named after the set. "
            f"Received: {found} ({len(content):,} bytes)"
        )
    return content


def fetch(dataset: IdxSet, files: Sequence[str], searched: str) -> dict[str, np.ndarray]:
    """Download the files and keep them in the cache.

    If a mirror fails, the next one continues. A mirror with a temporary failure is tried again after all others.
    """
    arrays: dict[str, np.ndarray] = {}
    failures: dict[str, None] = {}  # an ordered set
    mirrors = list(dataset.mirrors)
    for wait in WAITS:
        if mirrors:
            time.sleep(wait)
        for mirror in list(mirrors):
            for file in (file for file in files if file not in arrays):
                url = f"{mirror}{file}.gz"
                try:
                    content = fetch_file(dataset, file, url)
                except Exception as error:  # the next mirror may work, whatever failed here
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
        f"{searched}Put them there, set XPNET_DATA to their folder, or check the connection. Received: no such files, and these "
        f"errors from the mirrors:\n{listed(list(failures))}"
    )


def fetch_file(dataset: IdxSet, file: str, url: str) -> bytearray:
    """Download a file from a mirror, and return its content if it is correct."""
    logger.info("downloading %s", url)
    body = download(url, LARGEST)
    expected = dataset.archives.get(file)
    if expected and (found := hashlib.sha256(body).hexdigest()) != expected:
        raise DatasetError(f"{url}: expected a file with sha256 {expected}. Received: {found} ({len(body):,} bytes)")
    with errors_named(url):
        return verified(unpacked(io.BytesIO(body), url), dataset.checksums[file], url)


def keep(content: bytes | bytearray, folder: Path | None, file: str) -> None:
    """Write to the cache. If that fails, for example on a full disk, log a warning and continue."""
    try:
        if folder is None:
            raise OSError("without a home directory, set XDG_CACHE_HOME")
        with replacing(folder / file) as cached:
            cached.write(content)
    except OSError as error:
        logger.warning("Cannot keep %s in the cache (%s). It will be downloaded again next time.", file, error)


def listed(items: Sequence[object]) -> str:
    return "\n".join(f"  {item}" for item in items)
