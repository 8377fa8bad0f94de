"""The losses of scikit-learn's networks: xpnet's losses with the factors and limits that scikit-learn gives them.

`Loss` takes the mean of `elements` over samples and outputs. Scikit-learn takes the mean over samples and, in most losses, the
sum over outputs. A factor k, the number of outputs, turns the one into the other.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from xpnet.backend import namespace
from xpnet.losses import BinaryCrossEntropy, Loss, MeanSquaredError, Poisson, SoftmaxCrossEntropy


@dataclass(frozen=True)
class LogLoss(Loss):
    """l = Σ -log p, where p, the probability of the true answer, is clipped to [ε, 1 - ε];   dz as without clipping

    The sum is over outputs, and ε is the spacing of the floating type at 1.

    Parameters
    ----------
    loss : SoftmaxCrossEntropy or BinaryCrossEntropy
        -log p.
    """

    loss: Loss

    of_classes = True

    def targets(self, y, z):
        return self.loss.targets(y, z)

    def elements(self, y, z):
        xp = namespace(z)
        epsilon = float(xp.finfo(z.dtype).eps)
        l, dz = self.loss.elements(y, z)
        l = xp.minimum(xp.maximum(l, -math.log1p(-epsilon)), -math.log(epsilon))
        if (k := l.shape[-1]) > 1:
            l *= k
            dz *= k
        return l, dz

    def activation(self, z):
        return self.loss.activation(z)


@dataclass(frozen=True)
class HalfSquaredError(Loss):
    """l = mean ½ (z - y)²,   dz = z - y   (mean over outputs)

    As in scikit-learn, dz is the derivative of the sum over outputs, so with k outputs the step is k times as large.
    """

    loss = MeanSquaredError()

    def elements(self, y, z):
        l, dz = self.loss.elements(y, z)
        l *= 0.5
        dz *= 0.5 * z.shape[-1]
        return l, dz


@dataclass(frozen=True)
class HalfPoissonDeviance(Loss):
    """l = Σ (eᶻ - y z) + Σ (y log y - y),   dz = eᶻ - y   (sums over outputs)

    The second sum does not depend on z. With it, l is 0 where eᶻ = y.
    """

    loss = Poisson()

    target_range = (0, math.inf)

    def elements(self, y, z):
        xp, k = namespace(z), z.shape[-1]
        l, dz = self.loss.elements(y, z)
        l += y * xp.log(xp.where(y > 0, y, 1.0)) - y
        return k * l, k * dz

    def activation(self, z):
        return self.loss.activation(z)


@functools.cache
def log_loss(outputs: str) -> LogLoss:
    """Return the log-loss for the output activation ``"softmax"`` or ``"logistic"``."""
    return LogLoss(SoftmaxCrossEntropy(ignore_index=None) if outputs == "softmax" else BinaryCrossEntropy())
