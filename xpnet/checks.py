"""Checks of settings, made when the object that holds them is; an error says the rule, and what was received."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np


def require(holds: bool, rule: str, received: Any) -> None:
    """Raise ValueError unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}. Received: {received}")


def unknown_name(
    rule: str, name: Any, names: Iterable[str], elsewhere: Mapping[str, str] = MappingProxyType({}), setting: str = ""
) -> ValueError:
    """The error for a name that is not among `names`, with the one that may have been meant.

    Parameters
    ----------
    rule : str
        Such as "An optimizer is an object such as SGD(0.1) or one of"; the names follow.
    name : Any
        As it was received.
    names : iterable of str
    elsewhere : mapping of str to str, optional
        From a name in another library, in small letters and digits alone, to what to write here.
    setting : str, optional
        The argument that held the name.
    """
    by_plain = {plain(one): one for one in names}
    advice = ""
    if isinstance(name, str):
        near = importlib.import_module("difflib").get_close_matches(
            plain(name), by_plain, 1
        )  # 1 ms that only errors need
        if plain(name) in elsewhere:
            advice = f" Write {elsewhere[plain(name)]}."
        elif near:
            advice = f' Did you mean "{by_plain[near[0]]}"?'
    elif isinstance(name, type):
        advice = f" Make an object of the class: {name.__name__}(...)."
    listed = ", ".join(f'"{one}"' for one in by_plain.values())
    received = f"{setting}={name!r}" if setting else repr(name)
    return ValueError(f"{rule} {listed}.{advice} Received: {received:.200}")


def plain(name: str) -> str:
    """A name in small letters and digits alone."""
    return "".join(filter(str.isalnum, name.lower()))


def require_choice(setting: str, value: Any, *choices: str) -> None:
    """Raise ValueError unless the setting has one of these values."""
    if not (isinstance(value, str) and value in choices):
        raise unknown_name(f"{setting} must be one of", value, choices, setting=setting)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether `value` is a whole number of Python or NumPy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def count(name: str, value: Any) -> int:
    """The value as a Python int; an integer of at least 1, or ValueError."""
    require(is_integer(value) and value >= 1, f"{name} must be an integer of at least 1", f"{name}={value!r}")
    return int(value)


def require_positive(**settings: Any) -> None:
    """Raise ValueError unless each setting is an integer of at least 1."""
    for name, value in settings.items():
        count(name, value)


def share_of(n: int, share: Any) -> Fraction:
    """share · n as decimals have it: 0.9 of 100 is 90, and 1 - 0.9 of 100 is 10, where floats make 9.99..."""
    return Fraction(str(share)) * n


def require_batch_size(batch_size: Any) -> int:
    """`count`, where arrays arrive that were meant for another argument."""
    if hasattr(batch_size, "__len__"):
        raise ValueError(
            "batch_size, the argument after x and y, is an integer of at least 1. Give weights by name, sample_weight=..., and "
            f"so validation_data=(x, y). Received: batch_size of type {type(batch_size).__name__}"
        )
    return count("batch_size", batch_size)


def set_counts(settings: Any, *names: str) -> None:
    """Check these attributes of a frozen dataclass, and replace each by its `count`."""
    for name in names:
        object.__setattr__(settings, name, count(name, getattr(settings, name)))


def set_integers(settings: Any, *names: str) -> None:
    """Check these attributes of a frozen dataclass, and replace each by a Python int."""
    for name in names:
        value = getattr(settings, name)
        require(is_integer(value), f"{name} must be an integer", f"{name}={value!r}")
        object.__setattr__(settings, name, int(value))


def boolean(name: str, value: Any) -> bool:
    """The value as a Python bool, or ValueError: ``LSTM(64, 32)`` is not two layers."""
    require(isinstance(value, (bool, np.bool_)), f"{name} must be True or False", f"{name}={value!r}")
    return bool(value)


def require_no_input_size(layer: str, setting: str, value: Any, remedy: str) -> None:
    """Raise ValueError where the size of a layer's input has pushed a size into this setting, as in ``Dense(784, 100)``."""
    if is_integer(value) and value > 1:
        raise ValueError(
            f"{layer} is given no size of its input, which comes with the data. Write {remedy}. Received: {setting}={value!r}"
        )


def set_booleans(settings: Any, *names: str) -> None:
    """Check these attributes of a frozen dataclass, and replace each by its `boolean`."""
    for name in names:
        object.__setattr__(settings, name, boolean(name, getattr(settings, name)))


def number(name: str, value: Any, interval: str) -> float:
    """The value as a Python float; a number in the interval, such as "[0, 1)", or ValueError.

    As a NumPy float64 it would turn float32 arrays that it meets into float64.
    """
    low, high = map(float, interval[1:-1].split(","))
    x = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    above = x >= low if interval[0] == "[" else x > low
    below = x <= high if interval[-1] == "]" else x < high
    require(above and below, f"{name} must be a number in {interval}", f"{name}={value!r}")
    return x


def set_numbers(settings: Any, interval: str, *names: str) -> None:
    """Check these attributes of a frozen dataclass, and replace each by its `number`."""
    for name in names:
        object.__setattr__(settings, name, number(name, getattr(settings, name), interval))
