"""Features of the estimators that scikit-learn lacks, and their arithmetic on every backend."""

import pickle
import re
import warnings

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight

import xpnet
from tests.scripts import run
from xpnet.callbacks import Callback
from xpnet.layers import ELU, BatchNormalization, Dense, Dropout
from xpnet.losses import BinaryCrossEntropy, CategoricalCrossEntropy, Huber, Poisson, Quantile, SoftmaxCrossEntropy
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def digits(n=150, classes=4):
    X, y = load_digits(n_class=classes, return_X_y=True)
    return X[:n] / 16, y[:n]


def small(**settings):
    return MLPClassifier(random_state=0, **({"hidden_layer_sizes": 8, "max_iter": 5} | settings))


def require_equal(a, b, tolerance=1e-10):
    for x, y in zip([*a.coefs_, *a.intercepts_], [*b.coefs_, *b.intercepts_], strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("settings", [
    {}, {"solver": "sgd", "batch_size": 40, "learning_rate_init": 0.1}, {"early_stopping": True}, {"dropout": 0.3},
    {"batch_norm": True}, {"class_weight": "balanced", "batch_size": 64},
], ids=str)  # fmt: skip
def test_every_backend_follows_the_same_path(xp, settings):
    X, y = digits()
    numpy = small(backend="numpy", **settings).fit(X, y)
    other = small(backend=xp, **settings).fit(X, y)

    require_equal(numpy, other)
    np.testing.assert_allclose(other.predict_proba(X), numpy.predict_proba(X), rtol=1e-6)
    assert other.coefs_[0].dtype == np.float64  # the type of X, although the backend's default is float32


def test_sparse_samples_on_every_backend(xp):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = digits()
    dense = small(backend=xp, batch_size=40).fit(X, y)
    thin = small(backend=xp, batch_size=40).fit(sparse.csr_array(X), y)

    require_equal(dense, thin)
    np.testing.assert_allclose(thin.predict_proba(sparse.csr_array(X)), dense.predict_proba(X), rtol=1e-6)


def test_float32_stays_float32(xp):
    X, y = digits()
    model = small(backend=xp, batch_size=40).fit(X.astype(np.float32), y)

    assert {x.dtype for x in [*model.coefs_, *model.intercepts_, model.predict_proba(X)]} == {np.dtype(np.float32)}
    assert small(dtype="float32").fit(X, y).coefs_[0].dtype == np.float32


def test_lbfgs_on_every_backend(xp):
    X, y = digits()
    settings = {"solver": "lbfgs", "max_iter": 200, "alpha": 1.0}
    loss = small(backend="numpy", **settings).fit(X, y).loss_
    model = small(backend=xp, **settings).fit(X, y)

    assert model.loss_ == pytest.approx(loss, rel=0.05)  # a different local minimum is possible
    assert model.score(X, y) > 0.98


def test_class_weights_are_sample_weights():
    X, y = digits()
    y = np.array(["a", "b", "c", "d"])[y]
    given = {"a": 2.0, "b": 0.5, "c": 1.0, "d": 1.0}
    for class_weight in (given, "balanced"):
        weight = compute_sample_weight(class_weight, y)

        require_equal(small().fit(X, y, sample_weight=weight), small(class_weight=class_weight).fit(X, y))
    doubled = small(class_weight=given).fit(X, y, sample_weight=np.full(len(y), 3.0))
    require_equal(small().fit(X, y, sample_weight=3 * compute_sample_weight(given, y)), doubled)
    with pytest.raises(ValueError, match="class_weight 'balanced' is not supported for partial_fit"):
        small(class_weight="balanced").partial_fit(X, y, classes=list("abcd"))


def test_class_weights_of_several_labels():
    X, Y = make_multilabel_classification(n_samples=60, n_classes=3, random_state=0)
    for weights in ([{0: 1.0, 1: 2.0}] * 3, [None, {0: 1.0, 1: 2.0}, "balanced"]):
        require_equal(
            small().fit(X, Y, sample_weight=compute_sample_weight(weights, Y)), small(class_weight=weights).fit(X, Y)
        )
    for wrong in ([1, 2, 3], ["balance", None, None]):
        with pytest.raises(ValueError, match=r'class_weight must be "balanced" or a dict.*Received: class_weight=\['):
            small(class_weight=wrong).fit(X, Y)


def test_batches_of_weight_zero_change_nothing():
    X, y = digits(80)
    weight = np.repeat([1.0, 0.0], 40)
    settings = {"solver": "sgd", "momentum": 0.0, "shuffle": False, "batch_size": 40}
    first = small(**settings).fit(X[:40], y[:40])

    require_equal(first, small(**settings).fit(X, y, sample_weight=weight))


def test_the_network_has_the_layers_that_were_asked_for():
    model = small(hidden_layer_sizes=(6, 5), activation=["relu", ELU(0.5)], dropout=0.25, batch_norm=True).fit(
        *digits()
    )
    names = [type(layer).__name__ for layer in model._network.layers]

    hidden = ["Dense", "BatchNormalization", "ReLU", "Dropout", "Dense", "BatchNormalization", "ELU", "Dropout"]
    assert names == [*hidden, "Dense"]
    assert [norm["mean"].shape for norm in model.normalizations_] == [(1, 6), (1, 5)]
    assert model._network.layers[6] == ELU(0.5)


def test_batch_normalization_is_kept():
    X, y = digits()
    model = small(batch_norm=True, max_iter=30, learning_rate_init=0.01).fit(X, y)

    assert model.score(X, y) > 0.95
    before = model.normalizations_[0]["mean"].copy()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    assert not np.allclose(model.partial_fit(X, y).normalizations_[0]["mean"], before)


def test_numbers_of_layers_and_units():
    assert [w.shape for w in small(n_layers=2, n_units=7).fit(*digits()).coefs_] == [(64, 7), (7, 7), (7, 4)]
    assert [w.shape for w in small(n_units=7).fit(*digits()).coefs_] == [(64, 7), (7, 4)]
    assert [w.shape for w in small(n_layers=1).fit(*digits()).coefs_] == [(64, 100), (100, 4)]


def test_dropout_depends_on_random_state_only():
    X, y = digits()

    require_equal(small(dropout=0.5).fit(X, y), small(dropout=0.5).fit(X, y), 0)
    assert not np.allclose(small(dropout=0.5).fit(X, y).coefs_[0], small().fit(X, y).coefs_[0])


def test_validation_samples_of_ones_own():
    X, y = digits(200)
    y = np.array(list("abcd"))[y]
    model = small(max_iter=40, early_stopping=True, n_iter_no_change=3, learning_rate_init=0.01, tol=1e-3)
    model.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])

    assert model.best_validation_score_ == model.score(X[150:], y[150:])
    assert len(model.validation_loss_curve_) == len(model.validation_scores_) == model.n_iter_ < 40
    assert model.history_.history["val_loss"] == model.validation_loss_curve_
    assert model.history_.history["val_score"] == model.validation_scores_

    plain = small(max_iter=3).fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    np.testing.assert_array_equal(plain.coefs_[0], small(max_iter=3).fit(X[:150], y[:150]).coefs_[0])
    p = plain.predict_proba(X[150:])
    loss = -np.log(p[np.arange(50), np.searchsorted(plain.classes_, y[150:])]).mean()
    assert plain.validation_loss_curve_[-1] == pytest.approx(loss)
    assert plain.validation_scores_ is None
    with pytest.raises(ValueError, match="`y` has classes not in"):
        small().fit(X[:150], y[:150], X_val=X[:2], y_val=["a", "e"])


class Record(Callback):
    def __init__(self, stop_after=None):
        self.stop_after, self.events = stop_after, []

    def on_train_begin(self, logs=None):
        self.events.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append((epoch, sorted(logs), self.model.step, self.model.epoch))
        if self.stop_after == epoch:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.events.append("end")


def test_callbacks():
    X, y = digits()
    record = Record(stop_after=1)
    model = small(callbacks=record, batch_size=50, early_stopping=True).fit(X, y)

    names = ["loss", "val_loss", "val_score"]
    assert record.events == ["begin", (0, names, 3, 1), (1, names, 6, 2), "end"]
    assert model.n_iter_ == 2


def test_callbacks_may_change_the_parameters():
    class Halve(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([w / 2 for w in self.model.get_weights()])

    X, y = digits()
    halved, whole = small(max_iter=1, callbacks=[Halve()]).fit(X, y), small(max_iter=1).fit(X, y)

    np.testing.assert_allclose(halved.coefs_[0], whole.coefs_[0] / 2)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "quantile", Quantile(0.9), Huber(0.1)], ids=str)
def test_losses_of_regression(loss, rng):
    X = rng.normal(size=(200, 3))
    y = X[:, 0] + rng.exponential(size=200)
    model = MLPRegressor(
        loss, hidden_layer_sizes=(), max_iter=500, learning_rate_init=0.05, alpha=0, random_state=0
    ).fit(X, y)

    if loss == Quantile(0.9):
        assert np.mean(y <= model.predict(X)) == pytest.approx(0.9, abs=0.05)
    elif loss in ("absolute_error", "quantile"):
        assert np.mean(y <= model.predict(X)) == pytest.approx(0.5, abs=0.1)


def test_a_loss_of_classes():
    X, y = digits()
    model = small(loss=SoftmaxCrossEntropy(label_smoothing=0.3), max_iter=100, learning_rate_init=0.02).fit(X, y)

    assert model.score(X, y) > 0.98
    assert model.predict_proba(X).max() < 0.95
    assert small(max_iter=100, learning_rate_init=0.02).fit(X, y).predict_proba(X).max() > 0.99


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": ["relu", "tanh"]}, "activation must be one, or a list of 1"),
        ({"activation": ["swish"]}, "An activation must be a layer such as LeakyReLU"),
        ({"solver": "lbfgs", "dropout": 0.5}, "solver='lbfgs' needs a loss that depends only on the parameters"),
        ({"dropout": 1.0}, "The 'dropout' parameter of MLPClassifier must be"),
        ({"dtype": "float16"}, "The 'dtype' parameter of MLPClassifier must be"),
        ({"backend": "theano"}, "The backend must be one of"),
        ({"activation": Dense(8)}, "activation needs a layer without parameters or random numbers"),
        ({"activation": [Dropout(0.5)]}, "activation needs a layer without parameters or random numbers"),
        ({"activation": BatchNormalization()}, "activation needs a layer without parameters or random numbers"),
        ({"loss": Huber()}, "A classifier needs a loss of classes"),
        ({"loss": CategoricalCrossEntropy()}, "loss must include its activation"),
        ({"loss": BinaryCrossEntropy()}, "BinaryCrossEntropy with 4 network outputs needs"),
        ({"dtype": "float32", "learning_rate_init": 1e39}, "learning_rate_init must be 0 or between .* of float32"),
        ({"dtype": "float32", "activation": ELU(1e39)}, "ELU.alpha must be 0 or between"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings).fit(*digits())


@pytest.mark.parametrize(
    ("estimator", "wrong"),
    [
        (MLPRegressor("poisson"), {"loss": SoftmaxCrossEntropy()}),
        (MLPRegressor("poisson"), {"loss": "huber", "activation": "tanh", "early_stopping": True}),
        (MLPRegressor("poisson"), {"loss": "huber", "activation": "tanh", "solver": "lbfgs", "dropout": 0.5}),
        (MLPClassifier(), {"loss": Huber(), "activation": "tanh"}),
        (MLPClassifier(), {"loss": BinaryCrossEntropy(), "activation": "tanh"}),
        (MLPClassifier(), {"callbacks": [3], "activation": "tanh"}),
        (MLPClassifier(), {"backend": "theano", "activation": "tanh"}),
    ],
    ids=repr,
)
def test_a_partial_fit_that_is_refused_changes_nothing(estimator, wrong):
    X, y = digits()
    model = clone(estimator).set_params(hidden_layer_sizes=8, max_iter=5, random_state=0).fit(X, y)
    before = model.get_params() | {"outputs": model._outputs(X)}
    with pytest.raises((ValueError, TypeError), match=r"loss|early_stopping|lbfgs|outputs|callbacks|backend"):
        model.set_params(**wrong).partial_fit(X, y)
    model.set_params(**{name: before[name] for name in wrong})

    np.testing.assert_array_equal(model._outputs(X), before["outputs"])
    assert model.partial_fit(X, y).t_ == 6 * len(X)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        {"X_val": np.ones((5, 3)), "y_val": np.ones(5)},
        {"X_val": np.full((5, 64), np.nan), "y_val": np.ones(5)},
        {"X_val": np.ones((5, 64)), "y_val": np.ones(4)},
        {"X_val": np.ones((5, 64)), "y_val": np.full((5, 2), 7)},
        {"X_val": np.ones((5, 64)), "y_val": np.ones(5), "sample_weight_val": -np.ones(5)},
    ],
    ids=["features", "NaN", "rows", "targets", "weights"],
)
@pytest.mark.parametrize(
    ("estimator", "change"),
    [
        (MLPClassifier(8, max_iter=3), {"activation": "tanh"}),
        (MLPRegressor(hidden_layer_sizes=8, max_iter=3), {"activation": "tanh", "loss": Huber()}),
        (NeuralNetClassifier([Dense(4)], epochs=1), {"optimizer": "rmsprop", "metrics": ["accuracy"]}),
        (NeuralNetRegressor([Dense(1)], epochs=1), {"optimizer": "rmsprop", "loss": "huber"}),
    ],
    ids=repr,
)
def test_a_fit_with_wrong_validation_samples_changes_nothing(estimator, change, wrong, warm):
    X, y = digits()
    model = clone(estimator).set_params(warm_start=warm).fit(X, y)
    before, net = vars(model.set_params(**change)).copy(), getattr(model, "model_", None)
    parts = net and vars(net) | vars(net.training_state)
    with pytest.raises(
        ValueError,
        match=r"features|NaN|inconsistent|one entry|outputs|classes|1d|[wW]eights|targets|Negative|multilabel",
    ):
        model.fit(X, y, **wrong)

    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    if net:
        assert all((vars(net) | vars(net.training_state))[name] is value for name, value in parts.items())
    assert model.fit(X, y, X_val=X, y_val=y).n_iter_ == (1 if net else 3)


def test_a_first_fit_that_is_refused_leaves_no_network():
    X, y = digits()
    for estimator in (MLPClassifier(), MLPRegressor(), NeuralNetClassifier([Dense(4)]), NeuralNetRegressor([Dense(1)])):
        with pytest.raises(ValueError, match="X has 3 features"):
            estimator.fit(X, y, X_val=X[:, :3], y_val=y)

        with pytest.raises(NotFittedError):
            estimator.predict(X)


def test_poisson_needs_targets_that_are_not_negative():
    """scikit-learn's network trains until all is NaN; its `PoissonRegressor` raises this error."""
    rule = (
        r"Some value\(s\) of y are out of the valid range of the loss 'poisson', which needs y >= 0\. Received: -1\.0"
    )
    X, y = np.ones((4, 2)), np.array([0.0, 1.0, 2.0, -1.0])
    for fit in (
        MLPRegressor("poisson").fit,
        MLPRegressor("poisson").partial_fit,
        MLPRegressor("poisson", solver="lbfgs").fit,
    ):
        with pytest.raises(ValueError, match=rule):
            fit(X, y)
    with pytest.raises(ValueError, match=rule):
        MLPRegressor("poisson").fit(X[:3], y[:3], X_val=X, y_val=y)
    with pytest.raises(
        ValueError, match=r"Poisson with 1 network output needs targets in \[0, inf\].*values from -1 to 2"
    ):
        MLPRegressor(Poisson()).fit(X, y)


@pytest.mark.parametrize(
    "settings", [{"activation": "tanh"}, {"loss": "poisson"}, {"batch_norm": True}, {"n_units": 3}]
)
def test_parameters_take_effect_in_the_next_fit(settings):
    X, y = make_regression(30, 3, random_state=0)
    model = MLPRegressor(max_iter=3, random_state=0).fit(X, y)
    values = model.predict(X)

    np.testing.assert_array_equal(model.set_params(**settings).predict(X), values)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_a_continued_fit_cannot_change_batch_normalization(estimator, first):
    X, y = digits()
    model = estimator(hidden_layer_sizes=6, batch_norm=first, max_iter=2, warm_start=True, random_state=0).fit(X, y)
    before = model.predict(X)
    rule = (
        f"with 1 hidden layers, . outputs and {'' if first else 'no '}batch norm.*Received.* and {'no ' * first}batch"
    )
    model.set_params(batch_norm=not first)

    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=rule):
            train(X, y)
    np.testing.assert_array_equal(model.predict(X), before)
    model.set_params(warm_start=False).fit(X, y)
    model.partial_fit(X, y)


@pytest.mark.parametrize(
    "estimator", [MLPClassifier(), NeuralNetClassifier([Dense(4)]), NeuralNetRegressor([Dense(1)])]
)
def test_validation_targets_need_samples(estimator):
    X, y = digits()
    for rest in ({"y_val": y}, {"sample_weight_val": np.ones(len(y))}):
        with pytest.raises(ValueError, match="need the samples X_val"):
            estimator.fit(X, y, **rest)


@pytest.mark.parametrize("sizes", [(2.5,), (8.0,), np.array([8.0])])
def test_sizes_are_integers(sizes):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        small(hidden_layer_sizes=sizes).fit(*digits())


def test_negative_weights_are_refused():
    X, y = digits()
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        small().fit(X, y, np.where(y > 0, 1.0, -1.0))


def test_continued_training_keeps_the_network():
    X, y = digits()
    model = small().partial_fit(X, y, classes=range(4))
    with pytest.raises(
        ValueError, match=r"with 1 hidden layers, 4 outputs and .*Received: 2 hidden layers, 4 outputs and"
    ):
        model.set_params(hidden_layer_sizes=(8, 8)).partial_fit(X, y)
    regressor = MLPRegressor(hidden_layer_sizes=8, max_iter=2, warm_start=True).fit(X, np.stack([y, -y], axis=1))
    before = regressor.predict(X)
    with pytest.raises(ValueError, match="Received: 1 hidden layers, 1 outputs and"):
        regressor.fit(X, y)
    np.testing.assert_array_equal(regressor.predict(X), before)


def test_sparse_labels():
    X, Y = make_multilabel_classification(60, n_features=8, n_classes=3, random_state=0)
    dense, sparse = (small(class_weight="balanced").fit(X, targets) for targets in (Y, scipy.sparse.csr_matrix(Y)))

    require_equal(dense, sparse)
    assert scipy.sparse.issparse(sparse.predict(X))
    np.testing.assert_array_equal(sparse.predict(X).toarray(), dense.predict(X))
    assert sparse.score(X, scipy.sparse.csr_matrix(Y)) == dense.score(X, Y)


def test_search_and_pipeline():
    X, y = digits()
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), small(max_iter=10)),
        {"mlpclassifier__n_units": [2, 20], "mlpclassifier__dropout": [0.0, 0.2]},
        cv=3,
        n_jobs=1,
    ).fit(X, y)

    assert grid.best_params_["mlpclassifier__n_units"] == 20
    assert clone(grid.best_estimator_).get_params()["mlpclassifier__dropout"] in (0.0, 0.2)


def test_the_current_backend_is_the_default(xp):
    X, y = digits()
    with xpnet.use_backend(xp):
        model = small().fit(X, y)
    assert model._engine(X, np.float64).backend.name == "numpy"
    require_equal(small().fit(X, y), model)


def test_ctrl_c_ends_the_fit_with_a_warning():
    class Interrupt(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    X, y = digits()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = small(callbacks=Interrupt()).fit(X, y)
    require_equal(small(max_iter=3).fit(X, y), model)


def test_more_epochs_than_needed_are_not_run():
    X, y = digits()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        assert small(max_iter=1000, tol=0.1, n_iter_no_change=2).fit(X, y).n_iter_ < 1000


def test_scikit_learn_is_imported_when_it_is_needed():
    done = run(
        "-c", "import sys, xpnet; print('sklearn' in sys.modules); xpnet.sklearn; print('sklearn' in sys.modules)"
    )

    assert done.stdout.split() == ["False", "True"]


def test_an_old_scikit_learn_is_refused():
    done = run("-c", "import sklearn; sklearn.__version__ = '1.8.2'; import xpnet.sklearn", status=1)

    assert "xpnet.sklearn needs scikit-learn 1.9 or newer. Run: " in done.stderr
    assert "Received: scikit-learn 1.8.2" in done.stderr


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_first_fit_on_jax_compiles_only_the_training_steps(solver, caplog):
    """JAX compiles small operations too, one for each shape. The shapes here are in no other test."""
    jax = pytest.importorskip("jax")
    X, y = digits(123)
    with jax.log_compiles():
        small(hidden_layer_sizes=(17, 13), batch_size=41, solver=solver, backend="jax", batch_norm=True).fit(X, y)

    assert re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text) == ["scan"]
