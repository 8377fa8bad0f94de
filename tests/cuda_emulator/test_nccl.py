"""Sums of ranks over NCCL: a fake library (source/nccl.cpp), the real CuPy, and emulated devices. Not NCCL, and not a GPU."""

import cupy.cuda.nccl
import numpy as np
import pytest

from tests.distributed_jobs import ROWS_X, train
from tests.scripts import ROOT
from tests.test_distributed import MOST, pytestmark, start  # noqa: F401  pytest reads pytestmark
from xpnet.backend import make_backend, nccl, to_numpy
from xpnet.tree import leaves


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nccl")
    np.save(folder / "x.npy", ROWS_X)
    return folder


@pytest.fixture
def job(folder, monkeypatch):
    """Run ranks, each of which finds `devices`, and return the exit status and what they printed to stderr."""

    def run(ranks, name, devices, **settings):
        for key, value in {"FAKECUDA_DEVICES": devices, **settings}.items():
            monkeypatch.setenv(key, str(value))
        program = start(ranks, "-m", "tests.cuda_emulator.nccl_jobs", name, folder, cwd=ROOT)
        out, err = program.communicate(timeout=MOST * 4)
        return program.returncode, out + err

    return run


def assert_trained_as_one_process(folder, found, names, case):
    model, _ = train(case, folder, backend=make_backend("cupy"))
    for name, array in zip(names, leaves(model.state), strict=True):
        np.testing.assert_allclose(found[name], to_numpy(array), rtol=1e-5, atol=1e-5)


def test_two_ranks_train_as_one_process_with_and_without_nccl(job, folder):
    status, printed = job(2, "training", 2)

    assert status == 0, printed
    found = np.load(folder / "nccl.npz")
    for case in ("dense", "CNN"):
        names = [name.removeprefix("own/") for name in found.files if name.startswith(f"own/{case}/")]
        assert_trained_as_one_process(folder, found, [f"own/{name}" for name in names], case)
        for name in names:
            np.testing.assert_array_equal(found[f"shared/{name}"], found[f"own/{name}"])
    assert printed.count("UserWarning") == 1
    assert "Gradients pass through the memory of the host, because NCCL needs a GPU for each rank" in printed


def test_sums_of_three_ranks(job):
    status, printed = job(3, "sums", 3)

    assert status == 0, printed
    assert "Warning" not in printed


def test_all_ranks_use_mpi_if_the_communicator_of_one_fails(job, folder):
    status, printed = job(2, "one_fails", 2, FAKECUDA_NCCL_FAILS=1)

    assert status == 0, printed
    found = np.load(folder / "one_fails.npz")
    assert_trained_as_one_process(folder, found, found.files, "dense")
    assert printed.count("UserWarning") == 1
    assert "because NCCL failed in rank 1: NCCL_ERROR_SYSTEM_ERROR: unhandled system error" in printed


def test_an_error_in_one_rank_ends_the_job(job):
    status, printed = job(2, "error", 2)

    assert status != 0
    assert "ZeroDivisionError: only rank 1\nxpnet: rank 1 of 2" in printed
    assert "NCCL" not in printed


def agree(backend, gpus, monkeypatch, **attributes):
    """Connect as rank 0 of two, of which the other does the same."""
    for name, value in attributes.items():
        monkeypatch.setattr(nccl.nccl, name, value)
    return nccl.connect(backend, gpus, 0, lambda value: [value, value])


def test_a_missing_library(monkeypatch):
    with pytest.warns(UserWarning, match=r"does not find its library\. Install it: pip install nvidia-nccl-cu13"):
        assert agree(make_backend("cupy"), (b"0", b"1"), monkeypatch, available=False) is None


def test_nccl_that_does_not_connect_in_time(monkeypatch):
    """The other rank never comes, so the fake waits for it."""
    monkeypatch.setattr(nccl, "PATIENCE", 0.2)
    with pytest.warns(UserWarning, match=r"NCCL failed in rank 0: it did not connect in time"):
        assert agree(make_backend("cupy"), (b"0", b"1"), monkeypatch) is None


def test_the_fake_is_what_cupy_calls():
    assert cupy.cuda.nccl.get_version() == 22707
    communicator = cupy.cuda.nccl.NcclCommunicator(1, cupy.cuda.nccl.get_unique_id(), 0)
    assert (communicator.size(), communicator.rank_id(), communicator.device_id()) == (1, 0, 0)
