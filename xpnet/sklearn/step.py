"""The training step with scikit-learn's L2 penalty, which depends on the batch, and scikit-learn's form of Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xpnet.backend import namespace
from xpnet.backend.fusion import for_each
from xpnet.optimizers import Optimizer
from xpnet.optimizers.base import zeros
from xpnet.step import TrainingStep
from xpnet.tree import Array, Tree, from_leaves, leaves


@dataclass(frozen=True)
class PenalizedStep:
    """A training step whose loss is increased by α/2 Σ W² / Σ w:   dW += α W / Σ w   (w: weights of the batch's samples)

    The optimizers' `l2` is a constant. Here the factor depends on the batch: the last one is smaller, and weights differ.

    Parameters
    ----------
    step : TrainingStep
    alpha : float
        α.
    """

    step: TrainingStep
    alpha: float

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[dict[str, Tree], dict[str, Tree]]:
        grads, statistics, record = self.gradients(state, batch)
        return self.step.update(state, grads, statistics, batch["learning_rate"]), record

    def gradients(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Like `TrainingStep.gradients`, with the penalty."""
        grads, statistics, record = self.step.gradients(state, batch)
        if not self.alpha:
            return grads, statistics, record
        if (total := record.pop("weight", None)) is None:
            factor = self.alpha / batch["x"].shape[0]
        else:
            xp = namespace(total)
            factor = xp.where(total > 0, self.alpha / xp.where(total > 0, total, 1.0), 0.0)
        squares: Any = 0.0
        for params, gradients in zip(state["params"], grads, strict=True):  # of each layer
            if (W := params.get("weight")) is not None:
                flat = namespace(W).reshape(W, (-1,))
                squares = squares + flat @ flat
                gradients["weight"] += factor * W
        record["loss"] = record["loss"] + 0.5 * factor * squares
        return grads, statistics, record


@dataclass(frozen=True)
class TogetherStep:
    """`PenalizedStep` for K networks on a leading axis, without sample weights

    ``batch["penalty"]``, (K, 1, 1), holds each α / batch, and ``batch["learning_rate"]`` each rate.

    Parameters
    ----------
    step : TrainingStep
    """

    step: TrainingStep

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[dict[str, Tree], dict[str, Tree]]:
        grads, statistics, record = self.step.gradients(state, batch)
        factor = batch["penalty"]
        squares: Any = 0.0
        for params, gradients in zip(state["params"], grads, strict=True):  # of each layer
            if (W := params.get("weight")) is not None:
                flat = namespace(W).reshape(W, (W.shape[0], 1, -1))
                squares = squares + flat @ flat.mT
                gradients["weight"] += factor * W
        record["loss"] = record["loss"] + (0.5 * factor * squares)[:, 0, 0]
        return self.step.update(state, grads, statistics, batch["learning_rate"]), record


@dataclass(frozen=True)
class Objective:
    """``loss, grads = objective(state, batch)``: the function that L-BFGS minimizes."""

    step: PenalizedStep

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[Array, Tree]:
        grads, _, record = self.step.gradients(state, batch)
        return record["loss"], grads


@dataclass(frozen=True)
class EfficientAdam(Optimizer):
    """m = β₁ m + g,   v = β₂ v + g²,   p = p - r m / (√v + ε')

    This is the form with fewer operations of D. Kingma and J. Ba, "Adam" (2015, section 2), which scikit-learn uses: ε is
    compared with √v before the correction of the bias, while `xpnet.Adam` compares it with √v̂. The averages lack their
    factors 1 - β₁ and 1 - β₂. `Solver.rates` puts these and the corrections into the learning rate r, and ε' = ε / √(1-β₂).

    Parameters
    ----------
    beta_1, beta_2, epsilon : float
        β₁, β₂ and ε.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def init(self, params):
        return {"m": tuple(map(zeros, leaves(params))), "v": tuple(map(zeros, leaves(params)))}

    def step(self, params, grads, state, learning_rate):
        epsilon = self.epsilon / math.sqrt(1 - self.beta_2)

        def rule(p, g, m, v):
            m *= self.beta_1
            m += g
            g *= g
            v *= self.beta_2
            v += g
            root = namespace(v).sqrt(v)
            root += epsilon
            step = m / root
            step *= learning_rate
            return p - step, m, v

        groups = zip(leaves(params), leaves(grads), state["m"], state["v"], strict=True)
        p, m, v = zip(*for_each(rule, groups), strict=True)
        return from_leaves(params, p), {"m": m, "v": v}
