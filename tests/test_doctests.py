"""The examples in docstrings print what they show. They set their own backend, so there is no `xp` fixture."""

import doctest
import importlib

import pytest

from tests.scripts import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("xpnet/**/*.py")
    if "\n    >>> " in path.read_text(encoding="utf-8")
)


def test_some_modules_have_examples():
    assert "xpnet.sklearn.neural_nets" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    pytest.importorskip("sklearn")
    results = doctest.testmod(importlib.import_module(name))

    assert results.attempted > 0
    assert results.failed == 0
