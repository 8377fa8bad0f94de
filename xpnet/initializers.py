"""Initial values of parameters, drawn on the host with NumPy, so that a seed gives the same network on every backend.

``initializer(rng, shape, fan_in=None, fan_out=None)`` returns a float64 array. Weights have shape ``(in, out)``, and
convolution kernels have shape ``(*window, in, out)``. By default the fans come from the shape, as in Keras:
fan_in = prod(window) · in and fan_out = prod(window) · out. For a vector, both are its length.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from xpnet.checks import require, set_numbers, unknown_name
from xpnet.keywords import AbstractSettings
from xpnet.random import ShapesOnly


@dataclass(frozen=True)
class Initializer(metaclass=AbstractSettings):
    """Draws the initial values of a parameter: the base class

    Raises
    ------
    ValueError
        A setting is not finite, or is outside the range in its description.
    """

    def __post_init__(self) -> None:
        set_numbers(self, "(-inf, inf)", *(field.name for field in fields(self)))

    @abstractmethod
    def __call__(
        self, rng: np.random.Generator, shape: tuple[int, ...], fan_in: int | None = None, fan_out: int | None = None
    ) -> np.ndarray:
        """Return float64 values of `shape`."""


@dataclass(frozen=True)
class Zeros(Initializer):
    """W = 0"""

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        return np.zeros(shape)


@dataclass(frozen=True)
class Ones(Initializer):
    """W = 1"""

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        return np.ones(shape)


@dataclass(frozen=True)
class Constant(Initializer):
    """W = value

    Parameters
    ----------
    value : float, default 0.0
    """

    value: float = 0.0

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        return np.full(shape, self.value)


@dataclass(frozen=True)
class RandomUniform(Initializer):
    """W ~ U(minval, maxval)

    Parameters
    ----------
    minval : float, default -0.05
    maxval : float, default 0.05
        At least `minval`.
    """

    minval: float = -0.05
    maxval: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        received = f"minval={self.minval}, maxval={self.maxval}"
        require(self.minval <= self.maxval, "minval must be at most maxval. Swap them", received)

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        return rng.uniform(self.minval, self.maxval, shape)


@dataclass(frozen=True)
class _Gaussian(Initializer):
    """The settings of a normal distribution."""

    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        require(self.stddev >= 0, "stddev must be at least 0", f"stddev={self.stddev}")


@dataclass(frozen=True)
class RandomNormal(_Gaussian):
    """W ~ N(mean, stddev²)

    Parameters
    ----------
    mean : float, default 0.0
    stddev : float, default 0.05
        At least 0.
    """

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        return rng.normal(self.mean, self.stddev, shape)


@dataclass(frozen=True)
class TruncatedNormal(_Gaussian):
    """W ~ N(mean, stddev²) given |W - mean| <= 2 stddev

    Parameters
    ----------
    mean : float, default 0.0
    stddev : float, default 0.05
        The standard deviation before truncation, as in Keras; at least 0.
    """

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        z = rng.standard_normal(shape)
        while np.any(outside := np.abs(z) > 2):  # 4.6 % in the first pass
            z[outside] = rng.standard_normal(np.count_nonzero(outside))
        z *= self.stddev
        z += self.mean
        return z


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """WᵀW = gain² 1 if W has at least as many rows as columns, else WWᵀ = gain² 1

    W is the parameter reshaped to a matrix of shape (prod(shape[:-1]), shape[-1]).
    A. Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014.

    Parameters
    ----------
    gain : float, default 1.0
        The length of the orthogonal rows or columns.
    """

    gain: float = 1.0

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        require(len(shape) >= 2, "Orthogonal needs a shape of at least 2 axes. Use Zeros for a vector", f"{shape=}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        Q, R = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        Q *= self.gain * np.copysign(1.0, np.diag(R))  # a positive diagonal of R makes all Q equally likely
        return np.ascontiguousarray(Q if rows >= columns else Q.T).reshape(shape)  # in the order that files have


@dataclass(frozen=True)
class _VarianceScaling(Initializer):
    """E W = 0,   Var W = scale / fan:   the base class of the six initializers below

    The normal initializers truncate at 2 standard deviations of the original normal distribution, as in Keras. Var W is
    the variance after truncation.
    """

    scale: ClassVar[float]
    fan: ClassVar[str]  # "in", or "average" of in and out
    distribution: ClassVar[str]  # "uniform" or "normal"

    def __call__(self, rng, shape, fan_in=None, fan_out=None):
        fans = _fans(shape)
        fan_in = fans[0] if fan_in is None else fan_in
        fan_out = fans[1] if fan_out is None else fan_out
        variance = self.scale / max(1, fan_in if self.fan == "in" else (fan_in + fan_out) / 2)
        if self.distribution == "normal":
            return TruncatedNormal(stddev=math.sqrt(variance) / _STDDEV_AFTER_CUT)(rng, shape)
        a = math.sqrt(3 * variance)
        return RandomUniform(-a, a)(rng, shape)


@dataclass(frozen=True)
class LecunUniform(_VarianceScaling):
    """W ~ U(-a, a),   a = sqrt(3 / fan_in)

    Y. LeCun et al., "Efficient BackProp", 1998.
    """

    scale, fan, distribution = 1, "in", "uniform"


@dataclass(frozen=True)
class LecunNormal(_VarianceScaling):
    """W ~ N(0, 1 / fan_in), truncated at 2 standard deviations

    Y. LeCun et al., "Efficient BackProp", 1998. `SELU` relies on it (G. Klambauer et al., "Self-normalizing neural
    networks", NIPS 2017).
    """

    scale, fan, distribution = 1, "in", "normal"


@dataclass(frozen=True)
class GlorotUniform(_VarianceScaling):
    """W ~ U(-a, a),   a = sqrt(6 / (fan_in + fan_out));   also called Xavier

    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010.
    """

    scale, fan, distribution = 1, "average", "uniform"


@dataclass(frozen=True)
class GlorotNormal(_VarianceScaling):
    """W ~ N(0, 2 / (fan_in + fan_out)), truncated at 2 standard deviations;   also called Xavier

    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010.
    """

    scale, fan, distribution = 1, "average", "normal"


@dataclass(frozen=True)
class HeUniform(_VarianceScaling):
    """W ~ U(-a, a),   a = sqrt(6 / fan_in)

    K. He et al., "Delving deep into rectifiers", ICCV 2015. The variance is twice LeCun's, because ReLU halves it.
    """

    scale, fan, distribution = 2, "in", "uniform"


@dataclass(frozen=True)
class HeNormal(_VarianceScaling):
    """W ~ N(0, 2 / fan_in), truncated at 2 standard deviations

    K. He et al., "Delving deep into rectifiers", ICCV 2015. The variance is twice LeCun's, because ReLU halves it.
    """

    scale, fan, distribution = 2, "in", "normal"


def get(initializer):
    """Return the initializer with this name, such as "glorot_uniform", with its default settings, or an object unchanged.

    Your own function is called in the same way as an initializer. The shape of its result is checked.
    """
    if isinstance(initializer, str) and initializer in _BY_NAME:
        return _BY_NAME[initializer]()
    if not callable(initializer) or isinstance(initializer, type):
        raise unknown_name(
            "An initializer must be an object such as HeNormal() or one of", initializer, _BY_NAME, _ELSEWHERE
        )
    if isinstance(initializer, Initializer):
        return initializer

    def checked(rng, shape, *fans, **named_fans):
        values = np.asarray(initializer(rng, shape, *fans, **named_fans))
        require(values.shape == tuple(shape), f"{initializer} must return an array of shape {shape}", values.shape)
        return values

    return checked


def draw(initializer, rng, shape, **fans):
    """Draw a parameter with an initializer or the name of one."""
    return rng.array(shape) if isinstance(rng, ShapesOnly) else get(initializer)(rng, shape, **fans)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    window = math.prod(shape[:-2])
    return (window * shape[-2], window * shape[-1]) if len(shape) >= 2 else (math.prod(shape),) * 2


_STDDEV_AFTER_CUT = 0.87962566103423978  # the standard deviation of z ~ N(0, 1) given |z| <= 2
_BY_NAME: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "orthogonal": Orthogonal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
}
_ELSEWHERE = {
    "xavier": '"glorot_uniform"',
    "xavieruniform": '"glorot_uniform"',
    "xaviernormal": '"glorot_normal"',
    "kaiminguniform": '"he_uniform"',
    "kaimingnormal": '"he_normal"',
    "he": '"he_normal" or "he_uniform"',
    "normal": '"random_normal"',
    "uniform": '"random_uniform"',
}
