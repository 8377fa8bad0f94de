"""Callbacks that save a model while it trains."""

from __future__ import annotations

import math
import re
import string
import time
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from xpnet.callbacks.base import Callback, Logs
from xpnet.callbacks.monitor import Monitor
from xpnet.checks import boolean, count, is_integer, number, require, unknown_name
from xpnet.files import StrPath, as_path, remove_leftovers
from xpnet.keywords import AbstractSettings


class Saving(Callback, metaclass=AbstractSettings):
    """Saves at the end of each epoch or every number of steps, and in between.

    Parameters
    ----------
    save_freq : "epoch" or int
        Save at the end of each epoch, or whenever the number of steps since the model was built is a multiple.
    every_steps : int, optional
        With ``save_freq="epoch"``: also save at each multiple of this number of steps.
    every_seconds : float, optional
        Also save after this time without a file. It is checked about five times a second, and at least at the end of an epoch.
    """

    writes = True

    filepath: Path

    def __init__(self, save_freq: str | int, every_steps: int | None, every_seconds: float | None):
        rule = 'save_freq must be "epoch" or a number of steps. Pass every_steps only with save_freq="epoch"'
        fits = save_freq == "epoch" or (is_integer(save_freq) and save_freq >= 1 and every_steps is None)
        require(fits, rule, f"save_freq={save_freq!r}, every_steps={every_steps!r}")
        self.at_epochs = save_freq == "epoch"
        steps = every_steps if self.at_epochs else save_freq
        self.every_steps = None if steps is None else count("every_steps", steps)
        self.every_seconds = math.inf if every_seconds is None else number("every_seconds", every_seconds, "[0, inf)")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.saved_at = time.monotonic()
        for other in self.model.workshop.run.callbacks:
            if isinstance(other, Saving) and other is not self:
                rule = (
                    "Each callback that saves needs a different path, because one would replace the files of the other"
                )
                require(other.filepath.resolve() != self.filepath.resolve(), rule, f"{str(self.filepath)!r} twice")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.model.workshop.run.require_savable_states()  # all callbacks have begun, and no step has been taken

    def next_pause(self, step: int) -> int | None:
        return None if self.every_steps is None else step + self.every_steps - step % self.every_steps

    def on_pause(self, logs: Logs | None) -> None:
        steps = self.every_steps is not None and self.model.step % self.every_steps == 0
        waited = time.monotonic() - self.saved_at
        if steps or waited >= self.every_seconds or (self.at_epochs and logs is not None):
            self.save(logs)
            self.saved_at = time.monotonic()

    @abstractmethod
    def save(self, logs: Logs | None) -> None:
        """Write a file. `logs` are those of `on_pause`."""


class ModelCheckpoint(Saving):
    """Save the model during training, to resume an interrupted run with ``fit(resume_from=...)`` or to keep the best model.

    A file replaces an existing one once it is complete on disk, so a crash or a full disk leaves the last one intact.
    `xpnet.load_model` reads it too.

    Parameters
    ----------
    filepath : path-like
        It may contain ``{epoch}``, counted from 1, ``{step}``, and names in the history: ``"{epoch:02d}-{val_loss:.3f}"``.
        If a value does not exist, such as a validation value inside an epoch, the name contains "nan".
    monitor : str, default "val_loss"
        A name in the history, for `save_best_only`.
    verbose : {0, 1}, default 0
        1 prints a line for each file.
    save_best_only : bool, default False
        Save only after an epoch whose monitored value is the best so far. A second `fit` remembers the best value.
    save_weights_only : bool, default False
        Write files of `Model.save_weights`, which do not resume a run.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower or higher values are better. "auto" uses the metric's `Metric.higher_is_better`.
    save_freq : "epoch" or int, default "epoch"
        Save at the end of each epoch, or whenever `Model.step` is a multiple of this number.
    initial_value_threshold : float, optional
        For `save_best_only`: the value to improve on at first.
    every_steps : int, optional
        Also save inside epochs, whenever `Model.step` is a multiple of this number.
    every_seconds : float, optional
        Also save after this time without a file. It is checked between chunks of steps, which take about 0.2 s.
    keep : int, optional
        The number of files to keep. Older files that the run wrote are deleted.

    Raises
    ------
    ValueError
        A setting is out of range or does not fit the model, or two callbacks have the same path.
    CheckpointError
        Before training: a file cannot hold some part of the model or of a callback's state, or a callback does not define
        `Callback.state_dict`.
    OSError
        A file cannot be written. The previous ones are intact, and so is the model.
    """

    def __init__(
        self,
        filepath: StrPath,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        keep: int | None = None,
    ):
        super().__init__(save_freq, every_steps, every_seconds)
        self.filepath = as_path(filepath, "filepath")
        try:
            self.parts = list(string.Formatter().parse(str(self.filepath)))
            for _, name, form, _ in self.parts:
                format(1 if name in ("epoch", "step") else 1.0, form or "")
        except ValueError as error:
            rule = 'filepath must be a path with placeholders such as "{epoch:02d}-{val_loss:.3f}"'
            raise ValueError(f"{rule}. Received: filepath={str(filepath)!r} ({error})") from error
        self.save_best_only = boolean("save_best_only", save_best_only)
        self.save_weights_only = boolean("save_weights_only", save_weights_only)
        require(verbose in (0, 1), "verbose must be 0 or 1", f"{verbose=}")
        self.verbose, self.keep = verbose, None if keep is None else count("keep", keep)
        self.monitored = Monitor(self, monitor, mode)
        epochs_only = self.at_epochs and every_steps is None and every_seconds is None
        rule = 'save_best_only compares epochs. Remove every_steps and every_seconds, and set save_freq to "epoch"'
        require(epochs_only or not save_best_only, rule, f"{save_freq=}, {every_steps=}, {every_seconds=}")
        rule = "initial_value_threshold is for save_best_only=True"
        require(initial_value_threshold is None or save_best_only, rule, f"{initial_value_threshold=}")
        if initial_value_threshold is not None:
            initial_value_threshold = number("initial_value_threshold", initial_value_threshold, "[-inf, inf]")
        self.best, self.files = initial_value_threshold, list[str]()

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches all paths that the placeholders allow."""
        return re.compile("".join(re.escape(text) + r"[^/\\]+" * (name is not None) for text, name, _, _ in self.parts))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        remove_leftovers(self.filepath.parent, self.pattern)
        known = ["epoch", "step", "loss", *(metric.name for metric in self.model.metrics)]
        known += [f"val_{name}" for name in known[2:]] if self.model.validates else []
        for _, name, _, _ in self.parts:
            if name is not None and name not in known:
                raise unknown_name("The placeholders of filepath are", name, known, {"batch": '"step"'})
        if self.save_best_only:
            self.monitored.begin(self.model, self.best)
        if not self.save_weights_only:
            self.model.workshop.run.require_savable()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch + 1
        if not self.save_weights_only:
            super().on_epoch_begin(epoch, logs)

    def save(self, logs: Logs | None) -> None:
        message = f"saving model to {(path := self._path(logs))}"
        if self.save_best_only:
            value, best = self.monitored.value(logs or {}), self.monitored.best
            if value is None or not self.monitored.improves(value):
                return
            self.best = value
            message = f"{self.monitored.monitor} improved from {best:.5f} to {value:.5f}, {message}"
        if self.verbose:
            print(f"Epoch {self.epoch}: {message}", flush=True)
        before = self.files
        if self.keep is not None:
            self.files = [*(file for file in before if file != path), path]  # the new file itself holds this list
        try:
            (self.model.save_weights if self.save_weights_only else self.model.workshop.run.save)(path)
        except BaseException:
            self.files = before
            raise
        if self.keep is not None:
            for old in self.files[: -self.keep]:
                Path(old).unlink(missing_ok=True)
            self.files = self.files[-self.keep :]

    def _path(self, logs: Logs | None) -> str:
        found = self.model.training_state.averages.values() if logs is None else logs
        values = {name: found.get(name, math.nan) for _, name, _, _ in self.parts if name is not None}
        for name, value in values.items():
            require(not isinstance(value, list), "filepath can hold single numbers", f"{name}={value!r:.100}")
        return str(self.filepath).format(**values | {"epoch": self.epoch, "step": self.model.step})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "files": self.files} if self.files or self.best is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        best = state.get("best")
        self.best = None if best is None else float(best)
        self.files = [file for file in state.get("files", []) if self.pattern.fullmatch(file)]  # no others are deleted
        if self.save_best_only:
            self.monitored.begin(self.model, self.best)


class BackupAndRestore(Saving):
    """Back up a run, and resume it from the backup when `fit` is called again, for example after a crash.

    The resumed run continues inside the epoch and ends exactly as if it had not been interrupted. `fit` returns the whole
    history. The arguments of `fit` must be the same; only `epochs` may be larger.

    Parameters
    ----------
    backup_dir : path-like
        A folder that only this run uses.
    save_freq : "epoch" or int, default "epoch"
        Save at the end of each epoch, or whenever `Model.step` is a multiple of this number.
    every_steps : int, optional
        Also save inside epochs, whenever `Model.step` is a multiple of this number.
    every_seconds : float, optional
        Also save after this time without a backup. It is checked between chunks of steps, which take about 0.2 s.
    delete_checkpoint : bool, default True
        Delete the backup when training has finished.

    Raises
    ------
    ValueError
        A setting is out of range, or two callbacks have the same folder.
    CheckpointError
        Before training: the backup is damaged or belongs to another run, and nothing has changed; a file cannot hold some part
        of the model or of a callback's state; or a callback does not define `Callback.state_dict`.
    OSError
        A backup cannot be written. The previous one is intact, and so is the model.
    """

    def __init__(
        self,
        backup_dir: StrPath,
        save_freq: str | int = "epoch",
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        delete_checkpoint: bool = True,
    ):
        super().__init__(save_freq, every_steps, every_seconds)
        self.filepath = as_path(backup_dir, "backup_dir") / "backup.safetensors"
        self.delete_checkpoint = boolean("delete_checkpoint", delete_checkpoint)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        remove_leftovers(self.filepath.parent, re.compile(re.escape(str(self.filepath))))
        self.model.workshop.run.require_savable()

    def backup(self) -> Path | None:
        return self.filepath if self.filepath.exists() else None

    def save(self, logs: Logs | None) -> None:
        self.model.workshop.run.save(self.filepath)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint:
            self.filepath.unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds other files, or is gone
                self.filepath.parent.rmdir()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: the backup is still the same file."""
