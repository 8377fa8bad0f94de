"""Rows that are read in blocks or one by one: each once in an epoch, in an order that the seed determines. On the host."""

from itertools import chain

import numpy as np
import pytest

from xpnet.settings import FitSettings
from xpnet.sources import rows as module
from xpnet.sources.rows import Column, ColumnRows, RowReader, SampleRows


class Stored:
    """A dataset on disk: it gives slices, and counts the rows read."""

    def __init__(self, values, chunks=None):
        self.values, self.chunks, self.reads = values, chunks, []
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, where):
        assert isinstance(where, slice)
        self.reads.append(where)
        return self.values[where]


class Indexed:
    """An object that gives rows for index arrays, and has no shape."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, where):
        if isinstance(where, slice):
            raise TypeError("slices are not supported")
        return self.values[where]


class Samples:
    """A map-style dataset."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return np.full(2, i, np.float32), i


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of four rows of eight bytes, two of which are shuffled together."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 32)
    monkeypatch.setattr(module, "BUFFER_BYTES", 64)
    monkeypatch.setattr(module, "PART_BYTES", 48)


def reader(values, counted=None, **settings):
    chosen = FitSettings(**{"batch_size": 3} | settings)
    return RowReader(ColumnRows([Column(values)], 0, len(getattr(values, "values", values))), chosen, counted)


def epoch(source, epoch=0, position=0):
    """Return the rows of each batch. Check that the values belong to these rows and that the numbers are consecutive."""
    batches, number = [], position
    for part in source.read(7, epoch, position, 0):
        assert part.number == number
        np.testing.assert_array_equal(part.values[0][:, 0], part.rows)
        batches += [part.rows[i : i + part.size].tolist() for i in range(0, len(part.rows), part.size)]
        number = position + len(batches)
    return batches


def joined(batches):
    return list(chain.from_iterable(batches))


def numbers(n):
    return np.arange(n, dtype=np.int64)[:, None]


@pytest.mark.parametrize("n", [1, 3, 16, 50, 51])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("make", [Stored, Indexed, np.asarray])
def test_every_row_comes_once(make, shuffle, n, small_blocks):
    batches = epoch(reader(make(numbers(n)), shuffle=shuffle))

    assert [len(rows) for rows in batches[:-1]] == [min(3, n)] * (len(batches) - 1)
    assert len(batches) == -(-n // 3)
    assert sorted(joined(batches)) == list(range(n))
    if n >= 16:
        assert (joined(batches) == list(range(n))) is not shuffle


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("make", [Stored, np.asarray])
@pytest.mark.parametrize("counted", [None, np.array([1, 2, 5, 9, 10, 11, 30, 47])])
def test_an_epoch_from_a_position_is_the_rest_of_the_epoch(make, shuffle, counted, small_blocks):
    source = reader(make(numbers(50)), counted, shuffle=shuffle)
    whole = epoch(source, 3)

    assert sorted(joined(whole)) == (list(range(50)) if counted is None else counted.tolist())
    for position in range(len(whole) + 1):
        assert epoch(source, 3, position) == whole[position:]


def test_another_epoch_is_another_order(small_blocks):
    source = reader(Stored(numbers(50)))

    assert epoch(source, 0) != epoch(source, 1)
    assert epoch(source, 1) == epoch(source, 1)


def test_blocks_are_read_once_and_whole_and_their_rows_are_mixed(small_blocks):
    stored = Stored(numbers(48), chunks=(4, 1))
    source = reader(stored)
    stored.reads.clear()
    batches = epoch(source)

    assert sorted((s.start, s.stop) for s in stored.reads) == [(i, i + 4) for i in range(0, 48, 4)]
    assert any(len({row // 4 for row in rows}) > 1 for rows in batches)


@pytest.mark.parametrize(("chunks", "rows"), [(None, 4), ((1, 1), 4), ((6, 1), 6), ((3, 1), 6), (((5, 5, 2), (1,)), 5)])
def test_a_block_is_a_number_of_chunks(chunks, rows, small_blocks):
    """A block has at least the smallest size. Dask gives the length of every chunk."""
    assert Column(Stored(numbers(12), chunks)).block == rows


def test_shards_are_read_as_a_whole(small_blocks):
    stored = Stored(numbers(12), chunks=(1, 1))
    stored.shards = (6, 1)

    assert Column(stored).block == 6


def test_many_rows_are_shuffled_by_blocks_without_a_list_of_all(small_blocks, monkeypatch):
    monkeypatch.setattr(module, "ORDERED", 40)
    source = reader(numbers(50))

    assert sorted(joined(epoch(source))) == list(range(50))
    with pytest.raises(ValueError, match="sample_with_replacement needs data whose rows can be read in any order"):
        reader(numbers(50), sample_with_replacement=True)


def test_rows_come_in_the_order_of_an_array():
    """A file and an array then give the same run."""
    from tests.test_sources_arrays import source, taken

    for settings in ({}, {"shuffle": False}, {"sample_with_replacement": True}):
        array = list(taken(source(10, **settings).epoch(7, 2, 0), 1))
        assert epoch(reader(numbers(10), **settings), 2) == array


def test_samples_are_stacked_by_batches():
    source = RowReader(SampleRows(Samples(7)), FitSettings(3))
    parts = list(source.read(0, 0, 0, 0))

    assert [len(part.rows) for part in parts] == [3, 3, 1]  # an item may take long, so only one batch is waited for
    assert parts[0].values[0].shape == (3, 2)
    for part in parts:
        np.testing.assert_array_equal(part.values[1], part.rows)


def test_samples_are_fetched_at_once_if_the_dataset_can():
    class Fetching(Samples):
        def __getitems__(self, numbers):
            self.fetched = numbers
            return [self[i] for i in numbers]

    dataset = Fetching(3)
    list(RowReader(SampleRows(dataset), FitSettings(3, shuffle=False)).read(0, 0, 0, 0))

    assert dataset.fetched == [0, 1, 2]


@pytest.mark.parametrize(("values", "message"), [(numbers(0), "at least one sample"), (Samples(0), "with 0 samples")])
def test_no_rows_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SampleRows(values) if isinstance(values, Samples) else Column(values)


def test_missing_rows_are_an_error_of_the_source():
    class Short(Stored):
        def __getitem__(self, where):
            return self.values[where][:5]

    with pytest.raises(ValueError, match=r"Batch 0 .*Rows 0 to 50 were requested\. Received: 5 rows"):
        epoch(reader(Short(numbers(50))))
