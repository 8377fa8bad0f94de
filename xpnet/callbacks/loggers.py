"""Callbacks that write the values of each epoch to a file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from xpnet.callbacks.base import Callback, Logs
from xpnet.checks import boolean, require
from xpnet.errors import CheckpointError
from xpnet.files import StrPath, as_path


class _EpochFile(Callback):
    """Writes text after each epoch. A resumed run continues after the text that existed at the checkpoint."""

    writes = True

    def __init__(self, filename: StrPath, append: bool):
        self.filename, self.append = as_path(filename, "filename"), boolean("append", append)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.size = self._size() if self.append else 0  # the bytes to keep
        self.starts = True

    def _write(self, text: str) -> None:
        self.filename.parent.mkdir(parents=True, exist_ok=True)
        with open(self.filename, "r+b" if self.filename.exists() else "wb") as file:
            if self.starts:
                file.truncate(self.size)
            file.seek(0, io.SEEK_END)
            file.write(text.encode())
            self.size = file.tell()
        self.starts = False

    def _size(self) -> int:
        return self.filename.stat().st_size if self.filename.exists() else 0

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        size, present = int(state["size"]), self._size()
        if 0 < present < size:
            raise CheckpointError(
                f"{type(self).__name__} continues the file of the run, which has at least {size} bytes. Restore the file, or "
                f"remove it to begin a new one. Received: {self.filename} of {present} bytes"
            )
        self.size = min(size, present)


class CSVLogger(_EpochFile):
    """Write the values of each epoch as a row of a CSV file.

    The columns are ``"epoch"``, counted from 0, and the names of the history in alphabetical order. Values of an epoch without
    validation are ``NA``. After each row the file is complete, so another program can read it during training.

    Parameters
    ----------
    filename : str or path
    separator : str, default ","
        The character between values.
    append : bool, default False
        Add rows to an existing file. Otherwise it is overwritten, unless a run resumes.
    """

    def __init__(self, filename: StrPath, separator: str = ",", append: bool = False):
        super().__init__(filename, append)
        rule = "separator must be one character"
        require(isinstance(separator, str) and len(separator) == 1, rule, f"separator={separator!r}")
        self.separator = separator

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self.columns: Sequence[str] = ()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        rows: list[list[Any]] = []
        if not self.columns:
            values = {"loss", *(metric.name for metric in self.model.metrics)} if self.model.validates else set()
            self.columns = sorted({*logs, *(f"val_{name}" for name in values)})
            rows += [["epoch", *self.columns]] if not self.size else []
        rows.append([epoch, *(_cell(logs.get(name, "NA")) for name in self.columns)])
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator).writerows(rows)
        self._write(text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"columns": list(self.columns)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.columns = [str(name) for name in state["columns"]] if self.size else ()


class JSONLinesLogger(_EpochFile):
    """Write the values of each epoch as a line of a JSON lines file, such as ``{"epoch": 0, "loss": 0.25}``.

    Infinite values and NaN are ``null``, because JSON has no numbers for them. After each line the file is complete, so another
    program can read it during training.

    Parameters
    ----------
    filename : str or path
    append : bool, default False
        Add lines to an existing file. Otherwise it is overwritten, unless a run resumes.
    """

    def __init__(self, filename: StrPath, append: bool = False):
        super().__init__(filename, append)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._write(json.dumps(_finite({"epoch": epoch} | (logs or {})), ensure_ascii=False) + "\n")


def _cell(value: Any) -> Any:
    """Return a value as a cell; a list is written as in Keras."""
    return f'"[{", ".join(map(str, value))}]"' if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array or a NumPy number that another callback has added
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
