"""The base class of callbacks."""

from __future__ import annotations

from typing import Any

from xpnet.errors import CheckpointError


class Callback:
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

    def next_pause(self, step: int) -> int | None:
        """Return the number of steps since the model was built at which `on_pause` must be called, or None for any."""
        return None

    def on_pause(self, logs: dict[str, Any] | None) -> None:
        """Called between chunks of steps, and after the `on_epoch_end` of all callbacks.

        Nothing is half done: the model and all callbacks are as a resumed run would need them. A chunk takes about 0.2 s, or
        up to the step that `next_pause` returns. `logs` are those of `on_epoch_end`, and None inside an epoch.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what this callback has to remember to continue a run, for a training checkpoint.

        The values are None, numbers, text, NumPy arrays, and lists, tuples and dicts of these. A callback that remembers
        nothing returns ``{}``.
        """
        raise self._undefined("state_dict")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` returned. `fit` calls it after `on_train_begin` when it resumes a run.

        A run that resumes inside an epoch calls it after `on_epoch_begin`, too.
        """
        raise self._undefined("load_state_dict")

    def _undefined(self, method: str) -> CheckpointError:
        return CheckpointError(
            "A checkpoint holds the state of all callbacks. Define state_dict(self), which returns it as a dict, and "
            "load_state_dict(self, state), which sets it. A callback without state returns {} and sets nothing. "
            f"Received: {type(self).__name__} without {method}"
        )
