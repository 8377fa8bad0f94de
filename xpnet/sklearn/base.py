"""How the classifier and the regressor learn: scikit-learn's checks, draws, stopping rules and messages.

Their order is as in scikit-learn's sklearn/neural_network/_multilayer_perceptron.py, so that a fit follows the same path.
The mathematics is xpnet's.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.optimize import _check_optimize_result

from xpnet.callbacks import Callback
from xpnet.checks import require, require_range
from xpnet.optimizers import SGD
from xpnet.settings import check_callbacks
from xpnet.sklearn.arrays import checked_weights, dtype_of, on_host, rows
from xpnet.sklearn.engine import Engine
from xpnet.sklearn.estimator import NetworkEstimator
from xpnet.sklearn.events import Events
from xpnet.sklearn.parameters import STOCHASTIC, backend_of, hidden_sizes, intact
from xpnet.sklearn.rates import Solver
from xpnet.sklearn.step import EfficientAdam
from xpnet.sklearn.together import Together
from xpnet.sklearn.training import Job, Trainer, Work, alone
from xpnet.tree import map_leaves

Held = tuple[Any, np.ndarray, Any]  # samples, targets and weights for validation


class BaseMLP(NetworkEstimator):
    """The base class of `MLPClassifier` and `MLPRegressor`."""

    @abstractmethod
    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, np.ndarray]:
        """Check the data. Return samples and targets, (n,) or (n, outputs)."""

    @abstractmethod
    def _validate_held_out(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Check validation data. Return samples and targets, (n,) or (n, outputs)."""

    @abstractmethod
    def _weights(self, sample_weight: Any, y: np.ndarray) -> Any:
        """Return the samples' weights, or None if all are 1."""

    @abstractmethod
    def _score(self, output: np.ndarray, y: np.ndarray, sample_weight: Any) -> float:
        """Return the score of activated outputs for the targets, or NaN if they are not finite."""

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        incremental: bool = False,
        held_out: Any = None,
        announce: Sequence[Callback] = (),
    ) -> BaseMLP:
        together, rest = Together.current.get(), (y, sample_weight, incremental, held_out, announce)
        if together is None or incremental:
            alone(self._work(X, *rest))
        else:
            together.run(self, X, y, lambda X: self._work(X, *rest))
        return self

    def _work(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, held_out: Any, announce: Sequence[Callback]
    ) -> Work:
        with intact(self):
            X, y, sample_weight, held = self._prepare(X, y, sample_weight, incremental, held_out)
        if self.solver in STOCHASTIC:
            yield from self._stochastic_work(X, y, sample_weight, incremental, held, announce)
        else:
            yield None
            self._fit_lbfgs(X, y, sample_weight)
        if not all(np.isfinite(w).all() for w in [*self.coefs_, *self.intercepts_]):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may"
                " contain large values and need to be preprocessed."
            )

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, held_out: Any
    ) -> tuple[Any, np.ndarray, Any, Held | None]:
        """Check the data and the settings, and set the attributes of a new fit. Return the data for training and validation."""
        sizes = hidden_sizes(self)
        first_pass = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        X, y = self._validate_input(X, y, incremental, reset=first_pass)
        sample_weight = checked_weights(sample_weight, X)
        if y.ndim == 1:
            y = y.reshape((-1, 1))
        sample_weight = self._weights(sample_weight, y)
        if not first_pass:
            batch_norm = self._settings[-1] if hasattr(self, "_settings") else self.batch_norm
            fitted = _described(self.n_layers_ - 2, self.n_outputs_, batch_norm)
            received = _described(len(sizes), y.shape[1], self.batch_norm)
            rule = f"partial_fit and warm_start continue to train the same network, with {fitted}"
            require(received == fitted, f"{rule}. For another network, call fit with warm_start=False", received)
        self.n_outputs_ = y.shape[1]
        self._check_settings(X, self._targets(y, dtype_of(X)), incremental)
        stochastic = self.solver in STOCHASTIC
        held = self._checked_held_out(*held_out) if held_out is not None and stochastic else None
        self._random_state = check_random_state(self.random_state)
        self._build(sizes)
        if first_pass:
            self._initialize([X.shape[1], *sizes, self.n_outputs_], dtype_of(X))
        self._fitted_loss = self._loss()
        if stochastic:
            if not incremental or not hasattr(self, "_optimizer"):
                self._optimizer = self._new_solver()
            if held is None and self.early_stopping:
                X, y, sample_weight, held = self._split(X, y, sample_weight)
        return X, y, sample_weight, held

    def _check_settings(self, X: Any, targets: np.ndarray, incremental: bool) -> None:
        """Raise ValueError if the settings do not fit together or to the targets, before the network changes."""
        numbers = {name: getattr(self, name) for name in ("alpha", "learning_rate_init", "epsilon")}
        require_range(backend_of(self, X, dtype_of(X)).float_name, numbers, self.loss, self.activation)
        check_callbacks(self.callbacks)
        if not isinstance(loss := self.loss, str):
            rule = "loss must include its activation, as SoftmaxCrossEntropy and BinaryCrossEntropy do"
            require(not loss.of_probabilities, rule, loss)
            kind, wanted = ("classifier", "classes") if is_classifier(self) else ("regressor", "values")
            require(loss.of_classes == is_classifier(self), f"A {kind} needs a loss of {wanted}", loss)
            loss.check(targets, (self.n_outputs_,), dtype_of(X))
        if self.solver not in STOCHASTIC and (self.dropout or self.batch_norm):
            raise ValueError(
                "solver='lbfgs' needs a loss that depends only on the parameters. Use 'adam' or 'sgd' with dropout and "
                f"batch_norm. Received: dropout={self.dropout}, batch_norm={self.batch_norm}"
            )
        if self.solver in STOCHASTIC and self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _fit_lbfgs(self, X: Any, y: np.ndarray, sample_weight: Any) -> None:
        units = [X.shape[1], *hidden_sizes(self), self.n_outputs_]
        self._coef_indptr, self._intercept_indptr, start = [], [], 0
        for fan_in, fan_out in pairwise(units):
            end = start + fan_in * fan_out
            self._coef_indptr.append((start, end, (fan_in, fan_out)))
            start = end
        for fan_out in units[1:]:
            self._intercept_indptr.append((start, start + fan_out))
            start += fan_out
        given = dtype = dtype_of(X)
        if backend_of(self, X, dtype).name == "numpy":  # SciPy's driver computes in float64
            dtype, X = np.dtype(np.float64), on_host(X).astype(np.float64, copy=False)
        engine = self._engine(X, dtype)
        with engine.backend.scope():
            arrays = self._arrays(engine.backend)
            params, result = engine.minimize(
                arrays, X, self._target_dict(y, sample_weight, dtype), self.alpha,
                max_iter=self.max_iter, max_fun=self.max_fun, gtol=self.tol,
            )  # fmt: skip
            host = engine.backend.to_host(arrays | {"params": params})
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        self.loss_ = result.fun
        self._keep_arrays(map_leaves(lambda x: x.astype(given, copy=False), host))

    def _stochastic_work(
        self, X: Any, y: np.ndarray, sample_weight: Any, incremental: bool, held: Held | None,
        announce: Sequence[Callback],
    ) -> Work:  # fmt: skip
        n_samples = X.shape[0]
        order = np.arange(n_samples, dtype=int)
        batch_size = self._clipped_batch_size(n_samples)
        seed = int(self._random_state.randint(2**31 - 1)) if self.dropout else None
        dtype = dtype_of(X)
        engine = self._engine(X, dtype)
        callbacks = [*check_callbacks(self.callbacks), *announce]
        trainer = yield Job(
            engine, self._optimizer, self.alpha, self._arrays, X, self._target_dict(y, sample_weight, dtype), batch_size,
            seed, watched=bool(callbacks) or held is not None,
        )  # fmt: skip
        if not self.t_:  # a fit that continues another one ends with its own best or last epoch, as in scikit-learn
            trainer.keep_best()
        events = Events(callbacks, engine, self._optimizer.rule, trainer, X.shape[1], self.max_iter, held is not None)
        self.history_ = events.history
        events.tell("on_train_begin", {})
        logs: dict[str, Any] = {}
        try:
            self.n_iter_ = 0
            for epoch in range(self.max_iter):
                stops = events.tell("on_epoch_begin", epoch, {})
                if self.shuffle:
                    order = order[self._random_state.permutation(n_samples)]  # the draws of sklearn.utils.shuffle
                logs = {"loss": (yield order)}
                self.loss_ = logs["loss"]
                self.n_iter_ += 1
                self.t_ += n_samples
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
                if held is not None:
                    logs |= self._validate(engine, trainer, *held)
                self._update_no_improvement_count(trainer, logs)
                self._optimizer.iteration_ends(self.t_)
                stops = events.epoch_ends(epoch, logs) or stops
                if self._no_improvement_count > self.n_iter_no_change:
                    what = "Validation score" if self.early_stopping else "Training loss"
                    limit = f"tol={self.tol:f} for {self.n_iter_no_change:d} consecutive epochs."
                    if self._optimizer.trigger_stopping(f"{what} did not improve more than {limit}", self.verbose):
                        break
                    self._no_improvement_count = 0
                if incremental or stops:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                        "reached and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=1,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=1)
        events.tell("on_train_end", logs)
        ends = trainer.best if self.early_stopping and trainer.best else trainer.arrays
        self._keep_arrays(engine.backend.to_host({name: ends[name] for name in ("params", "statistics")}))

    def _new_solver(self) -> Solver:
        if self.solver == "sgd":
            nesterov = self.nesterovs_momentum and self.momentum > 0
            sgd = SGD(0.0, float(self.momentum), nesterov=nesterov)
            return Solver(sgd, self.learning_rate_init, self.learning_rate, self.power_t)
        adam = EfficientAdam(0.0, self.beta_1, self.beta_2, self.epsilon)
        return Solver(adam, self.learning_rate_init, "constant", self.power_t)

    def _clipped_batch_size(self, n_samples: int) -> int:
        if self.batch_size == "auto":
            return min(200, n_samples)
        if self.batch_size > n_samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
            )
        return min(self.batch_size, n_samples)

    def _split(self, X: Any, y: np.ndarray, sample_weight: Any) -> tuple[Any, np.ndarray, Any, Held]:
        """Set samples aside for early stopping. Return training samples, targets and weights, and the others."""
        train, held = train_test_split(
            np.arange(len(y)),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        if len(held) < 2:
            rule = "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            raise ValueError(rule)
        weight = (None, None) if sample_weight is None else (sample_weight[train], sample_weight[held])
        return rows(X, train), y[train], weight[0], (rows(X, held), y[held], weight[1])

    def _checked_held_out(self, X: Any, y: Any, sample_weight: Any) -> Held:
        X, y = self._validate_held_out(X, y)
        y = y.reshape((-1, 1)) if y.ndim == 1 else y
        rule = f"y_val must have as many outputs as y, {self.n_outputs_}"
        require(y.shape[1] == self.n_outputs_, rule, f"targets of shape {y.shape}")
        if not isinstance(self.loss, str):
            self.loss.check(self._targets(y, dtype_of(X)), (self.n_outputs_,), dtype_of(X))
        return X, y, checked_weights(sample_weight, X)

    def _target_dict(self, y: np.ndarray, weight: Any, dtype: Any) -> dict[str, np.ndarray]:
        targets = {"y": self._targets(y, dtype)}
        return targets if weight is None else targets | {"weight": np.asarray(weight, dtype)}

    def _validate(
        self, engine: Engine, trainer: Trainer, X: Any, y: np.ndarray, sample_weight: Any
    ) -> dict[str, float]:
        """Return the loss and the score of the validation data."""
        z = engine.logits(trainer.arrays, X)
        loss = engine.loss_of(z, self._target_dict(y, sample_weight, dtype_of(X)))
        score = self._score(engine.backend.to_host(engine.answers(z)), y, sample_weight)
        self.validation_loss_curve_.append(loss)
        return {"val_loss": loss, "val_score": score}

    def _update_no_improvement_count(self, trainer: Trainer, logs: dict[str, float]) -> None:
        if self.early_stopping:
            score = logs["val_score"]
            self.validation_scores_.append(score)
            if self.verbose:
                print(f"Validation score: {score:f}")
            improved = not score < self.best_validation_score_ + self.tol
            if score > self.best_validation_score_:
                self.best_validation_score_ = score
                trainer.keep_best()
        else:
            improved = not logs["loss"] > self.best_loss_ - self.tol
            if logs["loss"] < self.best_loss_:
                self.best_loss_ = logs["loss"]
        self._no_improvement_count = 0 if improved else self._no_improvement_count + 1

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _described(hidden: int, outputs: int, batch_norm: bool) -> str:
    return f"{hidden} hidden layers, {outputs} outputs and {'' if batch_norm else 'no '}batch normalization"


def finite(values: np.ndarray) -> bool:
    """Whether values are integers or text, or finite numbers."""
    return not np.issubdtype(values.dtype, np.floating) or bool(np.isfinite(values).all())
