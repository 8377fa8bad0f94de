"""The classifier."""

from __future__ import annotations

import numpy as np
from sklearn.base import _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted

from xpnet.backend import namespace
from xpnet.losses import Loss
from xpnet.sklearn.arrays import checked, held_out, in_kind_of, on_host, weights_of_classes
from xpnet.sklearn.base import BaseMLP, finite
from xpnet.sklearn.losses import log_loss
from xpnet.sklearn.parameters import CONSTRAINTS, STOCHASTIC, input_types, keep
from xpnet.sklearn.scores import Classifier


class MLPClassifier(Classifier, BaseMLP):
    """scikit-learn's classifier with a multilayer perceptron, computed by xpnet.

    The parameters up to `max_fun` have scikit-learn's names, defaults and meaning. On NumPy, a fit follows the same path as
    scikit-learn's up to rounding, from the same random numbers. The other parameters are keyword-only.

    Parameters
    ----------
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
    loss : "log_loss" or Loss, default "log_loss"
        A loss of xpnet must include its activation, as `SoftmaxCrossEntropy` and `BinaryCrossEntropy` do. It sees class
        numbers if there are more than two classes, and 0 and 1 otherwise.
    class_weight : dict, list of dict or "balanced", optional
        Weights of the classes, which multiply `sample_weight`, as in scikit-learn's other classifiers.
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
    classes_ : ndarray or list of ndarray
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
        The accuracy on the validation samples after each epoch, and the largest; None without `early_stopping`.
    validation_loss_curve_ : list of float
        The loss of the validation samples after each epoch, without the penalty. Empty without validation samples.
    history_ : History
        The values of each epoch of the last fit, for `xpnet.plotting`.
    normalizations_ : list of dict
        The parameters and running statistics of each batch normalization, with `batch_norm`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from xpnet.sklearn import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> MLPClassifier(dropout=0.2, random_state=0).fit(X / 16, y).predict(X[:3] / 16)
    array([0, 1, 2])
    """

    _parameter_constraints = CONSTRAINTS | {
        "loss": [StrOptions({"log_loss"}), Loss],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
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
        loss="log_loss",
        class_weight=None,
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
            Class labels, or 0 and 1 for each of several labels.
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

    def _check_solver(self):
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Train for one epoch on these samples.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like, optional
            All classes that calls of `partial_fit` will see. The first call needs them.

        Returns
        -------
        self
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                "compute_class_weight('balanced', classes=classes, y=y). In place of y you can use a large enough sample of "
                "the full training set target to properly estimate the class frequency distributions. Pass the resulting "
                "weights as the class_weight parameter."
            )
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            y = on_host(y)
            self._label_binarizer.fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight=sample_weight, incremental=True)

    def predict(self, X):
        """Return the predicted labels, (n,) or (n, labels)."""
        check_is_fitted(self)
        return in_kind_of(X, self._labels(on_host(self._outputs(X))))

    def predict_proba(self, X):
        """Return the probability of each class in the order of `classes_`, (n, classes)."""
        check_is_fitted(self)
        p = self._outputs(X)
        return namespace(p).concat([1 - p, p], axis=1) if self.n_outputs_ == 1 else p

    def _labels(self, output):
        if self._label_binarizer.y_type_ == "multiclass":
            return self.classes_[output.argmax(axis=1)]
        return self._label_binarizer.inverse_transform(output.ravel() if self.n_outputs_ == 1 else output)

    def _validate_input(self, X, y, incremental, reset):
        X, y = self._validated(X, y, reset)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer()
            self._label_binarizer.fit(y)
            self.classes_ = self._label_binarizer.classes_
        elif self.warm_start:
            classes = unique_labels(y)
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same "
                    "classes as in the previous call to fit. Previously "
                    f"got {self.classes_}, `y` has {classes}"
                )
        return X, self._binarized(y)

    def _validate_held_out(self, X, y):
        X, y = self._validated(X, y, reset=False)
        return X, self._binarized(y)

    def _validated(self, X, y, reset):
        X, y = checked(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtypes=input_types(self), reset=reset
        )
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _binarized(self, y):
        if y.ndim == 1 and len(self.classes_) > 1 and not self._label_binarizer.y_type_.startswith("multilabel"):
            is_class = y[:, None] == self.classes_
            if is_class.any(axis=1).all():
                return is_class if len(self.classes_) > 2 else is_class[:, 1:]
        classes = unique_labels(y)  # checks y, too
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return self._label_binarizer.transform(y).astype(bool)

    def _weights(self, sample_weight, y):
        if self.class_weight is None:
            return sample_weight
        labels = self._label_binarizer.inverse_transform(y)
        labels = labels.toarray() if hasattr(labels, "toarray") else labels
        return weights_of_classes(self.class_weight, labels, sample_weight)

    def _output_activation(self):
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _loss(self):
        return log_loss(self.out_activation_) if self.loss == "log_loss" else self.loss

    def _targets(self, y, dtype):
        return y.argmax(axis=1) if self._output_activation() == "softmax" else y.astype(dtype)

    def _score(self, output, y, sample_weight):
        labels, expected = self._labels(output), self._label_binarizer.inverse_transform(y)
        return accuracy_score(expected, labels, sample_weight=sample_weight) if finite(labels) else np.nan

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
