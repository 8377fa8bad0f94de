"""The command that an error about a missing package shows. Host-side, so no backend."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from xpnet import errors

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX shells quote differently")


@posix
def test_from_a_checkout_the_command_installs_the_checkout():
    command = shlex.split(errors.install_command("torch"))

    assert command == [sys.executable, "-m", "pip", "install", "-e", f"{ROOT}[torch]"]


@posix
def test_a_path_is_quoted_for_the_shell(tmp_path, monkeypatch):
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(errors, "SOURCE", folder)

    assert shlex.split(errors.install_command("jax"))[-1] == f"{folder}[jax]"


@posix
@pytest.mark.parametrize(("extra", "packages"), [("torch", ["torch"]), ("sklearn", ["scikit-learn"])])
def test_without_a_checkout_the_command_names_the_packages(extra, packages, tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "SOURCE", tmp_path)

    command = shlex.split(errors.install_command(extra))

    assert sorted(word.partition(">=")[0] for word in command[4:]) == packages


def test_a_module_that_is_missing_names_the_command():
    with pytest.raises(ImportError) as caught:
        errors.optional_import("no_such_module.part", "plot")

    assert str(caught.value) == f"no_such_module.part is not installed. Run: {errors.install_command('plot')}"


def test_a_module_that_another_one_misses_is_not_blamed(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import no_such_module", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        errors.optional_import("broken", "plot")
