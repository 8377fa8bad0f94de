"""Any network of xpnet as an estimator: what the classifier and the regressor share."""

from __future__ import annotations

import contextlib
import copy
from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from xpnet import losses, optimizers
from xpnet.backend import Backend, get_backend
from xpnet.callbacks import Callback
from xpnet.checks import require
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.model import Model
from xpnet.optimizers import Optimizer
from xpnet.settings import check_callbacks
from xpnet.sklearn.arrays import checked, checked_weights, dtype_of, in_kind_of, rows
from xpnet.sklearn.nested import all_settings, settings_of, with_setting
from xpnet.sklearn.parameters import backend_of, intact
from xpnet.sklearn.tasks import Tasks
from xpnet.tree import Array
from xpnet.workshop import keep_recent

NESTED = ("network", "optimizer", "loss")  # parameters with settings of their own
CHANGEABLE = ("optimizer", "loss", "metrics")  # `partial_fit` and `warm_start` continue with the current values
FIXED = ("network", "dtype", "backend")

NET_CONSTRAINTS: dict[str, list] = {
    "network": [Layer, list, tuple, callable],
    "loss": [str, Loss, None],
    "optimizer": [str, Optimizer],
    "metrics": [list, tuple],
    "epochs": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "callbacks": [Callback, list, tuple, None],
    "random_state": ["random_state"],
    "warm_start": ["boolean"],
    "verbose": ["verbose", StrOptions({"auto"})],
    "dtype": [StrOptions({"float32", "float64"}), None],
    "backend": [str, Backend, None],
}


class NeuralNet(Tasks, BaseEstimator):
    """The base class of `NeuralNetClassifier` and `NeuralNetRegressor`."""

    _parameter_constraints = NET_CONSTRAINTS

    @abstractmethod
    def _encode(self, y: Any, first: bool) -> np.ndarray:
        """Check targets and return them in the form that the loss needs. The first call determines the classes."""

    @abstractmethod
    def _outputs(self, y: np.ndarray) -> int:
        """Return the number of outputs that the network needs for these targets."""

    @abstractmethod
    def _loss(self, y: np.ndarray) -> Loss:
        """Return the loss, the given one or the usual one for these targets."""

    @abstractmethod
    def _weights(self, sample_weight: Any, y: np.ndarray) -> Any:
        """Return the samples' weights, or None if all are 1."""

    @abstractmethod
    def _strata(self, y: np.ndarray) -> Any:
        """Return the classes that a random share of the samples must represent, or None."""

    def get_params(self, deep=True):
        """Return the parameters, with ``deep=True`` also the settings of network, optimizer and loss."""
        params = super().get_params(deep=deep)
        if deep:
            for name in NESTED:
                with contextlib.suppress(ValueError):  # an unknown name has no settings; `fit` refuses it
                    params |= all_settings(_resolved(name, params[name]), name)
        return params

    def set_params(self, **params):
        """Set parameters, such as ``optimizer__learning_rate=0.1`` or ``network__0__units=50``."""
        own = {
            name: value for name, value in params.items() if name.partition("__")[0] not in NESTED or "__" not in name
        }
        super().set_params(**own)
        for key in params.keys() - own.keys():
            name, _, path = key.partition("__")
            usual = "softmax_cross_entropy" if is_classifier(self) else "huber"
            given = getattr(self, name) is not None
            require(
                given, f'{key} needs a loss with this setting. Set the loss first, such as loss="{usual}"', "loss=None"
            )
            setattr(self, name, with_setting(_resolved(name, getattr(self, name)), path, params[key]))
        return self

    def _fitted(self, model: Model) -> dict[str, Any]:
        return {"model_": copy.deepcopy(model)}

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        incremental: bool = False,
        held_out: Any = None,
        announce: Sequence[Callback] = (),
    ) -> NeuralNet:
        continues = hasattr(self, "model_") and (self.warm_start or incremental)
        changing = (self, self.model_, self.model_.training_state) if continues else (self,)
        with intact(*changing) as keep_changes:
            X, y, sample_weight, held = self._prepare(X, y, sample_weight, incremental, held_out, continues)
            callbacks = [*check_callbacks(self.callbacks), *announce]
            verbose = self.verbose if isinstance(self.verbose, str) else int(self.verbose)
            history = self.model_.history
            try:
                self.history_ = self.model_.fit(
                    X, y, self.batch_size, 1 if incremental else self.epochs, verbose, callbacks,
                    validation_data=held, shuffle=self.shuffle, sample_weight=sample_weight,
                )  # fmt: skip
            finally:
                if self.model_.history is not history:  # the training has begun
                    keep_changes()
        self.n_iter_ = len(self.history_.epoch)
        if self.model_.backend.compiles:
            keep_recent(self.model_.workshop.functions.values())
        return self

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, held_out: Any, continues: bool
    ) -> tuple[Any, Any, Any, Any]:
        """Check the data, and make the model or give it changed parameters. Return the data for training and validation."""
        X, y = self._checked(X, y, reset=not continues)
        y = self._encode(y, first=not continues and not incremental)
        sample_weight = self._weights(checked_weights(sample_weight, X), y)
        if not continues:
            random = check_random_state(self.random_state)
            network = self.network
            if callable(network) and not isinstance(network, Layer):
                network = network(self._outputs(y))
            seed = int(random.randint(2**31 - 1))
            self._random_state = random
            model = Model(network, self._loss(y), self.optimizer, self.metrics, seed, self._backend(X))
            if is_classifier(self):
                self._require_outputs(model.build(tuple(X.shape[1:])), y)
            self.keep_model(model)
        else:
            self._apply_changes(X, y)
        held = None
        if held_out is not None:
            X_val, y_val, weight_val = held_out
            X_val, y_val = self._checked(X_val, y_val, reset=False)
            held = (X_val, self._encode(y_val, first=False), *([] if weight_val is None else [weight_val]))
        elif self.validation_fraction and not incremental:
            train, kept = train_test_split(
                np.arange(len(y)),
                test_size=self.validation_fraction,
                random_state=self._random_state,
                stratify=self._strata(y),
            )
            held = (rows(X, kept), y[kept], *([] if sample_weight is None else [sample_weight[kept]]))
            X, y = rows(X, train), y[train]
            sample_weight = None if sample_weight is None else sample_weight[train]
        return X, y, sample_weight, held

    def keep_model(self, model: Model) -> None:
        """Keep the model, and the parameters that it was made of."""
        self.model_ = model
        self._made_of = {name: _settings(getattr(self, name)) for name in (*CHANGEABLE, *FIXED)}

    def _require_outputs(self, model: Model, y: np.ndarray) -> None:
        outputs, needed = model.measured[model.input_shape].output_shape, (self._outputs(y),)
        require(outputs == needed, f"The network needs outputs of shape {needed} for these targets", outputs)

    def _apply_changes(self, X: Any, y: np.ndarray) -> None:
        """Give the model the parameters that were set since the last fit. Raises ValueError if they need another model."""
        changed = [name for name, old in self._made_of.items() if _settings(getattr(self, name)) != old]
        same = self.model_.backend
        if "backend" in changed and backend_of(self, X, same.float_name) == same:  # another name for it
            changed.remove("backend")
        fixed = [name for name in FIXED if name in changed]
        rule = "partial_fit and warm_start continue to train the same model. For another one, call fit with warm_start=False"
        require(not fixed, rule, f"another {', '.join(fixed)} than in the last fit")
        if not changed:
            return
        model = self.model_
        if "optimizer" in changed:
            model.optimizer = self.optimizer
        if "loss" in changed:
            model.loss = self._loss(y)
        if "loss" in changed or "metrics" in changed:
            model.metrics = self.metrics
        if is_classifier(self):
            self._require_outputs(model, y)
        self.keep_model(model)

    def _backend(self, X: Any) -> Backend:
        floating = self.dtype is not None or dtype_of(X).kind == "f"
        return backend_of(self, X, (self.dtype or dtype_of(X)) if floating else get_backend().float_name)

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        X, y = checked(self, X, y, allow_nd=True, multi_output=True, reset=reset, **self._y_checks)
        return X, y

    _y_checks: dict[str, Any] = {}  # noqa: RUF012

    def _answer(self, method: str, X: Any) -> Array:
        """Return what a method of the model returns for new samples, in the kind of X."""
        check_is_fitted(self)
        X = checked(self, X, allow_nd=True, reset=False)
        return in_kind_of(X, getattr(self.model_, method)(X))


def _settings(value: Any) -> Any:
    """Return what two equal parameters have in common: a list's layers, or a function and its arguments with a default."""
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if callable(value) and not isinstance(value, Layer):
        return getattr(value, "func", value), settings_of(value)
    return value


def _resolved(name: str, value: Any) -> Any:
    """Return the object that a name of an optimizer or loss stands for."""
    if not isinstance(value, str):
        return value
    return optimizers.get(value) if name == "optimizer" else losses.get(value)
