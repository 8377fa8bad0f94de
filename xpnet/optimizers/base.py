"""What all optimizers share: penalties, clipping, weight decay, and the step from parameters to parameters."""

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
    """What all optimizers share: regularization and clipping of the gradient, in this order, then weight decay.

    ``weight`` leaves only (not biases, not the scale and offset of a normalization): g += l2 W + l1 sign(W), the gradient
    of l2/2 ΣW² + l1 Σ|W|. Then clipping. Then "decoupled" weight decay, W -= learning_rate · weight_decay · W
    (I. Loshchilov and F. Hutter, ICLR 2019), which no moment estimate sees.

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.01
    weight_decay, l1, l2 : float, default 0.0
    clipvalue : float, optional
        Each element of a gradient is kept within ±clipvalue.
    clipnorm : float, optional
        Each parameter's gradient is scaled down to this Euclidean norm, whatever its size: squares neither overflow nor vanish.
    global_clipnorm : float, optional
        All gradients are scaled down together to this norm. R. Pascanu et al., ICML 2013.

    Raises
    ------
    ValueError
        A setting is out of range, or more than one way to clip is given; this holds for all optimizers.
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
                f"Give at most one of clipvalue, clipnorm and global_clipnorm. Received: {', '.join(limits)}"
            )

    @abstractmethod
    def init(self, params: Tree) -> Tree:
        """The state before the first step."""

    @abstractmethod
    def step(self, params: Tree, grads: Tree, state: Tree, learning_rate: Array) -> tuple[Tree, Tree]:
        """The method's own rule."""

    def update(self, params: Tree, grads: Tree, state: Tree, learning_rate: Array) -> tuple[Tree, Tree]:
        """One step -> new parameters, new state.

        All that is given is given away: its memory may be overwritten. To look at a gradient or keep a state, do so before, or
        keep a copy (`Backend.copy`). Each gradient must be an array of its own: two leaves in one memory would be updated in
        turn.
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
    """A rule that scales elements down so that the norm over all of `arrays` is at most `limit`.

    The norm is c r, c the largest absolute value and r the norm of the elements divided by c: squares neither overflow nor
    vanish. 1/c is taken in two factors, because float32 may not hold it. Below the limit the rule changes no bit. Infinite
    and NaN elements stay, for the divergence guard to find.
    """
    xp = namespace(arrays[0])
    c = reduce(xp.maximum, [xp.max(xp.abs(g)) for g in arrays])
    c = xp.maximum(c, 1e-19)  # no smaller: squares of 1e-38 / 1e-19 do not vanish, and limit/c is finite for zeros too
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
    """Apply `function` to the leaves named weight, and leave the others as they are."""
    groups = zip(named_leaves(tree), *map(leaves, others), strict=True)
    return from_leaves(tree, [function(a, *b) if name.endswith("weight") else a for (name, a), *b in groups])


def zeros(params):
    return map_leaves(lambda p: namespace(p).zeros_like(p), params)
