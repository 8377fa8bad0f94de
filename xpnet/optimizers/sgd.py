"""Stochastic gradient descent with three forms of momentum."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.backend.fusion import map_elements, map_elements_to_trees
from xpnet.checks import set_booleans, set_numbers
from xpnet.optimizers.base import Optimizer, zeros


@dataclass(frozen=True)
class SGD(Optimizer):
    """v = m v - lr g,   p = p + v   (without momentum: p = p - lr g)

    - ``nesterov=True``: p = p + m v - lr g, with v as above. I. Sutskever et al., ICML 2013.
    - ``moving_average=True``: v = m v + (1 - m) g, p = p - lr v. The velocity is the exponential moving average of the
      gradient. The parameters follow the same path as with the first form ("heavy-ball", B. Polyak 1964) and the learning
      rate (1 - m) lr.

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.01
    momentum : float, default 0.0
        m, in [0, 1].
    nesterov, moving_average : bool, default False
        Use one of the other two forms of momentum.
    weight_decay, l1, l2 : float or dict of path -> float, default 0.0
        Decoupled weight decay, and the L1 and L2 penalties on weights: see `Optimizer`.
    clipvalue, clipnorm, global_clipnorm : float, optional
        Limits on the gradients: see `Optimizer`.

    Raises
    ------
    ValueError
        A setting is out of range; `nesterov` or `moving_average` is set without `momentum`, or both are set.
    """

    momentum: float = 0.0
    nesterov: bool = False
    moving_average: bool = False

    def __post_init__(self):
        super().__post_init__()
        set_numbers(self, "[0, 1]", "momentum")
        set_booleans(self, "nesterov", "moving_average")
        if self.nesterov + self.moving_average > (self.momentum > 0):
            raise ValueError(
                "nesterov and moving_average are forms of momentum. Set momentum > 0 and at most one of them. Received: "
                f"momentum={self.momentum}, nesterov={self.nesterov}, moving_average={self.moving_average}"
            )

    def init(self, params):
        return {self._memory: zeros(params)} if self.momentum else {}

    @property
    def _memory(self):
        return "average" if self.moving_average else "velocity"

    def step(self, params, grads, state, learning_rate):
        m, rate = self.momentum, -learning_rate

        def plain(p, g):
            g *= rate
            g += p
            return g

        def heavy_ball(p, g, v):
            v *= m
            g *= rate
            v += g
            return p + v, v

        def nesterov(p, g, v):
            v *= m
            g *= rate
            v += g
            p = p + m * v
            p += g
            return p, v

        def moving_average(p, g, v):
            v *= m
            g *= 1 - m
            v += g
            return p + rate * v, v

        if not m:
            return map_elements(plain, params, grads), state
        rule = nesterov if self.nesterov else moving_average if self.moving_average else heavy_ball
        params, memory = map_elements_to_trees(rule, params, grads, state[self._memory])
        return params, {self._memory: memory}
