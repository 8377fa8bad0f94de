"""Networks as text: ``dense:128,relu,dropout:0.2,dense:10``, or a JSON file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from xpnet import layers
from xpnet.checks import plain, unknown_name
from xpnet.description import rebuild
from xpnet.layers import Layer
from xpnet.layers.dense import Dense
from xpnet.layers.reshaping import Flatten, Rescaling, Reshape
from xpnet.layers.sequential import Sequential

NAMES = {plain(name): name for names in layers.MODULES.values() for name in names if name not in ("Container", "Layer")}
CONSTANTS: dict[str, Any] = {"true": True, "false": False, "none": None}


def parse(text: str) -> Sequential:
    """Return the network that a text describes, or that a JSON file holds if the text ends in ``.json``.

    In a text, commas separate the layers, and colons separate a layer's name from its settings, in the order of the class or
    by name: ``conv2d:32:3x3:padding=same,relu,flatten,dense:10``. Upper case, lower case and underscores make no difference
    in names. A JSON file holds a list of such texts, one for each layer, and of objects such as ``{"class": "Dense", "units":
    10}``, or what ``xpnet info --json`` prints.

    Raises
    ------
    ValueError
        A layer is unknown, or its settings are invalid.
    """
    if not text.endswith(".json"):
        return Sequential([_layer(one) for one in text.split(",")])
    try:
        data = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{text} must be a file that holds JSON. Check the path. Received: {error}") from error
    try:
        network = rebuild(data, ["network"])["network"] if isinstance(data, dict) else _described(data)
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from error
    return network if isinstance(network, Sequential) else Sequential([network])


def prepared(network: Sequential, shape: tuple[int, ...], scale: float) -> Sequential:
    """Return the network with the layers in front that adapt samples to it.

    ``Rescaling(scale)`` multiplies values by `scale`. ``Flatten`` comes before a network that begins with ``Dense`` if the
    samples are images. ``Reshape`` adds an axis of channels to gray images for other networks. A network that begins with
    Rescaling is not changed.
    """
    first = network.layers[0]
    if isinstance(first, Rescaling):
        return network
    front: list[Layer] = [Rescaling(scale)] if scale != 1 else []
    if len(shape) > 1 and isinstance(first, Dense):
        front.append(Flatten())
    elif len(shape) == 2 and _needs_channels(network, shape):
        front.append(Reshape((*shape, 1)))
    return Sequential([*front, *network.layers]) if front else network


def _needs_channels(network: Sequential, shape: tuple[int, ...]) -> bool:
    try:
        network.output_shape(shape)
    except ValueError:
        return True
    return False


def _layer(text: str) -> Layer:
    """One layer: ``name:value:key=value``."""
    name, *words = [word.strip() for word in text.split(":")]
    positional = [_word(word) for word in words if "=" not in word]
    named = {key: _word(value) for key, _, value in (word.partition("=") for word in words if "=" in word)}
    return _made(name, text, positional, named)


def _made(name: str, text: str, positional: list[Any], named: dict[str, Any]) -> Layer:
    if not name:
        raise ValueError(f"A network needs the names of its layers, separated by commas. Received: {text!r}")
    if plain(name) not in NAMES:
        raise unknown_name("A layer must be one of", name, NAMES.values())
    try:
        return getattr(layers, NAMES[plain(name)])(*positional, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"In {text.strip()!r}: {error}") from error


def _word(text: str) -> Any:
    """A setting: a number, ``3x3``, true, false, none, or a name."""
    if re.fullmatch(r"-?\d+(x-?\d+)+", text):
        return tuple(int(size) for size in text.split("x"))
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _described(data: Any) -> Layer:
    """A layer in a JSON file: a text, an object with its class, or a list of layers in sequence."""
    if isinstance(data, str):
        return _layer(data)
    if isinstance(data, list):
        return Sequential([_described(one) for one in data])
    if not isinstance(data, dict) or not isinstance(data.get("class"), str):
        raise ValueError(
            f'A layer must be a text, a list, or an object with a "class". Received: {json.dumps(data):.100}'
        )
    settings = {key: _setting(key, value) for key, value in data.items() if key != "class"}
    return _made(data["class"], json.dumps(data)[:100], [], settings)


def _setting(key: str, value: Any) -> Any:
    if key in ("layer", "branch", "shortcut", "backward_layer"):
        return _described(value)
    if key in ("layers", "branches") and isinstance(value, list):
        return [_described(one) for one in value]
    return tuple(value) if isinstance(value, list) else value
