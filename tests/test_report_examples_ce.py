"""Reports C and E run on a little of the real MNIST, and docs/backprop.md does what it says. Each script sets its own backend, so
no `xp` fixture."""

import json
import re

import numpy as np
import pytest

from tests.scripts import EXAMPLES, ROOT, run
from xpnet import DatasetError, datasets
from xpnet.layers import Conv1D

BACKPROP = (ROOT / "docs" / "backprop.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\[`([^`]+)`\]\(\.\./([\w/]+\.py)#L(\d+)\)", BACKPROP)


@pytest.fixture(scope="module")
def real_mnist():
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    try:
        datasets.mnist(download=False)
    except DatasetError as error:
        pytest.skip(f"MNIST is not on this machine; put it below $XPNET_DATA: {error}")


def run_quickly(script, folder):
    """The rows of a quick run, by experiment and figure."""
    report = folder / "report.json"
    run(EXAMPLES / script, "--quick", "--out", folder, "--json", report)
    return {(row["experiment"], row["figure"]): row for row in json.loads(report.read_text())["rows"]}


@pytest.mark.usefixtures("real_mnist")
def test_report_c(tmp_path):
    rows = run_quickly("report_c_exploring.py", tmp_path)

    for name, reported in {"random": 0.9055, "LeCun": 0.8930, "Xavier": 0.8820, "He": 0.8805}.items():
        row = rows["C", f"{name}: 200 test, mean and s.e."]
        mean, error = row["measured"]
        assert row["reported"] == reported
        assert 0.4 < mean < 0.9, name
        assert 0 < error < 0.05, name
    assert {path.stem for path in tmp_path.glob("*.png")} == {"c_digits", "c_curves", "c_curves_standard_bounds"}


@pytest.mark.usefixtures("real_mnist")
def test_report_e(tmp_path):
    rows = run_quickly("report_e_slides.py", tmp_path)

    assert rows["E1", "P(woman) at (-7, -3)"]["measured"] > 0.6
    assert rows["E1", "P(woman) at (20, 2)"]["measured"] < 0.4
    assert rows["E2", "test accuracy"]["measured"] > 0.97
    assert rows["E3", "test accuracy"]["measured"] > 0.9
    assert np.sum(rows["E4", "confusion, rows predicted"]["measured"]) == 500
    assert min(rows["E5", "test accuracy of 5 seeds"]["measured"]) > 0.8
    assert rows["E6", "first five test digits"]["measured"] == [7, 2, 1, 0, 4]
    assert len(list(tmp_path.glob("*.png"))) == 7


def test_backprop_links_many_lines():
    assert len(LINKS) >= 15


@pytest.mark.parametrize(("code", "path", "line"), LINKS)
def test_each_formula_of_backprop_links_to_its_line(code, path, line):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = [str(i) for i, text in enumerate(lines, 1) if text.strip().startswith(code)]

    assert line in found, f"docs/backprop.md: {path} has this at line {', '.join(found) or 'none'}: {code}"


def test_the_example_of_backprop_prints_what_it_shows():
    pytest.importorskip("sklearn")
    code, shown = re.search(r"```python\n(.*?)```\s+prints\s+```text\n(.*?)```", BACKPROP, re.DOTALL).groups()
    printed = run("-c", code).stdout

    numbers = [[float(n) for n in re.findall(r"-?\d+\.\d+", text)] for text in (shown, printed)]
    assert numbers[1] == pytest.approx(numbers[0], abs=0.11)  # another BLAS; the smallest weight has one decimal


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
