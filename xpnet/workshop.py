"""What belongs to one model alone, and to no copy and no pickle of it: its lock, and the functions it has had compiled."""

from __future__ import annotations

import functools
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])

# By backend's name, for data types of two libraries are not to be compared: functions, each as its own value
_alive: dict[str, weakref.WeakKeyDictionary[Any, weakref.ref]] = defaultdict(weakref.WeakKeyDictionary)


class Workshop:
    """One for each model. A copy or a pickle of it is a new one, empty and unlocked."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a callback may train its model on a batch
        self.functions: dict[type, Any] = {}
        self.fits = False

    def __reduce__(self) -> tuple:
        return Workshop, ()

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """A ``with`` block in which a run of `fit` changes the model."""
        self.fits = True
        try:
            yield
        finally:
            self.fits = False

    def require_idle(self, method: str) -> None:
        """Raise RuntimeError where a callback calls a method that would change the model under its run."""
        if self.fits:
            raise RuntimeError(f"Cannot call `model.{method}()` during `fit`. Call it before or after.")

    def keep(self, library: str, function: Any) -> Any:
        """`function`, or the equal one that some model already has, kept until the next of its class.

        Code is compiled for a function and released with it: so models that train alike share it, and none outlives them.
        """
        found = _alive[library].get(function, lambda: None)()
        if found is None:
            found = function
            _alive[library][found] = weakref.ref(found)
        self.functions[type(found)] = found
        return found


def alone(method: Method) -> Method:
    """A method that changes a model: while it runs, another thread's is refused with RuntimeError."""

    @functools.wraps(method)
    def locked(model: Any, /, *arguments: Any, **options: Any) -> Any:
        if not model.workshop.lock.acquire(blocking=False):
            raise RuntimeError(
                "Another thread trains or changes this model: one fit at a time. Give each thread a model of its own, such as "
                f"copy.deepcopy(model), or wait for the other to end. Received: {method.__name__} of {model!r}"
            )
        try:
            return method(model, *arguments, **options)
        finally:
            model.workshop.lock.release()

    return cast(Method, locked)
