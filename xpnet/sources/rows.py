"""Data with numbered rows that are not loaded whole: memory-mapped files, HDF5 and zarr datasets, datasets of samples.

Where any row can be read quickly, an epoch has the same order as for an array. Otherwise the order is drawn by blocks of
consecutive rows: the blocks are shuffled, some of them are read into memory, and their rows are shuffled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpnet.backend import real_numbers
from xpnet.backend.recognition import is_stored
from xpnet.checks import require
from xpnet.random import host_rng
from xpnet.settings import FitSettings
from xpnet.sources.form import PART_BYTES, Part, reading

ORDERED = 10_000_000  # the order of more rows is drawn by blocks, because it takes 8 bytes for each row
BLOCK_BYTES = 1 << 18  # a block has at least this size
BUFFER_BYTES = 32 << 20  # the blocks whose rows are shuffled together

Values = tuple[np.ndarray, ...]  # x, y and the weights of the same rows


class Rows(ABC):
    """Samples by row number.

    Attributes
    ----------
    count : int
    start : int
        The number of the first row in the data.
    row_bytes : int
        The size of a sample.
    block : int, optional
        The number of consecutive rows that are read together. None if any row can be read quickly.
    at_once : bool
        Whether to read several batches at once.
    """

    count: int
    start: int = 0
    row_bytes: int
    block: int | None
    at_once: bool = True

    @abstractmethod
    def take(self, rows: np.ndarray) -> Values:
        """Return the rows with these numbers."""

    @abstractmethod
    def cut(self, start: int, stop: int) -> Values:
        """Return consecutive rows."""


class Column:
    """An object that gives rows for a slice: an array, a memory-mapped file, or a dataset on disk.

    Parameters
    ----------
    values : object
        Has ``__len__`` or ``shape``, and ``__getitem__`` of slices, or of index arrays.
    """

    def __init__(self, values: Any):
        self.values = values
        self.count = values.shape[0] if hasattr(values, "shape") else len(values)
        self.quick = isinstance(values, np.ndarray)  # any rows can be read quickly
        self.loaded = self.quick and not is_stored(values)
        require(self.count > 0, "Data must hold at least one sample", f"{type(values).__name__} with 0 rows")
        first = self.cut(0, 1)
        self.row_bytes = first.nbytes
        self.shape = (self.count, *first.shape[1:])
        chunk = _chunk_rows(values) or 1
        self.block = chunk * max(1, -(-BLOCK_BYTES // (chunk * max(self.row_bytes, 1))))

    def cut(self, start: int, stop: int) -> np.ndarray:
        try:
            found = self.values[start:stop]
        except TypeError:
            found = self.values[np.arange(start, stop)]
        found = real_numbers(found)
        if len(found) != stop - start:
            raise ValueError(f"Rows {start} to {stop} were requested. Received: {len(found)} rows")
        return found.copy() if self.quick else found  # read now, not where it is used

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.values).take(rows, axis=0)


def _chunk_rows(values: Any) -> int | None:
    """Return the number of rows that a dataset on disk stores together."""
    chunks = getattr(values, "shards", None) or getattr(values, "chunks", None)
    if not chunks:
        return None
    return max(chunks[0]) if isinstance(chunks[0], tuple) else chunks[0]  # dask has the length of every chunk


class ColumnRows(Rows):
    """Samples whose x, y and weights are separate columns."""

    def __init__(self, columns: list[Column], start: int, stop: int):
        self.columns, self.start = columns, start
        self.count = stop - start
        self.row_bytes = sum(column.row_bytes for column in columns)
        blocks = [column.block for column in columns if not column.quick]
        self.block = blocks[0] if blocks else None

    def take(self, rows: np.ndarray) -> Values:
        return tuple(column.take(rows + self.start) for column in self.columns)

    def cut(self, start: int, stop: int) -> Values:
        return tuple(column.cut(self.start + start, self.start + stop) for column in self.columns)


class SampleRows(Rows):
    """Samples of a dataset whose items are ``(x, y)``, ``(x, y, weight)`` or x, such as a map-style dataset of PyTorch."""

    block = None
    at_once = False  # an item may take long

    def __init__(self, dataset: Any):
        self.dataset, self.count = dataset, len(dataset)
        require(self.count > 0, "Data must hold at least one sample", f"{type(dataset).__name__} with 0 samples")
        self.row_bytes = sum(values.nbytes for values in self.cut(0, 1))

    def take(self, rows: np.ndarray) -> Values:
        numbers = rows.tolist()
        several = getattr(self.dataset, "__getitems__", None)
        items = [self.dataset[i] for i in numbers] if several is None else several(numbers)
        samples = [item if isinstance(item, (tuple, list)) else (item,) for item in items]
        return tuple(np.stack([real_numbers(value) for value in values]) for values in zip(*samples, strict=True))

    def cut(self, start: int, stop: int) -> Values:
        return self.take(np.arange(start, stop))


class RowReader:
    """Reads batches of rows.

    Parameters
    ----------
    rows : Rows
    settings : FitSettings
        Its batch size, and how to draw the order.
    counted : array of int, optional
        The rows to use. None means all.

    Attributes
    ----------
    bounds : callable, optional
        Returns the first row to read, and the first not to read, of a batch of so many rows. None reads all.
    """

    def __init__(self, rows: Rows, settings: FitSettings, counted: np.ndarray | None = None):
        self.rows, self.settings, self.counted = rows, settings, counted
        self.samples = rows.count if counted is None else len(counted)
        self.size = min(settings.rows, self.samples)
        self.steps = -(-self.samples // self.size)
        self.quick = rows.block is None and (rows.count <= ORDERED or not settings.shuffle)
        if settings.sample_with_replacement and not self.quick:
            raise ValueError(
                "sample_with_replacement needs data whose rows can be read in any order: arrays, memory-mapped files and "
                f"datasets of samples, with at most {ORDERED:,} rows. Received: {rows.count:,} rows"
                + ("" if rows.block is None else f", which are read in blocks of {rows.block:,}")
            )
        batch_bytes = max(self.size * rows.row_bytes, 1)
        together = max(1, PART_BYTES // batch_bytes) if rows.at_once else 1
        self.together = 1 << together.bit_length() - 1  # as many steps are compiled at once where a library compiles
        self.bounds: Callable[[int], tuple[int, int]] | None = None

    def first(self) -> Part:
        start = 0 if self.counted is None else int(self.counted[0])
        stop = min(start + self.size, self.rows.count)
        with reading(0):
            return Part(0, self.rows.cut(start, stop), None, self.rows.start + np.arange(start, stop))

    def one_pass(self, first: int = 0, step: int = 1, stop: int | None = None) -> Iterator[Part]:
        if step == 1:
            yield from self.read(0, 0, first, 0)
            return
        for number in range(self.steps)[first:stop:step]:
            begin, end = number * self.size, min((number + 1) * self.size, self.samples)
            with reading(number):
                values = self.rows.cut(begin, end)
            yield Part(number, values, None, self.rows.start + np.arange(begin, end))

    def read(self, seed: int, epoch: int, position: int, done: int) -> Iterator[Part]:
        if not self.quick:
            return self._by_blocks(seed, epoch, position)
        return self._ordered(seed, epoch, position) if self.bounds is None else self._own(seed, epoch, position)

    def _ordered(self, seed: int, epoch: int, position: int) -> Iterator[Part]:
        order = self._order(seed, epoch)
        together = self.together * self.size
        for number in range(position, self.steps, self.together):
            start = number * self.size
            stop = min(start + together, self.samples)
            rows = np.arange(start, stop) if order is None else order[start:stop]
            with reading(number):
                values = self.rows.cut(start, stop) if order is None else self.rows.take(rows)
            yield Part(number, values, self.size, self.rows.start + rows)

    def _own(self, seed: int, epoch: int, position: int) -> Iterator[Part]:
        """Read the rows ``bounds(n)`` of each batch of n rows."""
        assert self.bounds is not None
        order, full, number = self._order(seed, epoch), self.samples // self.size, position
        order = np.arange(self.samples) if order is None else order
        while number < self.steps:
            stop = min(number + self.together, full) if number < full else self.steps
            begin = number * self.size
            batches = order[begin : stop * self.size].reshape(stop - number, -1)
            whole = batches.shape[1]
            own = batches[:, slice(*self.bounds(whole))]
            with reading(number):
                values = self.rows.take(own.reshape(-1))
            yield Part(number, values, own.shape[1], self.rows.start + own.reshape(-1), whole)
            number = stop

    def _order(self, seed: int, epoch: int) -> np.ndarray | None:
        """Return the order that `ArraySource` draws. None means the order of the data."""
        rng, counted = host_rng(seed, "shuffle", epoch), self.counted
        if self.settings.sample_with_replacement:
            order = rng.integers(0, self.samples, size=self.samples)
        elif self.settings.shuffle and self.size < self.rows.count:
            order = rng.permutation(self.samples)
        else:
            return counted
        return order if counted is None else counted[order]

    def _by_blocks(self, seed: int, epoch: int, position: int) -> Iterator[Part]:
        """Shuffle blocks of rows, and then the rows of several blocks at once, in memory."""
        before, number = position * self.size, position  # rows to leave out, the next batch
        held: tuple[np.ndarray, Values] | None = None
        for blocks, order in self._groups(seed, epoch):
            if before >= len(order):
                before -= len(order)
                continue
            with reading(number):
                rows, values = self._read(blocks, order[before:])
            before = 0
            if held is not None:
                rows = np.concatenate((held[0], rows))
                values = tuple(np.concatenate(pair) for pair in zip(held[1], values, strict=True))
            full = len(rows) - len(rows) % self.size
            for start in range(0, full, self.together * self.size):
                stop = min(start + self.together * self.size, full)
                yield Part(number, tuple(v[start:stop] for v in values), self.size, rows[start:stop])
                number += (stop - start) // self.size
            held = rows[full:], tuple(v[full:] for v in values)
        if held is not None and len(held[0]):
            yield Part(number, held[1], self.size, held[0])

    def _groups(self, seed: int, epoch: int) -> Iterator[tuple[list[slice], np.ndarray]]:
        """Yield the blocks to read together, and the order of their rows without those that are not used."""
        total, shuffle = self.rows.count, self.settings.shuffle
        block = self.rows.block or -(-BLOCK_BYTES // self.rows.row_bytes)
        starts = np.arange(0, total, block)
        if shuffle:
            starts = host_rng(seed, "shuffle", epoch).permutation(starts)
        used = None
        if self.counted is not None:
            used = np.zeros(total, dtype=bool)
            used[self.counted] = True
        together = max(1, BUFFER_BYTES // (block * self.rows.row_bytes))
        for group in range(0, len(starts), together):
            blocks = [slice(int(s), min(int(s) + block, total)) for s in starts[group : group + together]]
            count = sum(one.stop - one.start for one in blocks)
            order = host_rng(seed, "shuffle", epoch, 1 + group).permutation(count) if shuffle else np.arange(count)
            yield blocks, order if used is None else order[np.concatenate([used[one] for one in blocks])[order]]

    def _read(self, blocks: list[slice], order: np.ndarray) -> tuple[np.ndarray, Values]:
        rows = np.concatenate([np.arange(one.start, one.stop) for one in blocks])
        read = [self.rows.cut(one.start, one.stop) for one in blocks]
        return self.rows.start + rows[order], tuple(np.concatenate(parts)[order] for parts in zip(*read, strict=True))
