"""The notebooks in examples/notebooks run from top to bottom. They set their own backends, so there is no `xp` fixture."""

import json
import os

import pytest

from tests.scripts import EXAMPLES, run

NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    read = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in read if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_stored(path):
    code = cells(path, "code")

    assert len(code) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert len({cell["id"] for cell in code}) == len(code)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.skipif("XPNET_DATA" not in os.environ, reason="XPNET_DATA, the folder of MNIST, is not set")
def test_the_code_runs(path, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    code = "\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    (tmp_path / "notebook.py").write_text(f'import matplotlib\n\nmatplotlib.use("agg")\n{code}', encoding="utf-8")

    assert run("notebook.py", cwd=tmp_path).stdout
