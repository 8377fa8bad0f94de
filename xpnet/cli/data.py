"""Reads the data of a command: a named data set, a folder of images, or a CSV, IDX or NPZ file."""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet import datasets
from xpnet.datasets.files import MAX_BYTES, lines, opened, reading
from xpnet.datasets.folders import is_image, read_all, visible
from xpnet.datasets.images import MAX_PIXELS
from xpnet.errors import DatasetError

NAMED = ("mnist", "fashion_mnist", "kmnist", "digits")
FORMS = (
    f"a data set ({', '.join(NAMED)}), a folder LABEL/IMAGE, a .csv or .tsv file (or .gz), an .npz file with x and y, or an "
    "IDX file of images, whose labels are in the file named labels-idx1 instead of images-idx3"
)


class Samples(NamedTuple):
    """Samples, with targets if there are any, and a name for each class and each row."""

    x: np.ndarray
    y: np.ndarray | None = None
    class_names: Sequence[str] = ()
    rows: Sequence[str] = ()


def read(source: str, options: Any, *, labeled: bool = True) -> tuple[Samples, Samples | None]:
    """Return the samples of a source, and a second part for testing if the source has one.

    Parameters
    ----------
    source : str
        A name or a path; see `FORMS`.
    options : namespace
        The options of the command line: ``color``, ``background``, ``header``, ``delimiter``, ``label_column``,
        ``index_column`` and ``numbers``.
    labeled : bool, default True
        Whether the source must hold targets. Without them, a folder holds the images themselves.

    Raises
    ------
    DatasetError
        The source does not exist, is damaged, or holds no targets.
    """
    path = Path(source)
    name = path.name.lower()
    if source in NAMED:
        return named(source, options.data_dir)
    if path.is_dir():
        return _folder(path, options, labeled)
    if not path.exists():
        raise DatasetError(f"{source}: expected {FORMS}. Check the path. Received: a path that does not exist")
    if is_image(path) and not labeled:
        return _images([path], options), None
    if name.endswith(".npz"):
        return _npz(path, labeled)
    if name.removesuffix(".gz").endswith((".csv", ".tsv", ".txt")):
        return _table(path, options, labeled), None
    if "idx" in name:
        return _idx(path, labeled), None
    raise DatasetError(f"{source}: expected {FORMS}. Received: a file of another kind")


def in_options(message: str) -> str:
    """Return an error of a reader with the options of the command line in place of the reader's arguments."""
    message = message.replace("Number the classes from 0", "Number the classes from 0, or pass --numbers")
    for argument in ("header", "color"):
        message = message.replace(f"{argument}=True", f"--{argument}").replace(f"{argument}=False", f"--no-{argument}")
    return re.sub(r"\b(label_column|index_column|delimiter|background)=(\S+)", _option, message)


def _option(match: re.Match[str]) -> str:
    return f"--{match[1].replace('_', '-')} {match[2]}"


def named(name: str, data_dir: str | None) -> tuple[Samples, Samples]:
    """Return the training and the test part of a named data set."""
    parts = datasets.digits() if name == "digits" else getattr(datasets, name)(data_dir)
    train, test = (Samples(x, y, [str(label) for label in range(10)]) for x, y in parts)
    return train, test


def _folder(path: Path, options: Any, labeled: bool) -> tuple[Samples, Samples | None]:
    files = [entry for entry in visible(path) if is_image(entry)]
    if files and not labeled:
        return _images(files, options), None
    found = datasets.image_folder(path, color=options.color, background=options.background)
    parts = found if isinstance(found[0], tuple) else (found,)
    samples = [Samples(part[0], part[1], part.class_names) for part in parts]
    return samples[0], samples[1] if len(samples) > 1 else None


def _images(files: list[Path], options: Any) -> Samples:
    x = read_all(files, MAX_BYTES, options.color, options.background, MAX_PIXELS)
    return Samples(x, rows=[file.name for file in files])


def _table(path: Path, options: Any, labeled: bool) -> Samples:
    """A table of classes, or with ``numbers`` a table of targets that are numbers, or one without targets."""
    column = None if options.label_column is None else _column(options.label_column)
    if labeled and not options.numbers:
        index = None if options.index_column is None else _column(options.index_column)
        table = datasets.label_first_csv(
            path,
            header=options.header,
            delimiter=options.delimiter,
            label_column=column,
            index_column=index,
            dtype="float32",
        )
        return Samples(table.x, table.y, table.class_names)
    delimiter = options.delimiter or ("\t" if ".tsv" in path.name.lower() else ",")
    with reading(path) as stream:
        text = [line for line in lines(stream, path, MAX_BYTES) if line.strip()]
    names = next(csv.reader(text[:1], delimiter=delimiter), []) if options.header or isinstance(column, str) else []
    try:
        values = np.loadtxt(text[bool(names) :], np.float64, delimiter=delimiter, ndmin=2, quotechar='"')
    except ValueError as error:
        raise DatasetError(
            f"{path}: expected rows of numbers. Pass --header if the first row names the columns. Received: {error}"
        ) from error
    if not values.size:
        raise DatasetError(f"{path}: expected rows of numbers. Received: no rows")
    if not labeled:
        return Samples(values)
    if isinstance(column, str) and column not in names:
        raise DatasetError(f"{path}: expected a column named {column!r}. Received: the names {names[:10]}")
    place = names.index(column) if isinstance(column, str) else column or 0
    if not -values.shape[1] <= place < values.shape[1]:
        raise DatasetError(f"{path}: expected a column {place}. Received: {values.shape[1]} columns")
    return Samples(np.delete(values, place, axis=1), values[:, place])


def _column(text: str) -> int | str:
    """A column's position or name."""
    return int(text) if text.lstrip("-").isdecimal() else text


def _npz(path: Path, labeled: bool) -> tuple[Samples, Samples | None]:
    """The arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``, as Keras names them."""
    with opened(path) as file:
        try:
            size = sum(member.file_size for member in zipfile.ZipFile(file).infolist())
            if size > MAX_BYTES:
                raise DatasetError(f"{path}: expected at most {MAX_BYTES:,} bytes. Received: {size:,} bytes")
            file.seek(0)
            held = dict(np.load(file, allow_pickle=False))
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(
                f"{path}: expected a complete .npz file of arrays of numbers, as numpy.savez writes it. Received: {error}"
            ) from error
    pairs = [("x", "y"), ("x_train", "y_train"), ("x_test", "y_test")]
    parts = [Samples(held[x], held.get(y)) for x, y in pairs if x in held and (y in held or not labeled)]
    if not parts:
        expected = "arrays named x and y, or x_train, y_train, x_test and y_test" if labeled else "an array named x"
        raise DatasetError(f"{path}: expected {expected}. Received: {', '.join(held) or 'no arrays'}")
    return parts[0], parts[1] if len(parts) > 1 else None


def _idx(path: Path, labeled: bool) -> Samples:
    x = datasets.read_idx(path)
    if not labeled:
        return Samples(x)
    labels = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    for candidate in (labels, labels.with_name(f"{labels.name}.gz"), labels.with_name(labels.name.removesuffix(".gz"))):
        if candidate != path and candidate.exists():
            return Samples(x, datasets.read_idx(candidate))
    raise DatasetError(f"{path}: expected a file of labels, {labels.name}, beside it. Received: no such file")
