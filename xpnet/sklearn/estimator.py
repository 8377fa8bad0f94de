"""An estimator with a network: its fitted attributes, and its outputs for new samples."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from xpnet.backend import Backend, make_backend
from xpnet.layers.sequential import Sequential
from xpnet.losses import Loss
from xpnet.model import Model
from xpnet.sklearn import network as networks
from xpnet.sklearn.arrays import checked, in_kind_of
from xpnet.sklearn.engine import Engine
from xpnet.sklearn.parameters import STOCHASTIC, backend_of, hidden_activations, hidden_sizes
from xpnet.sklearn.tasks import Tasks
from xpnet.tree import Array, Tree, map_leaves
from xpnet.workshop import Workshop


class NetworkEstimator(Tasks, BaseEstimator):
    """The parts of a multilayer perceptron. `BaseMLP` adds its training."""

    n_outputs_: int
    loss_curve_: list[float]
    validation_loss_curve_: list[float]
    validation_scores_: Any
    best_validation_score_: Any
    best_loss_: Any

    @abstractmethod
    def _output_activation(self) -> str:
        """Return `out_activation_`."""

    @abstractmethod
    def _loss(self) -> Loss:
        """Return the loss."""

    @abstractmethod
    def _targets(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        """Return targets, (n, outputs), in the form that the loss needs."""

    def _initialize(self, units: list[int], dtype: Any) -> None:
        """Set the attributes of a new fit and draw the initial parameters: uniform in ±√(6 / (fan_in + fan_out)).

        The factor is 2 instead of 6 with the activation "logistic". X. Glorot and Y. Bengio, 2010.
        """
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(units)
        self.out_activation_ = self._output_activation()
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation == "logistic" else 6.0
        for fan_in, fan_out in pairwise(units):
            bound = np.sqrt(factor / (fan_in + fan_out))
            self.coefs_.append(self._random_state.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
            self.intercepts_.append(self._random_state.uniform(-bound, bound, fan_out).astype(dtype, copy=False))
        if self.batch_norm:
            self.normalizations_ = [networks.initial_norm(size, dtype) for size in units[1:-1]]
        if self.solver in STOCHASTIC:
            self.loss_curve_ = []
            self.validation_loss_curve_ = []
            self._no_improvement_count = 0
            self.best_loss_ = None if self.early_stopping else np.inf
            self.validation_scores_ = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None

    def build(self) -> Self:
        """Build the network for the fitted attributes, if they come from elsewhere."""
        self._build(hidden_sizes(self))
        self._fitted_loss = self._loss()
        return self

    def parts(self) -> tuple[Loss, Sequential, dict[str, Tree]]:
        """Return the loss, without scikit-learn's factors, the network, and the fitted parameters and statistics."""
        loss = self._fitted_loss
        return (
            getattr(loss, "loss", loss),
            self._network,
            self._arrays(make_backend("numpy", dtype=self.coefs_[0].dtype.name)),
        )

    def _build(self, sizes: list[int]) -> None:
        activations = list(hidden_activations(self, len(sizes)))
        settings = sizes, activations, self.n_outputs_, self.dropout, self.batch_norm
        if settings != getattr(self, "_settings", None):  # partial_fit asks for the same network again and again
            self._settings, self._network = settings, networks.multilayer_perceptron(*settings)
        if not hasattr(self, "_workshop"):
            self._workshop = Workshop()

    def _engine(self, X: Any, dtype: Any) -> Engine:
        return Engine(backend_of(self, X, dtype), self._network, self._fitted_loss, self._workshop)

    def _arrays(self, backend: Backend) -> dict[str, Tree]:
        """Return the parameters and running statistics as trees of arrays on the device."""
        coefs = [backend.asarray(x) for x in self.coefs_]
        biases = [backend.asarray(x.reshape(1, -1)) for x in self.intercepts_]
        norms = map_leaves(backend.asarray, getattr(self, "normalizations_", []))
        return {
            "params": networks.params_of(self._network, coefs, biases, norms),
            "statistics": networks.statistics_of(self._network, norms),
        }

    def _keep_arrays(self, arrays: dict[str, Tree]) -> None:
        """Set the fitted attributes from trees of host arrays."""
        for name, value in self._attributes(arrays).items():
            setattr(self, name, value)

    def _attributes(self, arrays: dict[str, Tree]) -> dict[str, Any]:
        params, statistics = arrays["params"], arrays["statistics"]
        coefs, intercepts = networks.coefs_of(self._network, params)
        norms = {"normalizations_": networks.norms_of(self._network, params, statistics)} if self.batch_norm else {}
        return {"coefs_": coefs, "intercepts_": intercepts} | norms

    def _fitted(self, model: Model) -> dict[str, Any]:
        return self._attributes(model.backend.to_host(model.state))

    def _unpack(self, packed: np.ndarray) -> None:
        """Set `coefs_` and `intercepts_` from one flat array: all coefficients, then all intercepts."""
        for i, (start, end, shape) in enumerate(self._coef_indptr):
            self.coefs_[i] = np.reshape(packed[start:end], shape)
        for i, (start, end) in enumerate(self._intercept_indptr):
            self.intercepts_[i] = packed[start:end]

    def _outputs(self, X: Any) -> Array:
        """Return the activated outputs for samples that are not yet checked, (n, outputs), in the kind of X."""
        X = checked(self, X, accept_sparse=["csr", "csc"], reset=False)
        engine = self._engine(X, self.coefs_[0].dtype)
        with engine.backend.scope():
            return in_kind_of(X, engine.answers(engine.logits(self._arrays(engine.backend), X)))
