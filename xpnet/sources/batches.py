"""Data that come in batches: objects like Keras' PyDataset, iterables such as PyTorch's DataLoader, and generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from xpnet.checks import require
from xpnet.random import host_rng
from xpnet.sources.form import Part, ended, reading

END = object()


class IndexedBatches:
    """Batches by number: an object with ``__len__`` and ``__getitem__``, such as a PyDataset of Keras.

    With `shuffle`, each epoch draws a new order of the batches. After its last batch, the object's `on_epoch_end` is called
    if it has one.
    """

    samples = None

    def __init__(self, dataset: Any, shuffle: bool):
        self.dataset, self.shuffle = dataset, shuffle
        self.steps: int = getattr(dataset, "num_batches", None) or len(dataset)
        require(self.steps > 0, "Data must hold at least one batch", f"{type(dataset).__name__} with 0 batches")

    def first(self) -> Part:
        return self._part(0, 0)

    def read(self, seed: int, epoch: int, position: int, done: int) -> Iterator[Part]:
        order = host_rng(seed, "shuffle", epoch).permutation(self.steps) if self.shuffle else range(self.steps)
        for number in range(position, self.steps):
            yield self._part(number, int(order[number]))
        getattr(self.dataset, "on_epoch_end", int)()

    def one_pass(self, first: int = 0, step: int = 1, stop: int | None = None) -> Iterator[Part]:
        return (self._part(number, number) for number in range(self.steps)[first:stop:step])

    def _part(self, number: int, index: int) -> Part:
        with reading(number):
            return Part(number, values_of(self.dataset[index]))


class IteratedBatches:
    """Batches of an iterable, in its own order.

    Without `steps`, each epoch starts a new iteration. With `steps`, an epoch has this many batches, and the next epoch
    continues after them. An iterable that ends is iterated again. A generator is read once.

    Parameters
    ----------
    batches : iterable
    steps : int, optional
        The number of batches in an epoch.
    """

    samples = None

    def __init__(self, batches: Iterable[Any], steps: int | None):
        self.batches, self.chosen = batches, steps
        self.once = isinstance(batches, Iterator)
        self.promised = _length(batches)
        self.steps = steps or self.promised
        self.iterator: Any = None
        self.waiting: list[Any] = []  # the batch that `first` returned
        self.taken = 0  # batches taken since the run or, without `steps`, the epoch began

    def first(self) -> Part:
        """Return the first batch without taking it."""
        self._begin()
        self.waiting = [self._next(0)]
        if self.waiting[0] is END:
            raise ended(0)
        return Part(0, values_of(self.waiting[0]))

    def read(self, seed: int, epoch: int, position: int, done: int) -> Iterator[Part]:
        if self.chosen is None:
            yield from self._iterated(position)
            return
        number = self.taken - done * self.chosen  # negative if a resumed run must skip batches that it has used
        fresh = False
        while number < self.chosen:
            item = self._next(number)
            if item is END:
                if self.once or fresh:
                    raise ended(number)
                self._begin()
                fresh = True
                continue
            fresh = False
            self.taken += 1
            if number >= position:
                yield Part(number, values_of(item))
            number += 1

    def one_pass(self, first: int = 0, step: int = 1, stop: int | None = None) -> Iterator[Part]:
        """Yield all batches, or the remaining ones of a generator."""
        return self._iterated(first, step, stop)

    def _iterated(self, first: int, step: int = 1, stop: int | None = None) -> Iterator[Part]:
        if self.taken and not self.once:
            self._begin()
        number = self.taken = 0
        while number != stop and (item := self._next(number)) is not END:
            self.taken += 1
            if number >= first and (number - first) % step == 0:
                yield Part(number, values_of(item))
            number += 1
        if number != stop and number < (self.promised or 1):
            raise ended(number)

    def _begin(self) -> None:
        self.close()
        self.waiting = []
        with reading(0):
            self.iterator = iter(self.batches)

    def _next(self, number: int) -> Any:
        if self.waiting:
            return self.waiting.pop()
        with reading(number):
            return next(self.iterator, END)

    def close(self) -> None:
        """End an iteration that this object began."""
        iterator, self.iterator = self.iterator, None
        if iterator is self.batches or getattr(iterator, "gi_running", False):
            return  # a generator belongs to the caller; one that reads after Ctrl-C cannot be closed
        if hasattr(iterator, "close"):
            iterator.close()
        elif not getattr(iterator, "_persistent_workers", True):  # of PyTorch's DataLoader, which has no public method
            getattr(iterator, "_shutdown_workers", int)()


def values_of(batch: Any) -> tuple[Any, ...]:
    """Return the parts of a batch. A list of arrays has parts; other lists are an array."""
    several = isinstance(batch, tuple) or (isinstance(batch, list) and hasattr((batch or [0])[0], "shape"))
    return tuple(batch) if several else (batch,)


def _length(batches: Iterable[Any]) -> int | None:
    """Return the number of batches if the iterable knows it; tf.data raises an error otherwise."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None
