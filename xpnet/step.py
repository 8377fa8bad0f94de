"""Pure functions of a state and a batch: inference, evaluation, and the training step.

They hold frozen settings and no arrays, so a backend can hash, compile and scan them. Values that differ from step to step
(rows, learning rate, random key) are data in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from xpnet.backend import device, namespace
from xpnet.groups import ALONE, Group, accumulated, divide, in_order
from xpnet.layers import base
from xpnet.layers.base import Layer
from xpnet.layers.mapping import in_group
from xpnet.losses import Loss
from xpnet.metrics.base import BinnedMetric, Metric, at_least_one, means
from xpnet.optimizers import Optimizer
from xpnet.tree import Array, Tree, graft, map_leaves, prune


@dataclass(frozen=True)
class Inference:
    """``z = inference(state, batch)``: the network's output.

    The members of `group` compute it, each for some rows of the batch. Each computes its rows in `pieces`, one after the other.
    In training, a piece has at most `micro_batch_size` rows.
    """

    network: Layer
    dtype: Any
    group: Group = ALONE
    pieces: int = 1
    micro_batch_size: int | None = None

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> Array:
        return self.group.outputs(self, state, batch)

    def divided(self, group: Group, pieces: int) -> Inference:
        """Return the same function for another group and other pieces."""
        return replace(self, group=group, pieces=pieces)

    def outputs(self, state: dict[str, Tree], batch: dict[str, Array]) -> Array:
        """Return the network's output for rows of a batch."""
        pieces = divide({"x": batch["x"]}, self.pieces)
        params, statistics = state["params"], state["statistics"]
        return in_order([base.infer(self.network, params, self.floating(piece["x"]), statistics) for piece in pieces])

    def floating(self, x: Array) -> Array:
        """Convert a batch of bytes or other integers to floating point, unless the network needs integers."""
        return x if x.dtype == self.dtype or self.network.integer_input else namespace(x).astype(x, self.dtype)


@dataclass(frozen=True)
class Scores:
    """``record = scores(batch, z, loss)``: the batch's loss, its merged metric terms and, with weights, its total weight."""

    loss: Loss
    metrics: tuple[Metric, ...]

    def __call__(self, batch: dict[str, Array], z: Array, loss: Array) -> dict[str, Tree]:
        xp = namespace(z)
        record: dict[str, Tree] = {"loss": loss}
        y, z, weight = self.loss.rows(batch["y"], z, batch.get("weight"))
        if weight is not None:
            weight = xp.astype(weight, z.dtype, copy=False)
            record["weight"] = xp.sum(weight)
        elif any(metric.sums for metric in self.metrics):
            record["weight"] = xp.full((), z.shape[-2], dtype=z.dtype, device=device(z))
        prediction = self.loss.activation(z) if any(metric.on_predictions for metric in self.metrics) else None
        for metric in self.metrics:
            record[metric.name] = metric.state(y, prediction if metric.on_predictions else z, weight)
        return record

    def merge(self, records: Sequence[dict[str, Tree]], rows: list[int]) -> dict[str, Tree]:
        """Join the records of the parts of a batch, which have these numbers of rows."""
        loss = records[0]["loss"]
        xp = namespace(loss)
        stacked = map_leaves(lambda *values: xp.stack(values, axis=-1), *records)
        counts = xp.stack([xp.full_like(loss, count) for count in rows])  # on the device, as a CUDA graph needs it
        return self.merge_stacked(stacked, counts)

    def merge_stacked(self, parts: dict[str, Tree], rows: Array) -> dict[str, Tree]:
        """Join the records of parts of a batch, which are stacked along the last axis.

        The loss is Σ share loss with shares that add up to 1, which overflows only where the mean does.
        """
        xp, parts = namespace(rows), dict(parts)
        weight = parts.pop("weight", None)
        merged: dict[str, Tree] = {} if weight is None else {"weight": xp.sum(weight)}
        weight = xp.astype(rows, parts["loss"].dtype, copy=False) if weight is None else weight
        merged["loss"] = means((parts["loss"],), weight / at_least_one(xp.sum(weight)))[0]
        return merged | {metric.name: metric.merge(parts[metric.name], weight) for metric in self.metrics}

    @property
    def binned(self) -> tuple[BinnedMetric, ...]:
        """The metrics that `evaluate` computes from all rows instead of from the records."""
        return tuple(metric for metric in self.metrics if isinstance(metric, BinnedMetric))


@dataclass(frozen=True)
class Evaluation:
    """``record, kept = evaluation(state, batch)``: loss and metrics in inference mode.

    If a metric needs all rows to be exact, `kept` holds targets, predictions and weights, and the record omits this metric.
    """

    inference: Inference
    scores: Scores

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[dict[str, Tree], tuple[Array, ...]]:
        z, loss_function = self.inference(state, batch), self.scores.loss
        loss, _ = loss_function(batch["y"], z, batch.get("weight"))
        if not self.scores.binned:
            return self.scores(batch, z, loss), ()
        merged = tuple(metric for metric in self.scores.metrics if metric not in self.scores.binned)
        y, rows, weight = loss_function.rows(batch["y"], z, batch.get("weight"))
        kept = (y, loss_function.activation(rows), *([] if weight is None else [weight]))
        return replace(self.scores, metrics=merged)(batch, z, loss), kept

    def divided(self, group: Group, pieces: int) -> Evaluation:
        """Return the same function for another group and other pieces."""
        return replace(self, inference=self.inference.divided(group, pieces))


@dataclass(frozen=True)
class TrainingStep:
    """``state, record = step(state, batch)``: forward, loss, backward, update.

    The members of ``inference.group`` compute the gradients, each for some rows of the batch.
    """

    inference: Inference
    scores: Scores
    optimizer: Optimizer

    def __call__(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[dict[str, Tree], dict[str, Tree]]:
        grads, statistics, record = self.inference.group.gradients(self, state, batch)
        return self.update(state, grads, statistics, batch["learning_rate"]), record

    def with_network(self, network: Layer) -> TrainingStep:
        """Return the same step with another network, such as one with observed layers."""
        return replace(self, inference=replace(self.inference, network=network))

    def gradients(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[Tree, Tree, dict[str, Tree]]:
        """Return the gradients with respect to the parameters, the new running statistics, and the record.

        If the rows are a part of a batch, ``batch["share"]`` is their share of its weight. Their gradients are then terms of
        the gradients of the batch, which are the sum over its parts.
        """
        pieces, most = self.inference.pieces, self.inference.micro_batch_size
        if most is not None:
            pieces = max(pieces, -(-batch["x"].shape[0] // most))
        return accumulated(partial(self._gradients, state), self.scores, batch, pieces)

    def _gradients(self, state: dict[str, Tree], batch: dict[str, Array]) -> tuple[Tree, Tree, dict[str, Tree]]:
        network, x = self.inference.network, self.inference.floating(batch["x"])
        z, backward, statistics = base.forward(network, state["params"], x, batch.get("key"), state["statistics"])
        loss, dz = self.scores.loss(batch["y"], z, batch.get("weight"))
        if "share" in batch:
            dz *= batch["share"]
        _, grads = backward(dz, need_dx=False)
        return grads, statistics, self.scores(batch, z, loss)

    @cached_property
    def members(self) -> tuple[TrainingStep, ...]:
        """The step of each member of the group. Layers that mix the rows of a batch add up their sums through the group."""
        network, group = self.inference.network, self.inference.group
        return tuple(self.with_network(in_group(network, member)) for member in group.members)

    def update(self, state: dict[str, Tree], grads: Tree, statistics: Tree, learning_rate: Array) -> dict[str, Tree]:
        """Return the state after the optimizer's step. It may overwrite `state` and `grads`."""
        params, has_frozen = state["params"], self.inference.network.has_frozen
        trained = prune(params, grads) if has_frozen else params
        trained, optimizer = self.optimizer.update(trained, grads, state["optimizer"], learning_rate)
        params = graft(params, trained) if has_frozen else trained
        return {"params": params, "optimizer": optimizer, "statistics": statistics}


def training_step(inference: Inference, scores: Scores, optimizer: Optimizer) -> TrainingStep:
    """Return a training step without a learning rate, so that runs with different rates share compiled code."""
    return TrainingStep(inference, scores, replace(optimizer, learning_rate=0.0))
