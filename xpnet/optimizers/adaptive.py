"""Optimizers that adapt the step size of each parameter: Adam, AdamW, RMSprop, Adagrad.

All of them add ε to the root, √s + ε, with the defaults of PyTorch. Keras adds it inside the root in RMSprop and Adagrad,
√(s + ε), with the default 1e-7, so its steps are shorter where gradients are about 1e-5 or less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from xpnet.backend import device, namespace
from xpnet.backend.fusion import fused, map_elements, map_elements_to_trees
from xpnet.checks import set_numbers
from xpnet.optimizers.base import Factor, Optimizer, zeros
from xpnet.tree import leaves, map_leaves


@dataclass(frozen=True)
class _Adam(Optimizer):
    """The settings and the formula of Adam."""

    learning_rate: float | Callable[[int], float] = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        set_numbers(self, "[0, 1)", "beta_1", "beta_2")
        set_numbers(self, "(0, inf)", "epsilon")

    def init(self, params):
        first = leaves(params)[0]
        t = namespace(first).zeros((), dtype=first.dtype, device=device(first))
        return {"m": zeros(params), "v": zeros(params), "t": t}

    def step(self, params, grads, state, learning_rate):
        def corrections(t):
            t = t + 1
            m_rate = learning_rate / _one_minus_power(self.beta_1, t)  # lr m̂ = m_rate m
            return t, m_rate, 1.0 / _one_minus_power(self.beta_2, t)

        def rule(p, g, m, v):
            m *= self.beta_1
            m += (1 - self.beta_1) * g
            v *= self.beta_2
            g *= g
            g *= 1 - self.beta_2
            v += g
            root = namespace(v).sqrt(v * v_scale)
            root += self.epsilon
            return p - m_rate * m / root, m, v

        t, m_rate, v_scale = fused(corrections, state["t"])
        params, m, v = map_elements_to_trees(rule, params, grads, state["m"], state["v"])
        return params, {"m": m, "v": v, "t": t}


def _one_minus_power(beta, t):
    """1 - βᵗ without cancellation."""
    return -namespace(t).expm1(t * math.log(beta)) if beta else 1.0


@dataclass(frozen=True)
class Adam(_Adam):
    """m = β₁ m + (1-β₁) g,   v = β₂ v + (1-β₂) g²,   p = p - lr m̂ / (√v̂ + ε),   m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ)

    t counts the steps from 1. D. Kingma and J. Ba, "Adam", ICLR 2015.

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.001
    beta_1, beta_2 : float, default 0.9 and 0.999
        β₁ and β₂, the decay rates of the averages, in [0, 1).
    epsilon : float, default 1e-8
        ε, added outside the root as in PyTorch and Keras; the default is PyTorch's (Keras: 1e-7).
    weight_decay, l1, l2 : float or dict of path -> float, default 0.0
        Decoupled weight decay, and the L1 and L2 penalties on weights: see `Optimizer`.
    clipvalue, clipnorm, global_clipnorm : float, optional
        Limits on the gradients: see `Optimizer`.

    Raises
    ------
    ValueError
        A setting is out of range.
    """


@dataclass(frozen=True)
class AdamW(_Adam):
    """Adam with decoupled weight decay: W = W - lr · weight_decay · W for the weights, then Adam's step

    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As in `Adam`, with the same defaults.
    weight_decay : float or dict of path -> float, default 0.004
    l1, l2 : float or dict of path -> float, default 0.0
        The L1 and L2 penalties on weights: see `Optimizer`.
    clipvalue, clipnorm, global_clipnorm : float, optional
        Limits on the gradients: see `Optimizer`.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    _: KW_ONLY
    weight_decay: Factor = 0.004


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s = ρ s + (1-ρ) g²,   p = p - lr g / (√s + ε)   (with momentum: v = m v + lr g / (√s + ε), p = p - v)

    T. Tieleman and G. Hinton, Coursera lecture 6.5 (2012).

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.001
    rho : float, default 0.9
        ρ, the decay rate of the average, in [0, 1).
    momentum : float, default 0.0
        m, in [0, 1).
    epsilon : float, default 1e-8
        ε, added outside the root; the place and the default are PyTorch's (Keras: √(s + ε), 1e-7).
    weight_decay, l1, l2 : float or dict of path -> float, default 0.0
        Decoupled weight decay, and the L1 and L2 penalties on weights: see `Optimizer`.
    clipvalue, clipnorm, global_clipnorm : float, optional
        Limits on the gradients: see `Optimizer`.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    learning_rate: float | Callable[[int], float] = 0.001
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        set_numbers(self, "[0, 1)", "rho", "momentum")
        set_numbers(self, "(0, inf)", "epsilon")

    def init(self, params):
        return {"square": zeros(params)} | ({"velocity": zeros(params)} if self.momentum else {})

    def step(self, params, grads, state, learning_rate):
        def scaled(g, s):
            s *= self.rho
            s += (1 - self.rho) * (g * g)
            root = namespace(s).sqrt(s)
            root += self.epsilon
            g *= learning_rate
            g /= root
            return g, s

        def descend(p, step):
            return p - step

        def descend_with_momentum(p, step, v):
            v *= self.momentum
            v += step
            return p - v, v

        steps, square = map_elements_to_trees(scaled, grads, state["square"])
        if not self.momentum:
            return map_elements(descend, params, steps), {"square": square}
        params, velocity = map_elements_to_trees(descend_with_momentum, params, steps, state["velocity"])
        return params, {"square": square, "velocity": velocity}


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s = s + g²,   p = p - lr g / (√s + ε)

    J. Duchi et al., "Adaptive subgradient methods", JMLR 12 (2011).

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.001
    initial_accumulator_value : float, default 0.1
        s before the first step.
    epsilon : float, default 1e-10
        ε, added outside the root; the place and the default are PyTorch's (Keras: √(s + ε), 1e-7).
    weight_decay, l1, l2 : float or dict of path -> float, default 0.0
        Decoupled weight decay, and the L1 and L2 penalties on weights: see `Optimizer`.
    clipvalue, clipnorm, global_clipnorm : float, optional
        Limits on the gradients: see `Optimizer`.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    learning_rate: float | Callable[[int], float] = 0.001
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-10

    def __post_init__(self):
        super().__post_init__()
        set_numbers(self, "[0, inf)", "initial_accumulator_value")
        set_numbers(self, "(0, inf)", "epsilon")

    def init(self, params):
        return {"square_sum": map_leaves(lambda s: s + self.initial_accumulator_value, zeros(params))}

    def step(self, params, grads, state, learning_rate):
        def rule(p, g, s):
            s += g * g
            root = namespace(s).sqrt(s)
            root += self.epsilon
            g *= learning_rate
            g /= root
            return p - g, s

        params, square_sum = map_elements_to_trees(rule, params, grads, state["square_sum"])
        return params, {"square_sum": square_sum}
