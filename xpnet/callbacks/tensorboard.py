"""Event files for TensorBoard (the extra ``tensorboard``)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xpnet import schedules
from xpnet.callbacks.base import Callback, Logs
from xpnet.checks import count, whole
from xpnet.errors import optional_import
from xpnet.files import StrPath, as_path

_PLUGIN = "tensorboard.plugins.{0}.summary_v2"


class TensorBoard(Callback):
    """Write the values of each epoch, and histograms of the weights, for TensorBoard: ``tensorboard --logdir=logs``.

    The folder ``train`` holds ``epoch_loss``, ``epoch_learning_rate`` and so on by epoch, and the folder ``validation`` holds
    ``epoch_loss`` and so on by epoch and ``evaluation_loss_vs_iterations`` and so on by step, as in Keras.

    Parameters
    ----------
    log_dir : str or path, default "logs"
        Use a new folder for each run, or a folder in it.
    histogram_freq : int, default 0
        Write a histogram of each weight and running statistic every `histogram_freq` epochs. 0 writes none.
    update_freq : "epoch", "batch" or int, default "epoch"
        Also write ``batch_loss`` and so on, the means over the epoch so far, every `update_freq` steps. "batch" means 1.
    """

    writes = True

    def __init__(self, log_dir: StrPath = "logs", histogram_freq: int = 0, *, update_freq: str | int = "epoch"):
        self.log_dir, self.histogram_freq = as_path(log_dir, "log_dir"), whole("histogram_freq", histogram_freq)
        self.every = (
            None if update_freq == "epoch" else count("update_freq", 1 if update_freq == "batch" else update_freq)
        )
        optional_import("tensorboard", "tensorboard")
        self.writers: dict[str, Any] = {}
        self.trains, self.run = False, _new_run()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.trains, self.run, self.first_step, self.written = True, _new_run(), self.model.step, self.model.step

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.first_step = self.model.step

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        values = {"learning_rate": self._learning_rate()} | (logs or {})
        for name, value in values.items():
            folder = "validation" if name.startswith("val_") else "train"
            self._scalar(folder, f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for name, array in self.model.state_dict().items():
                histogram = optional_import(_PLUGIN.format("histogram"), "tensorboard").histogram_pb
                self._write("train", histogram(f"{name.replace('.', '/')}/histogram", array), epoch)
        self._flush()

    def on_test_end(self, logs: Logs | None = None) -> None:
        for name, value in (logs or {}).items():
            self._scalar("validation", f"evaluation_{name}_vs_iterations", value, self.model.step)
        if not self.trains:
            self._close()

    def next_pause(self, step: int) -> int | None:
        return self.every and step + self.every - step % self.every

    def on_pause(self, logs: Logs | None) -> None:
        self._write_steps()

    def _write_steps(self) -> None:
        """Write the values of this step if they are due. A checkpoint may come before or after `on_pause`."""
        if self.every and self.model.step % self.every == 0 and self.model.step != self.written:
            self.written = self.model.step
            for name, value in self.model.training_state.averages.values().items():
                self._scalar("train", f"batch_{name}", value, self.model.step)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._close()

    def on_train_interrupt(self, error: BaseException) -> None:
        self._close()

    def _learning_rate(self) -> float:
        """The learning rate of the last step."""
        rate = schedules.get(self.model.optimizer.learning_rate)
        origin = self.first_step if getattr(rate, "restart_every_epoch", False) else 0
        return float(rate(self.model.step - 1 - origin))

    def _scalar(self, folder: str, name: str, value: Any, step: int) -> None:
        scalar = optional_import(_PLUGIN.format("scalar"), "tensorboard").scalar_pb
        for tag, number in _numbers(name, value):
            self._write(folder, scalar(tag, number), step)

    def _write(self, folder: str, summary: Any, step: int) -> None:
        if folder not in self.writers:
            writer = optional_import("tensorboard.summary.writer.event_file_writer", "tensorboard").EventFileWriter
            self.writers[folder] = writer(str(self.log_dir / folder), filename_suffix=f".{self.run}")
        event = optional_import("tensorboard.compat.proto.event_pb2", "tensorboard").Event
        self.writers[folder].add_event(event(wall_time=time.time(), step=step, summary=summary))

    def _flush(self) -> None:
        for writer in self.writers.values():
            writer.flush()

    def _close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers, self.trains = {}, False

    def _files(self) -> dict[str, Path]:
        """The files of this run by their names in `log_dir`."""
        return {path.relative_to(self.log_dir).as_posix(): path for path in self.log_dir.glob(f"*/*.{self.run}")}

    def state_dict(self) -> dict[str, Any]:
        self._write_steps()
        self._flush()
        sizes = {name: path.stat().st_size for name, path in self._files().items()}
        return {"run": self.run, "sizes": sizes, "first_step": self.first_step, "written": self.written}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remove what the run wrote after the checkpoint, so that no point is drawn twice."""
        self._close()
        self.run, self.first_step, self.trains = str(state["run"]), int(state["first_step"]), True
        self.written = int(state["written"])
        for name, path in self._files().items():
            if name not in state["sizes"]:
                path.unlink()
            elif path.stat().st_size > (size := int(state["sizes"][name])):
                os.truncate(path, size)


def _new_run() -> str:
    """A number in which the names of the files of a run end."""
    return os.urandom(8).hex()


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield each number of a value, which may be a list for several networks or classes."""
    if isinstance(value, list):
        for i, one in enumerate(value):
            yield from _numbers(f"{name}/{i}", one)
    else:
        yield name, value
