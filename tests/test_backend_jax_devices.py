"""JAX on four devices, which `XLA_FLAGS` makes of one CPU, in another process."""

import importlib
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.scripts import ROOT
from xpnet import BackendNotAvailableError
from xpnet.backend import make_backend, to_numpy
from xpnet.tree import leaves

pytest.importorskip("jax")
job = importlib.import_module("tests.jax_devices_job")
pytestmark = pytest.mark.slow
CASES = ["dense", "dropout", "weights", "CNN", "micro-batches", "LSTM"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("devices") / "results.npz"
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    program = [sys.executable, "-m", "tests.jax_devices_job", str(path)]
    done = subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return np.load(path)


@pytest.mark.parametrize("case", CASES)
def test_four_devices_train_as_one(case, results):
    model, history = job.train(case, make_backend("jax"))

    for i, array in enumerate(leaves(model.state)):
        np.testing.assert_allclose(results[f"{case}/{i}"], to_numpy(array), rtol=1e-5, atol=1e-5)
    for name, values in history.history.items():
        np.testing.assert_allclose(results[f"{case}/{name}"], values, rtol=1e-4, err_msg=name)
    predicted = to_numpy(model.predict(job.NETWORKS[case][2]))
    np.testing.assert_allclose(results[f"{case}/predict"], predicted, rtol=1e-4, atol=1e-5)


def test_each_device_computes_a_quarter_of_the_rows(results):
    """The compiled step of an LSTM of 12 units, whose gates are (rows, 48) in each time step, and 16 rows in a batch."""
    assert "all-reduce" in str(results["LSTM/code"])
    for code in (str(results["LSTM/code"]), str(results["inference"])):
        assert re.search(r"f32\[4,48\]", code)
        assert not re.search(r"f32\[16,48\]", code)


def test_each_device_computes_a_quarter_of_a_micro_batch(results):
    """The compiled step of a convolution with 4 filters, whose outputs have 6 x 6 pixels, and 8 rows in a micro-batch."""
    code = str(results["micro-batches/code"])

    assert re.search(r"f32\[2,6,6,4\]", code)
    assert not re.search(r"f32\[8,6,6,4\]", code)


def test_the_backend_names_its_devices(results):
    assert str(results["repr"]) == "<xpnet backend jax on 4 devices of cpu, float32>"
    for one in (make_backend("jax", devices=1), make_backend("jax", devices=1).computing_in("float64")):
        assert pickle.loads(pickle.dumps(one)) == one


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(BackendNotAvailableError, match=r"at most \d+, .*Received: devices=1000"):
        make_backend("jax", devices=1000)
    with pytest.raises(ValueError, match="devices"):
        make_backend("jax", devices=0)
