"""Unknown names: each error lists the known names and suggests one. No arrays, so no `xp` fixture."""

import re

import pytest

from xpnet import Sequential, initializers, losses, metrics, optimizers, schedules, set_backend
from xpnet.checks import require_choice, require_range, unknown_name
from xpnet.layers import (
    GELU,
    Activation,
    Bidirectional,
    Dense,
    LeakyReLU,
    MaxPooling2D,
    RandomFlip,
    Residual,
    SimpleRNN,
)


def metric(name):
    return metrics.get(name, losses.huber)


@pytest.mark.parametrize(
    ("get", "name", "advice"),
    [
        (losses.get, "mean_squared_eror", 'Did you mean "mean_squared_error"?'),
        (losses.get, "MeanSquaredError", 'Did you mean "mean_squared_error"?'),
        (losses.get, "MSELoss", 'Did you mean "mse"?'),
        (losses.get, "sparse_categorical_crossentropy", 'Write "softmax_cross_entropy", which includes the softmax'),
        (losses.get, "CrossEntropyLoss", 'Write "softmax_cross_entropy", which includes the softmax'),
        (losses.get, "BCEWithLogitsLoss", 'Write "binary_cross_entropy", which includes the sigmoid'),
        (losses.get, "log_loss", 'Write "softmax_cross_entropy", or "binary_cross_entropy" for one output'),
        (losses.get, "squared_error", 'Write "mean_squared_error"'),
        (losses.get, "adam", 'Write Model(network, loss, "adam"), with the optimizer after the loss'),
        (losses.get, "SmoothL1Loss", 'Write "huber"'),
        (losses.get, losses.Huber, r"Make an object of the class: Huber(...)."),
        (metric, "recal", 'Did you mean "recall"?'),
        (metric, "Precision", 'Did you mean "precision"?'),
        (metric, "f1_score", 'Write "f1"'),
        (metric, "acc", 'Write "accuracy"'),
        (metric, "sparse_categorical_accuracy", 'Write "accuracy"'),
        (metric, "mean_absolute_percentage_error", 'Write "mape", which is a fraction, not a percentage'),
        (metric, metrics.AUC, "Make an object of the class: AUC(...)"),
        (optimizers.get, "Adam", 'Did you mean "adam"?'),
        (optimizers.get, "rms_prop", 'Did you mean "rmsprop"?'),
        (optimizers.get, "nadam", 'Write "adam"'),
        (optimizers.get, "lbfgs", 'Write "adam" or "sgd"; every optimizer here uses only the gradient of a mini-batch'),
        (optimizers.get, optimizers.SGD, "Make an object of the class: SGD(...)"),
        (initializers.get, "kaiming_normal_", 'Write "he_normal"'),
        (initializers.get, "xavier_uniform", 'Write "glorot_uniform"'),
        (initializers.get, "GlorotUniform", 'Did you mean "glorot_uniform"?'),
        (initializers.get, "normal", 'Write "random_normal"'),
        (Activation, "swish", 'Write "silu"'),
        (Activation, "ReLU", 'Did you mean "relu"?'),
        (Activation, "hard_sigmoid", 'Did you mean "sigmoid"?'),
        (set_backend, "pytorch", 'Write "torch"'),
        (set_backend, "NumPy", 'Did you mean "numpy"?'),
        (lambda name: set_backend("numpy", dtype=name), "Float32", 'Did you mean "float32"?'),
        (lambda name: MaxPooling2D(2, padding=name), "SAME", 'Did you mean "same"?'),
        (lambda name: RandomFlip(name), "horizontally", 'Did you mean "horizontal"?'),
        (lambda name: GELU(name), "Tanh", 'Did you mean "tanh"?'),
        (lambda name: Bidirectional(SimpleRNN(2), name), "concatenate", 'Did you mean "concat"?'),
    ],
)
def test_the_error_says_what_was_meant(get, name, advice):
    with pytest.raises(ValueError, match="one of") as error:
        get(name)

    assert advice in str(error.value)


def test_the_error_of_a_name_lists_the_names_and_what_was_received():
    error = unknown_name("A fruit is one of", "banana", ["apple", "pear"])

    assert str(error) == """A fruit is one of "apple", "pear". Received: 'banana'"""


@pytest.mark.parametrize("value", [None, 1, ["low"]])
def test_a_choice_that_is_no_name_is_refused(value):
    with pytest.raises(ValueError, match=r'height must be one of "low", "high". Received: height='):
        require_choice("height", value, "low", "high")


@pytest.mark.parametrize(("get", "remedy"), [(losses.get, r"losses\.Loss with"), (metric, r"metrics\.Metric with")])
def test_a_function_is_answered_with_the_class_to_derive_from(get, remedy):
    with pytest.raises(ValueError, match=rf"(is|must be) a subclass of xpnet\.{remedy}.*Received: <function"):
        get(lambda y, z: y)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (optimizers.SGD(1e39), "SGD.learning_rate"),
        (optimizers.Adam(schedules.Linear(1e39, 3, 0.0)), "Linear.initial_learning_rate"),
        (optimizers.SGD(l2={"0": 1e39}), "SGD.l2"),
        (optimizers.Adam(epsilon=1e-46), "Adam.epsilon"),
        (losses.Huber(1e-46), "Huber.delta"),
        (Sequential([LeakyReLU(-1e39), Dense(2)]), "LeakyReLU.negative_slope"),
        (Sequential([Residual(Dense(2, weight_initializer=initializers.RandomNormal(1e39)))]), "RandomNormal.mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_are_in_the_range_of_the_float_type(wrong, name):
    """In float32, 1e39 becomes infinite and 1e-46 becomes 0."""
    with pytest.raises(
        ValueError, match=rf"{re.escape(name)} must be 0 or between .* the range of float32\..*Received: {name}="
    ):
        require_range("float32", wrong)
    require_range("float64", wrong)
