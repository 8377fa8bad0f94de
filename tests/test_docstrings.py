"""The docstring of every public class describes every setting. No arrays, so no `xp` fixture."""

import inspect
import re

import pytest

import xpnet
from xpnet import callbacks, initializers, layers, losses, metrics, optimizers, schedules

MODULES = (xpnet, layers, losses, metrics, optimizers, schedules, initializers, callbacks)
CLASSES = {
    value
    for module in MODULES
    for name, value in inspect.getmembers(module, inspect.isclass)
    if value.__module__.startswith("xpnet") and not name.startswith("_") and not issubclass(value, (Exception, type))
}


@pytest.mark.parametrize("public", sorted(CLASSES, key=str), ids=lambda public: public.__name__)
def test_the_docstring_has_an_entry_for_every_setting(public):
    parameters = inspect.signature(public).parameters.values()
    settings = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    entries = re.findall(r"^(\w+(?:, \w+)*)(?: :.*)?$", inspect.getdoc(public), re.MULTILINE)

    assert settings <= {name for entry in entries for name in entry.split(", ")}
