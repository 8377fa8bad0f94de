"""scikit-learn's tools around estimators. They hand over NumPy arrays, so few tests take a backend."""

import pickle

import joblib
import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn import config_context, neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import BaggingClassifier, StackingRegressor, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_predict, cross_val_score
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags, shuffle

import xpnet.sklearn
from xpnet import Adam
from xpnet.layers import Dense
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = shuffle(*load_iris(return_X_y=True), random_state=0)
TEXT = np.array(["setosa", "versicolor", "virginica"])[Y]


def network(outputs, width=10):
    return [Dense(width, activation="relu"), Dense(outputs)]


CLASSIFIERS = {
    "MLPClassifier": lambda: MLPClassifier(10, max_iter=60, batch_size=20, learning_rate_init=0.01, random_state=0),
    "NeuralNetClassifier": lambda: NeuralNetClassifier(
        network, optimizer=Adam(0.01), epochs=60, batch_size=20, random_state=0
    ),
}
REGRESSORS = {
    "MLPRegressor": lambda: MLPRegressor(
        hidden_layer_sizes=10, max_iter=60, batch_size=20, learning_rate_init=0.01, random_state=0
    ),
    "NeuralNetRegressor": lambda: NeuralNetRegressor(
        network, optimizer=Adam(0.01), epochs=60, batch_size=20, random_state=0
    ),
}
MADE = CLASSIFIERS | REGRESSORS


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classifiers_in_meta_estimators(make):
    for meta in (
        make_pipeline(StandardScaler(), make()),
        CalibratedClassifierCV(make(), cv=3),
        CalibratedClassifierCV(make(), cv=3, method="temperature"),
        VotingClassifier([("network", make()), ("line", LogisticRegression())], voting="soft"),
        BaggingClassifier(make(), n_estimators=2, random_state=0),
    ):
        meta.fit(X, TEXT)

        assert meta.score(X, TEXT) > 0.8, meta
        assert meta.predict_proba(X).shape == (150, 3)


@pytest.mark.parametrize("make", REGRESSORS.values(), ids=REGRESSORS)
def test_regressors_in_meta_estimators(make):
    for meta in (
        make_pipeline(StandardScaler(), make()),
        TransformedTargetRegressor(make(), transformer=StandardScaler()),
        StackingRegressor([("network", make()), ("line", Ridge())], cv=3),
    ):
        assert meta.fit(X, Y).score(X, Y) > 0.5, meta
    targets = np.stack([Y, -Y], axis=1)
    assert MultiOutputRegressor(make()).fit(X, targets).predict(X).shape == (150, 2)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("search", [GridSearchCV, HalvingGridSearchCV])
@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("MLPClassifier", {"n_units": [1, 20]}),
        ("MLPRegressor", {"learning_rate_init": [1e-6, 1e-2]}),
        ("NeuralNetClassifier", {"network__width": [1, 20]}),
        ("NeuralNetRegressor", {"optimizer__learning_rate": [1e-6, 1e-2]}),
    ],
)
def test_searches(name, grid, search, jobs):
    found = search(MADE[name](), grid, cv=3, n_jobs=jobs).fit(X, Y)

    (parameter, (_, better)), *_ = grid.items()
    assert found.best_params_ == {parameter: better}
    alone = search(MADE[name](), grid, cv=3, n_jobs=1).fit(X, Y)
    np.testing.assert_allclose(found.predict(X), alone.predict(X), rtol=1e-6)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_inspection(make):
    estimator = make().fit(X, Y)
    importance = permutation_importance(estimator, X, Y, n_repeats=3, random_state=0).importances_mean
    dependence = partial_dependence(estimator, X, [2], grid_resolution=5)["average"]

    assert importance.argmax() in (2, 3)  # the petals
    assert dependence.shape == (3 if hasattr(estimator, "classes_") else 1, 5)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_cross_validation_is_that_of_a_fit_by_hand(make):
    estimator = make()
    rows = np.arange(150) % 2 == 0
    folds = [(np.flatnonzero(rows), np.flatnonzero(~rows))]
    expected = make().fit(X[rows], Y[rows])

    assert cross_val_score(estimator, X, Y, cv=folds) == [expected.score(X[~rows], Y[~rows])]
    both = [*folds, tuple(reversed(folds[0]))]
    np.testing.assert_array_equal(cross_val_predict(estimator, X, Y, cv=both)[~rows], expected.predict(X[~rows]))


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_tables_with_text_columns(make, library):
    tables = pytest.importorskip(library)
    table = tables.DataFrame({"length": X[:, 2], "width": X[:, 3], "color": np.array(["blue", "white", "violet"])[Y]})
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["color"]),
        (StandardScaler(), make_column_selector("length|width") if library == "pandas" else ["length", "width"]),
        verbose_feature_names_out=False,
    )
    model = make_pipeline(columns, make()).set_output(transform=library).fit(table, TEXT)

    assert model.score(table, TEXT) > 0.9
    assert list(model[-1].feature_names_in_) == ["color_blue", "color_violet", "color_white", "length", "width"]
    assert isinstance(model.predict(table), np.ndarray)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_copies_answer_as_the_original(make, tmp_path, xp):
    estimator = make().set_params(backend=xp).fit(X, Y)
    joblib.dump(estimator, tmp_path / "estimator.joblib")

    for copied in (pickle.loads(pickle.dumps(estimator)), joblib.load(tmp_path / "estimator.joblib")):
        np.testing.assert_array_equal(copied.predict(X), estimator.predict(X))
        copied.partial_fit(X, Y)
    assert not [name for name in vars(clone(estimator)) if name.endswith("_")]
    with pytest.raises(TypeError, match="unexpected keyword argument 'dropout_rate'"):
        type(estimator)(network, dropout_rate=0.5)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_the_page_in_a_notebook(make):
    estimator = make()
    if "MLP" in type(estimator).__name__:  # old NumPy cannot compare a number with the default, which the page does
        estimator.set_params(batch_size="auto")
    page = make_pipeline(StandardScaler(), estimator)._repr_html_()

    assert type(make()).__name__ in page
    assert "random_state=0" in repr(make())


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_tags_are_those_of_scikit_learn(name):
    assert get_tags(getattr(xpnet.sklearn, name)()) == get_tags(getattr(neural_network, name)())


def test_float64_on_jax_leaves_the_rest_of_the_process_alone():
    jax = pytest.importorskip("jax")
    images, digits = load_digits(return_X_y=True)
    for dtype in (np.float64, np.float32):
        model = MLPClassifier(8, max_iter=2, backend="jax", random_state=0).fit(images.astype(dtype), digits)

        assert {w.dtype for w in [*model.coefs_, model.predict_proba(images.astype(dtype))]} == {np.dtype(dtype)}
        assert jax.numpy.ones(3).dtype == jax.numpy.float32
        assert jax.numpy.asarray(np.ones(3)).dtype == jax.numpy.float32
    reference = MLPClassifier(8, max_iter=2, random_state=0).fit(images, digits)
    wide = MLPClassifier(8, max_iter=2, backend="jax", random_state=0).fit(images, digits)
    np.testing.assert_allclose(wide.coefs_[0], reference.coefs_[0], rtol=1e-10, atol=1e-13)
    net = NeuralNetClassifier(network, epochs=1, backend="jax").fit(images, digits)
    assert net.predict_proba(images).dtype == np.float64
    assert jax.numpy.ones(3).dtype == jax.numpy.float32


def test_skipped_validation_of_parameters():
    with config_context(skip_parameter_validation=True):
        assert CLASSIFIERS["MLPClassifier"]().fit(X, Y).score(X, Y) > 0.8
