"""The regressor."""

from __future__ import annotations

import numpy as np
from sklearn.base import _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from xpnet import losses
from xpnet.losses import Loss
from xpnet.sklearn.arrays import checked, held_out
from xpnet.sklearn.base import BaseMLP, finite
from xpnet.sklearn.losses import HalfPoissonDeviance, HalfSquaredError
from xpnet.sklearn.parameters import CONSTRAINTS, STOCHASTIC, input_types, keep
from xpnet.sklearn.scores import Regressor

LOSSES = {
    "squared_error": HalfSquaredError(),
    "poisson": HalfPoissonDeviance(),
    "absolute_error": losses.mean_absolute_error,
    "huber": losses.huber,
    "quantile": losses.quantile,
}


class MLPRegressor(Regressor, BaseMLP):
    """scikit-learn's regressor with a multilayer perceptron, computed by xpnet.

    The parameters up to `max_fun` have scikit-learn's names, defaults and meaning. On NumPy, a fit follows the same path as
    scikit-learn's up to rounding, from the same random numbers. The other parameters are keyword-only.

    Parameters
    ----------
    loss : str or Loss, default "squared_error"
        "squared_error" and "poisson" are half the squared error and half the Poisson deviance, as in scikit-learn. Others are
        "absolute_error", "huber" (with δ = 1), "quantile" (the median), or a loss of xpnet such as ``Quantile(0.9)``.
    hidden_layer_sizes : array-like of int or int, default (100,)
        The number of neurons in each hidden layer.
    activation : str, Layer or list of these, default "relu"
        "identity", "logistic", "tanh" or "relu", as in scikit-learn; "elu", "gelu", "leaky_relu", "selu", "silu" or
        "softplus"; or an activation layer of xpnet. A list sets one for each hidden layer.
    solver : {"adam", "sgd", "lbfgs"}, default "adam"
        "adam" and "sgd" train on mini-batches, and "lbfgs" on all samples at once.
    alpha : float, default 0.0001
        The strength of the L2 penalty. The loss of a batch grows by α/2 ΣW² / Σw, where w are the weights of its samples.
    batch_size : int or "auto", default "auto"
        "auto" means 200, or all samples if there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        For "sgd". "invscaling" divides `learning_rate_init` by (t + 1) ** power_t after each epoch, where t is the number of
        samples seen. "adaptive" divides the rate by 5 where training would otherwise stop, until it is below 1e-6.
    learning_rate_init : float, default 0.001
    power_t : float, default 0.5
    max_iter : int, default 200
        The largest number of epochs, or of iterations with "lbfgs".
    shuffle : bool, default True
        Whether to draw a new order of samples for each epoch.
    random_state : int, RandomState or None, default None
        Determines the initial parameters, the validation samples, the order of samples and dropout.
    tol : float, default 1e-4
        Training stops if the loss, or the validation score with `early_stopping`, does not improve by `tol` in more than
        `n_iter_no_change` epochs in a row. With "lbfgs", it stops if no element of the gradient exceeds `tol`.
    verbose : bool or int, default False
        Print the loss of each epoch.
    warm_start : bool, default False
        Whether `fit` continues from the last fit.
    momentum : float, default 0.9
        For "sgd".
    nesterovs_momentum : bool, default True
        For "sgd" with momentum > 0.
    early_stopping : bool, default False
        Set `validation_fraction` of the samples aside, or use `X_val`, stop by the validation score, and restore the best
        parameters.
    validation_fraction : float, default 0.1
    beta_1, beta_2, epsilon : float, default 0.9, 0.999 and 1e-8
        For "adam".
    n_iter_no_change : int, default 10
    max_fun : int, default 15000
        The largest number of evaluations of the loss, for "lbfgs".
    dropout : float, default 0.0
        The share of each hidden layer's outputs that a training step sets to 0.
    batch_norm : bool, default False
        Whether each hidden layer normalizes its sums over the batch before the activation.
    callbacks : Callback or list of Callback, optional
        Callbacks of xpnet, called before and after the fit and each epoch. They see a `Model` with the network in training,
        and the logs "loss" and, with validation samples, "val_loss" and "val_score". For "adam" and "sgd".
    dtype : {"float32", "float64"}, optional
        The floating type of the computation. The default is the type of X, and float64 if X holds integers.
    backend : str or Backend, optional
        Where to compute, such as "torch" or "jax". The default is the current backend; see `xpnet.set_backend`.
    n_layers, n_units : int, optional
        If one of them is given, there are `n_layers` (default 1) hidden layers of `n_units` (default 100) neurons, and
        `hidden_layer_sizes` has no effect. A search over numbers is simpler than a search over tuples.

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        The weights and biases of each layer.
    n_features_in_, n_layers_, n_outputs_, n_iter_, t_ : int
        The numbers of features, of layers with input and output, of outputs, of epochs or iterations of the last fit, and of
        samples seen.
    feature_names_in_ : ndarray of str
        The column names of X, if it had any.
    out_activation_ : str
    loss_, best_loss_ : float
        The loss of the last epoch, and the smallest. `best_loss_` is None with `early_stopping`.
    loss_curve_ : list of float
        The loss of each epoch, with the penalty.
    validation_scores_, best_validation_score_
        The R² on the validation samples after each epoch, and the largest; None without `early_stopping`.
    validation_loss_curve_ : list of float
        The loss of the validation samples after each epoch, without the penalty. Empty without validation samples.
    history_ : History
        The values of each epoch of the last fit, for `xpnet.plotting`.
    normalizations_ : list of dict
        The parameters and running statistics of each batch normalization, with `batch_norm`.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from xpnet.sklearn import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(X, y).score(X, y) > 0.99
    True
    """

    _parameter_constraints = CONSTRAINTS | {"loss": [StrOptions(set(LOSSES)), Loss]}

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        dropout=0.0,
        batch_norm=False,
        callbacks=None,
        dtype=None,
        backend=None,
        n_layers=None,
        n_units=None,
    ):
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n, features)
        y : array-like, shape (n,) or (n, outputs)
            Target values.
        sample_weight : array-like, shape (n,), optional
        X_val, y_val, sample_weight_val : array-like, optional
            Validation samples, instead of a part of X. They determine `validation_loss_curve_` and, with `early_stopping`,
            when to stop. "lbfgs" does not use them.

        Returns
        -------
        self
        """
        held = held_out(X_val, y_val, sample_weight_val)
        epochs = self.max_iter if self.solver in STOCHASTIC else 0
        with self._task(epochs, X, y, sample_weight) as announce:
            return self._fit(X, y, sample_weight=sample_weight, held_out=held, announce=announce)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch on these samples, or continue "lbfgs". The parameters are the same as in `fit`."""
        return self._fit(X, y, sample_weight=sample_weight, incremental=True)

    def predict(self, X):
        """Return the predicted values, (n,) or (n, outputs)."""
        check_is_fitted(self)
        return self._values(self._outputs(X))

    def _values(self, output):
        return output[:, 0] if output.shape[1] == 1 else output

    def _validate_input(self, X, y, incremental, reset):
        X, y = checked(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtypes=input_types(self),
            reset=reset,
        )
        if self.loss == "poisson" and y.min() < 0:
            rule = "Some value(s) of y are out of the valid range of the loss 'poisson', which needs y >= 0"
            raise ValueError(f"{rule}. Received: {y.min()}")
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _validate_held_out(self, X, y):
        return self._validate_input(X, y, incremental=True, reset=False)

    def _weights(self, sample_weight, y):
        return sample_weight

    def _output_activation(self):
        return "exp" if self.loss == "poisson" else "identity"

    def _loss(self):
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    def _targets(self, y, dtype):
        return y.astype(dtype, copy=False)

    def _score(self, output, y, sample_weight):
        values = self._values(output)
        return r2_score(y, values, sample_weight=sample_weight) if finite(values) else np.nan
