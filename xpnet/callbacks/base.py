"""The base class of callbacks."""

from __future__ import annotations

from typing import Any

from xpnet.keywords import Settings


class Callback(metaclass=Settings):
    """The base class of callbacks: `fit` calls these methods. Override the ones you need; `self.model` is the model.

    Overriding `on_train_batch_end` adds a transfer from the device to every step. The other methods add none.
    """

    model: Any

    def on_train_begin(self) -> None:
        """Called before the first epoch."""

    def on_train_end(self) -> None:
        """Called after the last epoch, but not after an error."""

    def on_train_interrupt(self, error: BaseException) -> None:
        """Called instead of `on_train_end` after Ctrl-C, SIGTERM or a divergence; `fit` raises `error` afterward.

        The model is in a valid state.
        """

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Called after each epoch and its validation, with the values that enter the history."""

    def on_train_batch_end(self, step: int, logs: dict[str, Any]) -> None:
        """Called after each step. `step` counts from 0 since the model was built."""
