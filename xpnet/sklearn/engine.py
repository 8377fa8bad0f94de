"""An estimator's network on a backend: outputs, losses and training."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize

from xpnet.backend import Backend, namespace, quiet
from xpnet.layers.sequential import Sequential
from xpnet.losses import Loss
from xpnet.optimizers import SGD, Optimizer
from xpnet.sklearn import lbfgs
from xpnet.sklearn.rows import on_device
from xpnet.sklearn.step import Objective, PenalizedStep
from xpnet.step import Inference, Scores, TrainingStep
from xpnet.tree import Array, Tree, from_leaves, leaves
from xpnet.workshop import Workshop, keep_recent

ROWS_AT_ONCE = 4096  # in predictions


class Engine:
    """A network, a loss and a backend.

    Parameters
    ----------
    backend : Backend
    network : Sequential
    loss : Loss
    workshop : Workshop
        Keeps the functions for which code is compiled.
    """

    def __init__(self, backend: Backend, network: Sequential, loss: Loss, workshop: Workshop):
        self.backend, self.network, self.loss, self.workshop = backend, network, loss, workshop
        self.inference = Inference(network, backend.dtype)

    def keep(self, function: Any) -> Any:
        """Return one function for all equal functions, so that code is compiled once."""
        if not self.backend.compiles:
            return function
        kept = self.workshop.keep(self.backend.name, function)
        keep_recent([kept])
        return kept

    def step(self, optimizer: Optimizer, alpha: float) -> PenalizedStep:
        """Return the training step. The optimizer's own learning rate is not used."""
        return self.keep(PenalizedStep(TrainingStep(self.inference, Scores(self.loss, ()), optimizer), float(alpha)))

    def logits(self, arrays: dict[str, Tree], X: Any) -> Array:
        """Return the network's outputs without their activation, on the device."""
        function, multiplications = self.keep(self.inference), count_multiplications(arrays["params"])
        state = {"params": arrays["params"], "statistics": arrays["statistics"]}
        parts = []
        for start in range(0, X.shape[0], ROWS_AT_ONCE):
            x = on_device(self.backend, X if X.shape[0] <= ROWS_AT_ONCE else X[start : start + ROWS_AT_ONCE, :])
            with self.backend.limited_threads(x.shape[0] * multiplications):
                parts.append(self.backend.call(function, state, {"x": x}))
        return parts[0] if len(parts) == 1 else self.backend.namespace.concat(parts)

    @quiet
    def answers(self, z: Array) -> Array:
        """Return the activated outputs, on the device."""
        return self.loss.activation(z)

    @quiet
    def loss_of(self, z: Array, targets: dict[str, np.ndarray]) -> float:
        """Return the loss of these outputs, without the penalty."""
        y, weight = self.backend.asarray(targets["y"]), targets.get("weight")
        loss, _ = self.loss(y, z, None if weight is None else self.backend.asarray(weight))
        return float(loss)

    def minimize(
        self, arrays: dict[str, Tree], X: Any, targets: dict[str, np.ndarray], alpha: float, **limits: Any
    ) -> tuple[Tree, optimize.OptimizeResult]:
        """Minimize the loss over all samples by L-BFGS. Return the parameters and the result.

        On NumPy, SciPy's L-BFGS-B runs, as in scikit-learn. On other backends, the vectors stay on the device. Only
        dense networks are supported, because the objective must be a function of the parameters.
        """
        backend, params = self.backend, arrays["params"]
        batch = {name: backend.asarray(values) for name, values in targets.items()} | {"x": on_device(backend, X)}
        objective = self.keep(Objective(self.step(SGD(), alpha)))
        multiplications = X.shape[0] * count_multiplications(params)

        def value_and_gradient(flat: Array) -> tuple[Any, Array]:
            state = {"params": unpack(params, flat), "statistics": arrays["statistics"]}
            value, grads = backend.call(objective, state, batch)
            return value, pack(backend, grads)

        with backend.limited_threads(multiplications):
            start = pack(backend, params)
            if backend.name == "numpy":
                result = optimize.minimize(
                    value_and_gradient, start, method="L-BFGS-B", jac=True,
                    options={"maxfun": limits["max_fun"], "maxiter": limits["max_iter"], "gtol": limits["gtol"]},
                )  # fmt: skip
            else:
                result = lbfgs.minimize(value_and_gradient, start, **limits)
        return unpack(params, result.x), result


def count_multiplications(params: Tree) -> int:
    """Return the number of multiplications for one sample."""
    return sum(x.shape[0] * x.shape[1] for x in leaves(params))


def pack(backend: Backend, tree: Tree) -> Array:
    """Join all arrays of a tree to one flat array."""
    xp = backend.namespace
    return xp.concat([xp.reshape(x, (-1,)) for x in leaves(tree)])


def unpack(like: Tree, flat: Array) -> Tree:
    """Split a flat array into a tree with the shapes of `like`."""
    parts, start = [], 0
    for x in leaves(like):
        size = x.shape[0] * x.shape[1]
        parts.append(namespace(flat).reshape(flat[start : start + size], x.shape))
        start += size
    return from_leaves(like, parts)
