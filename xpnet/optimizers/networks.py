"""An optimizer for several networks on a leading axis, each with its own learning rate and weight decay."""

from __future__ import annotations

from dataclasses import dataclass, field

from xpnet.backend import device, namespace
from xpnet.optimizers.base import Optimizer, map_weights
from xpnet.tree import Array, Tree, leaves


@dataclass(frozen=True)
class PerNetwork(Optimizer):
    """The steps of another optimizer with the learning rate lr_k = rate_k · learning_rate and W -= lr_k · decay_k · W

    The state holds rate_k and decay_k of the K networks, of shape (K, 1, 1), beside parameters of shape (K, in, out). They are
    1 and 0 until they are set. A network with the rate 0 stays as it is.

    Parameters
    ----------
    optimizer : Optimizer
        Its own learning rate is not used.
    decays : bool
        Whether networks have weight decays, in place of the optimizer's.
    """

    optimizer: Optimizer = field(kw_only=True)
    decays: bool = field(default=False, kw_only=True)

    def init(self, params: Tree) -> Tree:
        first = leaves(params)[0]
        ones = namespace(first).ones((first.shape[0], 1, 1), dtype=first.dtype, device=device(first))
        state = {"memory": self.optimizer.init(params), "rate": ones}
        return state | {"decay": 0.0 * ones} if self.decays else state

    def step(self, params: Tree, grads: Tree, state: Tree, learning_rate: Array) -> tuple[Tree, Tree]:
        rate = state["rate"] * learning_rate
        if self.decays:
            kept = 1.0 - rate * state["decay"]
            params = map_weights(lambda _, W: W * kept, params)
        params, memory = self.optimizer.update(params, grads, state["memory"], rate)
        return params, state | {"memory": memory}
