"""An Array API namespace with some functions replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Namespace:
    """The functions of `library`, some of them replaced. `convert`, if given, converts each result."""

    def __init__(self, library: Any, convert: Callable[[Any], Any] | None = None, **replacements: Callable):
        self._library, self._convert = library, convert
        for name, function in replacements.items():
            setattr(self, name, self._converting(function))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "__array_namespace_info__":
            raise AttributeError(name)
        value = getattr(self._library, name)
        if callable(value) and not isinstance(value, type):
            value = self._converting(value)
        setattr(self, name, value)  # so that the next access is direct
        return value

    def _converting(self, function: Callable) -> Callable:
        convert = self._convert
        if convert is None:
            return function
        return lambda *args, **settings: convert(function(*args, **settings))
