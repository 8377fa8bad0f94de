"""The harness of tests/benchmarks, on a network too small for useful timings. These tests do not check times."""

import importlib.util
import json
import math
import re
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="the harness draws progress bars on a pseudo-terminal")

from tests import test_distributed
from tests.benchmarks import __main__ as command
from tests.benchmarks import busy, install, ours, parts, profile, report, same_run, sklearn_speed
from tests.benchmarks.cases import CASES, products, read_data, write_data
from tests.benchmarks.worker import FLOOR, measure
from tests.scripts import ROOT

pytestmark = pytest.mark.slow

TINY = CASES["tiny"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, TINY.rows)
    return folder


def test_one_command_prints_tables_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "results.json"

    command.main(["--backends=numpy", "--cases=tiny", "--tables=steps", "--repeats=2", "--epochs=1", f"--json={file}"])

    printed, written = capsys.readouterr().out, json.loads(file.read_text())
    assert "| tiny 784-16-10, batch 50 |" in printed
    assert [(m["round"], m["variant"]) for m in written["steps"]] == [
        (0, FLOOR), (0, "xpnet numpy"), (1, "xpnet numpy"), (1, FLOOR)
    ]  # fmt: skip
    assert all(len(m["seconds"]) == 1 and m["steps"] == 10 for m in written["steps"])
    assert written["environment"]["versions"]["numpy"] in printed


def test_the_busy_table_pairs_each_quiet_run_with_a_busy_one(monkeypatch, capsys):
    monkeypatch.setattr(busy, "CASES", ("tiny",))

    results = command.main(["--backends=numpy", "--tables=busy", "--repeats=1", "--epochs=1", "--threads=1"])

    assert [(m["busy"], m["variant"]) for m in results["busy"]] == [(0, "xpnet numpy"), (1, "xpnet numpy")]
    assert "| tiny | xpnet numpy |" in capsys.readouterr().out


@pytest.fixture(scope="module")
def own_loss(data):
    return measure({"task": "steps", "case": "tiny", "variant": "xpnet numpy", "data": str(data), "epochs": 2})["loss"]


@pytest.mark.parametrize(
    ("variant", "packages"),
    [
        ("torch eager", ["torch"]),
        ("JAX scan", ["jax"]),
        ("Keras on JAX", ["keras", "jax"]),
        ("scikit-learn", ["sklearn"]),
    ],
)
def test_peers_train_the_same_network_to_about_the_same_loss(data, own_loss, variant, packages):
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {missing}")

    peer = measure({"task": "steps", "case": "tiny", "variant": variant, "data": str(data), "epochs": 2})

    assert "error" not in peer, peer["error"]
    assert peer["loss"] == pytest.approx(own_loss, rel=0.3)  # initial weights and order differ


@pytest.mark.parametrize(("task", "figure"), [("predict", "rows_per_second"), ("memory", "peak_bytes")])
def test_prediction_and_memory_are_measured(data, task, figure):
    if task == "memory" and not Path("/proc/self/status").exists():
        pytest.skip("the memory is read from Linux's /proc")

    measured = measure({"task": task, "case": "tiny", "variant": "xpnet numpy", "data": str(data), "rows": 100})

    assert measured[figure] > 0


def test_what_cannot_run_is_reported_with_its_reason(data):
    measured = measure({"task": "steps", "case": "tiny", "variant": "xpnet fortran", "data": str(data), "epochs": 1})

    assert "KeyError: 'xpnet fortran'" in measured["error"]


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.name != "W8"], ids=lambda case: case.name)
def test_every_library_trains_the_weights_that_the_floor_counts(case):
    weights = sum(p.inputs * p.outputs for p in products(case) if "dW" in p.parts)

    params = ours.model(case, "numpy").build(case.input_shape).parameters
    own = sum(a.size for tree in params for name, a in tree.items() if name.endswith("weight"))

    assert own == weights
    assert case.rows % case.batch == 0


def test_data_are_read_as_written(data):
    x, y = read_data(data, TINY)

    assert x.shape == (500, 784)
    assert x.dtype == "float32"
    assert 0 <= x.min() < x.max() <= 1
    assert set(y.tolist()) <= set(range(10))


def test_ratios_are_taken_within_a_round():
    times = [("W2", FLOOR, 0, 100), ("W2", "xpnet numpy", 0, 150), ("W2", FLOOR, 1, 400), ("W2", "xpnet numpy", 1, 640)]
    steps = report.Steps([
        {"case": case, "variant": variant, "round": i, "us_per_step": us} for case, variant, i, us in times
    ])  # fmt: skip

    assert steps.ratios("W2", "xpnet numpy", FLOOR) == [1.5, 1.6]
    assert "| W2 | xpnet numpy | GEMM floor | 1.55 (1.50 - 1.60) | 1.70 | yes |" in steps.goals()


@pytest.mark.skipif(not list(metadata.distributions(name="xpnet")), reason="xpnet is importable, but not installed")
def test_installed_size_counts_what_is_required():
    own, total, names = install.installed_bytes("xpnet")

    assert 0 < own < total
    assert {"xpnet", "numpy", "array-api-compat", "tqdm"} <= set(names)


def test_profile_names_every_piece_of_a_step(data):
    rows = profile.profile(TINY, "numpy", *read_data(data, TINY), steps=4, chunks=2)

    names = [name for name, _, _ in rows]
    assert names[:3] == ["gather x", "gather y", "0 Dense forward"]
    pieces = {"loss", "metrics", "optimizer", "2 Dense backward", "fit, 10 steps per epoch, per step", "GEMM floor"}
    assert pieces <= set(names)
    assert all(0 < least <= median < math.inf for _, least, median in rows)


def test_the_same_run_has_the_same_hashes(tmp_path, capsys):
    """Only on NumPy, because the script compares NumPy's bits."""
    same_run.main([])
    before = json.loads(capsys.readouterr().out)
    (tmp_path / "before.json").write_text(json.dumps(before))
    before["LSTM"]["params"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(before))

    assert same_run.main(["--compare", str(tmp_path / "before.json")]) == 0
    assert same_run.main(["--compare", str(tmp_path / "other.json")]) == 1
    assert "LSTM: params" in capsys.readouterr().out


def test_parts_are_compared_with_the_whole_batch(capsys):
    """Only on NumPy, because no other backend divides batches."""
    parts.main(["tiny/4", "--parts", "2", "--rounds", "1", "--turns", "1"])

    cells = r"no \| 1 \| [\d,]+ \([\d,]+\) \| [\d,]+ \([\d,]+\) \d+\.\d\d \|$"
    assert re.search(rf"^\| tiny/4 \| 0\.00 \| 0\.0 \| {cells}", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.skipif(not test_distributed.MPI, reason='MPI comes with the extra "dev"')
def test_scaling_compares_workers_with_the_model():
    program = test_distributed.start(2, "-m", "tests.benchmarks.scaling", "tiny/8", "--turns", "1", cwd=ROOT)
    out, err = program.communicate(timeout=300)

    assert program.returncode == 0, err[-5000:]
    assert re.search(r"^2 ranks: alpha \d+ us", out, re.MULTILINE)
    assert re.search(r"^\| tiny/8 \| 0\.05 ", out, re.MULTILINE)
    assert re.search(r"^\| tiny/8 \| 2 threads( \| \d+\.\d\d){8} \|$", out, re.MULTILINE)
    assert re.search(r"^\| tiny/8 \| 2 ranks( \| \d+\.\d\d){8} \|$", out, re.MULTILINE)


def test_sklearn_speed_prints_a_row_for_each_case(monkeypatch, tmp_path, capsys):
    pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")
    small = {
        "fit": sklearn_speed.Case("iris", epochs=2, dtype="float64"),
        "busy": sklearn_speed.Case("mnist", rows=200, epochs=1, backend="one thread", busy=True, goal=3.0),
        "proba": sklearn_speed.Case("iris", "predict_proba", rows=1, calls=2, epochs=1),
        "partial": sklearn_speed.Case("diabetes", "partial_fit", rows=20, calls=2),
        "fails": sklearn_speed.Case("iris", "transform", epochs=1),
    }
    monkeypatch.setattr(sklearn_speed, "CASES", small)

    results = sklearn_speed.main(
        [f"--only={','.join(small)}", "--rounds=1", "--threads=1", f"--json={tmp_path / 'r.json'}"]
    )

    printed = capsys.readouterr().out
    assert all(f"| {case.title} |" in printed for case in small.values())
    assert len(results["busy"]["seconds"]["scikit-learn"]) == 1
    assert results["fit"]["scores"]["xpnet"] == results["fit"]["scores"]["scikit-learn"]
    assert "has no attribute 'transform'" in results["fails"]["error"]
    assert json.loads((tmp_path / "r.json").read_text())["partial"]["seconds"] == results["partial"]["seconds"]


def test_many_prints_both_tables(monkeypatch, capsys):
    pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")
    many = importlib.import_module("tests.benchmarks.many")  # it needs scikit-learn
    monkeypatch.setattr(many, "SEARCHES", [("iris", 4, 1)])

    many.main(["--rounds=1", "--quick"])

    printed = capsys.readouterr().out
    assert re.search(r"\| 4-16-3, 150 samples, batch 32( \| \d+\.\d){3} \|", printed)
    assert re.search(r"\| iris, \(4,\), 1 epochs( \| \d+\.\d){2} \|", printed)


def test_sklearn_speed_covers_every_goal():
    goals = {(case.work, case.backend, case.busy): case.goal for case in sklearn_speed.CASES.values() if case.goal > 1}

    assert goals[("fit", "numpy", False)] == 1.5
    assert goals[("fit", "jax", False)] == 2.0
    assert goals[("fit", "numpy", True)] == 3.0


PROGRAMS = [
    "__main__",
    "big_data",
    "gpu_check",
    "launches",
    "many",
    "parts",
    "profile",
    "same_run",
    "scaling",
    "sklearn_speed",
]


def program(name):
    if name == "scaling":
        pytest.importorskip("mpi4py")
    return importlib.import_module(f"tests.benchmarks.{name}").main


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_fits_a_narrow_terminal(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        program(name)(["--help"])

    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert max(map(len, printed.splitlines())) <= 80
    assert "python -m tests.benchmarks" in printed


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("__main__", ["--repeats=0"]),
        ("__main__", ["--threads=-1"]),
        ("big_data", ["--gigabytes=1,x"]),
        ("gpu_check", ["--minutes=0"]),
        ("many", ["--rounds=1.5"]),
        ("parts", ["CNN", "--parts=0"]),
        ("parts", ["CNN", "--turns=-1"]),
        ("parts", ["CNN", "--rounds=two"]),
        ("parts", ["CNN/0"]),
        ("parts", ["CNN/x"]),
        ("parts", ["CNM"]),
        ("profile", ["--steps=0"]),
        ("scaling", ["CNN/-4"]),
        ("scaling", ["CNN", "--turns=0"]),
        ("sklearn_speed", ["--rounds=0"]),
    ],
    ids=str,
)
def test_wrong_numbers_are_errors_of_the_command(name, wrong, capsys):
    with pytest.raises(SystemExit) as end:
        program(name)(wrong)

    assert end.value.code == 2
    assert re.search(r"error: argument .*(expected|choose from).*Received: '", capsys.readouterr().err)
