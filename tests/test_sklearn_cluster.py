"""Searches on a cluster of two worker processes, which Dask or Ray starts on this machine.

The jobs compute with NumPy. They test how estimators reach the workers, and this does not depend on the backend.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile

import pytest

from tests.scripts import LEFT_OUT, ROOT

CASES = {
    "MLPClassifier", "MLPRegressor", "NeuralNetClassifier", "a pipeline", "random settings", "fits at once", "no fits at once"
}  # fmt: skip
MOST = 600  # seconds for a job, which takes less than 30 on an idle machine
SETTINGS = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": f"{MOST}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{MOST}s",
    "RAY_memory_monitor_refresh_ms": "0",  # Ray ends workers if other programs need the memory
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves this machine
    "RAY_AUTH_MODE": "disabled",  # otherwise it writes a token into the home folder
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "ignore",
}

pytestmark = pytest.mark.slow


def printed_by(*arguments):
    """Run a Python program, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT} | SETTINGS
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # Dask and Ray choose for their workers
        environment.pop(name, None)
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOST
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def need(package):
    pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed (distributed comes with the extra "dev", ray with "pip install ray")')


@pytest.fixture(scope="module", params=["distributed", "ray"])
def results(request):
    need(request.param)
    # Ray needs a short path, because the names of its sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="xpnet-", ignore_cleanup_errors=True) as folder:
        return json.loads(printed_by("-m", "tests.cluster_jobs", request.param, folder).splitlines()[-1])


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_workers_find_what_a_local_search_finds(results, case):
    local, cluster = results["local"][case], results["cluster"][case]

    assert cluster["best_params"] == local["best_params"]
    assert cluster["at once"] == local["at once"]
    for name in ("scores", "predictions"):
        assert [pytest.approx(row, rel=1e-6) for row in local[name]] == cluster[name]


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_workers_make_the_fits(results, case):
    processes, here = results["cluster"][case]["processes"], results["process"]

    assert results["local"][case]["processes"] == [here]
    if case == "fits at once":
        assert processes == [here]
    else:
        assert here not in processes
        assert results["cluster"][case]["threads"] == 1


def test_all_cases_run(results):
    assert results["local"].keys() == results["cluster"].keys() == CASES


def test_the_program_of_the_page_prints_what_it_shows(tmp_path):
    need("distributed")
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "search.py").write_text(code, encoding="utf-8")

    (shown,) = re.findall(r"print\(search\.best_params_\)  # (.*)", code)
    assert printed_by(tmp_path / "search.py").strip() == shown
