"""Arrays of any library in, the same library out."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from xpnet.backend import backend_of_array
from xpnet.layers import Dense
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor, arrays

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def digits(xp, n=120):
    X, y = load_digits(n_class=3, return_X_y=True)
    X, y = (X[:n] / 16).astype(np.float32), y[:n]
    return X, y, xp.asarray(X), xp.asarray(y)


def network(outputs):
    return [Dense(8, activation="relu"), Dense(outputs)]


ESTIMATORS = [
    MLPClassifier(8, max_iter=4, random_state=0, batch_size=50),
    MLPClassifier(8, max_iter=4, random_state=0, early_stopping=True),
    MLPClassifier(8, max_iter=20, random_state=0, solver="lbfgs", alpha=0.1),
    MLPRegressor(hidden_layer_sizes=8, max_iter=4, random_state=0),
    NeuralNetClassifier(network, epochs=2, random_state=0, validation_fraction=0.2),
    NeuralNetRegressor(network, epochs=2, random_state=0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_the_same_kind_comes_out(estimator, xp):
    X, y, X_device, y_device = digits(xp)
    host = {"predict": None, "predict_proba": None, "predict_log_proba": None}
    estimator.fit(X, y)
    host = {name: getattr(estimator, name)(X) for name in host if hasattr(estimator, name)}
    estimator.fit(X_device, y_device)
    for name, expected in host.items():
        answer = getattr(estimator, name)(X_device)

        assert type(answer) is type(X_device)
        assert (answer.shape, arrays.dtype_of(answer).kind) == (expected.shape, expected.dtype.kind)
        if xp.name != "numpy":
            assert backend_of_array(answer).device == xp.device
        if getattr(estimator, "solver", "") != "lbfgs":  # float32 instead of SciPy's float64
            np.testing.assert_allclose(xp.to_host(answer), expected, rtol=1e-3, atol=1e-5)
    if hasattr(estimator, "coefs_"):
        assert {type(w) for w in estimator.coefs_} == {np.ndarray}


def test_samples_do_not_visit_the_host(xp, monkeypatch):
    X, y, X_device, _ = digits(xp)
    if xp.name == "numpy":
        pytest.skip("NumPy's arrays are on the host")
    seen = []
    original = type(xp).to_host
    monkeypatch.setattr(type(xp), "to_host", lambda self, tree: (seen.append(tree), original(self, tree))[1])
    monkeypatch.setattr(arrays, "to_numpy", lambda x: pytest.fail("moved to the host"))
    model = MLPClassifier(8, max_iter=2, random_state=0).fit(X_device, y)

    assert model.n_features_in_ == 64
    assert not [x for tree in seen for x in [tree] if getattr(x, "shape", None) == X.shape]


def test_text_labels_stay_text(xp):
    _, y, X_device, _ = digits(xp)
    model = MLPClassifier(8, max_iter=2, random_state=0).fit(X_device, np.array(["a", "b", "c"])[y])

    assert isinstance(model.predict(X_device), np.ndarray)
    assert set(model.predict(X_device)) <= {"a", "b", "c"}


def test_another_backend_may_compute(xp):
    X, y, X_device, _ = digits(xp)
    model = MLPClassifier(8, max_iter=2, random_state=0, backend="numpy").fit(X_device, y)

    assert type(model.predict_proba(X_device)) is type(X_device)
    np.testing.assert_array_equal(model.coefs_[0], MLPClassifier(8, max_iter=2, random_state=0).fit(X, y).coefs_[0])


def test_mistakes(xp):
    X, y, X_device, y_device = digits(xp)
    model = MLPClassifier(8, max_iter=2, random_state=0)
    bad = X.copy()
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        model.fit(xp.asarray(bad), y_device)
    with pytest.raises(ValueError, match="Reshape your data"):
        model.fit(xp.asarray(X[:, 0]), y_device)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X_device, y[:5])
    model.fit(X_device, y_device)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 64 features"):
        model.predict(xp.asarray(X[:, :3]))


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (MLPClassifier(11, max_iter=2), {"learning_rate_init": [0.01, 0.1]}),  # no other test has 11 neurons
        (NeuralNetClassifier([Dense(11), Dense(3)], epochs=2), {"optimizer__learning_rate": [0.01, 0.1]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_search_compiles_equal_networks_once(estimator, grid, xp, monkeypatch):
    X, y, _, _ = digits(xp)
    if not xp.compiles:
        pytest.skip("this backend does not compile")
    compiled, original = [], type(xp).compile_scan
    monkeypatch.setattr(type(xp), "compile_scan", lambda self, step: (compiled.append(step), original(self, step))[1])
    GridSearchCV(estimator.set_params(backend=xp), grid, cv=2).fit(X, y)

    assert len(compiled) == 1


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_of_columns(library):
    tables = pytest.importorskip(library)
    X, y = load_digits(n_class=3, return_X_y=True)
    table = tables.DataFrame({f"pixel {i}": X[:60, i] for i in range(5)})
    model = MLPClassifier(4, max_iter=2, random_state=0, early_stopping=True).fit(table, y[:60])

    assert list(model.feature_names_in_) == list(table.columns)
    np.testing.assert_array_equal(model.predict_proba(table), MLPClassifier(
        4, max_iter=2, random_state=0, early_stopping=True
    ).fit(X[:60, :5], y[:60]).predict_proba(X[:60, :5]))  # fmt: skip
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        model.predict(table[table.columns[::-1]])
