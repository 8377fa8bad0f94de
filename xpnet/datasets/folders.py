"""Images as PNG files, one folder per label."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets.files import Split, StrPath
from xpnet.errors import DatasetError, optional_import


def image_folder(path: StrPath) -> Any:
    """Read ``LABEL/*.png``, or ``Train/LABEL/*.png`` and ``Test/LABEL/*.png``, as 8-bit grey images.

    Labels that are all numbers stand for themselves; other labels are numbered from 0 in alphabetical order.
    The images come label by label, and within a label by file name. Needs ``pip install "xpnet[data]"``.

    Parameters
    ----------
    path : path-like
        A folder with ``Train`` and ``Test`` in it, or with the folders of the labels.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        If the folder has ``Train`` and ``Test`` in it: images ``uint8 (n, height, width)``, and labels
        ``(n,)`` in the smallest unsigned type that holds them (``uint8`` up to 255).
    x, y
        For a folder of labels.
    """
    path = Path(path)
    splits = [path / "Train", path / "Test"]
    if not all(split.is_dir() for split in splits):
        splits = [path]
    entries = [entry for split in splits for entry in split.iterdir() if not entry.name.startswith(".")]
    names = sorted({entry.name for entry in entries if entry.is_dir()})
    numeric = all(name.isdecimal() for name in names)
    labels = {name: int(name) if numeric else place for place, name in enumerate(names)}
    pairs = [read_labels(split, labels) for split in splits]
    return pairs[0] if len(pairs) == 1 else tuple(pairs)


def read_labels(path: Path, labels: Mapping[str, int]) -> Split:
    """``LABEL/*.png`` below the path, as images and labels."""
    images, y = [], []
    for name in sorted(labels, key=labels.__getitem__):
        for file in sorted((path / name).glob("*.png")):
            images.append(read_png(file))
            y.append(labels[name])
            if images[-1].shape != images[0].shape:
                raise DatasetError(
                    f"{file}: expected {images[0].shape} pixels (height, width), as in the first image, "
                    f"found {images[-1].shape}. Make all images of one size."
                )
    if not images:
        raise DatasetError(
            f"{path}: expected images LABEL/*.png, or Train/LABEL/*.png and Test/LABEL/*.png; "
            f"found none in its {len(labels)} folders {list(labels)[:10]}."
        )
    return np.stack(images), np.asarray(y, dtype=np.min_scalar_type(max(labels.values())))


def read_png(file: Path) -> np.ndarray:
    """One PNG file as grey values ``(height, width)``."""
    image_module = optional_import("PIL.Image", "data")
    try:
        with image_module.open(file) as image:
            if image.mode.startswith("I"):
                raise DatasetError(f"{file}: expected 8 bits a channel, found 16. Convert the image.")
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise DatasetError(f"{file}: expected a PNG image, found a damaged or other file: {error}") from error


def write_image_folder(path: StrPath, train: Split, test: Split) -> None:
    """Write what :func:`image_folder` reads: ``Train/LABEL/000000.png`` and ``Test/LABEL/000000.png``.

    The number is the place of the image in its array. Neither folder appears before both are complete.

    Parameters
    ----------
    path : path-like
        A folder without ``Train`` and ``Test``; it is made if need be.
    train, test : (images, labels)
        Images ``uint8 (n, height, width)`` and labels ``(n,)``, whole numbers from 0.
    """
    path = Path(path)
    splits = {"Train": train, "Test": test}
    for name in splits:
        if (path / name).exists():
            raise FileExistsError(f"{path / name} exists already. Delete it, or choose another folder.")
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".") as temporary:
        for name, (x, y) in splits.items():
            write_labels(Path(temporary, name), x, y)
        for name in splits:
            Path(temporary, name).rename(path / name)


def write_labels(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """``LABEL/000000.png`` for each image."""
    whole = y.shape == x.shape[:1] and y.dtype.kind in "iu" and np.all(y >= 0)
    if x.dtype != np.uint8 or x.ndim != 3 or not whole:
        raise ValueError(
            "Images must be uint8 (n, height, width) and labels whole numbers from 0 (n,). "
            f"Received: images {x.dtype} {x.shape}, labels {y.dtype} {y.shape}."
        )
    image_module = optional_import("PIL.Image", "data")
    for label in np.unique(y).tolist():
        (path / str(label)).mkdir(parents=True)
    for place, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
        image_module.fromarray(image).save(path / str(label) / f"{place:06d}.png")
