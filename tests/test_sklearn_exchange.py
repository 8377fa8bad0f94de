"""Fitted networks from and to scikit-learn. Both compute on the host in float64, so only tests of files take a backend."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn import neural_network
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.exceptions import NotFittedError

import xpnet
import xpnet.sklearn
from xpnet.errors import ConversionError
from xpnet.layers import ELU, Dense
from xpnet.sklearn import from_model, from_sklearn, to_model, to_sklearn
from xpnet.tree import leaves

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
TEXT = np.array(["setosa", "versicolor", "virginica"])[Y_IRIS]
CASES = [
    ("MLPClassifier", {"activation": "tanh"}, (X_IRIS, TEXT)),
    ("MLPClassifier", {"solver": "sgd", "hidden_layer_sizes": (5, 4)}, (X_IRIS, Y_IRIS > 1)),
    ("MLPClassifier", {"early_stopping": True}, make_multilabel_classification(60, random_state=0)),
    (
        "MLPRegressor",
        {"solver": "lbfgs", "activation": "logistic"},
        make_regression(60, 4, n_targets=2, random_state=0),
    ),
    ("MLPRegressor", {"loss": "poisson"}, (X_IRIS, Y_IRIS)),
]


@pytest.mark.parametrize(("name", "settings", "data"), CASES)
def test_there_and_back(name, settings, data):
    X, y = data
    theirs = getattr(neural_network, name)(random_state=0, max_iter=20, **settings).fit(X, y)
    ours = from_sklearn(theirs)
    back = to_sklearn(ours)

    assert type(ours) is getattr(xpnet.sklearn, name)
    assert type(back) is type(theirs)
    for method in ("predict", "predict_proba"):
        if hasattr(theirs, method):
            expected = getattr(theirs, method)(X)
            for other in (ours, back):
                if expected.dtype.kind == "f":
                    np.testing.assert_allclose(getattr(other, method)(X), expected, rtol=1e-10)
                else:
                    np.testing.assert_array_equal(getattr(other, method)(X), expected)
    assert ours.n_iter_ == back.n_iter_ == theirs.n_iter_
    assert theirs.get_params().items() <= ours.get_params().items()
    ours.coefs_[0][:] = 0.0
    assert theirs.coefs_[0].any()  # a copy


SOLVERS = {
    "adam": {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-4},
    "velocities": {"solver": "sgd"},
    "momentum without nesterov": {"solver": "sgd", "nesterovs_momentum": False},
    "no momentum": {"solver": "sgd", "momentum": 0.0},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.3, "n_iter_no_change": 1, "max_iter": 20},
}


@pytest.mark.parametrize("settings", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_partial_fit_continues_with_the_same_optimizer_state(name, settings):
    settings = {"random_state": 0, "max_iter": 5, "batch_size": 40, "hidden_layer_sizes": (6, 5)} | settings
    theirs = getattr(neural_network, name)(**settings).fit(X_IRIS, Y_IRIS)
    ours = from_sklearn(theirs)
    back = to_sklearn(ours)
    start = to_sklearn(getattr(xpnet.sklearn, name)(**settings).fit(X_IRIS, Y_IRIS))
    for _ in range(3):
        for estimator in (theirs, ours, back, start):
            estimator.partial_fit(X_IRIS[:100], Y_IRIS[:100])

    for other in (ours, back, start):
        for a, b in zip(theirs.coefs_ + theirs.intercepts_, other.coefs_ + other.intercepts_, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)
        assert other.loss_curve_ == pytest.approx(theirs.loss_curve_)
        assert other._optimizer.learning_rate == pytest.approx(theirs._optimizer.learning_rate, rel=1e-12)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_warm_start_continues(early_stopping):
    settings = {"random_state": 0, "warm_start": True, "max_iter": 6, "learning_rate_init": 0.1}
    theirs = neural_network.MLPClassifier(early_stopping=early_stopping, **settings).fit(X_IRIS, Y_IRIS)
    ours = from_sklearn(theirs)
    back = to_sklearn(ours)
    for _ in range(3):
        for estimator in (theirs, ours, back):
            estimator.fit(X_IRIS, Y_IRIS)

    for other in (ours, back):
        np.testing.assert_allclose(other.coefs_[0], theirs.coefs_[0], rtol=1e-7, atol=1e-9)
        assert other.validation_scores_ == theirs.validation_scores_


def test_the_optimizer_state_is_a_copy():
    theirs = neural_network.MLPClassifier(random_state=0, max_iter=3).fit(X_IRIS, Y_IRIS)
    kept = [x.copy() for x in theirs._optimizer.ms]
    from_sklearn(theirs).partial_fit(X_IRIS, Y_IRIS)

    for a, b in zip(kept, theirs._optimizer.ms, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_pickle_holds_the_optimizer_state_on_the_host(xp):
    ours = xpnet.sklearn.MLPClassifier(random_state=0, max_iter=3, backend=xp).fit(X_IRIS, Y_IRIS)
    copied = pickle.loads(pickle.dumps(ours))

    assert {type(x) for x in leaves(copied._optimizer.memory)} == {np.ndarray}
    for estimator in (ours, copied):
        estimator.partial_fit(X_IRIS, Y_IRIS)
    np.testing.assert_array_equal(copied.coefs_[0], ours.coefs_[0])


def test_additions_that_only_affect_training_are_left_out():
    ours = xpnet.sklearn.MLPRegressor(
        "huber", activation=["relu"], dropout=0.5, n_units=3, max_iter=2, random_state=0
    ).fit(X_IRIS, Y_IRIS)
    theirs = to_sklearn(ours)

    np.testing.assert_allclose(theirs.predict(X_IRIS), ours.predict(X_IRIS))
    assert (theirs.loss, theirs.activation, theirs.hidden_layer_sizes) == ("squared_error", "relu", (3,))


@pytest.mark.parametrize(
    "later", [{"activation": "tanh"}, {"activation": "gelu"}, {"n_units": 5}, {"batch_norm": True}]
)
def test_the_fitted_network_is_exported(later):
    ours = xpnet.sklearn.MLPClassifier((3,), max_iter=2, random_state=0).fit(X_IRIS, Y_IRIS)
    theirs = to_sklearn(ours.set_params(**later))

    np.testing.assert_allclose(theirs.predict_proba(X_IRIS), ours.predict_proba(X_IRIS))
    assert (theirs.activation, theirs.hidden_layer_sizes) == ("relu", (3,))


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_norm": True},
        {"activation": "gelu"},
        {"activation": ELU()},
        {"n_layers": 2, "activation": ["relu", "tanh"]},
    ],
)
def test_what_scikit_learn_lacks_is_refused(settings):
    ours = xpnet.sklearn.MLPClassifier(max_iter=1, random_state=0, **settings).fit(X_IRIS, Y_IRIS)

    with pytest.raises(ConversionError, match="scikit-learn's networks have one activation"):
        to_sklearn(ours)


def test_mistakes():
    with pytest.raises(TypeError, match="Received: list"):
        from_sklearn([])
    with pytest.raises(NotFittedError):
        from_sklearn(neural_network.MLPClassifier())
    with pytest.raises(NotFittedError):
        to_sklearn(xpnet.sklearn.MLPClassifier())
    for function in (to_sklearn, to_model):
        with pytest.raises(TypeError, match=r"The model of another estimator is estimator\.model_\. Received"):
            function(xpnet.sklearn.NeuralNetClassifier([Dense(3)]))
        with pytest.raises(TypeError, match="Received: MLPRegressor"):
            function(neural_network.MLPRegressor())
    several = xpnet.Model([Dense(3)], "softmax_cross_entropy", seed=(0, 1)).build((4,))
    for wrong in (several, None):
        with pytest.raises(ValueError, match="needs a Model with one seed"):
            from_model(wrong)


@pytest.mark.parametrize(("name", "settings", "data"), CASES)
def test_a_model_predicts_the_same_and_can_be_saved(name, settings, data, xp, tmp_path):
    X, y = data
    extra = {} if settings.get("solver") == "lbfgs" else {"batch_norm": True, "dropout": 0.2}
    ours = getattr(xpnet.sklearn, name)(random_state=0, max_iter=20, backend=xp, **settings, **extra).fit(X, y)
    model = to_model(ours)
    model.save(tmp_path / "model.safetensors")
    p = ours.predict_proba(X) if name == "MLPClassifier" else ours.predict(X)
    expected = p[:, 1:] if ours.n_outputs_ == 1 and p.ndim == 2 else p
    with model.backend.scope():
        for one in (model, xpnet.load_model(tmp_path / "model.safetensors", backend=model.backend)):
            np.testing.assert_allclose(xp.to_host(one.predict(X)), expected, rtol=1e-9)


@pytest.mark.parametrize(("name", "settings", "data"), CASES)
def test_an_estimator_comes_back_from_a_model_file(name, settings, data, xp, tmp_path):
    X, y = data
    ours = getattr(xpnet.sklearn, name)(random_state=0, max_iter=20, backend=xp, **settings).fit(X, y)
    to_model(ours).save(tmp_path / "model.safetensors")
    loaded = xpnet.load_model(tmp_path / "model.safetensors", backend=xp.computing_in("float64"))
    classes = ours.classes_ if y.dtype == bool else None  # a file knows text and numbers from 0
    back = from_model(loaded, classes)

    np.testing.assert_allclose(back.score(X, y), ours.score(X, y), rtol=1e-6)
    if name == "MLPClassifier":
        np.testing.assert_array_equal(back.predict(X), ours.predict(X))
        np.testing.assert_allclose(back.predict_proba(X), ours.predict_proba(X), rtol=1e-6)
        assert back.predict(X).dtype == ours.predict(X).dtype
    else:
        np.testing.assert_allclose(back.predict(X), ours.predict(X), rtol=1e-6, atol=1e-9)
    before = xpnet.to_numpy(back.model_.get_weights()[0])
    back.partial_fit(X, y)
    assert (xpnet.to_numpy(back.model_.get_weights()[0]) != before).any()
    np.testing.assert_array_equal(xpnet.to_numpy(loaded.get_weights()[0]), before)  # back has a copy
    back.set_params(epochs=1).fit(X, y)
    assert back.n_features_in_ == X.shape[1]


def test_a_model_becomes_an_estimator_with_its_class_names():
    """Names need not be in alphabetical order. Needs no arrays."""
    model = xpnet.Model([Dense(3)], "softmax_cross_entropy", seed=0)
    with pytest.raises(RuntimeError, match="no parameters yet"):
        from_model(model)
    model.fit(X_IRIS, Y_IRIS, epochs=20, verbose=0)
    model.class_names = ("virginica", "setosa", "versicolor")
    estimator = from_model(model)
    named = np.array(model.class_names)[Y_IRIS]

    np.testing.assert_array_equal(estimator.predict(X_IRIS), np.array(model.class_names)[model.predict_classes(X_IRIS)])
    assert estimator.score(X_IRIS, named) == np.mean(xpnet.to_numpy(model.predict_classes(X_IRIS)) == Y_IRIS)
    estimator.partial_fit(X_IRIS, named)
    assert list(estimator.classes_) == list(model.class_names)
    for wrong in (["a", "b"], [2, 1, 0], ["a", "b", "a"], 3):
        with pytest.raises(ValueError, match="classes must be 3 different labels"):
            from_model(model, wrong)
