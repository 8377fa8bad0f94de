"""The base class of the optimizers: penalties, clipping, weight decay, and one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import reduce

from xpnet import schedules
from xpnet.backend import namespace
from xpnet.backend.elementwise import map_elements
from xpnet.checks import set_numbers
from xpnet.tree import Array, Tree, from_leaves, leaves, map_leaves, named_leaves


@dataclass(frozen=True)
class Optimizer(ABC):
    """The base class of the optimizers

    Each update applies these in order:

    1. The penalties: g += l2 W + l1 sign(W), the gradient of l2/2 ΣW² + l1 Σ|W|, for weights only. Biases and a
       normalization's scale and offset are not penalized.
    2. Clipping of the gradients.
    3. Decoupled weight decay: W -= learning_rate · weight_decay · W, for weights only. It does not enter the moment
       estimates (I. Loshchilov and F. Hutter, ICLR 2019).
    4. The optimizer's own step.

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.01
    weight_decay : float, default 0.0
        Rate of the decoupled weight decay, multiplied by the learning rate.
    l1, l2 : float, default 0.0
        Factors of the penalties.
    clipvalue : float, optional
        Clip each element of a gradient to ±clipvalue.
    clipnorm : float, optional
        Scale each parameter's gradient down to this Euclidean norm. Its squares neither overflow nor underflow.
    global_clipnorm : float, optional
        Scale all gradients down together to this norm. R. Pascanu et al., ICML 2013.

    Raises
    ------
    ValueError
        A setting is out of range, or more than one of the clip settings is given.
    """

    learning_rate: float | Callable[[int], float] = 0.01
    _: KW_ONLY
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    clipvalue: float | None = None
    clipnorm: float | None = None
    global_clipnorm: float | None = None

    def __post_init__(self):
        schedules.get(self.learning_rate)
        set_numbers(self, "[0, inf)", "weight_decay", "l1", "l2")
        limits = [name for name in ("clipvalue", "clipnorm", "global_clipnorm") if getattr(self, name) is not None]
        set_numbers(self, "(0, inf)", *limits)
        if len(limits) > 1:
            raise ValueError(
                f"Set at most one of clipvalue, clipnorm and global_clipnorm. Received: {', '.join(limits)}"
            )

    @abstractmethod
    def init(self, params: Tree) -> Tree:
        """Return the state before the first step."""

    @abstractmethod
    def step(self, params: Tree, grads: Tree, state: Tree, learning_rate: Array) -> tuple[Tree, Tree]:
        """Apply the optimizer's own formula -> new parameters, new state."""

    def update(self, params: Tree, grads: Tree, state: Tree, learning_rate: Array) -> tuple[Tree, Tree]:
        """One step -> new parameters, new state.

        `update` may overwrite its arguments; copy what you need first (`Backend.copy`). The gradients must not share
        memory: a shared array would be updated twice.
        """
        if self.l1 or self.l2:
            grads = _map_weights(self._add_penalty, grads, params)
        grads = self._clip(grads)
        if self.weight_decay:
            params = _map_weights(lambda W: W * (1.0 - learning_rate * self.weight_decay), params)
        return self.step(params, grads, state, learning_rate)

    def _add_penalty(self, g, W):
        if self.l2:
            g += self.l2 * W
        if self.l1:
            g += self.l1 * namespace(W).sign(W)
        return g

    def _clip(self, grads):
        if self.clipvalue is not None:
            c = self.clipvalue
            return map_elements(lambda g: namespace(g).minimum(namespace(g).maximum(g, -c), c), grads)
        if self.clipnorm is not None:
            return map_leaves(lambda g: _limit_norm([g], self.clipnorm)(g), grads)
        if self.global_clipnorm is not None:
            return map_elements(_limit_norm(leaves(grads), self.global_clipnorm), grads)
        return grads


def _limit_norm(arrays, limit):
    """Return a rule that scales elements down so that the norm over all of `arrays` is at most `limit`.

    The norm is c r, where c is the largest absolute value and r is the norm of the elements divided by c, so squares
    neither overflow nor underflow. 1/c is applied as two factors, because it can exceed float32. Below the limit the rule
    does not change a bit. Infinite and NaN elements remain, so that the divergence guard finds them.
    """
    xp = namespace(arrays[0])
    c = reduce(xp.maximum, [xp.max(xp.abs(g)) for g in arrays])
    c = xp.maximum(c, 1e-19)  # squares of 1e-38 / 1e-19 do not underflow, and limit/c is finite even for zeros
    root = c**-0.5
    r = xp.sqrt(sum(xp.sum((g * root * root) ** 2) for g in arrays))
    above = r > limit / c
    first = xp.where(above, root, 1.0)
    second = xp.where(above, root * (limit / xp.maximum(r, 1e-19)), 1.0)

    def rule(g):
        g *= first
        g *= second
        return g

    return rule


def _map_weights(function, tree, *others):
    """Apply `function` to the leaves whose name ends in "weight"; return the other leaves unchanged."""
    groups = zip(named_leaves(tree), *map(leaves, others), strict=True)
    return from_leaves(tree, [function(a, *b) if name.endswith("weight") else a for (name, a), *b in groups])


def zeros(params):
    return map_leaves(lambda p: namespace(p).zeros_like(p), params)
