"""The interface between a source of samples and the training loop, `evaluate` and `predict`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

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
    columns : dict of host arrays
        What differs from step to step, with one row for each step: the row numbers ``"index"``, or the samples themselves.
    data : dict of arrays
        What all steps share, on the device: the data set that ``"index"`` refers to.
    """

    steps: int
    rows: int
    columns: dict[str, np.ndarray]
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
        The number of samples in an epoch, or None if it is not known. A run is resumed only with the same number.
    shape : tuple of int
        The shape of one sample.
    """

    steps: int | None
    samples: int | None = None
    shape: Shape

    @abstractmethod
    def epoch(self, seed: int, epoch: int, position: int) -> Batches:
        """Return the batches of an epoch, in the order that the seed and the epoch determine, from batch number `position`."""


class InOrder(Protocol):
    """Data for one pass in their own order, for `evaluate` and `predict`: iteration yields each batch on the device.

    Attributes
    ----------
    steps : int, optional
        The number of batches, or None if it is not known.
    shape : tuple of int
        The shape of one sample.
    """

    steps: int | None
    shape: Shape

    def __iter__(self) -> Iterator[dict[str, Array]]: ...
