"""Networks, losses, optimizers and metrics as data, and back: a class becomes its name, and an object its settings.

Only classes of xpnet, and classes that the caller passes, are ever instantiated. Layers form a list, inner before outer, and
refer to each other by their place in it, so a layer that appears twice in a network is one entry.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType, ModuleType
from typing import Any

from xpnet import initializers, layers, losses, metrics, optimizers, schedules
from xpnet.checks import is_integer
from xpnet.errors import CheckpointError
from xpnet.initializers import Initializer
from xpnet.layers.base import Layer
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.packing import MAX_DEPTH, Packing, Unpacking
from xpnet.schedules import Schedule
from xpnet.tensorfile import refusal

KINDS: dict[str, tuple[ModuleType, type]] = {
    "initializers": (initializers, Initializer),
    "layers": (layers, Layer),
    "losses": (losses, Loss),
    "metrics": (metrics, Metric),
    "optimizers": (optimizers, Optimizer),
    "schedules": (schedules, Schedule),
}
MAX_LAYERS = 10_000  # the sum over all containers, each with everything inside it
Custom = Mapping[str, type]


def describe(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return objects as data, with layers under ``"layers"``. Raises CheckpointError for a value that is not a setting."""
    description = _Description()
    described = {name: description.value(part, name) for name, part in parts.items()}
    described["layers"] = description.layers
    try:
        rebuild(described, parts, description.custom)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            "A class must accept its own settings, so that load_model can recreate its objects. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    return described


def custom_classes(parts: Mapping[str, Any]) -> dict[str, type]:
    """Return the custom classes in these objects by name, as `rebuild` needs them."""
    description = _Description()
    for name, part in parts.items():
        description.value(part, name)
    return description.custom


def rebuild(described: Mapping[str, Any], names: Any, custom: Custom = MappingProxyType({})) -> dict[str, Any]:
    """Rebuild the objects with these names from the data that `describe` returned.

    Raises
    ------
    CheckpointError
        The data do not have the form that `describe` returns, or are too large, or a class is unknown.
    Exception
        Whatever a class raises for settings that it does not accept.
    """
    construction = _Construction(custom)
    construction.add_layers(described.get("layers"))
    return {name: construction.value(described.get(name), name) for name in names}


class _Description(Packing):
    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.places: dict[int, int] = {}  # id of a layer -> its place in the list
        self.custom: dict[str, type] = {}

    def other(self, value: Any, place: str) -> dict[str, Any]:
        return {"layer": self._layer(value, place)} if isinstance(value, Layer) else self._object(value, place)

    def _layer(self, layer: Layer, place: str) -> int:
        if id(layer) not in self.places:
            described = self._object(layer, place)
            self.places[id(layer)] = len(self.layers)
            self.layers.append(described)
        return self.places[id(layer)]

    def _object(self, value: Any, place: str) -> dict[str, Any]:
        cls = type(value)
        if not is_dataclass(cls):
            raise CheckpointError(
                f"{place} cannot be saved: a model file holds settings, not code. Use an object of xpnet, or write a frozen "
                f"dataclass and pass it to load_model(custom_objects=...). Received: {value!r:.200}"
            )
        names = [field.name for field in fields(cls) if field.init]
        place = f"{place}, {cls.__name__}"
        return {
            "class": self._name(cls, place),
            "settings": {name: self.value(getattr(value, name), f"{place}.{name}") for name in names},
        }

    def _name(self, cls: type, place: str) -> str:
        for kind, (_, base) in KINDS.items():
            if issubclass(cls, base) and _known(kind, cls.__name__) is cls:
                return f"{kind}.{cls.__name__}"
        if self.custom.setdefault(cls.__name__, cls) is not cls:
            raise CheckpointError(
                f"{place} cannot be saved: two classes have one name, and load_model finds classes by name. Rename one. "
                f"Received: {self.custom[cls.__name__]} and {cls}"
            )
        return cls.__name__


class _Construction(Unpacking):
    def __init__(self, custom: Custom):
        self.custom = custom
        self.layers: list[Layer] = []
        self.sizes: list[tuple[int, int]] = []  # layers in a layer, itself included, and their depth
        self.used: list[int] = []

    def add_layers(self, described: Any) -> None:
        """Build all layers. Their number is counted first: a few containers of containers can hold millions."""
        if not isinstance(described, list):
            raise refusal("a list of layers", described)
        total = 0
        for i, one in enumerate(described):
            self.used = []
            cls, settings = self._class_and_settings(one, f"layer {i}")
            if not issubclass(cls, Layer):
                raise refusal(f"layer {i} to be a layer", one)
            size = 1 + sum(self.sizes[j][0] for j in self.used)
            depth = 1 + max((self.sizes[j][1] for j in self.used), default=0)
            total += size
            if total > MAX_LAYERS or depth > MAX_DEPTH:
                raise CheckpointError(
                    f"A network in a file may have at most {MAX_LAYERS:,} layers, nested at most {MAX_DEPTH} deep. Received: "
                    f"{total:,} layers and a depth of {depth} at layer {i}"
                )
            self.layers.append(cls(**settings))
            self.sizes.append((size, depth))

    def other(self, data: dict[str, Any], place: str, depth: int) -> Any:
        if data.keys() == {"class", "settings"}:
            cls, settings = self._class_and_settings(data, place, depth)
            if issubclass(cls, Layer):
                raise refusal(f"{place} to refer to a layer of the list", data)
            return cls(**settings)
        content = data.get("layer")
        if len(data) == 1 and is_integer(content) and 0 <= content < len(self.layers):
            self.used.append(content)
            return self.layers[content]
        raise refusal(f"{place} to be a setting", data)

    def _class_and_settings(self, data: Any, place: str, depth: int = 0) -> tuple[type, dict[str, Any]]:
        if not isinstance(data, dict) or data.keys() != {"class", "settings"}:
            raise refusal(f"{place} to be a class and its settings", data)
        name, settings = data["class"], data["settings"]
        cls = self._class(name, place)
        known = {field.name for field in fields(cls) if field.init}
        if not isinstance(settings, dict) or not settings.keys() <= known:
            raise refusal(f"{place}, {name}, to have settings among {sorted(known)}", settings)
        return cls, {key: self.value(one, f"{place}, {name}.{key}", depth + 1) for key, one in settings.items()}

    def _class(self, name: Any, place: str) -> type:
        if not isinstance(name, str):
            raise refusal(f"the name of a class for {place}", name)
        kind, dot, own = name.partition(".")
        if dot:
            cls = _known(kind, own)
            if cls is None:
                raise refusal(f"a class of xpnet for {place}. A newer xpnet may have it", name)
            return cls
        if name not in self.custom:
            raise CheckpointError(
                f"The class of {place} is not an xpnet class. Pass custom_objects={{{name!r:.80}: ...}} with the class. "
                f"Received: custom_objects with {sorted(self.custom) or 'no class'}"
            )
        return self.custom[name]


def check_custom(custom: Any) -> Custom:
    """Return the classes by name, {} for None; raise TypeError unless they are dataclasses."""
    classes = {} if custom is None else custom
    if not isinstance(classes, Mapping) or not all(
        isinstance(name, str) and isinstance(cls, type) and is_dataclass(cls) for name, cls in classes.items()
    ):
        raise TypeError(
            'custom_objects must map names to dataclasses, such as {"Sine": Sine}. Received: '
            f"custom_objects={custom!r:.200}"
        )
    return classes


def _known(kind: str, name: str) -> type | None:
    """The public class of xpnet with this name, or None."""
    if kind not in KINDS:
        return None
    module, base = KINDS[kind]
    found = getattr(module, name, None) if name in dir(module) else None
    fits = isinstance(found, type) and issubclass(found, base) and is_dataclass(found)
    return found if fits and not inspect.isabstract(found) and not name.startswith("_") else None
