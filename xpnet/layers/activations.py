"""Activations: each is one formula and, on the line below it, its derivative.

`Sigmoid`, `Tanh` and `Softmax` write their derivative in terms of the output y, which is there already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from xpnet.backend import namespace
from xpnet.checks import require_choice, set_numbers, unknown_name
from xpnet.layers.base import Layer
from xpnet.layers.reshaping import Identity
from xpnet.special import erf
from xpnet.tree import Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ) = ½ + ½ tanh(x/2), which cannot overflow."""
    y = namespace(x).tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


def softmax(x: Array) -> Array:
    """eˣ / Σ eˣ over the last axis, shifted by the row maximum so that exp cannot overflow."""
    xp = namespace(x)
    y = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    y /= xp.sum(y, axis=-1, keepdims=True)
    return y


def log_softmax(x: Array) -> Array:
    """x - log Σ eˣ over the last axis, shifted by the row maximum so that exp cannot overflow."""
    xp = namespace(x)
    y = x - xp.max(x, axis=-1, keepdims=True)
    y -= xp.log(xp.sum(xp.exp(y), axis=-1, keepdims=True))
    return y


def softplus(x: Array) -> Array:
    """log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|), which cannot overflow."""
    xp = namespace(x)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


@dataclass(frozen=True)
class ReLU(Layer):
    """y = max(x, 0),   dx = dy where y > 0, else 0

    V. Nair and G. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.
    """

    def forward(self, params, x):
        xp = namespace(x)
        y = xp.maximum(x, 0.0)

        def backward(dy, need_dx=True):
            dx = xp.astype(y > 0, dy.dtype)  # as a factor: a choice by a random mask is 15 times slower on NumPy
            dx *= dy
            return dx, {}

        return y, backward


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """y = x where x > 0, else αx,   dx = dy where x > 0, else α dy

    A. Maas et al., "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Parameters
    ----------
    negative_slope : float, default 0.01
        α.

    Raises
    ------
    ValueError
        `negative_slope` is not a finite number.
    """

    negative_slope: float = 0.01

    def __post_init__(self):
        set_numbers(self, "(-inf, inf)", "negative_slope")

    def forward(self, params, x):
        xp = namespace(x)
        slope = xp.astype(x > 0, x.dtype)
        slope *= 1.0 - self.negative_slope
        slope += self.negative_slope
        return x * slope, lambda dy, need_dx=True: (dy * slope, {})


@dataclass(frozen=True)
class ELU(Layer):
    """y = x where x > 0, else α(eˣ - 1),   dx = dy where x > 0, else (y + α) dy

    D.-A. Clevert et al., "Fast and accurate deep network learning by exponential linear units", ICLR 2016.

    Parameters
    ----------
    alpha : float, default 1.0

    Raises
    ------
    ValueError
        `alpha` is not a finite number.
    """

    alpha: float = 1.0

    def __post_init__(self):
        set_numbers(self, "(-inf, inf)", "alpha")

    def forward(self, params, x):
        xp = namespace(x)
        below = self.alpha * xp.expm1(xp.minimum(x, 0.0))  # 0 where x > 0

        def backward(dy, need_dx=True):
            return dy * xp.where(x > 0, xp.ones_like(x), below + self.alpha), {}

        return xp.maximum(x, 0.0) + below, backward


@dataclass(frozen=True)
class SELU(Layer):
    """y = λ ELU(x; α),   dx = λ ELU'(x; α) dy,   λ = 1.0507…, α = 1.6733…

    The constants keep mean 0 and variance 1 from layer to layer. G. Klambauer et al., "Self-normalizing neural
    networks", NeurIPS 2017.
    """

    def forward(self, params, x):
        scale = 1.0507009873554805
        y, elu_backward = ELU(alpha=1.6732632423543772).forward(params, x)
        return scale * y, lambda dy, need_dx=True: elu_backward(scale * dy)


@dataclass(frozen=True)
class GELU(Layer):
    """y = x Φ(x),   dx = (Φ(x) + x φ(x)) dy,   Φ and φ the normal distribution and its density

    With ``approximate="tanh"``: y = x (1 + tanh u)/2, dx = ((1 + tanh u)/2 + x (1 - tanh² u)/2 · u') dy, where
    u = √(2/π) (x + 0.044715 x³). D. Hendrycks and K. Gimpel, "Gaussian error linear units" (2016).

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"

    Raises
    ------
    ValueError
        `approximate` is not known.
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self):
        require_choice("approximate", self.approximate, "none", "tanh")

    def forward(self, params, x):
        xp = namespace(x)
        if self.approximate == "none":
            cdf = 0.5 + 0.5 * erf(x * math.sqrt(0.5))
            density = math.sqrt(0.5 / math.pi) * xp.exp(-0.5 * x * x)
        else:
            c = math.sqrt(2 / math.pi)
            t = xp.tanh(c * (x + 0.044715 * x * x * x))
            cdf = 0.5 + 0.5 * t
            density = 0.5 * (1.0 - t * t) * c * (1.0 + 0.134145 * x * x)
        return x * cdf, lambda dy, need_dx=True: (dy * (cdf + x * density), {})


@dataclass(frozen=True)
class SiLU(Layer):
    """y = x σ(x),   dx = (σ(x) + x σ(x) (1 - σ(x))) dy

    Also called Swish. S. Elfwing et al., "Sigmoid-weighted linear units" (2017).
    """

    def forward(self, params, x):
        s = sigmoid(x)
        y = x * s
        return y, lambda dy, need_dx=True: (dy * (s + y * (1.0 - s)), {})


@dataclass(frozen=True)
class Softplus(Layer):
    """y = log(1 + eˣ),   dx = σ(x) dy

    C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing", NeurIPS 2000.
    """

    def forward(self, params, x):
        return softplus(x), lambda dy, need_dx=True: (dy * sigmoid(x), {})


@dataclass(frozen=True)
class Sigmoid(Layer):
    """y = 1 / (1 + e⁻ˣ),   dx = y (1 - y) dy"""

    def forward(self, params, x):
        y = sigmoid(x)
        return y, lambda dy, need_dx=True: (dy * y * (1.0 - y), {})


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh x,   dx = (1 - y²) dy"""

    def forward(self, params, x):
        y = namespace(x).tanh(x)
        return y, lambda dy, need_dx=True: (dy * (1.0 - y * y), {})


@dataclass(frozen=True)
class Softmax(Layer):
    """y = eˣ / Σ eˣ,   dx = y (dy - Σ y dy)   (sums over the last axis)

    To train a classifier leave it out and take the loss `SoftmaxCrossEntropy`, which is both faster and stable.
    """

    def forward(self, params, x):
        xp = namespace(x)
        y = softmax(x)
        return y, lambda dy, need_dx=True: (y * (dy - xp.sum(y * dy, axis=-1, keepdims=True)), {})


@dataclass(frozen=True)
class LogSoftmax(Layer):
    """y = x - log Σ eˣ,   dx = dy - eʸ Σ dy   (sums over the last axis)"""

    def forward(self, params, x):
        xp = namespace(x)
        y = log_softmax(x)
        return y, lambda dy, need_dx=True: (dy - xp.exp(y) * xp.sum(dy, axis=-1, keepdims=True), {})


_NAMES = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "selu": SELU,
    "gelu": GELU,
    "silu": SiLU,
    "softplus": Softplus,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softmax": Softmax,
    "log_softmax": LogSoftmax,
    "linear": Identity,
}
_ELSEWHERE = {
    "swish": '"silu"',
    "logistic": '"sigmoid"',
    "identity": '"linear", or leave the activation out',
    "none": '"linear", or leave the activation out',
}


def Activation(activation: str | Layer) -> Layer:
    """The activation layer of that name, ``Activation("relu")``; a layer is returned as it is.

    Raises
    ------
    ValueError
        No activation has that name.
    """
    if isinstance(activation, Layer):
        return activation
    if not isinstance(activation, str) or activation not in _NAMES:
        raise unknown_name("An activation is a layer such as LeakyReLU(0.2) or one of", activation, _NAMES, _ELSEWHERE)
    return _NAMES[activation]()
