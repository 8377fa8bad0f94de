"""Data that come in batches: in which order, when they begin again, and when they end too early. On the host."""

import numpy as np
import pytest

from xpnet import SourceError
from xpnet.sources.batches import IndexedBatches, IteratedBatches, values_of
from xpnet.sources.form import ended


class Dataset:
    """A PyDataset of Keras."""

    def __init__(self, n):
        self.n, self.ended, self.asked = n, 0, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.asked.append(i)
        return i, i

    def on_epoch_end(self):
        self.ended += 1


class Loader:
    """A DataLoader, which begins again at each iteration and counts the open iterations."""

    def __init__(self, n, length=None):
        self.n, self.length, self.begun, self.open = n, length, 0, 0

    def __len__(self):
        if self.length is None:
            raise TypeError("the length is not known")
        return self.length

    def __iter__(self):
        self.begun += 1
        self.open += 1
        try:
            yield from ((i,) for i in range(self.n))
        finally:
            self.open -= 1


def epoch(source, done=0, position=0):
    return [part.values[0] for part in source.read(0, done, position, done)]


def numbers(n):
    return ((i,) for i in range(n))


def test_indexed_batches_are_shuffled_and_told_of_the_end_of_an_epoch():
    source = IndexedBatches(Dataset(20), shuffle=True)
    first, second = epoch(source, 0), epoch(source, 1)

    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert source.dataset.ended == 2


def test_indexed_batches_continue_at_a_position():
    whole = epoch(IndexedBatches(Dataset(20), shuffle=True), 3)
    source = IndexedBatches(Dataset(20), shuffle=True)

    assert epoch(source, 3, 15) == whole[15:]
    assert len(source.dataset.asked) == 5
    assert epoch(IndexedBatches(Dataset(5), shuffle=False)) == [0, 1, 2, 3, 4]


def test_the_number_of_batches_may_have_another_name():
    class Named(Dataset):
        num_batches = 3

    assert IndexedBatches(Named(7), shuffle=False).steps == 3


def test_an_iterable_begins_again_at_each_epoch():
    loader = Loader(4)
    source = IteratedBatches(loader, None)

    assert source.first().values == (0,)
    assert [epoch(source, done) for done in range(3)] == [[0, 1, 2, 3]] * 3
    assert loader.begun == 3  # the first batch was not read twice
    assert source.steps is None


def test_with_steps_the_next_epoch_continues_and_the_end_is_followed_by_the_beginning():
    source = IteratedBatches(Loader(4), 3)
    source.first()

    assert [epoch(source, done) for done in range(3)] == [[0, 1, 2], [3, 0, 1], [2, 3, 0]]


def test_a_generator_is_continued_and_left_open():
    generator = numbers(10)
    source = IteratedBatches(generator, 3)
    source.first()

    assert [epoch(source, done) for done in range(2)] == [[0, 1, 2], [3, 4, 5]]
    source.close()
    assert next(generator) == (6,)


@pytest.mark.parametrize("make", [Loader, numbers])
def test_a_resumed_run_skips_the_batches_that_it_has_used(make):
    """An iterable has no positions, so it is read from its beginning."""
    source = IteratedBatches(make(20), 3)
    source.first()

    assert epoch(source, done=2, position=1) == [7, 8]
    assert epoch(source, done=3) == [9, 10, 11]
    source = IteratedBatches(make(5), None)
    source.first()
    assert epoch(source, done=0, position=2) == [2, 3, 4]


def test_one_pass_reads_all_of_an_iterable_and_the_rest_of_a_generator():
    loader = IteratedBatches(Loader(3), None)
    loader.first()
    assert [[part.values[0] for part in loader.one_pass()] for _ in range(2)] == [[0, 1, 2]] * 2

    generator = IteratedBatches(numbers(3), None)
    generator.first()
    passed = generator.one_pass()
    assert next(passed).values == (0,)
    passed.close()
    assert [part.values[0] for part in generator.one_pass()] == [1, 2]


@pytest.mark.parametrize(
    ("batches", "steps", "ends"),
    [(numbers(5), 7, 5), (Loader(5, length=6), None, 5), (numbers(0), None, 0), (Loader(0), 3, 0)],
)
def test_a_source_that_ends_early_names_the_batch(batches, steps, ends):
    source = IteratedBatches(batches, steps)

    with pytest.raises(SourceError, match=rf"Batch {ends} of the epoch.*Received: {ends} batches") as error:
        source.first() and epoch(source)
    assert error.value.batch == ends


def test_what_a_source_raises_is_chained():
    def broken():
        yield (0,)
        raise OSError("no route to host")

    source = IteratedBatches(broken(), None)
    source.first()

    with pytest.raises(SourceError, match=r"Batch 1 .*OSError: no route to host") as error:
        epoch(source)
    assert isinstance(error.value.__cause__, OSError)

    class Broken(Dataset):
        def __getitem__(self, i):
            raise StopIteration  # would end a generator silently

    with pytest.raises(SourceError, match=r"Batch 0 .*StopIteration"):
        epoch(IndexedBatches(Broken(2), shuffle=False))


def test_what_was_begun_is_closed():
    loader = Loader(4)
    source = IteratedBatches(loader, 3)
    source.first()
    assert loader.open == 1

    epoch(source)
    epoch(source, 1)
    source.close()

    assert (loader.begun, loader.open) == (2, 0)


@pytest.mark.parametrize(
    ("batch", "count"),
    [((1, 2), 2), ([np.ones(2), np.ones(2)], 2), ([[1, 2], [3, 4]], 1), (np.ones(3), 1), ([], 1), ((1, 2, 3), 3)],
)
def test_a_tuple_or_a_list_of_arrays_has_parts(batch, count):
    assert len(values_of(batch)) == count


def test_a_source_that_ends_before_the_epoch_that_resumes():
    error = ended(-5)  # the number of a batch that the resumed run skips
    assert str(error).startswith("5 batches before the epoch that resumes: ")
    assert str(error).endswith("Received: the end")
