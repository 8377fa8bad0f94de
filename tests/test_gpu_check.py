"""The machinery of `tests.benchmarks.gpu_check`, which is meant for a GPU: stages, limits and the report, but no figures."""

import json
import time

import pytest

pytest.importorskip("pty", reason="the benchmarks draw progress bars on a pseudo-terminal")

from tests.benchmarks import gpu_check, gpu_probes, gpu_report

pytestmark = pytest.mark.slow

AGES = 600.0  # seconds, because a process may start slowly on a busy machine


@pytest.fixture
def job(tmp_path):
    return gpu_check.Job(tmp_path / "stage.json", dry=True, tf32=False, cases=("tiny",), folder=tmp_path)


def test_a_dry_run_writes_json_markdown_and_log(tmp_path, monkeypatch):
    stages = {name: (function, AGES) for name, (function, _) in gpu_check.STAGES.items()}
    monkeypatch.setattr(gpu_check, "STAGES", stages)
    stages = "--stages=machine,agreement,first run"
    gpu_check.main(["--dry-run", f"--minutes={AGES / 60}", stages, f"--out={tmp_path}"])

    results = json.loads((tmp_path / "gpu_check.json").read_text())
    assert [results[stage]["status"] for stage in ("machine", "agreement", "first run")] == ["done"] * 3
    assert results["agreement"]["numpy"]["relative difference of the parameters"] == 0
    report = (tmp_path / "gpu_check.md").read_text()
    assert "The figures have no meaning." in report
    assert f"numpy {results['machine']['versions']['numpy']}" in report
    assert "===== agreement" in (tmp_path / "gpu_check.log").read_text()


def test_a_stage_that_fails_or_hangs_loses_nothing_but_itself(job, tmp_path):
    with open(tmp_path / "log", "w") as log:
        assert gpu_check.run_process(["--stage", "no such stage"], job, AGES, log).startswith("exit status 1")
        assert gpu_check.run_process(["--stage", "agreement"], job, 0.05, log) == "stopped after 0 s"

    assert "KeyError: 'no such stage'" in (tmp_path / "log").read_text()
    assert gpu_check.read(job.file) == {}


def test_when_the_minutes_are_over_the_rest_is_not_begun(tmp_path):
    results = gpu_check.main(["--dry-run", "--minutes=1e-9", f"--out={tmp_path}"])

    assert all(results[stage]["status"].startswith("not started") for stage in gpu_check.STAGES)


def test_what_a_stage_found_before_it_was_stopped_is_kept(job):
    job.attempt("first", lambda: 1)
    job.attempt("second", lambda: 1 / 0)

    assert gpu_check.read(job.file) == {"first": 1, "second": {"error": "ZeroDivisionError: division by zero"}}
    job.file.write_text('{"first": 1, "sec')
    assert gpu_check.read(job.file) == {}


def test_the_report_shows_figures_failures_and_goals():
    step = {"us_per_step": 100.0, "startup_seconds": 1.5}
    results = {
        "dry run": False,
        "precision": "float32",
        "machine": {"status": "done", "device": "a card"},
        "gpu tests": {
            "status": "done", "exit status": 1, "counts": {"passed": 5, "failed": 1, "skipped": 0},
            "failures": {"tests::test_x": ["boom | here"]},
        },
        "benchmark": {
            "status": "stopped after 200 s", "data": "MNIST",
            "xpnet cupy": {"W2": step, "W3": {"error": "out of memory"}, "W8": step | {"us_per_step": 820.0}},
            "PyTorch eager": {"W2": step | {"us_per_step": 80.0}}, "JAX scan": {"error": "exit status 1"},
        },
        "first run": {"status": "done", "5 random numbers": {"new": True}, gpu_probes.PRODUCTS_ALONE: {"W8 fp32": 812.3456}},
    }  # fmt: skip

    text = gpu_report.markdown(results)

    assert "a card" in text
    assert "- tests::test_x: boom | here" in text
    assert "| xpnet cupy | 100.0 | out of memory | 820.0 |" in text
    assert "| W2 | xpnet cupy | PyTorch eager | 1.25 | 1.00 | NO |" in text
    assert "| W8 | xpnet cupy | its products alone | 1.01 | 1.10 | yes |" in text
    assert "W8 fp32: 812.3" in text


def test_pytest_is_counted(job, tmp_path):
    file = tmp_path / "test_three.py"
    file.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('why')\n")
    gpu_check.run_pytest(job, "numpy", str(file), "--rootdir", str(tmp_path), "-c", "/dev/null")

    assert job.results["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert list(job.results["failures"].values()) == [["assert 0"]]


def test_pytest_is_counted_when_time_runs_out(job, tmp_path, monkeypatch):
    """The time is over as soon as the second test has begun, however long that takes."""
    begun, file = tmp_path / "begun", tmp_path / "test_slow.py"
    file.write_text(f"""
import pathlib, time
def test_a(): pass
def test_b():
    pathlib.Path({str(begun)!r}).touch()
    time.sleep({AGES})
def test_c(): pass
""")

    def seconds_left(job):
        while not begun.exists() and time.monotonic() < job.begin + AGES:
            time.sleep(0.05)
        return 0.0

    monkeypatch.setattr(gpu_check.Job, "seconds_left", property(seconds_left))
    monkeypatch.setattr(gpu_check, "GRACE", AGES)
    job.limit = 1.0
    gpu_check.run_pytest(job, "numpy", str(file), "--rootdir", str(tmp_path), "-c", "/dev/null")

    assert job.results["counts"]["passed"] == 1
    assert job.results["cut short"].startswith("after ")


def test_a_pytest_that_cannot_be_interrupted_is_ended(job, tmp_path, monkeypatch):
    file = tmp_path / "test_deaf.py"
    file.write_text(f"import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep({AGES})\n")
    monkeypatch.setattr(gpu_check, "GRACE", 0.1)
    job.limit = 0.0
    gpu_check.run_pytest(job, "numpy", str(file), "--rootdir", str(tmp_path), "-c", "/dev/null")

    assert job.results["error"].startswith("pytest did not start")


def test_unknown_stages_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["--stages=fly"])
    error = capsys.readouterr().err
    assert "choose from machine, " in error
    assert "Received: fly" in error


def test_the_test_files_of_the_stages_exist(job, monkeypatch):
    arguments = []
    monkeypatch.setattr(gpu_check, "run_pytest", lambda job, backend, *more: arguments.extend(more))
    job.dry = False
    for stage in (gpu_check.gpu_tests, gpu_check.suite, gpu_check.suite_with_graphs):
        stage(job)

    files = [argument.removeprefix("--ignore=") for argument in arguments]
    assert len(files) == 11
    assert [file for file in files if not (gpu_check.ROOT / file).exists()] == []


def test_every_stage_has_a_limit():
    assert all(callable(function) and 0 < seconds <= 200 for function, seconds in gpu_check.STAGES.values())
