"""Compares scikit-learn's networks with xpnet's on the same data: parameters, curves, predictions, warnings and errors.

Both compute on the host in float64, so these tests take no backend.
"""

import contextlib
import copy
import io
import pickle
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import (
    load_digits,
    load_iris,
    make_classification,
    make_multilabel_classification,
    make_regression,
)

import xpnet.sklearn

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Got `batch_size` less than 1"),
]

CURVES = ["loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "n_iter_", "t_", "n_layers_",
          "n_outputs_", "out_activation_", "n_features_in_", "_no_improvement_count"]  # fmt: skip


def digits(classes=10):
    X, y = load_digits(n_class=classes, return_X_y=True)  # some pixels are constant
    return X[:300] / 16, y[:300]


def multilabel():
    return make_multilabel_classification(n_samples=80, random_state=0)


def text_labels():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


def one_class():
    return np.random.default_rng(0).normal(size=(30, 4)), np.ones(30, int)


def two_classes(labels):
    X, y = load_iris(return_X_y=True)
    return X, np.array(labels)[(y > 0).astype(int)]


def constant_features():
    X, y = make_classification(n_samples=120, n_features=6, random_state=1)
    X[:, 2:4] = 0.0, 3.0
    return X, y


def counts():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 4))
    return X, rng.poisson(np.exp(0.5 * X[:, 0]))


CLASSES = {
    "digits": digits(), "two digits": digits(2), "iris": load_iris(return_X_y=True), "multilabel": multilabel(),
    "text": text_labels(), "one class": one_class(), "constant features": constant_features(),
    "booleans": two_classes([False, True]), "minus one": two_classes([-1, 1]), "lists": tuple(x.tolist() for x in text_labels()),
}  # fmt: skip
VALUES = {
    "one": make_regression(n_samples=150, n_features=5, noise=1.0, random_state=0),
    "several": make_regression(n_samples=150, n_features=5, n_targets=3, random_state=0),
    "counts": counts(),
}
SETTINGS = {
    "adam": {"max_iter": 30},
    "small batches": {"max_iter": 8, "batch_size": 7, "alpha": 0.1},
    "sgd": {"solver": "sgd", "max_iter": 30, "learning_rate_init": 0.01},
    "momentum without nesterov": {"solver": "sgd", "max_iter": 15, "nesterovs_momentum": False, "batch_size": 32},
    "momentum 1": {"solver": "sgd", "max_iter": 15, "momentum": 1},
    "no momentum": {"solver": "sgd", "max_iter": 15, "momentum": 0.0, "power_t": 0.3, "learning_rate": "invscaling"},
    "invscaling": {"solver": "sgd", "max_iter": 20, "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "adaptive": {"solver": "sgd", "max_iter": 150, "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 3},
    "tol": {"max_iter": 200, "tol": 0.1, "n_iter_no_change": 2},
    "early stopping": {"max_iter": 40, "early_stopping": True, "n_iter_no_change": 4, "learning_rate_init": 0.01},
    "stopping sgd": {"solver": "sgd", "max_iter": 20, "early_stopping": True, "learning_rate": "adaptive", "tol": 0.01},
    "logistic": {"activation": "logistic", "max_iter": 20, "hidden_layer_sizes": (9, 5)},
    "tanh": {"activation": "tanh", "max_iter": 20, "hidden_layer_sizes": [7], "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3},
    "identity": {"activation": "identity", "max_iter": 20, "hidden_layer_sizes": 6},
    "no shuffle": {"shuffle": False, "max_iter": 10, "batch_size": 40},
    "lbfgs": {"solver": "lbfgs", "max_iter": 15, "hidden_layer_sizes": 8},
    "lbfgs few evaluations": {"solver": "lbfgs", "max_iter": 15, "max_fun": 7},
}  # fmt: skip


def pair(name, **settings):
    return getattr(neural_network, name)(**settings), getattr(xpnet.sklearn, name)(**settings)


def require_same(theirs, ours, X, tolerance=1e-9):
    for name in CURVES:
        assert hasattr(theirs, name) == hasattr(ours, name), name
        if hasattr(theirs, name):
            a, b = getattr(theirs, name), getattr(ours, name)
            if a is None or isinstance(a, str):
                assert a == b, name
            else:
                np.testing.assert_allclose(b, a, rtol=tolerance, err_msg=name)
                assert type(b) is type(a) or isinstance(b, (float, int)), name
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, name), getattr(ours, name), strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=1e3 * tolerance, atol=tolerance, err_msg=name)
    if hasattr(theirs, "_optimizer"):
        np.testing.assert_allclose(ours._optimizer.learning_rate, theirs._optimizer.learning_rate, rtol=1e-12)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(theirs, method):
            a, b = getattr(theirs, method)(X), getattr(ours, method)(X)
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            if a.dtype.kind == "f":
                np.testing.assert_allclose(b, a, rtol=1e3 * tolerance, atol=10 * tolerance)
            else:
                np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("data", CLASSES.values(), ids=CLASSES)
def test_classifiers_follow_the_same_path(data, settings):
    theirs, ours = pair("MLPClassifier", random_state=3, **({"hidden_layer_sizes": (12,)} | settings))
    X, y = data

    assert outcome(lambda: ours.fit(X, y)) == outcome(lambda: theirs.fit(X, y))
    require_same(theirs, ours, X)
    assert ours.score(X, y) == theirs.score(X, y)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("data", VALUES.values(), ids=VALUES)
def test_regressors_follow_the_same_path(data, settings):
    X, y = data
    y = y / np.std(y)
    loss = "poisson" if (y >= 0).all() else "squared_error"
    theirs, ours = pair("MLPRegressor", loss=loss, random_state=3, **({"hidden_layer_sizes": (12,)} | settings))

    assert outcome(lambda: ours.fit(X, y)) == outcome(lambda: theirs.fit(X, y))
    require_same(theirs, ours, X)
    np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y), rtol=1e-6)


@pytest.mark.parametrize("settings", [SETTINGS[name] for name in ("adam", "small batches", "early stopping", "lbfgs")])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_sample_weights(name, settings):
    X, y = digits(3)
    weight = np.random.default_rng(0).integers(1, 4, len(y))
    theirs, ours = pair(name, random_state=0, **({"hidden_layer_sizes": (12,)} | settings))

    require_same(theirs.fit(X, y, sample_weight=weight), ours.fit(X, y, sample_weight=weight), X)


@pytest.mark.parametrize("settings", [SETTINGS[name] for name in ("adam", "small batches", "early stopping", "lbfgs")])
@pytest.mark.parametrize(
    ("name", "data"), [("MLPClassifier", CLASSES["multilabel"]), ("MLPRegressor", VALUES["several"])]
)
def test_sample_weights_of_several_outputs(name, data, settings):
    X, y = data
    y = y if name == "MLPClassifier" else y / y.std()
    weight = np.random.default_rng(0).uniform(0.5, 3.0, len(y))
    theirs, ours = pair(name, random_state=0, **({"hidden_layer_sizes": (12,)} | settings))

    require_same(theirs.fit(X, y, sample_weight=weight), ours.fit(X, y, sample_weight=weight), X)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize("settings", [SETTINGS[name] for name in ("adam", "small batches", "early stopping", "lbfgs")])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_sparse_samples(name, settings, kind):
    X, y = digits(3)
    X = kind(X)
    theirs, ours = pair(name, random_state=0, **({"hidden_layer_sizes": (12,)} | settings))

    require_same(theirs.fit(X, y), ours.fit(X, y), X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_partial_fit(name, solver):
    X, y = digits(4)
    theirs, ours = pair(
        name, solver=solver, random_state=0, learning_rate="invscaling", hidden_layer_sizes=(12,), batch_size=30
    )
    for start in range(0, 250, 50):
        rows = slice(start, start + 50)
        arguments = {"classes": range(5)} if name == "MLPClassifier" else {}
        theirs.partial_fit(X[rows], y[rows], **arguments)
        ours.partial_fit(X[rows], y[rows], **arguments)
        ours = pickle.loads(pickle.dumps(copy.deepcopy(ours)))

    require_same(theirs, ours, X)


@pytest.mark.parametrize(
    ("name", "data"), [("MLPClassifier", CLASSES["multilabel"]), ("MLPRegressor", VALUES["several"])]
)
def test_partial_fit_of_several_outputs(name, data):
    X, y = data
    theirs, ours = pair(name, random_state=0, hidden_layer_sizes=(12,), batch_size=30)
    for start in range(0, 80, 40):
        rows = slice(start, start + 40)
        arguments = {"classes": range(y.shape[1])} if name == "MLPClassifier" else {}
        theirs.partial_fit(X[rows], y[rows], **arguments)
        ours.partial_fit(X[rows], y[rows], **arguments)

    require_same(theirs, ours, X)


@pytest.mark.parametrize("settings", [
    SETTINGS["adam"], SETTINGS["invscaling"], SETTINGS["early stopping"], SETTINGS["lbfgs"],
    {"max_iter": 5, "early_stopping": True, "learning_rate_init": 0.2},  # the second fit finds nothing better
])  # fmt: skip
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_warm_start(name, settings):
    X, y = digits(4)
    theirs, ours = pair(name, random_state=0, warm_start=True, **settings)
    for _ in range(3):
        theirs.fit(X, y)
        ours.fit(X, y)

        require_same(theirs, ours, X, 1e-7)


def test_the_generator_is_used_as_in_scikit_learn():
    X, y = digits(3)
    theirs, ours = pair("MLPClassifier", random_state=np.random.RandomState(5), max_iter=3, hidden_layer_sizes=5)
    ours.random_state = np.random.RandomState(5)

    require_same(theirs.fit(X, y), ours.fit(X, y), X)
    assert theirs._random_state.randint(1 << 30) == ours._random_state.randint(1 << 30)


@pytest.mark.parametrize("settings", [SETTINGS[name] for name in ("adam", "sgd", "small batches")])
def test_float32(settings):
    X, y = digits()
    X = X.astype(np.float32)
    theirs, ours = pair("MLPClassifier", random_state=0, **settings)

    require_same(theirs.fit(X, y), ours.fit(X, y), X, 1e-5)
    targets = y.astype(np.float32) / 10
    theirs, ours = pair("MLPRegressor", random_state=0, **settings)
    require_same(theirs.fit(X, targets), ours.fit(X, targets), X, 1e-5)


def test_learned_parameters_may_be_replaced():
    X, y = digits(3)
    theirs, ours = (estimator.fit(X, y) for estimator in pair("MLPClassifier", random_state=0, max_iter=2))
    for estimator in (theirs, ours):
        estimator.coefs_[1] = estimator.coefs_[1] * -2.0
        estimator.intercepts_ = [b + 1.0 for b in estimator.intercepts_]

    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    require_same(theirs.partial_fit(X, y), ours.partial_fit(X, y), X)


def outcome(function):
    """Return the output, the warnings and the error of a call."""
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        error = None
        try:
            function()
        except Exception as raised:
            choices = re.sub(r"\{.*?\}", lambda names: str(sorted(names[0][1:-1].split(", "))), str(raised))  # a set
            error = f"{type(raised).__name__}: {choices}"
    told = [(str(w.message), w.category) for w in caught if not issubclass(w.category, RuntimeWarning)]
    return told, printed.getvalue(), error


def fitted(estimator, y=(0, 1, 2)):
    return estimator.fit(np.eye(3), y)


MISTAKES = {
    "max_iter": lambda e: e.set_params(max_iter=2, verbose=True).fit(np.eye(4), [0, 1, 0, 1]),
    "stops": lambda e: e.set_params(tol=1.0, verbose=1).fit(np.eye(4), [0, 1, 0, 1]),
    "adaptive": lambda e: e.set_params(
        solver="sgd", learning_rate="adaptive", tol=1.0, verbose=1, n_iter_no_change=2
    ).fit(np.eye(4), [0, 1, 0, 1]),
    "verbose early stopping": lambda e: e.set_params(
        early_stopping=True, verbose=1, tol=0.5, validation_fraction=0.4
    ).fit(np.repeat(np.eye(4), 5, axis=0), [0, 1, 0, 1] * 5),
    "lbfgs limit": lambda e: e.set_params(solver="lbfgs", max_iter=1).fit(*digits(2)),
    "batch_size": lambda e: e.set_params(batch_size=10, max_iter=1).fit(np.eye(3), [0, 1, 2]),
    "column y": lambda e: e.set_params(max_iter=1).fit(np.eye(3), [[0], [1], [1]]),
    "hidden layer": lambda e: e.set_params(hidden_layer_sizes=(3, 0)).fit(np.eye(3), [0, 1, 2]),
    "solver": lambda e: e.set_params(solver="newton").fit(np.eye(3), [0, 1, 2]),
    "alpha": lambda e: e.set_params(alpha=-1).fit(np.eye(3), [0, 1, 2]),
    "momentum": lambda e: e.set_params(momentum=1.5).fit(np.eye(3), [0, 1, 2]),
    "nan": lambda e: e.fit([[np.nan, 1.0]], [0]),
    "lengths": lambda e: e.fit(np.eye(3), [0, 1]),
    "features": lambda e: e.set_params(max_iter=1).fit(np.eye(3), [0, 1, 2]).predict(np.eye(4)),
    "not fitted": lambda e: e.predict(np.eye(3)),
    "partial_fit with early stopping": lambda e: e.set_params(early_stopping=True).partial_fit(np.eye(3), [0, 1, 2]),
    "partial_fit with lbfgs": lambda e: e.set_params(solver="lbfgs").partial_fit(np.eye(3), [0, 1, 2]),
    "few for validation": lambda e: e.set_params(early_stopping=True).fit(np.eye(3), [0, 1, 1]),
    "infinite": lambda e: e.set_params(solver="sgd", learning_rate_init=1e300, max_iter=3).fit(np.eye(3), [0, 1, 2]),
    "weights": lambda e: e.fit(np.eye(3), [0, 1, 2], sample_weight=[1, 2]),
}
OF_CLASSES = {
    "no classes": lambda e: e.partial_fit(np.eye(3), [0, 1, 2]),
    "other classes": lambda e: e.partial_fit(np.eye(3), [0, 1, 2], classes=[0, 1, 2]).partial_fit(np.eye(3), [0, 1, 3]),
    "changed classes": lambda e: e.partial_fit(np.eye(3), [0, 1, 2], classes=[0, 1, 2]).partial_fit(
        np.eye(3), [0, 1, 1], classes=[0, 1]
    ),
    "warm start": lambda e: (
        e.set_params(max_iter=1, warm_start=True).fit(np.eye(3), [0, 1, 2]).fit(np.eye(3), [0, 1, 3])
    ),
    "continuous": lambda e: e.fit(np.eye(3), [0.5, 1.5, 2.5]),
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *OF_CLASSES])
def test_classifiers_say_the_same(mistake):
    theirs, ours = pair("MLPClassifier", random_state=0)
    act = (MISTAKES | OF_CLASSES)[mistake]

    assert outcome(lambda: act(ours)) == outcome(lambda: act(theirs))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_regressors_say_the_same(mistake):
    theirs, ours = pair("MLPRegressor", random_state=0)

    assert outcome(lambda: MISTAKES[mistake](ours)) == outcome(lambda: MISTAKES[mistake](theirs))


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_come_first_in_the_same_order_with_the_same_defaults(name):
    theirs, ours = pair(name)
    parameters = list(theirs.__init__.__code__.co_varnames[: theirs.__init__.__code__.co_kwonlyargcount + 4])
    expected = [p for p in parameters if p in theirs.get_params()]
    code = ours.__init__.__code__
    own = [p for p in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if p != "self"]

    assert own[: len(expected)] == expected
    assert code.co_argcount == theirs.__init__.__code__.co_argcount
    assert theirs.get_params().items() <= ours.get_params().items()


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_predictions_follow_changes_of_the_fitted_arrays(name):
    X, y = load_iris(return_X_y=True)
    ours, theirs = (
        getattr(module, name)(random_state=0, max_iter=5).fit(X, y) for module in (xpnet.sklearn, neural_network)
    )
    ours.predict(X)

    for estimator in (ours, theirs):
        estimator.coefs_[0] *= 2
        estimator.intercepts_[-1][0] = 3
        estimator.coefs_[1] = estimator.coefs_[1] + 0.5
    again = pickle.loads(pickle.dumps(ours))

    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    np.testing.assert_array_equal(again.predict(X), ours.predict(X))


def test_the_network_follows_the_settings():
    X, y = load_iris(return_X_y=True)
    ours, theirs = (
        module.MLPClassifier(5, random_state=0, max_iter=5).partial_fit(X, y, classes=[0, 1, 2])
        for module in (xpnet.sklearn, neural_network)
    )

    for estimator in (ours, theirs):
        estimator.set_params(activation="tanh").partial_fit(X, y)

    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)


NAN, INFINITE = np.full((1, 4), np.nan), np.full((1, 4), np.inf)


@pytest.mark.parametrize("X", [NAN, INFINITE, np.ones((1, 3)), np.ones((0, 4)), np.ones(4), [[1.0, 2.0, 3.0, "a"]]])
def test_bad_samples_are_refused_with_the_same_words(X):
    data = load_iris(return_X_y=True)
    messages = []
    for module in (xpnet.sklearn, neural_network):
        estimator = module.MLPClassifier(5, random_state=0, max_iter=5).fit(*data)
        with pytest.raises(ValueError) as caught:  # noqa: PT011, the messages are compared
            estimator.predict(X)
        messages.append(str(caught.value))

    assert messages[0] == messages[1]


@pytest.mark.parametrize("y", [[0.5, 1, 2], [np.nan, 1, 2], [0, 1, 3], ["a", "b", "c"], [0, 1]])
def test_bad_targets_of_partial_fit_are_refused_with_the_same_words(y):
    X = np.eye(3)
    messages = []
    for module in (xpnet.sklearn, neural_network):
        estimator = module.MLPClassifier(5, random_state=0).partial_fit(X, [0, 1, 2], classes=[0, 1, 2])
        with pytest.raises(ValueError) as caught:  # noqa: PT011, the messages are compared
            estimator.partial_fit(X, np.array(y))
        messages.append(str(caught.value))

    assert messages[0] == messages[1]


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"], [False, True], [1.0, 2.0], [3], [1, 2, 3]])
def test_labels_of_every_kind(classes):
    X = np.random.default_rng(0).normal(size=(30, 4))
    y = np.array(classes)[np.arange(30) % len(classes)]

    ours, theirs = (
        module.MLPClassifier(5, random_state=0, max_iter=5).fit(X, y) for module in (xpnet.sklearn, neural_network)
    )
    found, expected = ours.predict(X), theirs.predict(X)

    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-9)
