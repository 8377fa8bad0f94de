"""The HDF5 files of Keras 3: groups named after layers, each with its arrays ``vars/0``, ``vars/1``, …

A file can refer to other files by links, and a damaged one can ask for any amount of memory. Links are therefore refused, and
arrays are read only after their shapes have been compared.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from xpnet.errors import ConversionError, optional_import
from xpnet.files import StrPath

NOT_OF_LAYERS = {"optimizer", "seed_generator"}  # groups whose arrays are not weights
MOST_GROUPS = 100_000
WEIGHTS = "model.weights.h5"  # the file in a .keras archive


class KerasFile(NamedTuple):
    """The groups of a file that hold arrays, with h5py's datasets."""

    groups: dict[str, list[Any]]

    def shapes(self, group: str) -> list[tuple[int, ...]]:
        return [dataset.shape for dataset in self.groups[group]]

    def arrays(self, group: str) -> list[np.ndarray]:
        return [dataset[()] for dataset in self.groups[group]]


@contextmanager
def opened(path: StrPath) -> Iterator[KerasFile]:
    """Open a .weights.h5 or .keras file for reading. Any error becomes a ConversionError that names the file."""
    h5py = optional_import("h5py", "keras")
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                with h5py.File(stream, "r") as file:
                    yield _listed(h5py, file)
                return
            with zipfile.ZipFile(stream) as archive, archive.open(WEIGHTS) as weights, h5py.File(weights, "r") as file:
                yield _listed(h5py, file)
    except (ConversionError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if isinstance(error, ConversionError):
            raise ConversionError(f"{os.fspath(path)}: {error}") from error
        raise
    except Exception as error:
        raise ConversionError(
            f"{os.fspath(path)}: Expected a complete .weights.h5 or .keras file of Keras 3. Received: {type(error).__name__}: "
            f"{error}"
        ) from error


def _listed(h5py: Any, file: Any) -> KerasFile:
    """List the groups, without following links, and check the types of their arrays.

    Attributes are not read: in a damaged file, reading a text of variable length can take the HDF5 library forever.
    """
    groups, waiting, visited = {}, [("", file)], 0
    while waiting:
        name, group = waiting.pop()
        for key in group:
            visited += 1
            if visited > MOST_GROUPS or len(name) > 1000:
                raise ConversionError(
                    f"Expected at most {MOST_GROUPS:,} groups of layers. Received: more, or deeper ones"
                )
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ConversionError(
                    f"Expected a file without links to other places. Received: a link at {name}/{key}"
                )
            inner = group[key]
            if key == "vars" and name and isinstance(inner, h5py.Group):
                if len(inner):
                    groups[name] = [_array(h5py, inner, f"{name}/vars", str(i)) for i in range(len(inner))]
            elif isinstance(inner, h5py.Group) and key not in NOT_OF_LAYERS:
                waiting.append((f"{name}/{key}" if name else key, inner))
    return KerasFile(groups)


def _array(h5py: Any, group: Any, name: str, key: str) -> Any:
    """A dataset of real numbers that is in the file itself."""
    if not isinstance(group.get(key, getlink=True), h5py.HardLink) or not isinstance(group[key], h5py.Dataset):
        raise ConversionError(f"Expected an array at {name}/{key}. Received: {', '.join(list(group)[:10])}")
    dataset = group[key]
    if dataset.is_virtual or dataset.external or dataset.dtype.kind not in "fiu":
        raise ConversionError(
            f"Expected numbers in the file at {name}/{key}. Received: {dataset.dtype}, perhaps elsewhere"
        )
    return dataset
