"""A grid search that trains small networks at once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

from joblib import parallel_config
from sklearn.model_selection import GridSearchCV
from sklearn.utils import check_random_state

from xpnet.sklearn.together import Together


class BatchedGridSearchCV(GridSearchCV):
    """scikit-learn's `GridSearchCV`, which trains the small networks of its candidates and folds at once.

    The parameters, attributes and results are those of `GridSearchCV`. Fits of `MLPClassifier` and `MLPRegressor`, also inside a
    pipeline, are made at once if they have the same network, batch size, number of samples, solver, momentum and β.
    They may differ in `learning_rate_init`, `alpha`, `random_state`, `learning_rate`, `power_t`, `tol`, `max_iter`,
    `n_iter_no_change` and in their samples. The other fits are made one after the other: networks whose step takes more than a
    million multiplications forward (batch size times weights), the solver "lbfgs", dropout, batch normalization, sparse
    samples, sample or class weights, validation data, early stopping, and callbacks. docs/ensembles.md says when this is
    faster than `GridSearchCV` with several processes.

    The estimators and the transformers before them are fitted on each fold with the same draws as in `GridSearchCV`, so scores
    are equal up to rounding. With ``random_state=None``, the draws are others each time, as always. Transformers are fitted
    twice. ``mean_fit_time`` includes the time of training at once, divided by the number of these fits.

    Parameters
    ----------
    estimator, param_grid, scoring, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in `GridSearchCV`.
    n_jobs : int, optional
        The number of processes if no fits can be made at once. Otherwise, one process makes all of them.

    Attributes
    ----------
    n_batched_ : int
        The number of fits that were made at once with others.
    """

    cv: Any
    n_jobs: Any

    def fit(self, X, y=None, **params):
        """Run the search. The parameters are those of `GridSearchCV.fit`."""
        own = self.get_params(deep=False)
        cv = list(self.cv) if isinstance(self.cv, Iterator) else self.cv
        together = Together()
        trial = GridSearchCV(**own).set_params(
            cv=copy.deepcopy(cv), scoring=_no_score, refit=False, n_jobs=1, verbose=0, return_train_score=False
        )
        generator = check_random_state(None)  # the draws of splits without a seed must be the same again
        draws = generator.get_state()
        try:
            with together.active(), _in_this_process(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial.fit(X, y, **params)
        except Exception:  # the search itself raises it again
            together.fits.clear()
        generator.set_state(draws)
        together.train()
        self.n_batched_ = together.made
        self.cv = cv
        try:
            if not together.made:
                return super().fit(X, y, **params)
            self.n_jobs = 1
            with together.active(), _in_this_process():
                super().fit(X, y, **params)
        finally:
            self.cv, self.n_jobs = own["cv"], own["n_jobs"]
        self.cv_results_["mean_fit_time"] += together.seconds
        return self


def _in_this_process():
    """Return the context of joblib's default backend, because a cluster's ignores ``n_jobs=1``."""
    return parallel_config("loky")


def _no_score(estimator, X, y=None):
    return 0.0
