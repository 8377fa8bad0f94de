"""Writers of the files that :func:`label_first_csv` and :func:`image_folder` read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from xpnet.datasets.files import MAX_LABEL, Split
from xpnet.errors import optional_import
from xpnet.files import StrPath, replacing


def write_label_first_csv(path: StrPath, x: np.ndarray, y: np.ndarray) -> None:
    """Write a file that :func:`label_first_csv` reads, with the header line ``label,pixel0,pixel1,...``.

    Parameters
    ----------
    path : path-like
        The file. An existing file is replaced once the new one is complete.
    x : ndarray
        Images or rows of pixels, ``uint8 (n, ...)``.
    y : ndarray
        Labels ``(n,)``, whole numbers from 0 to 255.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype != np.uint8 or y.shape != x.shape[:1] or not np.all(np.isin(y, np.arange(256))) or not x.size:
        raise ValueError(
            "Pixels must be uint8 of shape (n, ...), n >= 1, and labels must be integers from 0 to 255 of shape (n,). "
            f"Received: pixels {x.dtype} {x.shape}, labels {y.dtype} {y.shape}"
        )
    table = np.column_stack([y.astype(np.uint8), x.reshape(len(x), -1)])
    header = ["label", *(f"pixel{place}" for place in range(table.shape[1] - 1))]
    numbers = [b"%d" % value for value in range(256)]
    with replacing(Path(path)) as file:
        file.write(",".join(header).encode() + b"\n")
        for row in table:
            file.write(b",".join([numbers[value] for value in row.tobytes()]) + b"\n")


def write_image_folder(path: StrPath, train: Split, test: Split) -> None:
    """Write a folder that :func:`image_folder` reads: ``Train/LABEL/000000.png`` and ``Test/LABEL/000000.png``.

    The number is the index of the image in its array. Both folders appear only once both are complete. This function needs
    the extra ``data``.

    Parameters
    ----------
    path : path-like
        A folder without ``Train`` and ``Test``. It is created if necessary.
    train, test : (images, labels)
        Images ``uint8 (n, height, width)`` or ``(n, height, width, 3)`` and labels ``(n,)``, integers from 0 to 65,535.
    """
    path = Path(path)
    splits = {"Train": train, "Test": test}
    for name in splits:
        if (path / name).exists():
            raise FileExistsError(
                f"{path}: expected a folder without {name}. Delete it, or choose another folder. Received: {path / name}"
            )
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=".") as temporary:
        for name, (x, y) in splits.items():
            write_labels(Path(temporary, name), np.asarray(x), np.asarray(y))
        for name in splits:
            Path(temporary, name).rename(path / name)


def write_labels(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Write ``LABEL/000000.png`` for each image."""
    whole = y.shape == x.shape[:1] and y.dtype.kind in "iu" and np.all((y >= 0) & (y <= MAX_LABEL))
    if x.dtype != np.uint8 or not (x.ndim == 3 or x.shape[3:] == (3,)) or not x.size or not whole:
        raise ValueError(
            "Images must be uint8 of shape (n, height, width) or (n, height, width, 3), n >= 1, and labels must be integers "
            f"from 0 to {MAX_LABEL} of shape (n,). Received: images {x.dtype} {x.shape}, labels {y.dtype} {y.shape}"
        )
    image_module = optional_import("PIL.Image", "data")
    for label in np.unique(y).tolist():
        (path / str(label)).mkdir(parents=True)
    for place, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
        image_module.fromarray(image).save(path / str(label) / f"{place:06d}.png")
