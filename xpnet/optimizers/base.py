"""The base class of the optimizers: penalties, clipping, weight decay, and one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import reduce

from xpnet import schedules
from xpnet.backend import namespace
from xpnet.backend.fusion import map_elements
from xpnet.checks import number, set_numbers
from xpnet.keywords import AbstractSettings
from xpnet.tree import Array, Tree, from_leaves, leaves, map_leaves, named_leaves

Factor = float | Mapping[str, float] | tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Optimizer(metaclass=AbstractSettings):
    """The base class of the optimizers

    Each update applies these in order:

    1. The penalties: g += l2 W + l1 sign(W), the gradient of l2/2 ΣW² + l1 Σ|W|, for weights only. Biases and a
       normalization's gamma and beta are not penalized.
    2. Clipping of the gradients.
    3. Decoupled weight decay: W -= learning_rate · weight_decay · W, for weights only. It does not enter the moment
       estimates (I. Loshchilov and F. Hutter, ICLR 2019).
    4. The optimizer's own step.

    Parameters
    ----------
    learning_rate : float, Schedule or callable of the step, default 0.01
    weight_decay : float or dict of path -> float, default 0.0
        The rate of the decoupled weight decay, multiplied by the learning rate. A dict sets it by path, as in `l2`.
    l1, l2 : float or dict of path -> float, default 0.0
        Factors of the penalties. ``l2={"0": 1e-4, "2.1": 1e-3}`` applies to the layers at these paths and all layers inside
        them; the longest matching path decides. Other layers have no penalty.
    clipvalue : float, optional
        Clip each element of a gradient to ±clipvalue.
    clipnorm : float, optional
        Scale each parameter's gradient down to this Euclidean norm. Computing the norm neither overflows nor underflows.
    global_clipnorm : float, optional
        Scale all gradients down together to this norm. R. Pascanu et al., ICML 2013.

    Raises
    ------
    ValueError
        A setting is out of range, or more than one of the clip settings is given.
    """

    learning_rate: float | Callable[[int], float] = 0.01
    _: KW_ONLY
    weight_decay: Factor = 0.0
    l1: Factor = 0.0
    l2: Factor = 0.0
    clipvalue: float | None = None
    clipnorm: float | None = None
    global_clipnorm: float | None = None

    def __post_init__(self) -> None:
        schedules.get(self.learning_rate)
        for name in ("weight_decay", "l1", "l2"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
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
        """Apply the optimizer's formula. Return the new parameters and the new state."""

    def update(self, params: Tree, grads: Tree, state: Tree, learning_rate: Array) -> tuple[Tree, Tree]:
        """Take one step. Return the new parameters and the new state.

        `update` may overwrite its arguments; copy what you need first (`Backend.copy`). The gradients must not share
        memory: a shared array would be updated twice.
        """
        if self.l1 or self.l2:
            grads = map_weights(self._add_penalty, grads, params)
        grads = self._clip(grads)
        if self.weight_decay:
            params = map_weights(self._decay(learning_rate), params)
        return self.step(params, grads, state, learning_rate)

    @property
    def paths(self) -> set[str]:
        """The paths of layers in the optimizer's settings."""
        factors = (self.weight_decay, self.l1, self.l2)
        return {path for factor in factors if isinstance(factor, tuple) for path, _ in factor}

    def _add_penalty(self, name: str, g: Array, W: Array) -> Array:
        if l2 := _factor(self.l2, name):
            g += l2 * W
        if l1 := _factor(self.l1, name):
            g += l1 * namespace(W).sign(W)
        return g

    def _decay(self, learning_rate: Array) -> Callable[[str, Array], Array]:
        def decay(name: str, W: Array) -> Array:
            rate = _factor(self.weight_decay, name)
            return W * (1.0 - learning_rate * rate) if rate else W

        return decay

    def _clip(self, grads: Tree) -> Tree:
        if self.clipvalue is not None:
            c = self.clipvalue
            return map_elements(lambda g: namespace(g).minimum(namespace(g).maximum(g, -c), c), grads)
        if (limit := self.clipnorm) is not None:
            return map_leaves(lambda g: _limit_norm([g], limit)(g), grads)
        if self.global_clipnorm is not None:
            return map_elements(_limit_norm(leaves(grads), self.global_clipnorm), grads)
        return grads


def _limit_norm(arrays: list[Array], limit: float) -> Callable[[Array], Array]:
    """Return a rule that scales elements down so that the norm over all of `arrays` is at most `limit`.

    The norm is c r, where c is the largest absolute value and r is the norm of the elements divided by c, so squares
    neither overflow nor underflow. 1/c is applied as two factors, because it can exceed float32. Below the limit, the rule
    leaves every bit unchanged. Infinite and NaN elements remain, so that the divergence guard finds them.
    """
    xp = namespace(arrays[0])
    c = reduce(xp.maximum, [xp.max(xp.abs(g)) for g in arrays])
    c = xp.maximum(c, 1e-19)  # squares of 1e-38 / 1e-19 do not underflow, and limit/c is finite even for zeros
    root = c**-0.5
    r = xp.sqrt(sum(xp.sum((g * root * root) ** 2) for g in arrays))
    above = r > limit / c
    first = xp.where(above, root, 1.0)
    second = xp.where(above, root * (limit / xp.maximum(r, 1e-19)), 1.0)

    def rule(g: Array) -> Array:
        g *= first
        g *= second
        return g

    return rule


def map_weights(function: Callable[..., Array], tree: Tree, *others: Tree) -> Tree:
    """Apply ``function(name, leaf, ...)`` to the leaves whose name ends in "weight"; return the other leaves unchanged."""
    groups = zip(named_leaves(tree), *map(leaves, others), strict=True)
    return from_leaves(tree, [function(name, a, *b) if name.endswith("weight") else a for (name, a), *b in groups])


def _checked(name: str, factor: Factor) -> float | tuple[tuple[str, float], ...]:
    """Return a float, or a dict of path -> float as a tuple of pairs, which can be hashed."""
    if not isinstance(factor, Mapping | tuple):
        return number(name, factor, "[0, inf)")
    return tuple(sorted((path, number(f"{name}[{path!r}]", value, "[0, inf)")) for path, value in dict(factor).items()))


def _factor(factor: Factor, name: str) -> float:
    """Return the factor of the parameter with this name. The longest matching path decides."""
    if not isinstance(factor, tuple):
        return factor  # type: ignore[return-value]  # a dict became a tuple
    paths = [(path, value) for path, value in factor if name.startswith(f"{path}.")]
    return max(paths, key=lambda pair: len(pair[0]))[1] if paths else 0.0


def zeros(params: Tree) -> Tree:
    return map_leaves(lambda p: namespace(p).zeros_like(p), params)
