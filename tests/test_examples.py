"""The example scripts run, on small data. Each sets its own backend, so no `xp` fixture."""

import json
import os
import re

import pytest

from tests.conftest import EXAMPLES_ON
from tests.scripts import EXAMPLES, run
from xpnet.errors import install_command

pytestmark = pytest.mark.slow


def test_mnist_runs_alone_in_an_empty_folder(tmp_path):
    """It trains on the small digits, which need no download."""
    pytest.importorskip("sklearn")
    code = (EXAMPLES / "mnist.py").read_text(encoding="utf-8")
    (tmp_path / "mnist.py").write_text(code.replace("datasets.mnist()", "datasets.digits()"), encoding="utf-8")
    out = run("mnist.py", cwd=tmp_path).stdout

    assert float(re.search(r"Test accuracy ([\d.]+)%", out)[1]) >= 96
    assert len(code.splitlines()) <= 40
    assert "argparse" not in code


@pytest.mark.parametrize("backend", EXAMPLES_ON)
def test_mnist_cli_on_the_small_digits(backend, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    plot, report = tmp_path / "plot.png", tmp_path / "new" / "report.json"
    arguments = ["--dataset", "digits", "--backend", backend, "--json", report, "--plot", plot]
    out = run(EXAMPLES / "mnist_cli.py", *arguments).stdout

    result = json.loads(report.read_text())
    assert result["test_accuracy"] >= 0.96
    assert set(result) == {
        "dataset", "backend", "device", "seed", "epochs", "seconds", "test_accuracy", "history",
    }  # fmt: skip
    assert "precision" in out
    assert f"{backend} on {result['device']}" in out
    assert plot.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "{folder}"], "the file must be writable.*Received: "),
        (["--json", "{folder}/file/report.json"], "the file must be writable.*Received: "),
        (["--plot", "{folder}/plot.doc"], r"the name must end in one of .*\.png.*Received: .*plot\.doc"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_training(arguments, message, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    done = run(EXAMPLES / "mnist_cli.py", *arguments, status=2)

    assert re.search(message, done.stderr)
    assert not done.stdout


def test_missing_matplotlib_is_said_before_training(tmp_path):
    """A module with this name that cannot be imported hides the installed one."""
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError(name='matplotlib')", encoding="utf-8")
    done = run(EXAMPLES / "mnist_cli.py", "--plot", tmp_path / "plot.png", status=2, path=[tmp_path])

    assert f"argument --plot: matplotlib.figure is not installed. Run: {install_command('plot')}" in done.stderr
    assert not (tmp_path / "plot.png").exists()


@pytest.mark.parametrize(
    ("script", "module", "extra"),
    [
        ("mnist_cli.py", "sklearn", "sklearn"),
        ("report_d_demo.py", "matplotlib", "plot"),
        ("report_e_slides.py", "sklearn", "sklearn"),
    ],
)
def test_a_missing_package_is_said_at_the_start(script, module, extra, tmp_path):
    """A module with this name that cannot be imported hides the installed one."""
    pytest.importorskip("matplotlib")
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})", encoding="utf-8")
    done = run(EXAMPLES / script, status=1, path=[tmp_path])

    assert done.stderr.endswith(f"is not installed. Run: {install_command(extra)}\n")
    assert not done.stdout


@pytest.mark.parametrize("script", ["mnist_cnn.py", "row_lstm.py"])
@pytest.mark.parametrize("backend", EXAMPLES_ON)
@pytest.mark.skipif("XPNET_DATA" not in os.environ, reason="XPNET_DATA, the folder of MNIST, is not set")
def test_mnist_examples_run(script, backend, tmp_path):
    report = tmp_path / "report.json"
    out = run(EXAMPLES / script, "--quick", "--backend", backend, "--json", report).stdout

    assert "Test accuracy" in out
    assert json.loads(report.read_text())["test_accuracy"] > 0.2


@pytest.mark.parametrize("backend", EXAMPLES_ON)
@pytest.mark.skipif("XPNET_DATA" not in os.environ, reason="XPNET_DATA, the folder of MNIST, is not set")
def test_a_grid_search_follows_the_path_of_scikit_learn(backend, tmp_path):
    pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")
    report = tmp_path / "report.json"
    out = run(EXAMPLES / "sklearn_grid_search.py", "--quick", "--backend", backend, "--json", report).stdout

    theirs, ours, *float32 = json.loads(report.read_text())
    assert [row["library"] for row in (theirs, ours)] == ["scikit-learn", "xpnet"]
    assert all(theirs[name] == ours[name] for name in ("hidden_layer_sizes", "learning_rate_init", "folds", "test"))
    assert min(row["test"] for row in (ours, *float32)) > 0.5
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "times as fast" in out


def test_char_rnn_runs(tmp_path):
    report = tmp_path / "report.json"
    out = run(EXAMPLES / "char_rnn.py", "--quick", "--backend", "numpy", "--json", report).stdout

    assert "It writes:" in out
    for result in json.loads(report.read_text())["results"].values():
        assert result["bits_per_character"][0] < 5.5


@pytest.mark.parametrize("options", [[], ["--convolution"]], ids=["dense", "convolution"])
def test_mnist_playground(options, real_mnist, tmp_path):
    out = run(EXAMPLES / "mnist_playground.py", "--quick", "--out", "page.html", *options, cwd=tmp_path).stdout

    assert float(re.search(r"Test accuracy ([\d.]+)%", out)[1]) >= 70
    assert "<title>Draw a digit</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")
