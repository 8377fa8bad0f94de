"""The code in the README and the guide. It sets its own backend, so there is no `xp` fixture."""

import re
import tomllib
from pathlib import Path

import pytest

import xpnet
from tests.scripts import ROOT, run
from xpnet.backend.switch import EXTRAS
from xpnet.layers import dense

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    "quick-start": ["sklearn"],
    "own-layers": [],
    "backends": [],
    "seeds": [],
    "from-pytorch": ["torch"],
    "guide": ["sklearn"],
    "saving": [],
    "scikit-learn": ["sklearn"],
    "resuming": [],
    "ensembles": ["sklearn"],
    "scaling": [],
    "big-data": ["h5py"],
    "inspection": ["matplotlib", "sklearn", "PIL"],
    "playground": ["sklearn"],
    "callbacks": ["matplotlib", "tensorboard"],
    "export": ["sklearn", "onnx", "onnxruntime", "torch", "h5py", "keras"],
}  # the packages that their examples need


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def printed_by(code, folder):
    (folder / "example.py").write_text(code, encoding="utf-8")
    return run("example.py", cwd=folder).stdout


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_what_it_shows(name, tmp_path):
    for package in PAGES[name]:
        pytest.importorskip(package)
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert printed_by("\n".join(blocks(page, "python")), tmp_path) == "".join(blocks(page, "text"))


def test_the_example_prints_what_the_readme_shows(tmp_path):
    shown = blocks(README, "text")[0].strip().splitlines()
    printed = printed_by(blocks(README, "python")[0], tmp_path).strip().splitlines()
    numbers = [float(n) for n in re.findall(r"[\d.]+\d", printed[0])]
    assert numbers == pytest.approx([float(n) for n in re.findall(r"[\d.]+\d", shown[0])], abs=0.02)  # BLAS rounding
    assert printed[1] == shown[1]


def test_the_layer_shown_is_the_layer():
    assert blocks(README, "text")[1] in Path(dense.__file__).read_text(encoding="utf-8")


def test_every_file_that_is_linked_exists():
    for path in re.findall(r"\]\((?!http)([^)#]+)", README) + re.findall(
        r"`((?:xpnet|examples|docs)/[\w/.]+)`", README
    ):
        assert (ROOT / path).exists(), path


def test_every_extra_that_is_named_exists():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pages = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))]
    code = [path.read_text(encoding="utf-8") for path in ROOT.glob("xpnet/**/*.py")]
    named = [extra for page in pages for extra in re.findall(r"(?:\.|xpnet)\[(\w+)\]", page)]
    asked = [extra for text in code for extra in re.findall(r"optional_import\(\"[\w.]+\", \"(\w+)\"\)", text)]

    assert {"torch", "jax", "sklearn", "data"} <= {*named} <= known.keys()
    assert {"plot", "sklearn", "data"} <= {*asked} <= known.keys()
    assert {*EXTRAS.values()} - {""} <= known.keys()


def test_no_install_command_needs_a_package_index_that_has_xpnet():
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("xpnet/**/*.py"), *ROOT.glob("examples/*.py")]:
        if path.name != "changelog.md":
            assert not re.search(r'pip install "?xpnet(\[\w+\])?["`\n]', path.read_text(encoding="utf-8")), path


def test_what_the_readme_installs_says_what_it_does():
    installs = [line for block in blocks(README, "sh") for line in block.splitlines() if "pip install" in line]

    assert len(installs) == 2
    assert not any(" -q" in line for line in installs)


def test_every_backend_has_a_row():
    for name in [*xpnet.available_backends(), "auto"]:
        assert f'| `"{name}"`' in README
