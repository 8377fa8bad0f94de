"""Batches that one thread reads, checks and converts on the host, while the model computes with the batches before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, Protocol

import numpy as np

from xpnet.checks import require
from xpnet.inputs import Data
from xpnet.layers.base import Shape
from xpnet.sources.base import Batches, Chunk, InOrder, Source
from xpnet.sources.form import PART_BYTES, Form, Part, Piece, ended, joined, named
from xpnet.sources.lookahead import LookAhead


class Reader(Protocol):
    """Reads batches on the host."""

    @property
    def steps(self) -> int | None:
        """The number of batches in an epoch, or None if it is not known."""
        ...

    @property
    def samples(self) -> int | None:
        """The number of samples in an epoch, or None if it is not known."""
        ...

    def first(self) -> Part:
        """Return batches that show the form of all others."""
        ...

    def read(self, seed: int, epoch: int, position: int, done: int) -> Iterator[Part]:
        """Yield the batches of an epoch, for training; see `Source.epoch`."""
        ...

    def one_pass(self) -> Iterator[Part]:
        """Yield all batches in the order of the data."""
        ...


class Stream(Source):
    """The batches of a reader, for training. All must have the form of the first, which is read when the object is made.

    `target_shape` is the original shape of the targets, if the reader changes it.
    """

    def __init__(self, reader: Reader, form: Form, target_shape: Shape | None = None):
        self.reader, self.form = reader, form
        form.begin(reader.first())
        self.steps, self.samples, self.shape = reader.steps, reader.samples, form.shape
        self.weighted = "weight" in form.example
        self.target_shape = form.target_shape if target_shape is None else target_shape
        self.compiles = form.target.compiles

    @property
    def example(self) -> dict[str, np.ndarray]:
        return self.form.example

    def epoch(self, seed: int, epoch: int, position: int, done: int = 0) -> StreamBatches:
        return StreamBatches(self, self.form.checked(self.reader.read(seed, epoch, position, done)))


class StreamBatches(Batches):
    """The batches of an epoch of a `Stream`."""

    def __init__(self, source: Stream, pieces: Generator[Piece, None, None]):
        self.source = source
        self.ahead = LookAhead(pieces, lambda piece: piece.nbytes, PART_BYTES)
        self.held: deque[Piece] = deque()  # pieces from the look-ahead that are not used yet

    @property
    def alike(self) -> int | None:
        return self.source.steps

    def take(self, most: int) -> Chunk | None:
        """Return batches that have been read. Wait only for the first."""
        first = self._next()
        if first is None:
            return None
        pieces, steps, size = [first], first.steps, first.nbytes
        while steps < most and (self.held or self.ahead.ready):
            piece = self._next()
            assert piece is not None
            if piece.signature != first.signature or size + piece.nbytes > PART_BYTES:
                self.held.appendleft(piece)
                break
            pieces.append(piece)
            steps, size = steps + piece.steps, size + piece.nbytes
        whole, steps = joined(pieces), min(steps, most)
        if self.source.compiles:
            steps = 1 << (steps.bit_length() - 1) // 3 * 3  # a power of eight, because each number is compiled once
        if steps < whole.steps:
            self.held.appendleft(whole.cut(steps, whole.steps))
        columns = whole.cut(0, steps).columns
        return Chunk(steps, columns["x"].shape[1], columns, {})

    def _next(self) -> Piece | None:
        return self.held.popleft() if self.held else next(self.ahead, None)

    def __exit__(self, *error: Any) -> None:
        self.ahead.__exit__(*error)


class StreamInOrder(InOrder):
    """The batches of a reader in the order of the data, for evaluation.

    Parameters
    ----------
    reader : Reader
    form : Form
    steps : int, optional
        The number of batches to read. The default is all.
    name : str, optional
        The name of the data in errors.
    target_shape : tuple of int, optional
        The shape of one sample's targets as they were given, if the reader gives them in another shape.
    """

    def __init__(
        self, reader: Reader, form: Form, steps: int | None, name: str = "", target_shape: Shape | None = None
    ):
        self.reader, self.form, self.chosen, self.name = reader, form, steps, name
        form.begin(reader.first())
        self.steps, self.samples, self.shape = steps or reader.steps, reader.samples, form.shape
        self.target_shape = form.target_shape if target_shape is None else target_shape
        self.ahead: LookAhead[Piece] | None = None

    def __iter__(self) -> Iterator[Data]:
        backend, weight = self.form.target, 0.0
        pieces = named(self.name, self._pieces()) if self.name else self._pieces()
        self.ahead = LookAhead(pieces, lambda piece: piece.nbytes, PART_BYTES)
        for piece in self.ahead:
            for i in range(piece.steps):
                batch = {name: values[i] for name, values in piece.columns.items()}
                weight += float(np.sum(batch.get("weight", 1.0)))
                yield {name: backend.asarray(values) for name, values in batch.items()}
        require(weight > 0, "At least one weight must be above 0", "sample weights that are all 0")

    def _pieces(self) -> Generator[Piece, None, None]:
        left = self.chosen
        for piece in self.form.checked(self.reader.one_pass()):
            yield piece if left is None else piece.cut(0, left)
            if left is not None:
                left -= piece.steps
                if left <= 0:
                    return
        if left is not None:
            assert self.chosen is not None
            raise ended(self.chosen - left)

    def __exit__(self, *error: Any) -> None:
        if self.ahead is not None:
            self.ahead.__exit__(*error)
