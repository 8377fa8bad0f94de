"""Images in folders, one folder per label."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets.files import MAX_BYTES, MAX_LABEL, Labeled, StrPath, errors_named, label_type
from xpnet.datasets.images import MAX_PIXELS, SUFFIXES, read_image
from xpnet.errors import DatasetError


def image_folder(
    path: StrPath,
    *,
    color: bool = False,
    background: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Labeled | tuple[Labeled, Labeled]:
    """Read ``LABEL/IMAGE``, or ``Train/LABEL/IMAGE`` and ``Test/LABEL/IMAGE``, as arrays of bytes.

    Images are BMP, GIF, JPEG, PNG, PPM (PGM, PBM), TIFF and WebP files, known by their suffix in capital or small
    letters. The folders that hold images are the labels, over both parts together. Names that are all numbers are labels
    that stand for themselves; others are numbered from 0 in sorted order. The images come label by label, and within a
    label by file name. Hidden files and folders are passed over, and ``__MACOSX``; a warning says what else is left out.
    Needs the extra ``data``.

    Colors become gray by Pillow's weights, L = 0.299 R + 0.587 G + 0.114 B; palettes are looked up. An image is turned
    as its EXIF orientation says, so it is read as it is seen. Of an animation the first frame is read.

    Parameters
    ----------
    path : path-like
        A folder with ``Train`` and ``Test`` in it, in capital or small letters, or with the folders of the labels.
    color : bool
        Whether to keep colors: red, green and blue are the last axis.
    background : int, optional
        The gray value, 0 to 255, that shows through transparent pixels. Without it they are refused.
    max_pixels : int, default 2**24
        The largest image that is read.
    max_bytes : int, default 2**30
        The largest array that is made of one part.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : Labeled
        If the folder has ``Train`` and ``Test`` in it: images ``uint8 (n, height, width)``, with ``color`` ``(n, height,
        width, 3)``, and labels ``(n,)``, ``uint8`` or ``uint16``. Each pair's ``class_names[label]`` is what a label is
        called.
    x, y : Labeled
        For a folder of labels.

    Raises
    ------
    DatasetError
        If there are no images, or one is damaged, too large, transparent, of more than 8 bits a channel, or of another
        size than the first; or if two folders are the same label.
    """
    if background is not None and background not in range(256):
        raise ValueError(f"background must be a gray value from 0 to 255. Received: {background!r}.")
    path = Path(path)
    left_out: list[Path] = []
    with errors_named(path):
        parts = parts_of(path, left_out)
        found = [images_of(part, left_out) for part in parts]
    for part, images in zip(parts, found, strict=True):
        if not images:
            raise DatasetError(
                f"{part}: expected images LABEL/IMAGE, or Train/LABEL/IMAGE and Test/LABEL/IMAGE, with the suffixes "
                f"{' '.join(SUFFIXES)}; found none. Check the path."
            )
    if left_out:
        names = ", ".join(str(entry.relative_to(path)) for entry in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        warnings.warn(
            f"{path}: left out because they are no images, or not directly in the folder of a label: {names}{more}",
            stacklevel=2,
        )
    labels, class_names = numbered(sorted(set().union(*found)), path)
    pairs = []
    for images in found:
        files = [(file, labels[name]) for name in sorted(images, key=labels.__getitem__) for file in images[name]]
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow's, of damaged metadata and of sizes: our limit is far below its own
            x = read_all([file for file, _ in files], max_bytes, color, background, max_pixels)
        y = np.asarray([label for _, label in files], label_type(max(labels.values())))
        pairs.append(Labeled(x, y, class_names))
    return pairs[0] if len(pairs) == 1 else (pairs[0], pairs[1])


def visible(folder: Path) -> list[Path]:
    """What is in a folder, by name, but for what macOS and others hide there."""
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "__MACOSX")
    return sorted(entries, key=lambda entry: entry.name)


def is_image(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.is_dir()


def parts_of(path: Path, left_out: list[Path]) -> list[Path]:
    """``Train`` and ``Test`` below the path, if it has both and they hold folders; else the path itself."""
    folders = [entry for entry in visible(path) if entry.is_dir()]
    parts = [entry for name in ("train", "test") for entry in folders if entry.name.casefold() == name]
    names = [entry.name.casefold() for entry in parts]
    if names != ["train", "test"] or any(is_image(entry) for part in parts for entry in visible(part)):
        return [path]
    left_out += [entry for entry in folders if entry not in parts]
    return parts


def images_of(part: Path, left_out: list[Path]) -> dict[str, list[Path]]:
    """The image files in each folder that has some."""
    images = {}
    for entry in visible(part):
        if entry.is_dir():
            files: list[Path] = []
            others: list[Path] = []
            for inside in visible(entry):
                (files if is_image(inside) else others).append(inside)
            if files:
                images[entry.name] = files
            left_out += others if files else [entry]
        elif is_image(entry):
            left_out.append(entry)
    return images


def numbered(names: Sequence[str], path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """The label of each folder, and the name of each label."""
    numeric = all(name.isdecimal() for name in names)
    same: dict[object, str] = {}
    for name in names:
        other = same.setdefault(int(name) if numeric else unicodedata.normalize("NFKC", name), name)
        if other != name:
            raise DatasetError(f"{path}: the folders {other!r} and {name!r} are the same label. Rename or join them.")
    if numeric:
        largest = max(names, key=int)
        if int(largest) > MAX_LABEL:
            raise DatasetError(
                f"{path}: expected labels up to {MAX_LABEL:,}, found the folder {largest!r}. A name that is not all digits, "
                f"such as 'id{largest}', is numbered instead."
            )
        return {name: int(name) for name in names}, tuple(map(str, range(int(largest) + 1)))
    labels = {name: label for label, name in enumerate(names)}
    for name in names:
        if name.isdecimal() and int(name) != labels[name]:
            word = next(word for word in names if not word.isdecimal())
            raise DatasetError(
                f"{path}: the folder {name!r} would be label {labels[name]}, because {word!r} beside it is no number, so "
                "that names are numbered in sorted order. Move one of them away, or rename it."
            )
    return labels, tuple(names)


def read_all(files: Sequence[Path], max_bytes: int, *options: Any) -> np.ndarray:
    """All images in one array; they must be of one size."""
    first = read_image(files[0], *options)
    if first.nbytes * len(files) > max_bytes:
        raise DatasetError(
            f"{files[0]}: expected images of {max_bytes:,} bytes together, found {len(files):,} of {first.shape}, as this "
            f"one is. If that is right, pass max_bytes={first.nbytes * len(files)}."
        )
    x = np.empty((len(files), *first.shape), np.uint8)
    for place, file in enumerate(files):
        image = read_image(file, *options) if place else first
        if image.shape != first.shape:
            raise DatasetError(
                f"{file}: expected {first.shape[:2]} pixels (height, width), as in {files[0]}, found {image.shape[:2]}. "
                "Make all images of one size."
            )
        x[place] = image
    return x
