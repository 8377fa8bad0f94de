"""The interface between a source of samples and the training loop, `evaluate` and `predict`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.layers.base import Shape
from xpnet.tree import Array


@dataclass(frozen=True)
class Chunk:
    """Consecutive batches of the same size, for one call of `Backend.scan`.

    Attributes
    ----------
    steps, rows : int
        The number of batches, and the number of samples in each.
    columns : dict of arrays
        What differs from step to step, with one row for each step: the row numbers ``"index"`` on the host, or the
        samples themselves, from `Backend.send`.
    data : dict of arrays
        What all steps share, on the device: the data set that ``"index"`` refers to.
    """

    steps: int
    rows: int
    columns: dict[str, Array]
    data: dict[str, Array]


class Batches(AbstractContextManager["Batches"], ABC):
    """The remaining batches of one epoch, in order. Leaving the ``with`` block ends the reading."""

    @property
    @abstractmethod
    def alike(self) -> int | None:
        """The number of batches in the epoch that have the size of the next one, or None if it is not known."""

    @abstractmethod
    def take(self, most: int) -> Chunk | None:
        """Return the next batches, at most `most` of them, or None at the end of the epoch."""

    def __exit__(self, *error: Any) -> None:
        return None


class Source(ABC):
    """Samples in batches.

    Attributes
    ----------
    steps : int, optional
        The number of batches in an epoch, or None if it is not known.
    samples : int, optional
        The number of samples in the data, or None if it is not known. A run is resumed only with the same number.
    batch_size : int
        The number of samples in the first batch. Later ones may be smaller, or larger if the source chooses them.
    shape, target_shape : tuple of int
        The shape of one sample, and of its targets as they were given.
    weighted : bool
        Whether the samples have weights.
    """

    steps: int | None
    samples: int | None = None
    batch_size: int
    shape: Shape
    target_shape: Shape
    weighted: bool

    @property
    @abstractmethod
    def example(self) -> dict[str, np.ndarray]:
        """The targets and, if there are weights, the weight of one sample on the host, in the form that batches have."""

    @abstractmethod
    def epoch(self, seed: int, epoch: int, position: int, done: int = 0) -> Batches:
        """Return the batches of an epoch, in the order that the seed and the epoch determine, from batch number `position`.

        `done` is the number of epochs that the run has finished. A source that can only be read from its beginning needs it to
        continue an interrupted run.
        """

    def read_only(self, bounds: Callable[[int], tuple[int, int]]) -> None:
        """Leave out all rows but ``bounds(n)`` of each batch of n rows, if that saves reading them."""
        return None


class InOrder(AbstractContextManager["InOrder"], ABC):
    """Data for one pass in their own order, for `evaluate` and `predict`. Leaving the ``with`` block ends the reading.

    Attributes
    ----------
    steps : int, optional
        The number of batches, or None if it is not known.
    shape, target_shape : tuple of int
        The shape of one sample, and of its targets as they were given.
    """

    steps: int | None
    shape: Shape
    target_shape: Shape

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Yield each batch, on the device."""
        return self.every(0, 1)

    @abstractmethod
    def every(self, first: int, step: int) -> Iterator[dict[str, Array]]:
        """Yield every `step`-th batch from number `first` on, on the device."""

    def __exit__(self, *error: Any) -> None:
        return None


class Repeated(Source):
    """Epochs of a chosen number of batches. Each continues where the last one ended, and after its end the source repeats.

    Parameters
    ----------
    source : Source
        Knows its number of batches.
    steps : int
        The number of batches in an epoch.
    """

    steps: int

    def __init__(self, source: Source, steps: int):
        self.source, self.steps, self.samples, self.batch_size = source, steps, source.samples, source.batch_size
        self.shape, self.target_shape, self.weighted = source.shape, source.target_shape, source.weighted

    @property
    def example(self) -> dict[str, np.ndarray]:
        return self.source.example

    def read_only(self, bounds: Callable[[int], tuple[int, int]]) -> None:
        self.source.read_only(bounds)

    def epoch(self, seed: int, epoch: int, position: int, done: int = 0) -> RepeatedBatches:
        return RepeatedBatches(self, seed, epoch * self.steps + position, self.steps - position)


class RepeatedBatches(Batches):
    """The next `left` batches of a `Repeated` source, from batch `begin` on, counted through all passes."""

    def __init__(self, repeated: Repeated, seed: int, begin: int, left: int):
        self.source, self.seed, self.left = repeated.source, seed, left
        assert self.source.steps is not None
        self.passed, position = divmod(begin, self.source.steps)
        self.batches = self.source.epoch(seed, self.passed, position)

    @property
    def alike(self) -> int | None:
        return self.batches.alike

    def take(self, most: int) -> Chunk | None:
        if not self.left:
            return None
        chunk = self.batches.take(min(most, self.left))
        if chunk is None:
            self.batches.__exit__(None, None, None)
            self.passed += 1
            self.batches = self.source.epoch(self.seed, self.passed, 0)
            return self.take(most)
        self.left -= chunk.steps
        return chunk

    def __exit__(self, *error: Any) -> None:
        self.batches.__exit__(*error)
