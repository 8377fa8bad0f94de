"""The lock and the compiled functions of a model, which its copies and pickles do not share."""

from __future__ import annotations

import functools
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])

# Functions, each as its own value, by backend name, because data types of different libraries cannot be compared
_alive: dict[str, weakref.WeakKeyDictionary[Any, weakref.ref[Any]]] = defaultdict(weakref.WeakKeyDictionary)

KEPT = 32
_recent: dict[int, Any] = {}  # functions by their `id`, the most recently used one last


def keep_recent(functions: Iterable[Any]) -> None:
    """Keep functions until `KEPT` others have been used, although their model may be gone.

    A search makes many short-lived models with equal functions. Without this, each would compile them again.
    """
    for function in functions:
        _recent.pop(id(function), None)
        _recent[id(function)] = function
    while len(_recent) > KEPT:
        del _recent[next(iter(_recent))]


class Workshop:
    """The workshop of one model. Copying or unpickling it creates a new one, empty and unlocked."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant, because a callback may call train_on_batch
        self.functions: dict[type, Any] = {}
        self.run: Any = None  # the run of `fit` that is changing the model

    def __reduce__(self) -> tuple[Any, ...]:
        return Workshop, ()

    @contextmanager
    def fitting(self, run: Any) -> Iterator[None]:
        """A ``with`` block during which this run of `fit` changes the model."""
        self.run = run
        try:
            yield
        finally:
            self.run = None

    def require_idle(self, method: str) -> None:
        """Raise RuntimeError if a callback calls this method, which would change the model during `fit`."""
        if self.run is not None:
            raise RuntimeError(f"Cannot call `model.{method}()` during `fit`. Call it before or after `fit`.")

    def keep(self, library: str, function: Any) -> Any:
        """Return `function`, or an equal function of another model. Keep it until the next function of its class.

        Compiled code belongs to a function and is released with it. Models with equal functions therefore share compiled code,
        and it does not outlive them.
        """
        try:
            found = _alive[library].get(function, lambda: None)()
        except TypeError as error:
            raise TypeError(
                "Custom layers, losses, metrics and optimizers must be hashable. Make them frozen dataclasses, "
                "@dataclass(frozen=True), whose settings are numbers, strings, layers or tuples of these, not lists, dicts or "
                f"arrays. Received: {error}"
            ) from error
        if found is None:
            found = function
            _alive[library][found] = weakref.ref(found)
        self.functions[type(found)] = found
        return found


def alone(method: Method) -> Method:
    """Decorate a method that changes a model: while it runs, such methods raise RuntimeError in other threads."""

    @functools.wraps(method)
    def locked(model: Any, /, *arguments: Any, **options: Any) -> Any:
        if not model.workshop.lock.acquire(blocking=False):
            raise RuntimeError(
                "Only one thread at a time may train or change a model, and another thread is doing so. Give each thread a "
                f"separate model, such as copy.deepcopy(model), or wait. Received: {method.__name__} of {model!r}"
            )
        try:
            return method(model, *arguments, **options)
        finally:
            model.workshop.lock.release()

    return cast(Method, locked)
