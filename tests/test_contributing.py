"""The worked example of docs/contributing.md passes the checks that the page names."""

import re
import textwrap

import numpy as np
import pytest

from tests.layer_checks import check_layer
from tests.scripts import ROOT
from xpnet.backend import to_numpy

PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def softsign():
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    names = {}
    head = "from dataclasses import dataclass\nfrom xpnet.backend import namespace\nfrom xpnet.layers import Layer\n"
    exec(head + code, names)
    return names["Softsign"]()


def test_its_gradient(softsign, xp64, rng):
    check_layer(softsign, xp64, rng.normal(size=(3, 4)))


def test_it_equals_torch(softsign, xp64, rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(3, 4))
    y, _ = softsign.forward({}, xp64.asarray(x))

    expected = torch.nn.functional.softsign(torch.tensor(x)).numpy()
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-12)


def test_the_files_it_names_exist():
    for path in re.findall(r"`((?:xpnet|tests|docs)/[\w/]+\.(?:py|md))`", PAGE):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def test_the_checks_before_a_commit_are_run_from_the_environment_that_the_page_makes():
    """Otherwise a commit would fail in a shell in which the environment is not active."""
    entries = re.findall(r"entry: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))

    assert entries
    assert all(entry.startswith(".venv/bin/") for entry in entries)
    assert "python3 -m venv .venv &&" in PAGE
