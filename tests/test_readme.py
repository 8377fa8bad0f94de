"""The README does what it says. On the backend that it names, so no `xp` fixture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet
from xpnet.layers import dense

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_prints_what_the_readme_shows(tmp_path):
    (tmp_path / "example.py").write_text(blocks("python")[0])
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    shown = blocks("text")[0].strip().splitlines()
    printed = done.stdout.strip().splitlines()
    numbers = [float(n) for n in re.findall(r"[\d.]+\d", printed[0])]
    assert numbers == pytest.approx([float(n) for n in re.findall(r"[\d.]+\d", shown[0])], abs=0.02)  # another BLAS
    assert printed[1] == shown[1]


def test_the_layer_shown_is_the_layer():
    assert blocks("text")[1] in Path(dense.__file__).read_text(encoding="utf-8")


def test_every_file_that_is_linked_exists():
    for path in re.findall(r"\]\((?!http)([^)#]+)", README) + re.findall(
        r"`((?:xpnet|examples|docs)/[\w/.]+)`", README
    ):
        assert (ROOT / path).exists(), path


def test_every_backend_has_a_row():
    for name in [*xpnet.available_backends(), "auto"]:
        assert f'| `"{name}"`' in README
