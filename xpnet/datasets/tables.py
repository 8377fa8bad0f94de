"""Images as a CSV table, one per row: the label first, then the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xpnet.datasets.files import Split, StrPath, replacing
from xpnet.errors import DatasetError


def label_first_csv(path: StrPath) -> Split:
    """Read a CSV file whose first column is the label and whose other columns are the pixels.

    All values are whole numbers from 0 to 255. A header line is passed over. Rows keep their order.

    Parameters
    ----------
    path : path-like
        A plain text file; commas separate the values.

    Returns
    -------
    x, y : uint8 arrays
        Pixels ``(n, columns - 1)`` and labels ``(n,)``. As images: ``x.reshape(-1, 28, 28)``.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            first = file.readline()
            header = 0 if is_number(first.split(",")[0]) else 1
            row = file.readline() if header else first
        if "," not in row:
            raise ValueError(f"the first row is {row[:40]!r}")
        table = np.loadtxt(
            path, dtype=np.uint8, comments=None, delimiter=",", skiprows=header, ndmin=2, encoding="utf-8-sig"
        )
    except ValueError as error:
        raise DatasetError(
            f"{path}: expected rows of a label and pixels, all whole numbers from 0 to 255, perhaps below a "
            f"header line; found otherwise: {error}"
        ) from error
    return table[:, 1:].copy(), table[:, 0].copy()


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_label_first_csv(path: StrPath, x: np.ndarray, y: np.ndarray) -> None:
    """Write what :func:`label_first_csv` reads, with a header line ``label,pixel0,pixel1,...``.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced, once all is written.
    x : ndarray
        Images or rows of pixels, ``uint8 (n, ...)``.
    y : ndarray
        Labels ``(n,)``, whole numbers from 0 to 255.
    """
    if x.dtype != np.uint8 or y.shape != x.shape[:1] or not np.all(np.isin(y, np.arange(256))):
        raise ValueError(
            "Pixels must be uint8 (n, ...) and labels whole numbers from 0 to 255 (n,). "
            f"Received: pixels {x.dtype} {x.shape}, labels {y.dtype} {y.shape}."
        )
    table = np.column_stack([y.astype(np.uint8), x.reshape(len(x), -1)])
    header = ["label", *(f"pixel{place}" for place in range(table.shape[1] - 1))]
    numbers = [b"%d" % value for value in range(256)]
    with replacing(Path(path)) as file:
        file.write(",".join(header).encode() + b"\n")
        for row in table:
            file.write(b",".join([numbers[value] for value in row.tobytes()]) + b"\n")
