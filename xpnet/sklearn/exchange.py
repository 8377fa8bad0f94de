"""Fitted networks from and to scikit-learn's own classes."""

from __future__ import annotations

import copy
from typing import Any

from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from xpnet.errors import ConversionError
from xpnet.model import Model
from xpnet.sklearn.classifier import MLPClassifier
from xpnet.sklearn.parameters import backend_of, hidden_sizes
from xpnet.sklearn.regressor import MLPRegressor
from xpnet.weights import in_keras_order

FITTED = (
    "coefs_", "intercepts_", "n_features_in_", "feature_names_in_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_",
    "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "classes_", "_label_binarizer",
    "_no_improvement_count", "_random_state", "_coef_indptr", "_intercept_indptr",
)  # fmt: skip


def from_sklearn(estimator: Any) -> MLPClassifier | MLPRegressor:
    """Return a copy of scikit-learn's fitted `MLPClassifier` or `MLPRegressor` as one of ours.

    It predicts the same. Later training continues with the same parameters, and with a new optimizer state.

    Raises
    ------
    TypeError
        `estimator` is not one of these.
    NotFittedError
        It is not fitted.
    """
    for theirs, ours in (
        (neural_network.MLPClassifier, MLPClassifier),
        (neural_network.MLPRegressor, MLPRegressor),
    ):
        if isinstance(estimator, theirs):
            check_is_fitted(estimator)
            made = ours(**estimator.get_params(deep=False))
            _copy(estimator, made)
            return made.build()
    raise TypeError(
        "from_sklearn needs scikit-learn's MLPClassifier or MLPRegressor. Pass the estimator itself, such as the last step of "
        f"a pipeline. Received: {type(estimator).__name__}"
    )


def to_sklearn(estimator: MLPClassifier | MLPRegressor) -> Any:
    """Return a copy of a fitted estimator as scikit-learn's `MLPClassifier` or `MLPRegressor`, for programs without xpnet.

    It predicts the same. Dropout is omitted, because it only affects training, and so are class weights and other additions.
    A loss that scikit-learn does not have becomes its usual loss.

    Raises
    ------
    ConversionError
        The network has batch normalization, or activations that scikit-learn does not have.
    NotFittedError
        It is not fitted.
    """
    check_is_fitted(estimator)
    given = estimator.activation
    activations = set(given) if isinstance(given, (list, tuple)) else {given}
    if estimator.batch_norm or len(activations) > 1 or not activations <= {"identity", "logistic", "tanh", "relu"}:
        raise ConversionError(
            'scikit-learn\'s networks have one activation ("identity", "logistic", "tanh" or "relu") in all hidden layers and '
            "no batch normalization. Fit a network without the others, or save it for ONNX. "
            f"Received: activation={given!r}, batch_norm={estimator.batch_norm}"
        )
    theirs = neural_network.MLPClassifier if is_classifier(estimator) else neural_network.MLPRegressor
    params = {name: getattr(estimator, name) for name in theirs().get_params()}
    params |= {"activation": activations.pop(), "hidden_layer_sizes": tuple(hidden_sizes(estimator))}
    if params.get("loss", "poisson") != "poisson":
        params["loss"] = "squared_error"
    made = theirs(**params)
    _copy(estimator, made)
    return made


def to_model(estimator: MLPClassifier | MLPRegressor) -> Model:
    """Return a copy of a fitted estimator as a `Model`, which can be saved, exported, plotted and trained further.

    It predicts what `predict_proba` or `predict` return, for two classes only the probability of the second. Its optimizer is
    ``"adam"``; set another one with ``model.optimizer``. The loss is xpnet's, without the penalty.

    Raises
    ------
    NotFittedError
        It is not fitted.
    """
    check_is_fitted(estimator)
    loss, network, arrays = estimator.parts()
    dtype = estimator.coefs_[0].dtype
    model = Model(network, loss, "adam", backend=backend_of(estimator, None, dtype))
    model.build((estimator.n_features_in_,))
    with model.backend.scope():
        model.set_weights([x for _, x in in_keras_order(arrays)])
    return model


def _copy(source: Any, target: Any) -> None:
    """Copy the fitted attributes."""
    attributes = vars(source)
    vars(target).update(copy.deepcopy({name: attributes[name] for name in FITTED if name in attributes}))
