"""Images in folders, one folder for each label."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets.files import MAX_BYTES, MAX_LABEL, Labeled, errors_named, label_type
from xpnet.datasets.images import MAX_PIXELS, SUFFIXES, read_image
from xpnet.errors import DatasetError
from xpnet.files import StrPath


def image_folder(
    path: StrPath,
    *,
    color: bool = False,
    background: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Labeled | tuple[Labeled, Labeled]:
    """Read ``LABEL/IMAGE``, or ``Train/LABEL/IMAGE`` and ``Test/LABEL/IMAGE``, as arrays of bytes.

    Images are BMP, GIF, JPEG, PNG, PPM (PGM, PBM), TIFF and WebP files, recognized by their suffix in upper or lower case.
    Each folder that holds images is a label, and both parts share their labels. If all folder names are numbers, the
    numbers are the labels. Otherwise the names are numbered from 0 in sorted order. The images are sorted by label and then
    by file name. Hidden files, hidden folders and ``__MACOSX`` are skipped; a warning lists everything else that is left
    out. This function needs the extra ``data``.

    Colors become gray with Pillow's weights, L = 0.299 R + 0.587 G + 0.114 B. Palette indices are first replaced by their
    colors. An image is rotated according to its EXIF orientation, as viewers show it. Only the first frame of an animation is
    read.

    Parameters
    ----------
    path : path-like
        A folder that holds ``Train`` and ``Test``, in upper or lower case, or the folders of the labels.
    color : bool, default False
        Whether to keep colors. Red, green and blue are then the last axis.
    background : int, optional
        The gray value, 0 to 255, behind transparent pixels. Without it, an image with transparent pixels is refused.
    max_pixels : int, default 2**24
        The largest image to read.
    max_bytes : int, default 2**30
        The largest array to create for one part.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : Labeled
        For a folder with ``Train`` and ``Test``: images ``uint8 (n, height, width)``, or ``(n, height, width, 3)`` with
        ``color``, and labels ``(n,)``, ``uint8`` or ``uint16``. ``class_names[label]`` is the name of a label.
    x, y : Labeled
        For a folder of labels.

    Raises
    ------
    DatasetError
        The folder holds no images; an image is damaged, too large, transparent, has more than 8 bits per channel, or differs
        in size from the first image; or two folder names are the same label.
    """
    if background is not None and background not in range(256):
        raise ValueError(f"background must be a gray value from 0 to 255. Received: {background!r}")
    path = Path(path)
    left_out: list[Path] = []
    with errors_named(path):
        parts = parts_of(path, left_out)
        found = [images_of(part, left_out) for part in parts]
    for part, images in zip(parts, found, strict=True):
        if not images:
            raise DatasetError(
                f"{part}: expected images LABEL/IMAGE, or Train/LABEL/IMAGE and Test/LABEL/IMAGE, with the suffixes "
                f"{' '.join(SUFFIXES)}. Check the path. Received: a folder without such images"
            )
    if left_out:
        names = ", ".join(str(entry.relative_to(path)) for entry in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        warnings.warn(
            f"{path}: left out, because they are not images or not directly in the folder of a label: {names}{more}",
            stacklevel=2,
        )
    labels, class_names = numbered(sorted(set().union(*found)), path)
    pairs = []
    for images in found:
        files = [(file, labels[name]) for name in sorted(images, key=labels.__getitem__) for file in images[name]]
        with warnings.catch_warnings():
            # Pillow warns about damaged metadata and about sizes, where our limit is far lower than Pillow's
            warnings.simplefilter("ignore")
            x = read_all([file for file, _ in files], max_bytes, color, background, max_pixels)
        y = np.asarray([label for _, label in files], label_type(max(labels.values())))
        pairs.append(Labeled(x, y, class_names))
    return pairs[0] if len(pairs) == 1 else (pairs[0], pairs[1])


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, sorted by name, without hidden files and macOS metadata."""
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "__MACOSX")
    return sorted(entries, key=lambda entry: entry.name)


def is_image(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.is_dir()


def parts_of(path: Path, left_out: list[Path]) -> list[Path]:
    """``Train`` and ``Test`` below the path, if both exist and hold folders; else the path itself."""
    folders = [entry for entry in visible(path) if entry.is_dir()]
    parts = [entry for name in ("train", "test") for entry in folders if entry.name.casefold() == name]
    names = [entry.name.casefold() for entry in parts]
    if names != ["train", "test"] or any(is_image(entry) for part in parts for entry in visible(part)):
        return [path]
    left_out += [entry for entry in folders if entry not in parts]
    return parts


def images_of(part: Path, left_out: list[Path]) -> dict[str, list[Path]]:
    """The image files of each folder that holds images."""
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
            raise DatasetError(
                f"{path}: expected a different label for each folder. Rename or merge the folders. Received: {other!r} and "
                f"{name!r}, which are the same label"
            )
    if numeric:
        largest = max(names, key=int)
        if int(largest) > MAX_LABEL:
            raise DatasetError(
                f"{path}: expected labels up to {MAX_LABEL:,}. Rename the folders: names that are not all digits, such as "
                f"'id{largest}', are numbered instead. Received: the folder {largest!r}"
            )
        return {name: int(name) for name in names}, tuple(map(str, range(int(largest) + 1)))
    labels = {name: label for label, name in enumerate(names)}
    for name in names:
        if name.isdecimal() and int(name) != labels[name]:
            word = next(word for word in names if not word.isdecimal())
            raise DatasetError(
                f"{path}: expected only numbers or no numbers as folder names. Move one of the folders away, or rename it. "
                f"Received: {word!r} and {name!r}, which would be label {labels[name]} in sorted order"
            )
    return labels, tuple(names)


def read_all(files: Sequence[Path], max_bytes: int, *options: Any) -> np.ndarray:
    """Read all images, which must have the same size, into one array."""
    first = read_image(files[0], *options)
    if first.nbytes * len(files) > max_bytes:
        raise DatasetError(
            f"{files[0]}: expected at most {max_bytes:,} bytes for all images. If the folder is correct, pass "
            f"max_bytes={first.nbytes * len(files)}. Received: {len(files):,} images, this one of shape {first.shape}"
        )
    x = np.empty((len(files), *first.shape), np.uint8)
    for place, file in enumerate(files):
        image = read_image(file, *options) if place else first
        if image.shape != first.shape:
            raise DatasetError(
                f"{file}: expected {first.shape[:2]} pixels (height, width), as in {files[0]}. Make all images the same "
                f"size. Received: {image.shape[:2]}"
            )
        x[place] = image
    return x
