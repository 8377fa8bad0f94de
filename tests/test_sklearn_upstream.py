"""scikit-learn's tests for its networks and for all estimators, run with xpnet's classes."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn import neural_network
from sklearn.utils._array_api import NamespaceAndDevice
from sklearn.utils.estimator_checks import check_array_api_mixed_inputs, check_estimator

from tests.scripts import run
from xpnet import Adam
from xpnet.layers import Dense
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor

HAS_PANDAS = importlib.util.find_spec("pandas") is not None
LEFT_OUT = {
    "test_gradient": "calls the private _loss_grad_lbfgs with scikit-learn's work arrays; tests/test_sklearn_lbfgs.py "
    "compares our gradient with numerical derivatives",
}
SKIPPED = {
    "check_classifiers_multilabel_output_format_decision_function": "scikit-learn's classifier has no decision_function either",
}
if not HAS_PANDAS:
    needing = (
        "check_sample_weights_pandas_series",
        "check_classifier_data_not_an_array",
        "check_regressor_data_not_an_array",
    )
    SKIPPED |= dict.fromkeys(needing, "needs pandas")
SLOW = pytest.mark.slow
MADE = {
    "MLPClassifier": lambda backend: MLPClassifier(max_iter=100, backend=backend),
    "MLPRegressor": lambda backend: MLPRegressor(max_iter=100, backend=backend),
    "NeuralNetClassifier": lambda backend: NeuralNetClassifier(
        network, epochs=100, optimizer=Adam(0.01), backend=backend
    ),
    "NeuralNetRegressor": lambda backend: NeuralNetRegressor(
        network, epochs=100, optimizer=Adam(0.01), backend=backend
    ),
}


def network(outputs):
    return [Dense(30, activation="relu"), Dense(outputs)]


@SLOW
def test_scikit_learns_own_tests_pass(tmp_path):
    text = (Path(neural_network.__file__).parent / "tests" / "test_mlp.py").read_text(encoding="utf-8")
    line = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
    assert text.count(line) == 1
    (tmp_path / "test_mlp.py").write_text(
        text.replace(line, line.replace("sklearn.neural_network", "xpnet.sklearn")), encoding="utf-8"
    )
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n\n@pytest.fixture\ndef global_random_seed():\n    return 42\n", encoding="utf-8"
    )
    left_out = [f"--deselect=test_mlp.py::{name}" for name in LEFT_OUT]
    options = ["-q", "-c", os.devnull, f"--rootdir={tmp_path}", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", *options, *left_out, "test_mlp.py", cwd=tmp_path)

    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= (58 if HAS_PANDAS else 56)


@pytest.fixture
def with_arrays(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # otherwise, scikit-learn skips its checks of other libraries' arrays


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "backend", ["numpy", *(pytest.param(name, marks=SLOW) for name in ("array_api_strict", "torch", "jax"))]
)
@pytest.mark.parametrize("name", MADE)
def test_scikit_learns_checks_of_estimators_pass(name, backend, with_arrays):
    if backend != "numpy":
        pytest.importorskip(backend)
    results = check_estimator(MADE[name](backend), on_fail=None, on_skip=None)

    assert [(r["check_name"], r["exception"]) for r in results if r["status"] not in ("passed", "skipped")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED.keys()


@SLOW
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(
    ("others", "samples"),
    [
        (("array_api_strict", "device1"), ("array_api_strict", "device1")),
        (("torch", "cpu"), ("torch", "cpu")),
        (("array_api_strict", "device1"), ("torch", "cpu")),
    ],
)
@pytest.mark.parametrize("name", MADE)
def test_scikit_learns_checks_of_other_libraries_arrays_pass(name, others, samples, weights, with_arrays):
    """`check_estimator` runs them only for estimators that refuse another library than in `fit`. Ours accept it."""
    for library, _ in (others, samples):
        pytest.importorskip(library)
    few = {"max_iter" if name.startswith("MLP") else "epochs": 10}
    check_array_api_mixed_inputs(
        name,
        MADE[name](None).set_params(**few),
        NamespaceAndDevice(*samples),
        NamespaceAndDevice(*others),
        True,
        weights,
    )
