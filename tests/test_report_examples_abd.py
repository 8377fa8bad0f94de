"""The scripts for reports A, B and D run on a small part of MNIST, and their "as written" formulas match the reports."""

import importlib
import json
from importlib.util import find_spec

import numpy as np
import pytest

import xpnet
from tests.scripts import EXAMPLES, run
from xpnet.functions import softmax

pytestmark = pytest.mark.slow


@pytest.fixture
def real_mnist(real_mnist):
    pytest.importorskip("matplotlib")


@pytest.fixture
def example(monkeypatch):
    """Import an example script."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def run_quickly(script, folder, *arguments):
    """Return the rows of a quick run by experiment and figure, and its output."""
    report = folder / "report.json"
    printed = run("-W", "error", EXAMPLES / script, "--quick", "--json", report, *arguments).stdout
    return {(row["experiment"], row["figure"]): row for row in json.loads(report.read_text())["rows"]}, printed


def is_true_color(png):
    """Return whether the PNG file has no palette. With a palette, byte 25 would be 3."""
    return png.read_bytes()[25] != 3


@pytest.mark.usefixtures("real_mnist")
def test_report_a_by_way_of_png_files(tmp_path):
    png, out = tmp_path / "png", tmp_path / "figures"
    rows, printed = run_quickly("report_a_jsneural.py", tmp_path, "--as-written", "--png-folder", png, "--out", out)

    assert len(list(png.glob("Train/*/*.png"))) == 3000
    assert rows["A data", "images read from PNG files"]["measured"] == 3500
    assert rows["A1", "train accuracy"]["measured"] == rows["A1", "test accuracy"]["measured"] == 1
    accuracy = rows["A2 correct", "test accuracy"]["measured"]
    elementwise = rows["A2 correct", "test accuracy, element-wise"]
    assert accuracy > 0.85
    assert elementwise["measured"] == pytest.approx(1 - 2 * (1 - accuracy) / 10)
    assert elementwise["reported"] == 0.97268
    assert accuracy > rows["A2 as written", "test accuracy"]["measured"] + 0.2
    assert len(rows["A2 as written", "mini-batch cost after each epoch"]["measured"]) == 10
    assert "by all 60,000 rows" in printed
    assert {path.stem for path in out.glob("*.png")} == {
        "a_first_image", "a1_curves", "a2_correct_curves", "a2_correct_weights", "a2_as_written_curves",
        "a2_as_written_weights", "a2_both", "a3_iterations", "a3_epochs",
    }  # fmt: skip


@pytest.mark.usefixtures("real_mnist")
def test_report_b(tmp_path):
    rows, printed = run_quickly("report_b_assignment.py", tmp_path, "--as-written", "--out", tmp_path)

    assert rows["B1 correct, lr 0.03", "test accuracy"]["measured"] > 0.6
    assert rows["B2 as written, batch 15", "test accuracy"]["reported"] == 0.8721
    assert rows["B3", "test accuracy"]["measured"] > 0.75
    assert rows["B4 guard", "are the model's parameters finite?"]["measured"] == "yes"
    assert "y p - y" in printed
    assert "Training diverged at step" in printed
    for figure in ("b1_correct_lr_0.01_weights", "b1_as_written_curves", "b2_correct_15_epochs", "b3_iterations"):
        assert (tmp_path / f"{figure}.png").stat().st_size > 10_000, figure


@pytest.mark.usefixtures("real_mnist")
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_report_d(tmp_path, backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    rows, printed = run_quickly("report_d_demo.py", tmp_path, "--backend", backend, "--out", tmp_path)

    assert rows["D", "test accuracy, untrained"]["measured"] < 0.3
    assert rows["D", "test accuracy, trained"]["measured"] > 0.75
    assert rows["D", "test accuracy, trained"]["reported"] == 0.8752
    assert printed.count("CORRECT") == 12
    assert printed.count(": INCORRECT") == 12 - rows["D", "ten random test images, correct"]["measured"]
    assert is_true_color(tmp_path / "d_predictions.png")


def test_a2_as_written_divides_the_weight_gradient_by_all_rows(xp, example):
    optimizer = example("report_a_jsneural").AsWritten(0.5)
    params = ({"weight": xp.asarray(np.full((2, 3), 1.0)), "bias": xp.asarray(np.full((1, 3), 1.0))},)
    grads = ({"weight": xp.asarray(np.full((2, 3), 600.0)), "bias": xp.asarray(np.full((1, 3), 1.0))},)
    ((after,), _) = optimizer.update(params, grads, optimizer.init(params), 0.5)

    np.testing.assert_allclose(xpnet.to_numpy(after["weight"]), 0.5, rtol=1e-6)  # float32
    np.testing.assert_allclose(xpnet.to_numpy(after["bias"]), 0.5, rtol=1e-6)


def test_b_as_written_never_pushes_a_wrong_class_down(xp, rng, example):
    z, labels = rng.normal(size=(4, 3)), np.array([2, 0, 1, 1])
    loss, dz = example("report_b_assignment").AsWritten()(xp.asarray(labels), xp.asarray(z))

    y, p = np.eye(3)[labels], xpnet.to_numpy(softmax(z))
    np.testing.assert_allclose(xpnet.to_numpy(dz), (y * p - y) / 4, atol=1e-6)  # float32
    np.testing.assert_allclose(float(loss), -np.log(p[y == 1]).mean(), rtol=1e-6)


def test_a_report_writes_its_json_at_each_row(tmp_path, example):
    reporting = example("reporting")
    args = reporting.argument_parser("").parse_args(["--json", str(tmp_path / "new" / "report.json")])
    with xpnet.use_backend("numpy"):
        report = reporting.Report("X", args)
        report.add("X1", "costs", np.arange(3.0), reported=[1.0, 2.0], seconds=0.5)

        (row,) = json.loads(args.json.read_text())["rows"]
    assert row["measured"] == [0, 1, 2]
    assert (row["reported"], row["seconds"]) == ([1, 2], 0.5)


@pytest.mark.parametrize(
    "figure", sorted((EXAMPLES.parent / "docs" / "figures").glob("*.png")), ids=lambda path: path.stem
)
def test_the_figures_of_the_docs_are_in_true_color(figure):
    assert is_true_color(figure)
