"""The base class of callbacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xpnet.errors import CheckpointError
from xpnet.keywords import Settings

Logs = dict[str, Any]


class Callback(metaclass=Settings):
    """The base class of callbacks, with the methods of Keras. Override the ones you need.

    `fit`, `evaluate` and `predict` call these methods. A method that is not overridden costs nothing. A method that is called
    for each batch costs a transfer from the device for each batch, except in `predict`.

    Attributes
    ----------
    model : Model
        The model that trains, evaluates or predicts.
    params : dict
        ``"epochs"``, ``"steps"`` (the number of batches in an epoch) and ``"verbose"``.
    writes : bool
        Whether the callback only writes files or text. Where several processes train a model, only rank 0 then runs it, and
        it must not change the model.
    """

    writes = False

    model: Any = None
    params: dict[str, Any] = {}  # noqa: RUF012  (replaced, never changed)

    def set_model(self, model: Any) -> None:
        """Receive the model, before anything else is called."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Receive `params`, before a method ``on_..._begin`` is called."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called after the last epoch with its values, but not after an error."""

    def on_train_interrupt(self, error: BaseException) -> bool | None:
        """Called instead of `on_train_end` after Ctrl-C, SIGTERM or a divergence; `fit` raises `error` afterward.

        The model is in a valid state. If a callback returns True, `fit` does not raise `error`: it calls `on_train_end` and
        returns its history.
        """
        return None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before each epoch. Epochs count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after each epoch and its validation, with the values of the history.

        A value that a callback adds to `logs` enters the history, too.
        """

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each step. `batch` is its number within the epoch, counted from 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each step, with the loss and metrics over the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """The old name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """The old name of `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called before each evaluation, and before each validation in `fit`."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called after each evaluation or validation, with its loss and metrics."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of an evaluation or validation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of an evaluation or validation, with the loss and metrics over the batches so far."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Called before each prediction."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Called after each prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of a prediction."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of a prediction. ``logs["outputs"]`` holds its predictions, on the device."""

    def next_pause(self, step: int) -> int | None:
        """Return the number of steps since the model was built at which `on_pause` must be called, or None."""
        return None

    def on_pause(self, logs: Logs | None) -> None:
        """Called between chunks of steps, and after the `on_epoch_end` of all callbacks.

        Here the model and all callbacks are in the state that a resumed run needs, so this method may save them, and must not
        change them. A chunk takes about 0.2 s, but ends at the step that `next_pause` returned. `logs` are those of
        `on_epoch_end`, or None inside an epoch.
        """

    def backup(self) -> Path | None:
        """Return the path of a training checkpoint from which `fit` resumes, if it exists."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the values that this callback needs to continue a run. A training checkpoint stores them.

        The values are None, numbers, text, NumPy arrays, and lists, tuples and dicts of these. A callback without
        state returns ``{}``.
        """
        raise self.without("state_dict")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values that `state_dict` returned. `fit` calls it after `on_train_begin` when it resumes a run.

        A run that resumes inside an epoch calls it after `on_epoch_begin`, too.
        """
        raise self.without("load_state_dict")

    def without(self, method: str) -> CheckpointError:
        """Return the error for a callback that does not define `state_dict` or `load_state_dict`."""
        return CheckpointError(
            "A checkpoint holds the state of all callbacks. Define state_dict(self), which returns it as a dict, and "
            "load_state_dict(self, state), which sets it. A callback without state returns {} and sets nothing. "
            f"Received: {type(self).__name__} without {method}"
        )


Callbacks = Sequence[Callback] | None


def attach(
    callbacks: Sequence[Callback], model: Any, verbose: str | int, epochs: int, steps: int | None
) -> Sequence[Callback]:
    """Pass the model and the parameters of a run to the callbacks, and return them."""
    for callback in callbacks:
        callback.set_model(model)
        callback.set_params({"verbose": verbose, "epochs": epochs, "steps": steps})
    return callbacks


def call(callbacks: Iterable[Callback], hook: str, *arguments: Any) -> None:
    """Call this method of each callback."""
    for callback in callbacks:
        getattr(callback, hook)(*arguments)


def watching(callbacks: Iterable[Callback], batches_of: str) -> Sequence[Callback]:
    """Return the callbacks that override a method called for each batch of ``"train"``, ``"test"`` or ``"predict"``."""
    names = [f"on_{batches_of}_batch_begin", f"on_{batches_of}_batch_end"]
    if batches_of == "train":
        names += ["on_batch_begin", "on_batch_end"]
    idle = {name: getattr(Callback, name) for name in names}
    return [c for c in callbacks if any(getattr(getattr(c, n), "__func__", None) is not idle[n] for n in names)]
