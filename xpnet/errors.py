"""The errors xpnet raises beyond Python's own, and the one way it imports an optional package."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).parent.parent  # of a checkout, the folder with pyproject.toml


class BackendNotAvailableError(RuntimeError):
    """A backend was asked for whose package, driver or device is missing; the message says which, and the remedy."""


class DatasetError(ValueError):
    """A data file is missing, truncated, corrupt or not the expected one."""


class DivergenceError(ArithmeticError):
    """Training produced a value that is not finite.

    Attributes
    ----------
    step : int
        The training step (counted from 0 over the model's life) that first produced it.
    layer : str
        Where it appeared first, such as ``"2 Dense output"``, ``"0.weight gradient"`` or
        ``"running 1.variance after the update"``.

    The model is left as it was before that step: parameters, optimizer state and running statistics are finite. Where the
    step is not found again when the last steps are run once more, it is left as it was before these.
    """

    def __init__(self, message: str, step: int, layer: str):
        super().__init__(message, step, layer)  # all three, so that it can be pickled
        self.step = step
        self.layer = layer

    def __str__(self) -> str:
        return self.args[0]


def optional_import(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to install the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise
        raise ImportError(f"{module} is not installed; run: {install_command(extra)}") from error


def install_command(extra: str) -> str:
    """What to type, in any folder, to install an extra of pyproject.toml for the Python that runs.

    No package index has xpnet, so an extra is installed from the checkout; without a checkout its packages are, by name.
    """
    if (SOURCE / "pyproject.toml").is_file():
        packages = ["-e", f"{SOURCE}[{extra}]"]
    else:
        metadata = importlib.import_module("importlib.metadata")  # 10 ms that only an error needs
        named = (requirement.partition(";") for requirement in metadata.requires("xpnet") or [])
        packages = [package.strip() for package, _, condition in named if repr(extra) in condition.replace('"', "'")]
    words = [sys.executable or "python", "-m", "pip", "install", *packages]
    if os.name == "nt":  # in double quotes, which cmd and PowerShell take
        return " ".join(f'"{word}"' if set(word) & set(" []<>=&") else word for word in words)
    return shlex.join(words)
