"""Converts values to JSON and back: numbers, text, lists, tuples and dicts, and the kinds that a subclass adds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from xpnet.checks import is_integer
from xpnet.errors import CheckpointError
from xpnet.tensorfile import DTYPES, refusal

MAX_DEPTH = 50
LONG = 100  # lists with more numbers become arrays, because a header is short


class Packing(ABC):
    """Turns values into JSON. `other` accepts further kinds of values."""

    def value(self, value: Any, place: str) -> Any:
        """None, a number, text, a list, a tuple, a dict or another value, as JSON holds it."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, (list, tuple)):
            values = [self.value(one, f"{place}[{i}]") for i, one in enumerate(value)]
            return {"tuple": values} if isinstance(value, tuple) else values
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {"dict": {key: self.value(one, f"{place}[{key!r}]") for key, one in value.items()}}
        return self.other(value, place)

    @abstractmethod
    def other(self, value: Any, place: str) -> Any:
        """Return another value as a dict with keys that this class does not use, or raise CheckpointError."""


class Unpacking(ABC):
    """Turns JSON back into values. `other` restores the kinds that `Packing.other` accepts."""

    def value(self, data: Any, place: str, depth: int = 0) -> Any:
        """Return the value from the data that `Packing.value` returned."""
        if depth > MAX_DEPTH:
            raise refusal(f"values at most {MAX_DEPTH} deep", place)
        if data is None or isinstance(data, (bool, int, float, str)):
            return data
        if isinstance(data, list):
            return [self.value(one, place, depth + 1) for one in data]
        if len(data) == 1:
            ((kind, content),) = data.items()
            if kind == "float" and content in ("inf", "-inf", "nan"):
                return float(content)
            if kind == "tuple" and isinstance(content, list):
                return tuple(self.value(content, place, depth + 1))
            if kind == "dict" and isinstance(content, dict):
                return {key: self.value(one, place, depth + 1) for key, one in content.items()}
        return self.other(data, place, depth)

    @abstractmethod
    def other(self, data: dict[str, Any], place: str, depth: int) -> Any:
        """Return the value from the data that `Packing.other` returned, or raise CheckpointError."""


class ArrayPacking(Packing):
    """Also accepts NumPy arrays, which it collects in `arrays` under names with a prefix."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.arrays: dict[str, np.ndarray] = {}

    def value(self, value: Any, place: str) -> Any:
        if isinstance(value, list) and len(value) > LONG:
            if all(type(one) is float for one in value):
                return {"list": self._add(np.array(value))}
            if all(type(one) is int and abs(one) < 2**63 for one in value):
                return {"list": self._add(np.array(value, np.int64))}
        return super().value(value, place)

    def other(self, value: Any, place: str) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.name in DTYPES.values():
            return {"array": self._add(value)}
        kind = f"an array of type {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise CheckpointError(
            f"A checkpoint holds None, numbers, text, NumPy arrays of type {', '.join(DTYPES.values())}, and lists, tuples and "
            f"dicts of these. Received: {place}, {kind}"
        )

    def _add(self, array: np.ndarray) -> int:
        self.arrays[f"{self.prefix}{len(self.arrays)}"] = array
        return len(self.arrays) - 1


class ArrayUnpacking(Unpacking):
    """Finds arrays by the numbers that `ArrayPacking` gave them, each once. `arrays` holds those arrays in this order."""

    def __init__(self, arrays: list[np.ndarray]):
        self.remaining = dict(enumerate(arrays))

    def other(self, data: dict[str, Any], place: str, depth: int) -> Any:
        if len(data) == 1:
            ((kind, content),) = data.items()
            if kind in ("array", "list") and is_integer(content) and content in self.remaining:
                array = self.remaining.pop(content)
                return array if kind == "array" else array.tolist()
        raise refusal(f"{place} to be a value", data)
