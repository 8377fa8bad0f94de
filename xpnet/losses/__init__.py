"""Losses. Each is a formula and its derivative, and computes value and gradient together.

``loss, dz = softmax_cross_entropy(y, z)`` for targets y and network outputs z. With a leading axis of K networks,
z: (K, batch, units), the loss has shape (K,), one value for each network.
"""

from __future__ import annotations

from xpnet.checks import unknown_name
from xpnet.losses.base import Loss
from xpnet.losses.classification import BinaryCrossEntropy, CategoricalCrossEntropy, SoftmaxCrossEntropy
from xpnet.losses.labels import one_hot
from xpnet.losses.positions import PerPosition
from xpnet.losses.regression import (
    GaussianNLL,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    Quantile,
)

softmax_cross_entropy = SoftmaxCrossEntropy()
categorical_cross_entropy = CategoricalCrossEntropy()
binary_cross_entropy = BinaryCrossEntropy()
mean_squared_error = MeanSquaredError()
mean_absolute_error = MeanAbsoluteError()
huber = Huber()
poisson = Poisson()
quantile = Quantile()
gaussian_nll = GaussianNLL()

_BY_NAME: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "categorical_cross_entropy": categorical_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mean_squared_error": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "huber": huber,
    "poisson": poisson,
    "quantile": quantile,
    "gaussian_nll": gaussian_nll,
}

_SOFTMAX = '"softmax_cross_entropy", which includes the softmax, so the network must not end with one'
_SIGMOID = '"binary_cross_entropy", which includes the sigmoid, so the network must not end with one'
_ELSEWHERE = {
    "sparsecategoricalcrossentropy": _SOFTMAX,
    "categoricalcrossentropy": _SOFTMAX,
    "crossentropy": _SOFTMAX,
    "crossentropyloss": _SOFTMAX,
    "nllloss": _SOFTMAX,
    "logloss": '"softmax_cross_entropy", or "binary_cross_entropy" for one output; both include their activation',
    "kldivergence": '"softmax_cross_entropy"; for class probabilities the two differ only by a constant, their entropy',
    "kldivloss": '"softmax_cross_entropy"; for class probabilities the two differ only by a constant, their entropy',
    "binarycrossentropy": _SIGMOID,
    "bce": _SIGMOID,
    "bceloss": _SIGMOID,
    "bcewithlogitsloss": _SIGMOID,
    "squarederror": '"mean_squared_error"',
    "rmse": '"mean_squared_error", which has the same minimum',
    "absoluteerror": '"mean_absolute_error"',
    "l1loss": '"mean_absolute_error"',
    "smoothl1loss": '"huber"',
    "poissonnllloss": '"poisson"',
    "pinball": '"quantile"',
    **{
        name: f'Model(network, loss, "{name}"), with the optimizer after the loss'
        for name in ("sgd", "adam", "adamw", "rmsprop", "adagrad")
    },
    "gaussiannllloss": '"gaussian_nll", where the network outputs the logarithm of the variance',
}

__all__ = [
    "BinaryCrossEntropy",
    "CategoricalCrossEntropy",
    "GaussianNLL",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "PerPosition",
    "Poisson",
    "Quantile",
    "SoftmaxCrossEntropy",
    *sorted(_BY_NAME.keys() - {"mse", "mae"}),
    "get",
    "one_hot",
]


def get(loss: str | Loss) -> Loss:
    """Return the loss with this name, with its default settings, or a `Loss` unchanged."""
    if isinstance(loss, Loss):
        return loss
    if callable(loss) and not isinstance(loss, type):
        raise ValueError(
            "A custom loss must be a subclass of xpnet.losses.Loss with a method elements(y, z) that returns the losses and "
            f"their derivatives. See help(xpnet.losses.Loss). Received: {loss!r}"
        )
    if not isinstance(loss, str) or loss not in _BY_NAME:
        raise unknown_name("A loss must be an object such as Huber(0.5) or one of", loss, _BY_NAME, _ELSEWHERE)
    return _BY_NAME[loss]
