"""Any network of xpnet as a classifier or regressor."""

from __future__ import annotations

import numpy as np
from sklearn.base import _fit_context
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets, type_of_target

from xpnet import losses
from xpnet.backend import namespace
from xpnet.checks import require
from xpnet.losses import BinaryCrossEntropy
from xpnet.sklearn.arrays import held_out, in_kind_of, on_host, weights_of_classes
from xpnet.sklearn.neural_net import NET_CONSTRAINTS, NeuralNet
from xpnet.sklearn.parameters import keep
from xpnet.sklearn.scores import Classifier, Regressor


class NeuralNetClassifier(Classifier, NeuralNet):
    """A network as a scikit-learn classifier.

    The settings of the network, the optimizer and the loss are nested parameters: ``optimizer__learning_rate``,
    ``network__0__units`` for the first layer of a list, or ``network__width`` for an argument of a function that has a default.

    Parameters
    ----------
    network : Layer, list of Layer or callable
        The whole network with its last layer, or a function that returns it, called with the number of outputs.
    loss : str or Loss, optional
        The default is "softmax_cross_entropy" with an output for each class, or "binary_cross_entropy" for several labels.
    optimizer : str or Optimizer, default "adam"
    metrics : list of str or Metric, default ()
        Their values are in `history_`.
    epochs : int, default 10
    batch_size : int, default 200
    shuffle : bool, default True
    validation_fraction : float, default 0.0
        The share of samples to set aside for validation, for callbacks such as `EarlyStopping` and for `history_`.
    callbacks : Callback or list of Callback, optional
    class_weight : dict, list of dict or "balanced", optional
        Weights of the classes, which multiply `sample_weight`.
    random_state : int, RandomState or None, default None
        Determines the initial parameters, the validation samples, the order of samples and dropout.
    warm_start : bool, default False
        Whether `fit` continues to train the model of the last fit.
    verbose : bool or int, default False
        As in `Model.fit`.
    dtype : {"float32", "float64"}, optional
        The floating type of the computation. The default is the type of X, and the backend's type if X holds integers.
    backend : str or Backend, optional
        The default is the current backend.

    Attributes
    ----------
    model_ : Model
        The trained model, for example for `model_.save`.
    history_ : History
    classes_ : ndarray
    n_features_in_, n_iter_ : int
        The number of features, and of epochs of the last fit.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from xpnet.layers import Dense, Dropout
    >>> from xpnet.sklearn import NeuralNetClassifier
    >>> def network(outputs, width=64, rate=0.2):
    ...     return [Dense(width, activation="gelu"), Dropout(rate), Dense(outputs)]
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = NeuralNetClassifier(network, epochs=40, random_state=0).set_params(network__width=100)
    >>> classifier.fit(X / 16, y).predict(X[:3] / 16)
    array([0, 1, 2])
    """

    _parameter_constraints = NET_CONSTRAINTS | {"class_weight": [StrOptions({"balanced"}), dict, list, None]}

    def __init__(
        self,
        network,
        *,
        loss=None,
        optimizer="adam",
        metrics=(),
        epochs=10,
        batch_size=200,
        shuffle=True,
        validation_fraction=0.0,
        callbacks=None,
        class_weight=None,
        random_state=None,
        warm_start=False,
        verbose=False,
        dtype=None,
        backend=None,
    ):
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, shape (n, ...)
        y : array-like, shape (n,) or (n, outputs)
        sample_weight : array-like, shape (n,), optional
        X_val, y_val, sample_weight_val : array-like, optional
            Validation samples, instead of a part of X.

        Returns
        -------
        self
        """
        held = held_out(X_val, y_val, sample_weight_val)
        with self._task(self.epochs, X, y, sample_weight) as announce:
            return self._fit(X, y, sample_weight, held_out=held, announce=announce)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one more epoch. The first call needs all classes that later calls will see."""
        if _check_partial_fit_first_call(self, classes):
            self._encoder = None if type_of_target(on_host(y)).startswith("multilabel") else LabelEncoder().fit(classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X):
        """Return the predicted labels, (n,) or (n, labels)."""
        labels = on_host(self._answer("predict_classes", X))
        return in_kind_of(X, labels.astype(int) if self._encoder is None else self.classes_[labels.reshape(-1)])

    def predict_proba(self, X):
        """Return the probability of each class in the order of `classes_`, (n, classes)."""
        p = self._answer("predict", X)
        if self._encoder is None or tuple(p.shape[1:]) == (len(self.classes_),):
            return p
        xp = namespace(p)
        p = xp.reshape(p, (-1, 1))
        return xp.concat([1 - p, p], axis=1)

    def _encode(self, y, first):
        check_classification_targets(y)
        several = type_of_target(y).startswith("multilabel")
        if first and several:
            self._encoder, self.classes_ = None, np.arange(y.shape[1])
        elif first:
            self._encoder = LabelEncoder().fit(column_or_1d(y, warn=True))
            self.classes_ = self._encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"At least two classes are needed. Received: targets of only one class, {self.classes_[0]}"
            )
        if self._encoder is None:
            return y.toarray() if hasattr(y, "toarray") else y
        return self._encoder.transform(column_or_1d(y))

    def _loss(self, y):
        if self.loss is None:
            return losses.softmax_cross_entropy if y.ndim == 1 else losses.binary_cross_entropy
        loss = losses.get(self.loss)
        require(
            loss.of_classes, "A classifier needs a loss of classes. For values, use NeuralNetRegressor", f"{loss!r}"
        )
        return loss

    def _outputs(self, y):
        one = isinstance(self._loss(y), BinaryCrossEntropy) and y.ndim == 1
        return 1 if one else len(self.classes_)

    def _weights(self, sample_weight, y):
        if self.class_weight is None:
            return sample_weight
        return weights_of_classes(self.class_weight, y if y.ndim == 2 else self.classes_[y], sample_weight)

    def _strata(self, y):
        return y if y.ndim == 1 else None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NeuralNetRegressor(Regressor, NeuralNet):
    """A network as a scikit-learn regressor.

    Nested parameters are those of `NeuralNetClassifier`.

    Parameters
    ----------
    network : Layer, list of Layer or callable
        The whole network with its last layer, or a function that returns it, called with the number of outputs.
    loss : str or Loss, optional
        The default is "mean_squared_error".
    optimizer : str or Optimizer, default "adam"
    metrics : list of str or Metric, default ()
        Their values are in `history_`.
    epochs : int, default 10
    batch_size : int, default 200
    shuffle : bool, default True
    validation_fraction : float, default 0.0
        The share of samples to set aside for validation, for callbacks such as `EarlyStopping` and for `history_`.
    callbacks : Callback or list of Callback, optional
    random_state : int, RandomState or None, default None
        Determines the initial parameters, the validation samples, the order of samples and dropout.
    warm_start : bool, default False
        Whether `fit` continues to train the model of the last fit.
    verbose : bool or int, default False
        As in `Model.fit`.
    dtype : {"float32", "float64"}, optional
        The floating type of the computation. The default is the type of X, and the backend's type if X holds integers.
    backend : str or Backend, optional
        The default is the current backend.

    Attributes
    ----------
    model_ : Model
        The trained model, for example for `model_.save`.
    history_ : History
    n_features_in_, n_iter_ : int
        The number of features, and of epochs of the last fit.
    """

    _y_checks = {"y_numeric": True}  # noqa: RUF012

    def __init__(
        self,
        network,
        *,
        loss=None,
        optimizer="adam",
        metrics=(),
        epochs=10,
        batch_size=200,
        shuffle=True,
        validation_fraction=0.0,
        callbacks=None,
        random_state=None,
        warm_start=False,
        verbose=False,
        dtype=None,
        backend=None,
    ):
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, shape (n, ...)
        y : array-like, shape (n,) or (n, outputs)
        sample_weight : array-like, shape (n,), optional
        X_val, y_val, sample_weight_val : array-like, optional
            Validation samples, instead of a part of X.

        Returns
        -------
        self
        """
        held = held_out(X_val, y_val, sample_weight_val)
        with self._task(self.epochs, X, y, sample_weight) as announce:
            return self._fit(X, y, sample_weight, held_out=held, announce=announce)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one more epoch."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X):
        """Return the predicted values, (n,) or (n, outputs)."""
        return self._answer("predict", X)

    def _encode(self, y, first):
        return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _loss(self, y):
        loss = losses.mean_squared_error if self.loss is None else losses.get(self.loss)
        require(
            not loss.of_classes, "A regressor needs a loss of values. For classes, use NeuralNetClassifier", f"{loss!r}"
        )
        return loss

    def _outputs(self, y):
        return self._loss(y).outputs_per_target * (1 if y.ndim == 1 else y.shape[1])

    def _weights(self, sample_weight, y):
        return sample_weight

    def _strata(self, y):
        return None
