"""Deferred signals: training stops only between chunks of steps, where the model is in a valid state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DEFAULTS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def deferred_signals(anywhere: Callable[[bool], bool] = bool) -> Iterator[Callable[[], None]]:
    """Defer Ctrl-C and SIGTERM until the yielded function is called, which then raises KeyboardInterrupt.

    ``anywhere(caught)`` is true if any of several processes has caught a signal. Then all of them stop at the same place.

    SIGTERM leaves the block in the same way and is then delivered again, which ends the process. A second signal acts
    immediately. A signal that the program handles or ignores is not touched. Outside the main thread, Python does not
    deliver signals.
    """
    caught: list[int] = []

    def check() -> None:
        if anywhere(bool(caught)):
            raise KeyboardInterrupt

    mine = [s for s, default in DEFAULTS.items() if signal.getsignal(s) is default]
    if threading.current_thread() is not threading.main_thread() or not mine:
        yield check
        return

    def handler(number: int, frame: Any) -> None:
        caught.append(number)
        if len(caught) > 1:
            if number == signal.SIGTERM:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTERM)
            raise KeyboardInterrupt

    for s in mine:
        signal.signal(s, handler)
    try:
        yield check
    finally:
        for s in mine:
            if signal.getsignal(s) is handler:  # a callback may have installed its own
                signal.signal(s, DEFAULTS[s])
        if signal.SIGTERM in caught:
            signal.raise_signal(signal.SIGTERM)
