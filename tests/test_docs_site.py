"""The documentation site: the API reference, the notebooks and the check of links. The build of the site checks the rest."""

import importlib
import pkgutil
import re

import pytest

import xpnet
from tests.scripts import ROOT
from tests.test_readme import PAGES, blocks

pytest.importorskip("sphinx", reason="sphinx, of the extra docs, is not installed")
pytest.importorskip("sphinx_gallery")

from docs import build
from docs.extensions import docstrings, gallery, inventories, notebooks, reference, source_pages


def test_every_public_package_is_in_the_reference():
    """Except packages whose names are all in xpnet itself, the command line, and the one that reads batches for `fit`."""
    names = [module.name for module in pkgutil.iter_modules(xpnet.__path__, "xpnet.") if module.ispkg]
    packages = [importlib.import_module(name) for name in names]
    public = {p.__name__ for p in packages if not {*getattr(p, "__all__", [])} <= {*xpnet.__all__}}

    assert "xpnet.layers" in public
    assert public - {"xpnet.cli", "xpnet.sources"} <= {*reference.MODULES}


def test_every_public_name_is_described(tmp_path):
    reference.write(tmp_path)
    entries = "\n".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rst"))
    described = re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: (\S+)$", entries, re.MULTILINE)
    listed = re.findall(r":py:obj:`(\S+) <(\S+)>`", entries)
    home = reference.homes()

    assert len(described) == len({*described})
    assert {*home.values()} == {*described}
    for module in reference.MODULES:
        names = getattr(importlib.import_module(module), "__all__", [])
        assert {f"{module}.{name}" for name in names} - {*reference.MODULES} <= home.keys()
    assert {(full.rpartition(".")[2], place) for full, place in home.items()} == {*listed}


def test_every_name_that_the_pages_use_is_described():
    home = reference.homes()
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for module, names in re.findall(
            r"^from (xpnet[\w.]*) import ([\w, ]+)$", path.read_text("utf-8"), re.MULTILINE
        ):
            for name in names.split(", "):
                assert {f"{module}.{name}"} & {*home, *reference.MODULES}, f"{path.name}: {module}.{name}"


def test_the_pages_whose_code_runs_are_notebooks():
    assert {*notebooks.pages()} == {*PAGES, "backprop"}


def test_a_notebook_has_the_text_and_the_code_of_its_page():
    page = (ROOT / "docs" / "saving.md").read_text(encoding="utf-8")
    cells = notebooks.notebook(page)["cells"]
    code = ["".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code"]

    assert code == blocks(page, "python")
    assert cells[0]["source"][0] == page.splitlines(keepends=True)[0]
    assert "```text" in "".join(cells[2]["source"])


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="b.html#there">b</a><a href="#here">a</a><a href="c.html">c</a>'
    )
    (tmp_path / "b.html").write_text(
        '<a href="https://example.org">ok</a><script src="https://example.org/x.js"></script>'
    )
    found = build.broken_links(tmp_path)

    assert [line.split(" ")[2] for line in found if line.startswith("a.html")] == ["to", "to"]
    assert any("b.html#there, which has no such anchor" in line for line in found)
    assert any("c.html, which does not exist" in line for line in found)
    assert any("b.html loads https://example.org/x.js" in line for line in found)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("summary", "formulas"),
    [
        ("y = x W + b,   dx = dy Wᵀ", ["y = x W + b", "dx = dy Wᵀ"]),
        (
            "y[n, …, c] = x[n, c, …],   dx[n, c, …] = dy[n, …, c]",
            ["y[n, …, c] = x[n, c, …]", "dx[n, c, …] = dy[n, …, c]"],
        ),
        ("W ~ N(mean, stddev²)", ["W ~ N(mean, stddev²)"]),
        ("Adam with decoupled weight decay: W = W - lr · weight_decay · W", None),
        ("Return the loss with this name.", None),
    ],
)
def test_formulas_of_docstrings(summary, formulas):
    assert docstrings.is_formula(summary) == (formulas is not None)
    if formulas:
        assert docstrings.equations(summary) == formulas


def test_text_of_docstrings_is_not_markup():
    assert (
        docstrings.escape("the mean of |y| over (batch, *shape), `a|b`")
        == r"the mean of \|y\| over (batch, \*shape), `a|b`"
    )


def test_quotations_lead_to_their_lines():
    path = ROOT / "xpnet" / "layers" / "dense.py"
    line = source_pages.line_of(path, "y = x @ W")

    assert path.read_text(encoding="utf-8").splitlines()[line - 1].strip() == "y = x @ W"
    address = source_pages.link("py", {"module": "xpnet.layers", "fullname": "Dense"})
    assert address.startswith("../code/xpnet/layers/dense.py.html#line-")
    assert source_pages.link("py", {"module": "xpnet", "fullname": "__version__"}) is None


def test_every_example_has_a_page_with_a_title_and_its_code():
    for script in gallery.scripts():
        source = gallery.page_source(script)
        title, line = source.splitlines()[1:3]

        assert 10 < len(title) <= len(line)
        compile(source, script, "exec")


def test_inventories_are_kept_and_libraries_that_cannot_be_reached_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "objects.inv").write_bytes(b"# Sphinx inventory version 2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "objects.inv").write_bytes(b"<html>not found</html>")
    address = f"{(tmp_path / 'site').as_uri()}/"
    others = {"gone": f"{(tmp_path / 'gone').as_uri()}/", "other": f"{(tmp_path / 'other').as_uri()}/"}
    monkeypatch.setattr(inventories, "LIBRARIES", {"numpy": address} | others)

    found = inventories.available(tmp_path / "kept")

    assert found == {"numpy": (address, str(tmp_path / "kept" / "numpy.inv"))}
    assert (tmp_path / "kept" / "numpy.inv").read_bytes().startswith(b"# Sphinx")


@pytest.mark.parametrize(
    ("formula", "subscripts"),
    [("db = Σ_batch dy", ["batch"]), ("u_z + v_r", ["z", "r"]), ("Σ_{k, l} x", ["{k, l}"]), ("lr · weight_decay", [])],
)
def test_subscripts_of_formulas(formula, subscripts):
    assert docstrings.SUBSCRIPT.findall(formula) == subscripts


def test_scripts_run_if_they_can_be_short_and_their_data_are_there(monkeypatch):
    monkeypatch.delenv("XPNET_DATA", raising=False)
    without = {path.stem for path in gallery.scripts() if gallery.runs(path)}
    monkeypatch.setenv("XPNET_DATA", "somewhere")
    found = {path.stem for path in gallery.scripts() if gallery.runs(path)}

    assert {"char_rnn", "mnist_cli"} <= without
    assert not {"mnist", "mnist_cnn"} & without
    assert {"mnist", "mnist_cnn"} <= found
    assert "mnist_distributed" not in found
