"""Training by several processes, which ``mpiexec`` starts for real. A job runs many cases, because starting one takes seconds.

The jobs choose their backend: NumPy, where not otherwise said.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.distributed_jobs import ROWS_X, Y, train
from tests.scripts import EXAMPLES, ROOT
from xpnet import explain, load_model
from xpnet.backend import make_backend
from xpnet.tree import leaves

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
MPI = MPIEXEC is not None and importlib.util.find_spec("mpi4py") is not None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not MPI, reason='MPI comes with the extra "dev"')]
MOST = 30.0  # seconds until a job with a failed rank has ended


def start(ranks, *arguments, cwd=None):
    """Start this many ranks of a Python program."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=os.environ | one_thread, cwd=cwd, text=True, **pipes)


def job(ranks, name, folder, status=0):
    """Run a function of tests/distributed_jobs.py, and return what it printed."""
    program = start(ranks, "-m", "tests.distributed_jobs", name, folder, cwd=ROOT)
    out, err = program.communicate(timeout=300)
    assert (program.returncode == 0) == (status == 0), f"exit status {program.returncode}\n{out}\n{err[-5000:]}"
    return out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    np.save(folder / "x.npy", ROWS_X)
    return folder


@pytest.fixture(scope="module", params=[2, 3, 4])
def results(request, folder):
    """The parameters and histories of all cases."""
    job(request.param, "equality", folder)
    return request.param, np.load(folder / f"{request.param}.npz")


CASES = ["dense", "dropout", "batch normalization", "weights", "clipping", "one batch", "steps", "micro-batches", "CNN", "LSTM",
         "memory-mapped", "memory-mapped, weights", "batches"]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ranks_train_as_one_process(case, results, folder):
    ranks, found = results
    model, history = train(case, folder)

    assert found[f"{case}/parts"] == ranks
    for i, array in enumerate(leaves(model.state)):  # float32; Adam divides by small numbers
        np.testing.assert_allclose(found[f"{case}/{i}"], array, rtol=1e-5, atol=1e-5)
    for name, values in history.history.items():
        np.testing.assert_allclose(found[f"{case}/{name}"], values, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("case", ["dense", "dropout", "batch normalization", "CNN", "LSTM"])
def test_ranks_compute_the_bits_of_as_many_threads(case, results, folder, monkeypatch):
    ranks, found = results
    monkeypatch.setattr("xpnet.backend.workers.pay", lambda activations, parameters: True)
    model, _ = train(case, folder, backend=make_backend("numpy", threads=ranks))

    assert model.training_state.parts == ranks
    for i, array in enumerate(leaves(model.state)):
        np.testing.assert_array_equal(found[f"{case}/{i}"], array)


@pytest.mark.parametrize("case", ["dense", "dropout", "batch normalization"])
def test_evaluate_and_train_on_batch_are_shared(case, results, folder):
    model, _ = train(case, folder)
    _, found = results

    np.testing.assert_allclose(found[f"{case}/evaluate"], model.evaluate(ROWS_X, Y, batch_size=10), rtol=1e-4)
    np.testing.assert_allclose(found[f"{case}/batch"], model.train_on_batch(ROWS_X[:5], Y[:5]), rtol=1e-4)


def test_layers_of_others_are_computed_whole(results, folder):
    """They may mix the rows of a batch."""
    model, _ = train("own layer", folder)
    _, found = results

    assert found["own layer/parts"] == 1
    for i, array in enumerate(leaves(model.state)):
        np.testing.assert_array_equal(found[f"own layer/{i}"], array)


def test_a_run_repeats_bit_for_bit(folder):
    first = np.load(folder / "3.npz") if (folder / "3.npz").exists() else None
    if first is None:
        job(3, "equality", folder)
        first = np.load(folder / "3.npz")
    first = {name: first[name] for name in first.files}
    job(3, "equality", folder)
    second = np.load(folder / "3.npz")

    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values, err_msg=name)


def test_other_libraries_arrays(folder):
    job(2, "backends", folder)
    model, _ = train("CNN", folder)

    for path in (folder / "array_api_strict.npz", *folder.glob("torch.npz")):
        found = np.load(path)
        for name, array in zip(found.files, leaves(model.state), strict=True):
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_long_arrays_are_added_in_blocks(folder):
    job(3, "sums", folder)


def test_a_rank_that_explains_a_step_computes_the_whole_batch(folder):
    job(2, "explained", folder)
    model, _ = train("dense", folder)
    explanation, found = explain(model, ROWS_X, Y), np.load(folder / "explained.npz")

    for name in found.files:
        np.testing.assert_allclose(found[name], explanation[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_only_the_rows_of_a_rank_are_read(folder):
    out, _ = job(2, "reads", folder)
    rank_0, rank_1 = (tuple(map(int, line.strip("()").split(","))) for line in out.splitlines())

    assert rank_0[0] == 2 * (5 * 8 + 1)  # two epochs, in which 5 batches have 16 rows and the last has 3
    assert rank_1[0] == 2 * (5 * 8 + 2)
    before = rank_0[1] - 2 * (20 + 20 + 3)  # validation batches of 20, 20, 20, 20 and 3 rows are read in turn
    assert before == rank_1[1] - 2 * (20 + 20)
    assert before < 50  # the first rows show the form of the data


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, folder):
    """A run of three ranks that was not interrupted."""
    path = tmp_path_factory.mktemp("unbroken")
    shutil.copy(folder / "x.npy", path)
    out, _ = job(3, "whole", path)
    return path, out, np.load(path / "end.npz")


def test_only_rank_0_writes_and_shows_progress(unbroken):
    path, out, _ = unbroken

    assert [line.split()[1] for line in out.splitlines()] == ["1/4", "2/4", "3/4", "4/4"]
    assert len((path / "log.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("action", ["kill", "fail", "leave"])
def test_a_failed_rank_ends_the_job_and_the_run_continues(action, unbroken, tmp_path):
    _, _, expected = unbroken
    shutil.copy(unbroken[0] / "x.npy", tmp_path)
    _, err = job(3, action, tmp_path, status=1)

    assert time.time() - (tmp_path / "failed").stat().st_mtime < MOST
    named = re.findall(r"xpnet: rank (.*) of 3", err)
    if action != "kill":
        assert named == ["1"]
    elif hasattr(os, "pidfd_open"):
        assert (
            len(named) == 1
        )  # which rank is tested in test_watcher.py, because mpiexec kills the others at the same time
    job(3, "resume", tmp_path)
    found = np.load(tmp_path / "end.npz")
    for name in expected.files:
        np.testing.assert_array_equal(found[name], expected[name])
    assert (tmp_path / "log.csv").read_text() == (unbroken[0] / "log.csv").read_text()


@pytest.mark.parametrize("ranks", [1, 2])
def test_another_number_of_ranks_continues(ranks, unbroken, tmp_path):
    _, _, expected = unbroken
    shutil.copy(unbroken[0] / "x.npy", tmp_path)
    job(3, "kill", tmp_path, status=1)
    _, err = job(ranks, "resume", tmp_path)

    found = np.load(tmp_path / "end.npz")
    for name in expected.files:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert err.count("last bits may differ") == (ranks == 2)  # one process uses three threads


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mismatch", "call='evaluate' in rank 0, 'the end of the program' in rank 1"),
        ("different_data", "first y=[0] in rank 0, [2] in rank 1"),
        ("different_metrics", "metrics=\"(Accuracy(name='accuracy'),)\" in rank 0, \"(Accuracy(name='accuracy'), AUC("),
        ("outside", "ZeroDivisionError: only rank 1\nxpnet: rank 1 of 3"),
    ],
)
def test_ranks_that_do_different_things_end(name, message, folder):
    _, err = job(3, name, folder, status=1)

    assert message in err
    assert err.count("Traceback") == 1


def test_an_error_of_all_ranks_can_be_caught_and_is_reported_once(folder):
    out, err = job(3, "same_error", folder, status=1)

    assert out.splitlines() == ["caught ValueError", "caught DivergenceError"]
    assert err.count("ValueError: y must have one entry") == 1
    assert err.count("xpnet: rank 0 of 3") == 1


def test_ctrl_c_stops_all_ranks_after_the_same_step(folder):
    program = start(3, "-m", "tests.distributed_jobs", "wait", folder, cwd=ROOT)
    assert program.stdout.readline() == "ready\n"
    time.sleep(1.0)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=MOST)

    assert "stopped together" in out, err


@pytest.fixture
def table(tmp_path):
    rows = [",".join(map(str, (label, *values))) for label, values in zip(Y, ROWS_X, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path


def test_the_command_line(table):
    arguments = ["table.csv", "--network", "dense:20,tanh,dense:3", "--epochs", 2, "--checkpoint", "run.safetensors"]
    alone = ["-m", "xpnet", "train", *map(str, arguments), "--out", "alone.safetensors"]
    subprocess.run([sys.executable, *alone], cwd=table, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    program = start(3, "-m", "xpnet", "train", *arguments, "--out", "ranks.safetensors", "--distributed", cwd=table)
    out, err = program.communicate(timeout=MOST)

    assert program.returncode == 0, err
    assert out.count("Epoch 2/2") == out.count("Saved ranks.safetensors.") == 1
    one, other = (load_model(table / f"{name}.safetensors") for name in ("alone", "ranks"))
    for array, expected in zip(leaves(other.state), leaves(one.state), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_the_command_line_reports_an_error_once(table):
    arguments = ["table.csv", "--network", "dense:20,dense:2", "--out", "ranks.safetensors"]
    program = start(3, "-m", "xpnet", "train", *arguments, "--distributed", cwd=table)
    _, err = program.communicate(timeout=MOST)

    assert program.returncode != 0
    assert err.count("xpnet: error: ") == 1
    assert "Traceback" not in err


def test_the_example_on_mnist(real_mnist, tmp_path):
    arguments = ["--samples", 500, "--epochs", 1, "--checkpoint", "run.safetensors"]
    program = start(3, EXAMPLES / "mnist_distributed.py", *arguments, cwd=tmp_path)
    out, err = program.communicate(timeout=100)

    assert program.returncode == 0, err
    assert "with 3 processes" in out
    program = start(2, EXAMPLES / "mnist_distributed.py", "--samples", 500, "--epochs", 2, *arguments[4:], cwd=tmp_path)
    out, err = program.communicate(timeout=100)
    assert program.returncode == 0, err
    assert out.startswith("Epoch 2/2")


def test_without_mpiexec_nothing_changes(folder):
    program = [sys.executable, "-c", "import xpnet; print(xpnet.distributed.init().size, xpnet.groups.process().size)"]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})

    assert done.stdout.split() == ["1", "1"]


def test_another_mpi_than_that_of_mpi4py_is_an_error():
    program = [sys.executable, "-c", "import xpnet; xpnet.distributed.init()"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMPI_COMM_WORLD_SIZE": "2"}
    done = subprocess.run(program, capture_output=True, text=True, env=env)

    assert "mpiexec must belong to the MPI library that mpi4py uses" in done.stderr
