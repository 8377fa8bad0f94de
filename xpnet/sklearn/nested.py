"""Settings of layers, losses and optimizers as nested parameters, such as ``optimizer__learning_rate``.

They are frozen, so setting one creates another object. The settings of a function that makes a network are its keyword arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from xpnet.checks import unknown_name
from xpnet.layers.sequential import Sequential


def settings_of(value: Any) -> dict[str, Any]:
    """Return the settings of an object by name: fields, places of layers in a list, or keyword arguments with a default."""
    if isinstance(value, Sequential):
        value = value.layers
    if isinstance(value, (list, tuple)):
        return {str(i): layer for i, layer in enumerate(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    if callable(value):
        parameters = inspect.signature(value).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}
    return {}


def all_settings(value: Any, prefix: str) -> dict[str, Any]:
    """Return the settings at every depth, with names such as ``"network__0__units"``."""
    found = {}
    for name, setting in settings_of(value).items():
        found[f"{prefix}__{name}"] = setting
        found |= all_settings(setting, f"{prefix}__{name}")
    return found


def with_setting(value: Any, path: str, new: Any) -> Any:
    """Return the object with another setting at a path such as ``"0__units"``."""
    name, _, rest = path.partition("__")
    known = settings_of(value)
    if name not in known:
        raise unknown_name(f"{_described(value)} has no such setting. The settings are", name, known)
    if rest:
        new = with_setting(known[name], rest, new)
    if isinstance(value, Sequential):
        return Sequential(with_setting(value.layers, name, new))
    if isinstance(value, (list, tuple)):
        return type(value)(new if i == int(name) else layer for i, layer in enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: new})
    return functools.partial(value, **{name: new})


def _described(value: Any) -> str:
    function: Callable = value.func if isinstance(value, functools.partial) else value
    return getattr(function, "__name__", type(value).__name__)
