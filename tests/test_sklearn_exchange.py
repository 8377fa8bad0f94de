"""Fitted networks from and to scikit-learn. Both compute on the host in float64, so only the last test takes a backend."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn import neural_network
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.exceptions import NotFittedError

import xpnet
import xpnet.sklearn
from xpnet.errors import ConversionError
from xpnet.layers import ELU
from xpnet.sklearn import from_sklearn, to_model, to_sklearn

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


def test_training_continues():
    theirs = neural_network.MLPClassifier(solver="sgd", momentum=0.0, random_state=0, max_iter=5).fit(X_IRIS, Y_IRIS)
    ours = from_sklearn(theirs).partial_fit(X_IRIS, Y_IRIS)
    back = to_sklearn(from_sklearn(theirs)).partial_fit(X_IRIS, Y_IRIS)
    theirs.partial_fit(X_IRIS, Y_IRIS)

    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0])
    np.testing.assert_allclose(back.coefs_[0], theirs.coefs_[0])
    assert ours.loss_curve_ == pytest.approx(theirs.loss_curve_)


def test_additions_that_only_affect_training_are_left_out():
    ours = xpnet.sklearn.MLPRegressor(
        "huber", activation=["relu"], dropout=0.5, n_units=3, max_iter=2, random_state=0
    ).fit(X_IRIS, Y_IRIS)
    theirs = to_sklearn(ours)

    np.testing.assert_allclose(theirs.predict(X_IRIS), ours.predict(X_IRIS))
    assert (theirs.loss, theirs.activation, theirs.hidden_layer_sizes) == ("squared_error", "relu", (3,))


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


@pytest.mark.parametrize(("name", "settings", "data"), CASES)
def test_a_model_predicts_the_same_and_can_be_saved(name, settings, data, xp, tmp_path):
    X, y = data
    extra = {} if settings.get("solver") == "lbfgs" else {"batch_norm": True, "dropout": 0.2}
    ours = getattr(xpnet.sklearn, name)(random_state=0, max_iter=20, backend=xp, **settings, **extra).fit(X, y)
    model = to_model(ours)
    model.save(tmp_path / "model.safetensors")
    p = ours.predict_proba(X) if name == "MLPClassifier" else ours.predict(X)
    expected = p[:, 1:] if ours.n_outputs_ == 1 and p.ndim == 2 else p.reshape(len(X), -1)
    with model.backend.scope():
        for one in (model, xpnet.load_model(tmp_path / "model.safetensors", backend=model.backend)):
            np.testing.assert_allclose(xp.to_host(one.predict(X)), expected, rtol=1e-9)
