"""scikit-learn's switch `array_api_dispatch`, metadata routing, and scores of samples on a device."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

import sklearn
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet.backend import to_numpy
from xpnet.layers import Dense
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor, arrays

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide"),  # StandardScaler on array-api-strict
]

X, Y = load_iris(return_X_y=True)
X = X.astype(np.float32)
WEIGHT = np.linspace(1.0, 2.0, len(Y), dtype=np.float32)


def network(outputs):
    return [Dense(6, activation="relu"), Dense(outputs)]


MADE = {
    "MLPClassifier": lambda: MLPClassifier(6, max_iter=5, random_state=0, batch_size=50),
    "early stopping": lambda: MLPClassifier(6, max_iter=5, random_state=0, early_stopping=True),
    "lbfgs": lambda: MLPClassifier(6, max_iter=5, random_state=0, solver="lbfgs"),
    "MLPRegressor": lambda: MLPRegressor(hidden_layer_sizes=6, max_iter=5, random_state=0),
    "NeuralNetClassifier": lambda: NeuralNetClassifier(network, epochs=3, random_state=0),
    "NeuralNetRegressor": lambda: NeuralNetRegressor(network, epochs=3, random_state=0),
}


def pipeline_on(xp, estimator):
    scaler = "passthrough" if xp.name == "jax" else StandardScaler()  # scikit-learn's scaler assigns to items of arrays
    return Pipeline([("scaler", scaler), ("network", estimator)])


def on_device(xp, estimator):
    """Return samples and targets on the device, and the targets of a regression as numbers with a fraction."""
    return xp.asarray(X), xp.asarray(Y if sklearn.base.is_classifier(estimator) else Y.astype(np.float32))


@pytest.fixture
def dispatch(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # scikit-learn wants to see it
    with sklearn.config_context(array_api_dispatch=True):
        yield


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_pipeline_stays_on_the_device(make, xp_elsewhere, dispatch, monkeypatch):
    xp, estimator = xp_elsewhere, pipeline_on(xp_elsewhere, make())
    expected = pipeline_on(xp_elsewhere, make()).fit(X, Y).predict(X)
    x, y = on_device(xp, estimator)
    moved = []
    monkeypatch.setattr(arrays, "to_numpy", lambda a: (moved.append(a.shape), to_numpy(a))[1])
    answer = estimator.fit(x, y).predict(x)

    assert type(answer) is type(x)
    if xp.name != "numpy":
        assert X.shape not in moved
    if estimator[-1].get_params().get("solver") != "lbfgs":  # float32 instead of SciPy's float64
        np.testing.assert_allclose(to_numpy(answer), expected, rtol=1e-3, atol=1e-3)
    assert 0 <= estimator.score(x, y) <= 1 or not sklearn.base.is_classifier(estimator)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_folds_and_searches_take_arrays_on_a_device(make, xp_elsewhere, dispatch):
    xp, estimator = xp_elsewhere, pipeline_on(xp_elsewhere, make())
    x, y = on_device(xp, estimator)
    folds = 2
    scores = cross_val_score(estimator, x, y, cv=folds)
    search = GridSearchCV(estimator, {}, cv=folds).fit(x, y)

    assert np.isfinite(scores).all()
    np.testing.assert_allclose(search.best_score_, scores.mean(), rtol=1e-5)
    assert type(cross_val_predict(estimator, x, y, cv=folds)) is type(x)
    if estimator[-1].get_params().get("solver") != "lbfgs":
        expected = cross_val_score(pipeline_on(xp, make()), X, Y, cv=folds)
        np.testing.assert_allclose(scores, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dispatched", [False, True])
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_weights_and_scores_on_a_device(make, dispatched, xp_elsewhere, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    expected = make().fit(X, Y, sample_weight=WEIGHT)
    xp, estimator = xp_elsewhere, make()
    x, y = on_device(xp, estimator)
    weight = xp.asarray(WEIGHT)
    with sklearn.config_context(array_api_dispatch=dispatched):
        estimator.fit(x, y, sample_weight=weight)
        score = estimator.score(x, y, sample_weight=weight)

    if getattr(estimator, "solver", "") == "lbfgs":
        assert 0 <= score <= 1
    else:
        assert score == pytest.approx(expected.score(X, Y, sample_weight=WEIGHT), rel=1e-3, abs=0.02)
    if not dispatched:
        assert score == pytest.approx(estimator.score(X, Y, sample_weight=WEIGHT), rel=1e-5)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_weights_are_routed(make, routing):
    final = make().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), final)
    search = GridSearchCV(pipeline, {}, cv=3).fit(X, Y, sample_weight=WEIGHT)
    scaled = StandardScaler().fit_transform(X)

    np.testing.assert_array_equal(search.predict(X), make().fit(scaled, Y, sample_weight=WEIGHT).predict(scaled))
    routed = cross_validate(pipeline, X, Y, cv=3, params={"sample_weight": WEIGHT}, return_estimator=True)
    assert routed["test_score"].mean() == pytest.approx(search.best_score_)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor", "NeuralNetClassifier", "NeuralNetRegressor"])
def test_validation_samples_are_routed_through_a_pipeline(name, routing):
    final = MADE[name]().set_fit_request(X_val=True, y_val=True)
    pipeline = make_pipeline(StandardScaler(), final, transform_input=["X_val"]).fit(X, Y, X_val=X[:30], y_val=Y[:30])
    scaled = StandardScaler().fit_transform(X)
    direct = MADE[name]().fit(scaled, Y, X_val=scaled[:30], y_val=Y[:30])

    assert pipeline[-1].history_.history == direct.history_.history
    assert "val_loss" in direct.history_.history
