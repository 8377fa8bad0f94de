"""The exceptions of xpnet, and the import of optional packages."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).parent.parent  # in a checkout, the folder with pyproject.toml


class BackendNotAvailableError(RuntimeError):
    """The package, driver or device of the requested backend is missing. The message says which one and what to do."""


class CheckpointError(ValueError):
    """A model file is damaged, was not written by xpnet, or is too new; or a model holds something that a file cannot."""


class ConversionError(ValueError):
    """A model cannot be written for another library, or what that library wrote is damaged or has no equivalent in xpnet."""


class DatasetError(ValueError):
    """A data file is missing, truncated, corrupt, or not the expected file."""


class DivergenceError(ArithmeticError):
    """Training produced a value that is not finite.

    The model keeps its state from before that step: parameters, optimizer state and running statistics are finite. To find
    the step, xpnet runs the last steps once more. If the value does not appear again, the model keeps its state from before
    those steps.

    Parameters
    ----------
    message : str
    step : int
        The training step that first produced the value, counted from 0 since the model was built.
    layer : str
        Where the value first appeared, such as ``"2 Dense output"``, ``"0.weight gradient"`` or
        ``"running 1.variance after the update"``.
    networks : tuple of int
        The numbers of the networks whose values are not finite, in a model with several seeds.
    """

    def __init__(self, message: str, step: int, layer: str, networks: tuple[int, ...] = ()):
        super().__init__(message, step, layer, networks)  # pickle calls the class with these
        self.step = step
        self.layer = layer
        self.networks = networks

    def __str__(self) -> str:
        return self.args[0]


class SourceError(ValueError):
    """A source of batches failed, ended early, or gave a batch that does not fit. The model keeps its state from before it.

    Parameters
    ----------
    message : str
    batch : int
        The number of the batch in its epoch, counted from 0.
    """

    def __init__(self, message: str, batch: int):
        super().__init__(message, batch)  # pickle calls the class with these
        self.batch = batch

    def __str__(self) -> str:
        return self.args[0]


def optional_import(module: str, extra: str) -> ModuleType:
    """Import an optional package, or raise an ImportError with the command that installs its extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise
        raise ImportError(f"{module} is not installed. Run: {install_command(extra)}") from error


def install_command(extra: str) -> str:
    """Return the command that installs an extra of pyproject.toml for the running Python, from any folder.

    xpnet is not on a package index, so the command installs the extra from the checkout. Without a checkout it names the
    extra's packages.
    """
    if (SOURCE / "pyproject.toml").is_file():
        packages = ["-e", f"{SOURCE}[{extra}]"]
    else:
        metadata = importlib.import_module("importlib.metadata")  # takes 10 ms, so only errors import it
        named = (requirement.partition(";") for requirement in metadata.requires("xpnet") or [])
        packages = [package.strip() for package, _, condition in named if repr(extra) in condition.replace('"', "'")]
    words = [sys.executable or "python", "-m", "pip", "install", *packages]
    if os.name == "nt":  # cmd and PowerShell both accept double quotes
        return " ".join(f'"{word}"' if set(word) & set(" []<>=&") else word for word in words)
    return shlex.join(words)
