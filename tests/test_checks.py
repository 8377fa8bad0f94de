"""Unknown names: each error lists the known names and suggests one. No arrays, so no `xp` fixture."""

import pytest

from xpnet import initializers, losses, metrics, optimizers, set_backend
from xpnet.checks import require_choice, unknown_name
from xpnet.layers import GELU, Activation, Bidirectional, MaxPooling2D, RandomFlip, SimpleRNN


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
