"""Fitted networks from and to scikit-learn's own classes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xpnet.backend import to_numpy
from xpnet.checks import require
from xpnet.errors import ConversionError
from xpnet.layers.sequential import Sequential
from xpnet.losses import BinaryCrossEntropy
from xpnet.model import Model
from xpnet.optimizers import SGD
from xpnet.sklearn.base import BaseMLP
from xpnet.sklearn.classifier import MLPClassifier
from xpnet.sklearn.network import coefs_of, params_of
from xpnet.sklearn.neural_nets import NeuralNetClassifier, NeuralNetRegressor
from xpnet.sklearn.parameters import backend_of
from xpnet.sklearn.rates import Solver
from xpnet.sklearn.regressor import MLPRegressor
from xpnet.sklearn.step import EfficientAdam
from xpnet.tree import Tree, from_leaves, leaves
from xpnet.weights import in_keras_order

FITTED = (
    "coefs_", "intercepts_", "n_features_in_", "feature_names_in_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_",
    "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "classes_", "_label_binarizer",
    "_no_improvement_count", "_random_state", "_coef_indptr", "_intercept_indptr",
)  # fmt: skip


def from_sklearn(estimator: Any) -> MLPClassifier | MLPRegressor:
    """Return a copy of scikit-learn's fitted `MLPClassifier` or `MLPRegressor` as one of ours.

    It predicts the same. `partial_fit` and `warm_start` continue as they would have, from the same optimizer state.

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
            made: Any = ours(**estimator.get_params(deep=False))
            _copy(estimator, made)
            made.build()
            if optimizer := vars(estimator).get("_optimizer"):
                made.validation_loss_curve_ = []
                vars(made).update(_optimizer=_our_solver(optimizer, *made.parts()[1:]))
            return made
    raise TypeError(
        "from_sklearn needs scikit-learn's MLPClassifier or MLPRegressor. Pass the estimator itself, such as the last step of "
        f"a pipeline. Received: {type(estimator).__name__}"
    )


def to_sklearn(estimator: MLPClassifier | MLPRegressor) -> Any:
    """Return a copy of a fitted estimator as scikit-learn's `MLPClassifier` or `MLPRegressor`, for programs without xpnet.

    It predicts the same, with the hidden layers and the activation that were fitted, even if `set_params` changed them since.
    `partial_fit` and `warm_start` continue from the same optimizer state. Dropout is omitted, because it only affects training,
    and so are class weights and other additions. A loss that scikit-learn does not have becomes its usual loss.

    Raises
    ------
    TypeError
        `estimator` is not one of these.
    ConversionError
        The network has batch normalization, or activations that scikit-learn does not have.
    NotFittedError
        It is not fitted.
    """
    _require_ours("to_sklearn", estimator)
    sizes, given, _, _, batch_norm = vars(estimator)["_settings"]  # as fitted; `set_params` may have changed them since
    activations = set(given) or {"relu"}
    if batch_norm or len(activations) > 1 or not activations <= {"identity", "logistic", "tanh", "relu"}:
        raise ConversionError(
            'scikit-learn\'s networks have one activation ("identity", "logistic", "tanh" or "relu") in all hidden layers and '
            "no batch normalization. Fit a network without the others, or save it for ONNX. "
            f"Received: a network fitted with activations {given!r} and batch_norm={batch_norm}"
        )
    theirs = neural_network.MLPClassifier if is_classifier(estimator) else neural_network.MLPRegressor
    params = {name: getattr(estimator, name) for name in theirs().get_params()}
    params |= {"activation": activations.pop(), "hidden_layer_sizes": tuple(sizes)}
    if params.get("loss", "poisson") != "poisson":
        params["loss"] = "squared_error"
    made = theirs(**params)
    _copy(estimator, made)
    if solver := vars(estimator).get("_optimizer"):
        vars(made).update(_optimizer=_their_optimizer(solver, *estimator.parts()[1:]))
    if made.early_stopping:  # after scikit-learn's `fit`, too, they are the same lists
        vars(made).update(_best_coefs=made.coefs_, _best_intercepts=made.intercepts_)
    return made


def to_model(estimator: MLPClassifier | MLPRegressor) -> Model:
    """Return a copy of a fitted estimator as a `Model`, which can be saved, exported, plotted and trained further.

    It predicts what `predict_proba` or `predict` return, for two classes only the probability of the second. Its optimizer is
    ``"adam"``; set another one with ``model.optimizer``. The loss is xpnet's, without the penalty. Text labels become
    `Model.class_names`, which a model file keeps.

    Raises
    ------
    TypeError
        `estimator` is not one of these.
    NotFittedError
        It is not fitted.
    """
    _require_ours("to_model", estimator)
    loss, network, arrays = estimator.parts()
    dtype = estimator.coefs_[0].dtype
    model = Model(network, loss, "adam", backend=backend_of(estimator, None, dtype))
    model.build((estimator.n_features_in_,))
    with model.backend.scope():
        model.set_weights([x for _, x in in_keras_order(arrays)])
    if not is_classifier(estimator):
        model.target_shape = () if estimator.n_outputs_ == 1 else (estimator.n_outputs_,)
    elif estimator.classes_.dtype.kind in "OU":
        model.class_names = tuple(map(str, estimator.classes_))
    return model


def from_model(model: Model, classes: Any = None) -> NeuralNetClassifier | NeuralNetRegressor:
    """Return a copy of a built model, such as `load_model` returns, as a fitted estimator.

    It predicts the same, and `partial_fit` trains it further. ``from_model(load_model(path))`` reads what
    ``to_model(estimator).save(path)`` or ``estimator.model_.save(path)`` wrote.

    Parameters
    ----------
    model : Model
        The estimator is a classifier if the model's loss is one of classes.
    classes : array-like, optional
        The labels in the order of the model's outputs; numbers in ascending order. The default is `Model.class_names`, or 0, 1,
        and so on.

    Raises
    ------
    RuntimeError
        The model has no parameters yet.
    ValueError
        The model has several seeds, the number of labels is not the number of classes, a label occurs twice, or numbers are not
        in ascending order.
    """
    one = isinstance(model, Model) and not isinstance(model.seed, tuple)
    require(one, "from_model needs a Model with one seed, such as ensemble[0]", f"{model!r:.200}")
    model = copy.deepcopy(model)
    model.built_state()
    settings = {name: getattr(model, name) for name in ("network", "loss", "optimizer", "metrics", "backend")}
    settings["dtype"] = model.backend.float_name
    made: Any = NeuralNetClassifier(**settings) if model.loss.of_classes else NeuralNetRegressor(**settings)
    made.keep_model(model)
    made.history_, made.n_iter_ = model.history, len(model.history.epoch)
    made.n_features_in_ = model.input_shape[0]
    vars(made).update(_random_state=check_random_state(None))
    if model.loss.of_classes:
        outputs = model.predict_logits(np.zeros((1, *model.input_shape), np.uint8)).shape[-1]
        binary = isinstance(model.loss, BinaryCrossEntropy)
        made.classes_ = _labels(model.class_names if classes is None else classes, 2 if outputs == 1 else outputs)
        encoder = None if binary and outputs > 1 else LabelEncoder()
        if encoder:
            encoder.classes_ = made.classes_
        vars(made).update(_encoder=encoder)
    return made


def _require_ours(function: str, estimator: Any) -> None:
    """Raise TypeError unless it is one of our multilayer perceptrons, and NotFittedError unless it is fitted."""
    if not isinstance(estimator, BaseMLP):
        raise TypeError(
            f"{function} needs xpnet.sklearn's MLPClassifier or MLPRegressor. The model of another estimator is "
            f"estimator.model_. Received: {type(estimator).__name__}"
        )
    check_is_fitted(estimator)


def _labels(given: Any, count: int) -> np.ndarray:
    labels = np.asarray(given)
    if labels.shape == (0,):
        return np.arange(count)
    text = labels.dtype.kind in "OU"
    if labels.shape != (count,) or (len({*labels}) < count if text else np.any(labels[1:] <= labels[:-1])):
        raise ValueError(
            f"classes must be {count} different labels in the order of the outputs, and numbers must be in ascending order. "
            f"Received: {given!r}"
        )
    return labels


def _copy(source: Any, target: Any) -> None:
    """Copy the fitted attributes."""
    attributes = vars(source)
    vars(target).update(copy.deepcopy({name: attributes[name] for name in FITTED if name in attributes}))


def _our_solver(optimizer: AdamOptimizer | SGDOptimizer, network: Sequential, trees: dict[str, Tree]) -> Solver:
    """Return scikit-learn's optimizer as a solver. Adam's averages lose the factors 1 - β₁ and 1 - β₂."""
    if isinstance(optimizer, AdamOptimizer):
        adam = EfficientAdam(0.0, optimizer.beta_1, optimizer.beta_2, optimizer.epsilon)
        solver = Solver(adam, optimizer.learning_rate_init, "constant", 0.5)
        solver.steps = optimizer.t
        averages = {"m": (optimizer.ms, 1 - optimizer.beta_1), "v": (optimizer.vs, 1 - optimizer.beta_2)}
    else:
        momentum = float(optimizer.momentum)
        sgd = SGD(0.0, momentum, nesterov=optimizer.nesterov and momentum > 0)
        solver = Solver(sgd, optimizer.learning_rate_init, optimizer.lr_schedule, optimizer.power_t)
        averages = {"velocity": (optimizer.velocities, 1.0)} if momentum else {}
    solver.learning_rate = optimizer.learning_rate
    memory = solver.rule.init(trees["params"])
    for name, (arrays, factor) in averages.items():
        scaled = [(x / factor).astype(x.dtype) for x in arrays]
        half = len(scaled) // 2  # of the coefficients, then of the intercepts
        biases = [x.reshape(1, -1) for x in scaled[half:]]
        memory[name] = from_leaves(memory[name], leaves(params_of(network, scaled[:half], biases, [])))
    solver.memory = memory
    return solver


def _their_optimizer(solver: Solver, network: Sequential, trees: dict[str, Tree]) -> AdamOptimizer | SGDOptimizer:
    """Return a solver as scikit-learn's optimizer."""
    rule, params = solver.rule, trees["params"]

    def arrays(tree: Tree, factor: float = 1.0) -> list[np.ndarray]:
        scaled = [
            np.multiply(to_numpy(x), factor, dtype=p.dtype) for x, p in zip(leaves(tree), leaves(params), strict=True)
        ]
        coefs, intercepts = coefs_of(network, from_leaves(params, scaled))
        return [*coefs, *intercepts]

    optimizer: AdamOptimizer | SGDOptimizer
    if isinstance(rule, EfficientAdam):
        optimizer = AdamOptimizer([], solver.learning_rate_init, rule.beta_1, rule.beta_2, rule.epsilon)
        optimizer.t = solver.steps
        optimizer.ms = arrays(solver.memory["m"], 1 - rule.beta_1)
        optimizer.vs = arrays(solver.memory["v"], 1 - rule.beta_2)
    else:
        settings = solver.schedule, rule.momentum, rule.nesterov, solver.power_t
        optimizer = SGDOptimizer(arrays(params, 0.0), solver.learning_rate_init, *settings)
        if rule.momentum:
            optimizer.velocities = arrays(solver.memory["velocity"])
    optimizer.learning_rate = solver.learning_rate
    return optimizer
