"""Checks of settings, called when an object is created. Every error states the rule and the value received."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np

MOST_NAMES = 40  # a longer list is not shown if one of its names resembles the name received


def require(holds: bool, rule: str, received: Any) -> None:
    """Raise ValueError unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}. Received: {received}")


def require_one_network(name: str, model: Any) -> None:
    require(len(model.seeds) == 1, f"{name} shows one network, from a model with one seed", f"seed={model.seed!r}")


def require_labels(labels: np.ndarray, samples: int, classes: int) -> None:
    """Raise ValueError unless there is a label in 0 .. classes - 1 for each sample."""
    rule = "Each sample needs a label. Convert one-hot rows with y.argmax(axis=1)"
    require(labels.shape == (samples,), rule, f"labels of shape {labels.shape} for {samples} samples")
    known = labels.dtype.kind in "biuf" and bool(np.all(np.isin(labels, np.arange(classes))))
    rule = f"Labels must be in 0 .. {classes - 1}. Renumber them (np.unique(y, return_inverse=True))"
    require(known, rule, f"labels {np.unique(labels)[:10]}")


def unknown_name(
    rule: str, name: Any, names: Iterable[str], elsewhere: Mapping[str, str] = MappingProxyType({}), setting: str = ""
) -> ValueError:
    """Return the error for a name that is not one of `names`, with a suggestion.

    Parameters
    ----------
    rule : str
        The start of the message, such as "An optimizer must be an object such as SGD(0.1) or one of". The names follow it.
    name : Any
        The value received.
    names : iterable of str
        The known names.
    elsewhere : mapping of str to str, optional
        Maps a name from another library, as `plain` returns it, to what to write here.
    setting : str, optional
        The argument that received the name.
    """
    by_plain = {plain(one): one for one in names}
    advice, near = "", list[str]()
    if isinstance(name, str):
        difflib = importlib.import_module("difflib")  # takes 1 ms, so only errors import it
        near = difflib.get_close_matches(plain(name), by_plain, 1)
        if plain(name) in elsewhere:
            advice = f" Write {elsewhere[plain(name)]}."
        elif near:
            advice = f' Did you mean "{by_plain[near[0]]}"?'
    elif isinstance(name, type):
        advice = f" Make an object of the class: {name.__name__}(...)."
    listed = ", ".join(f'"{one}"' for one in by_plain.values())
    if near and len(by_plain) > MOST_NAMES:
        listed = f'"{by_plain[near[0]]}", ... ({len(by_plain)} names)'
    received = f"{setting}={name!r}" if setting else repr(name)
    return ValueError(f"{rule} {listed}.{advice} Received: {received:.200}")


def plain(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return "".join(filter(str.isalnum, name.lower()))


def require_choice(setting: str, value: Any, *choices: str) -> None:
    """Raise ValueError unless the setting is one of these choices."""
    if not (isinstance(value, str) and value in choices):
        raise unknown_name(f"{setting} must be one of", value, choices, setting=setting)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether `value` is a Python or NumPy integer. True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def count(name: str, value: Any) -> int:
    """Return the value as a Python int; raise ValueError unless it is an integer of at least 1."""
    require(is_integer(value) and value >= 1, f"{name} must be an integer of at least 1", f"{name}={value!r}")
    return int(value)


def whole(name: str, value: Any) -> int:
    """Return the value as a Python int; raise ValueError unless it is an integer of at least 0."""
    require(is_integer(value) and value >= 0, f"{name} must be an integer of at least 0", f"{name}={value!r}")
    return int(value)


def require_positive(**settings: Any) -> None:
    """Raise ValueError unless each setting is an integer of at least 1."""
    for name, value in settings.items():
        count(name, value)


def share_of(n: int, share: Any) -> Fraction:
    """share · n in exact decimal arithmetic: n - 0.9 n is 10 for n = 100, where floats give 9.99..."""
    return Fraction(str(share)) * n


def require_batch_size(batch_size: Any) -> int:
    """Like `count`, with advice for an array that was meant for another argument."""
    if hasattr(batch_size, "__len__"):
        raise ValueError(
            "batch_size, the argument after x and y, must be an integer of at least 1. Pass sample_weight=... and "
            f"validation_data=(x, y) by name. Received: batch_size of type {type(batch_size).__name__}"
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
    """Return the value as a Python bool; raise ValueError for other values, as in ``LSTM(64, 32)``."""
    require(isinstance(value, (bool, np.bool_)), f"{name} must be True or False", f"{name}={value!r}")
    return bool(value)


def require_no_input_size(layer: str, setting: str, value: Any, remedy: str) -> None:
    """Raise ValueError if this setting received a size because the input size came first, as in ``Dense(784, 100)``."""
    if is_integer(value) and value > 1:
        raise ValueError(
            f"{layer} does not accept an input size, which comes with the data. Write {remedy}. Received: {setting}={value!r}"
        )


def set_booleans(settings: Any, *names: str) -> None:
    """Check these attributes of a frozen dataclass, and replace each by its `boolean`."""
    for name in names:
        object.__setattr__(settings, name, boolean(name, getattr(settings, name)))


def number(name: str, value: Any, interval: str) -> float:
    """Return the value as a Python float; raise ValueError unless it is a number in the interval, such as "[0, 1)".

    A NumPy float64 would turn float32 arrays into float64 arrays in arithmetic.
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


def is_custom(part: Any) -> bool:
    """Whether the class of a layer or loss is not from xpnet, so that it may mix the rows of a batch."""
    return not type(part).__module__.startswith("xpnet.")


def require_range(float_name: str, *settings: Any) -> None:
    """Raise ValueError if a number among the settings of these objects becomes infinite or 0 in this floating type.

    A learning rate may become 0, as it does at the end of a decay.
    """
    limits = np.finfo(float_name)
    smallest, largest = float(limits.smallest_subnormal), float(limits.max)
    for name, value in _floats("", settings):
        too_small = 0 < abs(value) < smallest and "learning_rate" not in name
        if too_small or largest < abs(value) < math.inf:
            raise ValueError(
                f"{name} must be 0 or between {smallest:.2g} and {largest:.2g} in size, the range of {float_name}. For other "
                f'numbers, compute in double precision with set_backend(..., dtype="float64"). Received: {name}={value!r}'
            )


def _floats(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield each float among the settings of an object, and of the objects among them, with its name."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _floats(key, one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _floats(name, one)
    elif is_dataclass(value):
        for setting in fields(value):
            yield from _floats(f"{type(value).__name__}.{setting.name}", getattr(value, setting.name))
