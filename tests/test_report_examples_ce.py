"""The scripts for reports C and E run on a small part of MNIST. Each script sets its own backend, so no `xp` fixture."""

import json

import numpy as np
import pytest

from tests.scripts import EXAMPLES, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real_mnist(real_mnist):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")


def run_quickly(script, folder):
    """Return the rows of a quick run by experiment and figure."""
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
