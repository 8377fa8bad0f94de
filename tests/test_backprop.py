"""The code and the numbers in docs/backprop.md. The page uses NumPy, so there is no `xp` fixture."""

import re

import numpy as np
import pytest

from tests.scripts import ROOT, run
from xpnet.layers import Conv1D

BACKPROP = (ROOT / "docs" / "backprop.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"\[`([^`]+)`\]\(\.\./(xpnet/[\w/]+\.py)\)", BACKPROP)


def test_many_lines_are_quoted():
    assert len(QUOTED) >= 15


@pytest.mark.parametrize(("code", "path"), QUOTED)
def test_each_quoted_line_is_in_its_file(code, path):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()

    assert any(line.strip().startswith(code) for line in lines), f"docs/backprop.md quotes {path}: {code}"


def test_no_page_links_to_a_line_number():
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        assert not re.search(r"\]\([^)\s]+#L\d+\)", page.read_text(encoding="utf-8")), page.name


@pytest.mark.slow
def test_the_example_of_backprop_prints_what_it_shows():
    pytest.importorskip("sklearn")
    code, shown = re.search(r"```python\n(.*?)```\s+prints\s+```text\n(.*?)```", BACKPROP, re.DOTALL).groups()
    printed = run("-c", code).stdout

    numbers = [[float(n) for n in re.findall(r"-?\d+\.\d+", text)] for text in (shown, printed)]
    # Another BLAS rounds differently, and the smallest weight has one decimal
    assert numbers[1] == pytest.approx(numbers[0], abs=0.11)


def test_the_path_by_hand_of_backprop():
    h = 1 / (1 + np.exp(3))
    o = 1 / (1 + np.exp(-2 * h))
    do = 2 * (o - 1)
    dh = do * o * (1 - o)

    for value in (h, o, do, dh, h * (1 - h), dh * h * (1 - h) * -2):
        assert f"{value:.8f}" in BACKPROP


def test_the_convolution_by_hand_of_backprop():
    x, W = np.array([[[1.0], [2.0], [3.0], [4.0]]]), np.array([[[2.0]], [[3.0]]])
    y, backward = Conv1D(1, 2, use_bias=False).forward({"weight": W}, x)
    dx, grads = backward(np.array([[[1.0], [10.0], [100.0]]]))

    assert y.ravel().tolist() == [8, 13, 18]
    assert grads["weight"].ravel().tolist() == [321, 432]
    assert dx.ravel().tolist() == [2, 23, 230, 300]
    for number in (13, 18, 321, 432, 23, 230, 300):
        assert f"{number}" in BACKPROP
