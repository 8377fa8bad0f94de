"""Losses: each is a formula and its derivative, value and gradient computed together.

``loss, dz = softmax_cross_entropy(y, z)`` for targets y and network outputs z. With an axis of K networks in front,
z: (K, batch, units), the loss is (K,): one for each network.
"""

from __future__ import annotations

from xpnet.checks import unknown_name
from xpnet.losses.base import Loss
from xpnet.losses.classification import BinaryCrossEntropy, CategoricalCrossEntropy, SoftmaxCrossEntropy, one_hot
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

_SOFTMAX = '"softmax_cross_entropy", which has the softmax in it: the network ends without one'
_SIGMOID = '"binary_cross_entropy", which has the sigmoid in it: the network ends without one'
_ELSEWHERE = {
    "sparsecategoricalcrossentropy": _SOFTMAX,
    "categoricalcrossentropy": _SOFTMAX,
    "crossentropy": _SOFTMAX,
    "crossentropyloss": _SOFTMAX,
    "nllloss": _SOFTMAX,
    "logloss": '"softmax_cross_entropy", or "binary_cross_entropy" for one output; both have their activation in them',
    "kldivergence": '"softmax_cross_entropy": on class probabilities it differs by their entropy, a constant',
    "kldivloss": '"softmax_cross_entropy": on class probabilities it differs by their entropy, a constant',
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
        name: f'Model(network, loss, "{name}"): the optimizer comes after the loss'
        for name in ("sgd", "adam", "adamw", "rmsprop", "adagrad")
    },
    "gaussiannllloss": '"gaussian_nll", with the logarithm of the variance as an output',
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
    """The loss of that name, with default settings; a loss is returned as it is."""
    if isinstance(loss, Loss):
        return loss
    if callable(loss) and not isinstance(loss, type):
        raise ValueError(
            "A loss of your own is a subclass of xpnet.losses.Loss with a method elements(y, z), which returns the losses and "
            f"their derivatives: see help(xpnet.losses.Loss). Received: {loss!r}"
        )
    if not isinstance(loss, str) or loss not in _BY_NAME:
        raise unknown_name("A loss is an object such as Huber(0.5) or one of", loss, _BY_NAME, _ELSEWHERE)
    return _BY_NAME[loss]
