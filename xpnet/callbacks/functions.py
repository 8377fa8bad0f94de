"""Functions as callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpnet.callbacks.base import Callback
from xpnet.checks import require, unknown_name

Hook = Callable[..., Any] | None


class LambdaCallback(Callback):
    """A callback that calls functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        Functions of ``(epoch, logs)``.
    on_train_begin, on_train_end : callable, optional
        Functions of ``(logs)``.
    on_train_batch_begin, on_train_batch_end : callable, optional
        Functions of ``(batch, logs)``.
    **hooks : callable
        Functions for the other methods of `Callback`, such as ``on_test_end``.
    """

    def __init__(
        self,
        on_epoch_begin: Hook = None,
        on_epoch_end: Hook = None,
        on_train_begin: Hook = None,
        on_train_end: Hook = None,
        on_train_batch_begin: Hook = None,
        on_train_batch_end: Hook = None,
        **hooks: Hook,
    ):
        named = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        known = [name for name in dir(Callback) if name.startswith("on_")]
        for name, function in (named | hooks).items():
            if name not in known:
                raise unknown_name("LambdaCallback accepts functions for the methods", name, known)
            require(function is None or callable(function), f"{name} must be a function", f"{name}={function!r}")
            if function is not None:
                setattr(self, name, function)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: a callback does not know the state of functions."""
