"""`BatchedGridSearchCV` finds what scikit-learn's `GridSearchCV` finds, with networks that train at once."""

import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9")

from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet.sklearn import BatchedGridSearchCV, MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores"),
]

rng = np.random.default_rng(0)
X = rng.normal(size=(61, 4))
LABELS = np.array(["a", "b", "c"])[(X[:, 0] > 0) * 1 + (X[:, 1] > 0.3)]
VALUES = X @ [1.0, -1.0, 0.5, 0.0]
RATES = {"learning_rate_init": [0.01, 0.1], "alpha": [0.0, 1.0]}


def network(xp, kind=MLPClassifier, **settings):
    return kind(
        **({"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0, "batch_size": 20, "backend": xp} | settings)
    )


def both(estimator, grid, x=X, y=LABELS, **settings):
    """Return the two searches, fitted."""
    settings = {"cv": 3} | settings
    fit = settings.pop("fit", {})
    return [kind(estimator, grid, **settings).fit(x, y, **fit) for kind in (GridSearchCV, BatchedGridSearchCV)]


def assert_same(theirs, ours, rtol=1e-5):
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for name, column in theirs.cv_results_.items():
        if "score" in name and "time" not in name:
            np.testing.assert_allclose(ours.cv_results_[name], column, rtol=rtol, atol=1e-7, err_msg=name)


CASES = {
    "rates and penalties": ({}, RATES, {}),
    "SGD": ({"solver": "sgd"}, RATES | {"learning_rate": ["constant", "invscaling", "adaptive"]}, {}),
    "seeds": ({}, {"random_state": [0, 1, 2]}, {}),
    "networks": ({}, {"hidden_layer_sizes": [(3,), (4, 3)], "activation": ["relu", "tanh"], "alpha": [0.1, 1.0]}, {}),
    "numbers of epochs": ({"max_iter": 40, "learning_rate_init": 0.05}, {"tol": [0.5, 1e-3], "n_iter_no_change": [2, 3]}, {}),
    "solvers": ({}, {"solver": ["adam", "sgd", "lbfgs"], "momentum": [0.5, 0.9]}, {}),
    "one batch": ({"batch_size": "auto", "shuffle": False}, RATES, {}),
    "some alone": ({}, {"early_stopping": [False, True], "dropout": [0.0, 0.2], "batch_norm": [False, True]}, {}),
    "several scores": ({}, RATES, {"scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy", "return_train_score": True}),
    "a seeded split": ({}, RATES, {"cv": KFold(3, shuffle=True, random_state=0)}),
    "a generator of splits": ({}, RATES, {"cv": "generator"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_grid_search_cv(case, xp):
    settings, grid, search = CASES[case]
    if search.get("cv") == "generator":
        theirs, ours = (
            kind(network(xp, **settings), grid, cv=KFold(3).split(X)).fit(X, LABELS)
            for kind in (GridSearchCV, BatchedGridSearchCV)
        )
    else:
        theirs, ours = both(network(xp, **settings), grid, **search)

    assert ours.n_batched_ > 1
    assert_same(theirs, ours)
    for one, other in zip(ours.best_estimator_.coefs_, theirs.best_estimator_.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


TARGETS = {
    "values": (MLPRegressor, VALUES),
    "several values": (MLPRegressor, X[:, :2]),
    "two classes": (MLPClassifier, X[:, 0] > 0),
    "several labels": (MLPClassifier, (X[:, :3] > 0).astype(int)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", TARGETS)
def test_each_form_of_targets(case, dtype, xp):
    kind, y = TARGETS[case]
    theirs, ours = both(network(xp, kind), RATES, X.astype(dtype), y)

    assert ours.n_batched_ == 12
    assert_same(theirs, ours, rtol=1e-3 if dtype == "float32" else 1e-6)


def test_the_fits_are_the_same_and_train_on(xp):
    """Every attribute, and the optimizer's state, which a further `partial_fit` needs."""
    seen = {"theirs": [], "ours": []}
    for name, kind in (("theirs", GridSearchCV), ("ours", BatchedGridSearchCV)):

        def score(estimator, x, y, name=name):
            seen[name].append(estimator)
            return estimator.score(x, y)

        kind(network(xp), RATES, scoring=score, cv=3).fit(X, LABELS)

    assert len(seen["theirs"]) == len(seen["ours"]) == 12
    for theirs, ours in zip(seen["theirs"], seen["ours"], strict=True):
        assert vars(ours).keys() == vars(theirs).keys()
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-6)
        assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
        theirs.partial_fit(X, LABELS)
        ours.partial_fit(X, LABELS)
        np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-5, atol=1e-7)


def test_a_pipeline_is_searched_too(xp):
    grid = {"mlpclassifier__" + name: values for name, values in RATES.items()} | {
        "standardscaler__with_mean": [True, False]
    }
    theirs, ours = both(make_pipeline(StandardScaler(), network(xp)), grid)

    assert ours.n_batched_ == 24
    assert_same(theirs, ours)
    assert ours.score(X, LABELS) == theirs.score(X, LABELS)


def test_a_split_without_a_seed_is_the_same_in_both_passes():
    search = BatchedGridSearchCV(network("numpy"), RATES, cv=KFold(3, shuffle=True)).fit(X, LABELS)

    assert search.n_batched_ == 12
    assert np.all(search.cv_results_["mean_fit_time"] > 0)


def test_a_search_in_the_search_chooses_the_same_candidate():
    """In the first pass, the inner search has no scores and chooses its first candidate."""
    inner = GridSearchCV(MLPClassifier((8,), max_iter=20, random_state=0), {"learning_rate_init": [1e-6, 0.05]}, cv=2)
    theirs, ours = (
        search(inner, {"estimator__batch_size": [5, 10]}, cv=2).fit(X, LABELS)
        for search in (GridSearchCV, BatchedGridSearchCV)
    )

    for name in ("mean_test_score", "split1_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name])
    assert ours.best_estimator_.best_params_ == theirs.best_estimator_.best_params_ == {"learning_rate_init": 0.05}


def test_what_cannot_train_at_once_is_an_ordinary_search():
    for estimator, grid, fit in [
        (LogisticRegression(), {"C": [0.1, 1.0]}, {}),
        (network("numpy"), RATES, {"sample_weight": np.ones(61) + np.arange(61) % 2}),
        (network("numpy", class_weight="balanced"), RATES, {}),
        (network("numpy", hidden_layer_sizes=(12000,), max_iter=1), {"alpha": [0.1, 1.0]}, {}),
    ]:
        theirs, ours = both(estimator, grid, fit=fit)
        assert ours.n_batched_ == 0
        assert_same(theirs, ours)


def test_an_invalid_candidate_fails_as_in_grid_search_cv():
    grid = {"learning_rate_init": [0.01, -1.0]}
    with pytest.warns(FitFailedWarning, match="3 fits failed"):
        theirs, ours = both(network("numpy"), grid)
    assert ours.n_batched_ == 2  # 61 samples make folds of two sizes
    assert_same(theirs, ours)
    with pytest.raises(ValueError, match="learning_rate_init"):
        BatchedGridSearchCV(network("numpy"), grid, error_score="raise").fit(X, LABELS)
    with pytest.raises(ValueError, match="All the 6 fits failed"):
        BatchedGridSearchCV(network("numpy"), {"alpha": [-1.0, -2.0]}, cv=3).fit(X, LABELS)


def test_a_divergence_is_the_error_of_its_candidate_alone():
    grid = {"learning_rate_init": [0.01, 1e300]}
    with pytest.warns(FitFailedWarning, match="3 fits failed"):
        search = BatchedGridSearchCV(network("numpy", MLPRegressor, solver="sgd"), grid, cv=3).fit(X, VALUES)

    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert search.n_batched_ == 6


def test_warnings_are_those_of_the_fits():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BatchedGridSearchCV(network("numpy"), RATES, cv=3).fit(X, LABELS)

    assert len(caught) == 13  # one for each fit and one for the last on all samples


def test_it_is_cloned_pickled_and_keeps_its_parameters():
    search = BatchedGridSearchCV(network("numpy"), RATES, cv=3, n_jobs=2)
    copied = pickle.loads(pickle.dumps(clone(search).fit(X, LABELS)))

    assert copied.n_jobs == 2
    assert copied.predict(X).shape == (61,)
    assert search.get_params()["estimator__alpha"] == 0.0001


def test_ctrl_c_ends_the_search(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("xpnet.sklearn.together.chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        BatchedGridSearchCV(network("numpy"), RATES, cv=3).fit(X, LABELS)
    monkeypatch.undo()
    estimator = network("numpy").fit(X, LABELS)

    assert estimator.n_iter_ == 4
