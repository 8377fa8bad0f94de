"""Keras for comparisons. It is in the extra `dev`; without it these tests are skipped."""

import importlib
import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")


def keras():
    """Return the package keras with the PyTorch backend, or skip the test."""
    pytest.importorskip("torch", reason="Keras computes with PyTorch here")
    pytest.importorskip("keras", reason='Keras comes with the extra "dev"')
    return importlib.import_module("keras")
