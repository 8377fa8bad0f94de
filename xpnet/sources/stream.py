"""Batches that one thread reads, checks, converts and uploads, while the model computes with the batches before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np

from xpnet.backend import Backend
from xpnet.checks import require
from xpnet.inputs import Data
from xpnet.layers.base import Shape
from xpnet.sources.base import Batches, Chunk, InOrder, Source
from xpnet.sources.form import PART_BYTES, Form, Part, Piece, ended, joined, named
from xpnet.sources.lookahead import LookAhead
from xpnet.sources.rows import ColumnRows, RowReader
from xpnet.tree import Array


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

    def one_pass(self, first: int = 0, step: int = 1, stop: int | None = None) -> Iterator[Part]:
        """Yield the batches ``[first:stop:step]`` in the order of the data. With step 1, batches after `stop` may follow."""
        ...


class Sent(NamedTuple):
    """A `Piece` whose upload has begun: its size, and the function that returns it."""

    nbytes: int
    receive: Callable[[], Piece]


def sent(backend: Backend, pieces: Generator[Piece, None, None]) -> Generator[Sent, None, None]:
    """Begin to upload each piece. Closes `pieces` in the thread that reads them."""
    with closing(pieces):
        for piece in pieces:
            yield Sent(piece.nbytes, _receiving(backend.send(piece.columns), piece.whole))


def _receiving(receive: Callable[[], dict[str, Array]], whole: int | None) -> Callable[[], Piece]:
    return lambda: Piece(receive(), whole)


class Stream(Source):
    """The batches of a reader, for training. All must have the form of the first, which is read when the object is made.

    `target_shape` is the original shape of the targets, if the reader changes it.
    """

    def __init__(self, reader: Reader, form: Form, target_shape: Shape | None = None):
        self.reader, self.form = reader, form
        form.begin(reader.first())
        self.steps, self.samples, self.shape = reader.steps, reader.samples, form.shape
        self.weighted, self.batch_size = "weight" in form.example, form.batch_size
        self.target_shape = form.target_shape if target_shape is None else target_shape
        self.compiles = form.target.compiles

    @property
    def example(self) -> dict[str, np.ndarray]:
        return self.form.example

    def read_only(self, bounds: Callable[[int], tuple[int, int]]) -> None:
        reader, weights_known = self.reader, self.form.class_weight is None
        if (
            isinstance(reader, RowReader)
            and weights_known
            and (isinstance(reader.rows, ColumnRows) or not self.weighted)
        ):
            reader.bounds = bounds  # no row is dropped after it is read

    def epoch(self, seed: int, epoch: int, position: int, done: int = 0) -> StreamBatches:
        return StreamBatches(self, self.form.checked(self.reader.read(seed, epoch, position, done)))


class StreamBatches(Batches):
    """The batches of an epoch of a `Stream`."""

    def __init__(self, source: Stream, pieces: Generator[Piece, None, None]):
        self.source = source
        self.ahead = LookAhead(sent(source.form.target, pieces), lambda item: item.nbytes, PART_BYTES)
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
        return Chunk(steps, whole.whole or columns["x"].shape[1], columns, {})

    def _next(self) -> Piece | None:
        if self.held:
            return self.held.popleft()
        item = next(self.ahead, None)
        return None if item is None else item.receive()

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
        self.ahead: LookAhead[Sent] | None = None

    def every(self, first: int, step: int) -> Iterator[Data]:
        backend = self.form.target
        pieces = self._pieces(first, step)
        if self.name:
            pieces = named(self.name, pieces)
        self.ahead = LookAhead(sent(backend, pieces), lambda item: item.nbytes, PART_BYTES)
        for item in self.ahead:
            piece = item.receive()
            for i in range(piece.steps):
                yield {name: backend.asarray(values[i]) for name, values in piece.columns.items()}

    def _pieces(self, first: int, step: int) -> Generator[Piece, None, None]:
        done, weight = 0, 0.0
        chosen = None if self.chosen is None else len(range(first, self.chosen, step))
        for piece in self.form.checked(self.reader.one_pass(first, step, self.chosen)):
            if chosen is not None:
                piece = piece.cut(0, chosen - done)
            done, weight = done + piece.steps, weight + float(np.sum(piece.columns.get("weight", 1.0)))
            yield piece
            if step == 1 and done == chosen:
                break
        if chosen is not None and done < chosen:
            raise ended(done)
        require(weight > 0 or step > 1, "At least one weight must be above 0", "sample weights that are all 0")

    def __exit__(self, *error: Any) -> None:
        if self.ahead is not None:
            self.ahead.__exit__(*error)
