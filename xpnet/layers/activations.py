"""Activations. Each is one formula and its derivative.

Values and derivatives are accurate in relative error over all normal numbers, like those of `xpnet.functions`. For example,
1 - y is never computed as a difference where y is near 1. x, y, dx and dy have the same shape; any shape is accepted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from xpnet import functions
from xpnet.backend import namespace
from xpnet.backend.fusion import fused
from xpnet.checks import require_choice, set_numbers, unknown_name
from xpnet.layers.base import Layer
from xpnet.layers.reshaping import Identity


@dataclass(frozen=True)
class ReLU(Layer):
    """y = max(x, 0),   dx = dy where y > 0, else 0

    V. Nair and G. Hinton, "Rectified linear units improve restricted Boltzmann machines", ICML 2010.
    """

    def forward(self, params, x):
        y = namespace(x).maximum(x, 0.0)

        def gradient(dy, y):
            # A product, because `where` with a random mask is 15 times slower on NumPy
            dx = namespace(y).astype(y > 0, dy.dtype)
            dx *= dy
            return dx

        return y, lambda dy, need_dx=True: (fused(gradient, dy, y), {})


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
        def value(x):
            positive = namespace(x).astype(x > 0, x.dtype)
            slope = 1.0 - positive
            slope *= self.negative_slope
            slope += positive
            return x * slope, slope

        y, slope = fused(value, x)
        return y, lambda dy, need_dx=True: (dy * slope, {})


@dataclass(frozen=True)
class ELU(Layer):
    """y = x where x > 0, else α(eˣ - 1),   dx = dy where x > 0, else α eˣ dy

    D.-A. Clevert et al., "Fast and accurate deep network learning by exponential linear units", ICLR 2016.

    Parameters
    ----------
    alpha : float, default 1.0
        α.

    Raises
    ------
    ValueError
        `alpha` is not a finite number.
    """

    alpha: float = 1.0

    def __post_init__(self):
        set_numbers(self, "(-inf, inf)", "alpha")

    def forward(self, params, x):
        def value(x):
            xp = namespace(x)
            negative = xp.minimum(x, 0.0)
            return xp.maximum(x, 0.0) + self.alpha * xp.expm1(negative), negative

        def gradient(dy, x, negative):
            xp = namespace(x)
            return dy * xp.where(x > 0, 1.0, self.alpha * xp.exp(negative))

        y, negative = fused(value, x)
        return y, lambda dy, need_dx=True: (fused(gradient, dy, x, negative), {})


@dataclass(frozen=True)
class SELU(Layer):
    """y = λ ELU(x; α),   dx = λ ELU'(x; α) dy,   λ = 1.0507…, α = 1.6733…

    With these constants, layers preserve mean 0 and variance 1. G. Klambauer et al., "Self-normalizing neural networks",
    NeurIPS 2017.
    """

    def forward(self, params, x):
        scale = 1.0507009873554805
        y, elu_backward = ELU(alpha=1.6732632423543772).forward(params, x)
        return scale * y, lambda dy, need_dx=True: elu_backward(scale * dy)


@dataclass(frozen=True)
class GELU(Layer):
    """y = x Φ(x),   dx = (Φ(x) + x φ(x)) dy,   where Φ and φ are the normal distribution and its density

    With ``approximate="tanh"``: y = x (1 + tanh u)/2 = x σ(2u), dx = (1 + 2 x u' σ(-2u)) σ(2u) dy, where
    u = √(2/π) (x + 0.044715 x³). D. Hendrycks and K. Gimpel, "Gaussian error linear units" (2016).

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        "none" uses the first formula, "tanh" the second.

    Raises
    ------
    ValueError
        `approximate` is neither "none" nor "tanh".
    """

    approximate: Literal["none", "tanh"] = "none"

    def __post_init__(self):
        require_choice("approximate", self.approximate, "none", "tanh")

    def forward(self, params, x):
        return _gelu(x) if self.approximate == "none" else _gelu_tanh(x)


def _gelu(x):
    """y = max(x, 0) - |x| Φ(-|x|), which keeps the digits of the tail on both sides."""

    def value(x):
        xp = namespace(x)
        size = xp.minimum(xp.abs(x), 40.0)  # Φ(-40) is 0
        tail, e = functions.normal_tail(size)
        return xp.maximum(x, 0.0) - size * tail * e, size, tail, e

    def gradient(dy, x, size, tail, e):
        positive = namespace(x).astype(x >= 0, x.dtype)
        slope = (tail - size * math.sqrt(0.5 / math.pi)) * e  # y' at -|x|; y' at |x| is 1 - slope
        return dy * (positive + slope * (1.0 - 2.0 * positive))

    y, *parts = fused(value, x)
    return y, lambda dy, need_dx=True: (fused(gradient, dy, x, *parts), {})


def _gelu_tanh(x):
    c = math.sqrt(8 / math.pi)

    def value(x):
        xp = namespace(x)
        near = xp.minimum(xp.maximum(x, -30.0), 30.0)  # beyond ±30, σ(2u) is 0 or 1
        square = near * near
        a, b, complement = functions.sigmoid_factors(c * (near + 0.044715 * near * square))
        return xp.maximum(x, -30.0) * a * b, near, square, a, b, complement

    def gradient(dy, near, square, a, b, complement):
        return dy * ((1.0 + near * (c + 0.134145 * c * square) * complement) * a * b)

    y, *parts = fused(value, x)
    return y, lambda dy, need_dx=True: (fused(gradient, dy, *parts), {})


@dataclass(frozen=True)
class SiLU(Layer):
    """y = x σ(x),   dx = (1 + x σ(-x)) σ(x) dy

    Also called Swish. S. Elfwing et al., "Sigmoid-weighted linear units" (2017).
    """

    def forward(self, params, x):
        def value(x):
            xp = namespace(x)
            near = xp.minimum(xp.maximum(x, -1000.0), 1000.0)  # beyond ±1000, σ(x) is 0 or 1
            a, b, complement = functions.sigmoid_factors(near)
            return xp.maximum(x, -1000.0) * a * b, near, a, b, complement

        def gradient(dy, near, a, b, complement):
            return dy * ((1.0 + near * complement) * a * b)

        y, *parts = fused(value, x)
        return y, lambda dy, need_dx=True: (fused(gradient, dy, *parts), {})


@dataclass(frozen=True)
class Softplus(Layer):
    """y = log(1 + eˣ),   dx = σ(x) dy

    C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing", NeurIPS 2000.
    """

    def forward(self, params, x):
        def gradient(dy, x):
            return dy * functions.sigmoid(x)

        return functions.softplus(x), lambda dy, need_dx=True: (fused(gradient, dy, x), {})


@dataclass(frozen=True)
class Sigmoid(Layer):
    """y = σ(x) = 1 / (1 + e⁻ˣ),   dx = σ(x) σ(-x) dy"""

    def forward(self, params, x):
        y, e = functions.sigmoid_and_exp(x)

        def gradient(dy, y, e):
            dx = functions.complement(e)
            dx *= y
            dx *= dy
            return dx

        return y, lambda dy, need_dx=True: (fused(gradient, dy, y, e), {})

    def __call__(self, params, x):
        return functions.sigmoid(x)


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh x,   dx = (1 - tanh² x) dy"""

    def forward(self, params, x):
        def gradient(dy, x):
            dx = functions.tanh_slope(x)
            dx *= dy
            return dx

        return namespace(x).tanh(x), lambda dy, need_dx=True: (fused(gradient, dy, x), {})


@dataclass(frozen=True)
class Softmax(Layer):
    """y = eˣ / Σ eˣ,   dx = y (dy - Σ y dy)   (sums over the last axis)

    To train a classifier, leave this layer out and use the loss `SoftmaxCrossEntropy`, which is faster and more accurate.
    """

    def forward(self, params, x):
        y = functions.softmax(x)

        def gradient(dy, y):
            # Adding a number to all dy does not change dx. With dy = 0 at the largest y, no large terms cancel in the sum
            xp = namespace(y)
            is_top = y == xp.max(y, axis=-1, keepdims=True)
            dy = dy - xp.max(xp.where(is_top, dy, -math.inf), axis=-1, keepdims=True)
            return y * (dy - xp.sum(y * dy, axis=-1, keepdims=True))

        return y, lambda dy, need_dx=True: (fused(gradient, dy, y), {})


@dataclass(frozen=True)
class LogSoftmax(Layer):
    """y = x - log Σ eˣ,   dx = dy - eʸ Σ dy   (sums over the last axis)"""

    def forward(self, params, x):
        y = functions.log_softmax(x)

        def gradient(dy, y):
            xp = namespace(y)
            p = xp.exp(y)
            most = p > 0.5  # at most one entry; there dx = (Σ other p) dy - p Σ other dy, which avoids 1 - p
            others, other_dy = (xp.sum(xp.where(most, 0.0, v), axis=-1, keepdims=True) for v in (p, dy))
            total = xp.sum(dy, axis=-1, keepdims=True)
            return xp.where(most, others * dy - p * other_dy, dy - p * total)

        return y, lambda dy, need_dx=True: (fused(gradient, dy, y), {})


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
    "identity": '"linear", or omit the activation',
    "none": '"linear", or omit the activation',
}


def Activation(activation: str | Layer) -> Layer:
    """Return the activation layer with this name, as in ``Activation("relu")``, or a layer unchanged.

    Parameters
    ----------
    activation : str or Layer

    Raises
    ------
    ValueError
        No activation has this name.
    """
    if isinstance(activation, Layer):
        return activation
    if not isinstance(activation, str) or activation not in _NAMES:
        rule = "An activation must be a layer such as LeakyReLU(0.2) or one of"
        raise unknown_name(rule, activation, _NAMES, _ELSEWHERE)
    return _NAMES[activation]()
