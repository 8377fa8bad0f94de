"""Keras for comparisons. It is in the extra `dev`; without it these tests are skipped."""

import importlib

import pytest

# Inside Keras on JAX
quiet_keras = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def keras():
    """Return the package keras with the JAX backend (see conftest.py), or skip the test."""
    pytest.importorskip("jax", reason="Keras computes with JAX here")
    pytest.importorskip("keras", reason='Keras comes with the extra "dev"')
    return importlib.import_module("keras")
