"""Arrays on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xpnet.backend import to_numpy
from xpnet.checks import require, require_batch_size
from xpnet.inputs import Data, counted_rows
from xpnet.layers.base import Shape
from xpnet.random import host_rng
from xpnet.settings import FitSettings
from xpnet.sources.base import Batches, Chunk, InOrder, Source

EVALUATION_BATCH = 512  # the default number of rows at once


class ArraySource(Source):
    """Arrays on the device. A training batch is gathered there by its row numbers.

    Parameters
    ----------
    data : dict of arrays
        ``"x"``, ``"y"`` and, with weights, ``"weight"``.
    settings : FitSettings
    target_shape : tuple of int
    """

    def __init__(self, data: Data, settings: FitSettings, target_shape: Shape):
        self.data, self.settings = data, settings
        self.shape, self.target_shape = tuple(data["x"].shape[1:]), target_shape
        self.rows, self.weighted = counted_rows(data), "weight" in data
        self.samples = len(self.rows)
        self.batch_size = min(settings.rows, len(self.rows))
        self.steps: int = -(-len(self.rows) // self.batch_size)
        whole = self.batch_size == len(self.rows) == data["x"].shape[0]
        self.gathers = not whole or settings.sample_with_replacement

    @property
    def example(self) -> dict[str, np.ndarray]:
        return {name: to_numpy(values[:1, ...]) for name, values in self.data.items() if name != "x"}

    def epoch(self, seed: int, epoch: int, position: int, done: int = 0) -> ArrayBatches:
        return ArrayBatches(self, self._order(seed, epoch), position)

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        rows, rng = self.rows, host_rng(seed, "shuffle", epoch)
        if self.settings.sample_with_replacement:
            return rows[rng.integers(0, len(rows), size=len(rows))]
        return rows[rng.permutation(len(rows))] if self.settings.shuffle else rows


class OwnOrders(Source):
    """Arrays on the device, of which each of several networks has its own rows, in an order of its own.

    Network k has the batches that it would have alone, trained on these rows with its seed.

    Parameters
    ----------
    data : dict of arrays
        ``"x"`` and ``"y"``.
    settings : FitSettings
    target_shape : tuple of int
    seeds : tuple of int
    rows : array of integers, shape (networks, rows)
    """

    weighted, gathers = False, True

    def __init__(
        self, data: Data, settings: FitSettings, target_shape: Shape, seeds: tuple[int, ...], rows: np.ndarray
    ):
        self.data, self.settings, self.seeds, self.rows = data, settings, seeds, rows
        self.shape, self.target_shape = tuple(data["x"].shape[1:]), target_shape
        self.samples = rows.shape[1]
        self.batch_size = min(settings.rows, self.samples)
        self.steps: int = -(-self.samples // self.batch_size)

    @property
    def example(self) -> dict[str, np.ndarray]:
        return {"y": to_numpy(self.data["y"][:1, ...])}

    def epoch(self, seed: int, epoch: int, position: int, done: int = 0) -> ArrayBatches:
        orders = self.rows
        if self.settings.shuffle:
            shuffles = [host_rng(one, "shuffle", epoch).permutation(self.rows.shape[1]) for one in self.seeds]
            orders = np.take_along_axis(self.rows, np.stack(shuffles), axis=1)
        return ArrayBatches(self, orders, position)


class ArrayBatches(Batches):
    """The batches of an epoch, whose rows come in `order`, (rows,) or (networks, rows)."""

    def __init__(self, source: ArraySource | OwnOrders, order: np.ndarray, position: int):
        self.source, self.order, self.position = source, order, position
        self.full = order.shape[-1] // source.batch_size  # the last batch may be smaller

    @property
    def alike(self) -> int:
        return self.full if self.position < self.full else 1

    def take(self, most: int) -> Chunk | None:
        size, begin = self.source.batch_size, self.position
        if begin * size >= self.order.shape[-1]:
            return None
        self.position = min(begin + most, self.full) if begin < self.full else begin + 1
        steps = self.position - begin
        taken = self.order[..., begin * size : self.position * size]
        index = np.moveaxis(taken.reshape(*taken.shape[:-1], steps, -1), -2, 0)
        return Chunk(steps, index.shape[-1], {"index": index} if self.source.gathers else {}, self.source.data)


class Slices(InOrder):
    """Arrays on the device, a slice of at most `batch_size` rows at a time, at most `steps` of them."""

    def __init__(self, data: Data, batch_size: int | None, target_shape: Shape = (), steps: int | None = None):
        self.data, self.target_shape = data, target_shape
        self.size = EVALUATION_BATCH if batch_size is None else require_batch_size(batch_size)
        self.samples, *shape = data["x"].shape
        self.shape = tuple(shape)
        self.steps: int = -(-self.samples // self.size)
        if steps is not None:
            require(steps <= self.steps, f"steps must be at most {self.steps}, the number of batches", f"steps={steps}")
            self.steps, self.samples = steps, min(self.samples, steps * self.size)

    def every(self, first: int, step: int) -> Iterator[Data]:
        for start in range(first * self.size, self.samples, step * self.size):
            stop = min(start + self.size, self.samples)
            yield {name: values[start:stop, ...] for name, values in self.data.items()}
