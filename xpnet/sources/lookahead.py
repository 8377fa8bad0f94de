"""Reading ahead in one thread, while the caller computes."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from typing import Any, Generic, TypeVar

T = TypeVar("T")
ITEMS = 32  # at most this many items wait


class LookAhead(AbstractContextManager["LookAhead[T]"], Generic[T]):
    """An iterator whose items one thread takes in advance. Use it in a ``with`` block: the thread ends with the block.

    Parameters
    ----------
    items : generator
        The thread takes its items, and closes it at the end. An error is raised when its item is requested.
    size : callable
        Returns the size of an item in bytes.
    limit : int
        The thread waits while the items in advance have this size or more.
    """

    def __init__(self, items: Generator[T, None, None], size: Callable[[T], int], limit: int):
        self._items, self._size, self._limit = items, size, limit
        self._waiting: deque[T] = deque()
        self._bytes, self._closed, self._ended, self._patient = 0, False, False, True
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        run = contextvars.copy_context().run  # uses the caller's settings, such as np.errstate
        self._thread = threading.Thread(target=run, args=(self._read,), name="xpnet look-ahead", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with closing(self._items):
                for item in self._items:
                    if not self._put(item):
                        break
        except BaseException as error:  # raised again by `__next__`
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Add an item, then wait for room. Return whether to continue."""
        with self._changed:
            self._waiting.append(item)
            self._bytes += self._size(item)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or (self._bytes < self._limit and len(self._waiting) < ITEMS))
            return not self._closed

    @property
    def ready(self) -> bool:
        """Whether an item is there, so that `next` does not wait."""
        return bool(self._waiting)

    def __iter__(self) -> LookAhead[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            try:
                self._changed.wait_for(lambda: self._waiting or self._ended)
            except KeyboardInterrupt:
                self._patient = False
                raise
            if self._waiting:
                item = self._waiting.popleft()
                self._bytes -= self._size(item)
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
            raise error or StopIteration

    def __exit__(self, *error: Any) -> None:
        """End the thread, and drop the items in advance. Wait for the item that it is reading, but not after Ctrl-C in a wait."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._patient:
            self._thread.join()
