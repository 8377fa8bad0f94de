"""The form of batches on the host: each is checked before it goes to the device, and an error names it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpnet.backend import Backend, make_backend, namespace, real_numbers, to_numpy
from xpnet.errors import SourceError
from xpnet.inputs import Data, Intake, counted_rows, prepare_x, require_finite, weigh_classes
from xpnet.layers.base import Shape
from xpnet.tree import Array

PART_BYTES = 8 << 20  # batches that are read or computed together have at most this size, unless one batch is larger


@dataclass(frozen=True)
class Part:
    """Consecutive batches as a reader gives them.

    Attributes
    ----------
    number : int
        The number of the first batch in the epoch.
    values : tuple
        ``(x,)``, ``(x, y)`` or ``(x, y, weight)``, with the rows of all these batches.
    size : int, optional
        The number of rows in a batch. None means that all rows are one batch.
    rows : array of int, optional
        The numbers of the rows in the data.
    whole : int, optional
        The number of rows in each whole batch, if `values` hold only some of them.
    """

    number: int
    values: tuple[Any, ...]
    size: int | None = None
    rows: np.ndarray | None = None
    whole: int | None = None

    def batches(self) -> Iterator[Part]:
        """Yield each batch separately."""
        if self.size is None:
            yield self
            return
        for i, start in enumerate(range(0, len(self.values[0]), self.size)):
            one = slice(start, start + self.size)
            rows = None if self.rows is None else self.rows[one]
            yield Part(self.number + i, tuple(v[one] for v in self.values), None, rows)


@dataclass(frozen=True)
class Piece:
    """Checked batches of one size, as arrays with one row for each batch; see `Chunk.columns`. `whole` is as in `Part`."""

    columns: dict[str, Array]
    whole: int | None = None

    @property
    def steps(self) -> int:
        return len(self.columns["x"])

    @property
    def nbytes(self) -> int:
        return sum(values.nbytes for values in self.columns.values())

    @property
    def signature(self) -> list[tuple[Any, ...]]:
        """A key that is equal for batches of the same form."""
        return [(self.whole,), *((name, x.shape[1:], x.dtype) for name, x in self.columns.items())]

    def cut(self, start: int, stop: int) -> Piece:
        return Piece({name: values[start:stop] for name, values in self.columns.items()}, self.whole)


def joined(pieces: list[Piece]) -> Piece:
    """Return one piece of several with the same signature."""
    if len(pieces) == 1:
        return pieces[0]
    columns, whole = pieces[0].columns, pieces[0].whole
    joined = {name: namespace(x).concat([piece.columns[name] for piece in pieces]) for name, x in columns.items()}
    return Piece(joined, whole)


def on_host(intake: Intake) -> Intake:
    """Return an intake that checks data on the host, in the float type of its backend."""
    return replace(intake, backend=make_backend("numpy", dtype=intake.backend.float_name))


@dataclass
class Form:
    """Checks batches as `Intake` checks a data set, on the host. All must have the form of the first.

    Attributes
    ----------
    intake : Intake
    fields : int
        The number of values that a batch must have at least: 2, x and y, or 1 for predictions.
    class_weight : mapping, optional
    drops : bool
        Whether rows of weight 0 are left out, as in training.
    """

    intake: Intake
    fields: int
    class_weight: Mapping[Any, float] | str | None = None
    drops: bool = False
    known: tuple[Any, ...] = field(default=(), init=False)
    example: Data = field(init=False)  # the targets and the weight of one sample
    batch_size: int = field(init=False)  # of the first batch
    target: Backend = field(init=False)  # where the batches will go

    def __post_init__(self) -> None:
        self.target = self.intake.backend
        self.intake = on_host(self.intake)

    @property
    def shape(self) -> Shape:
        """The shape of one sample."""
        return self.known[0][0]

    @property
    def target_shape(self) -> Shape:
        """The shape of one sample's targets, as they were given. Predictions have none."""
        return self.known[1][0] if self.fields > 1 else ()

    def begin(self, part: Part) -> None:
        """Use the form of these batches for all, and check that the network accepts it. Raises the same errors as `pieces`."""
        try:
            data = self._data(part.values)
        except Exception as error:
            raise self._named(part, error) from error
        self.example = {name: np.array(values[:1]) for name, values in data.items() if name != "x"}
        self.batch_size = part.size or len(data["x"])

    def checked(self, parts: Iterator[Part]) -> Generator[Piece, None, None]:
        """Yield the batches of all parts, checked. The thread that reads them computes on the device of the backend."""
        with self.target.scope():
            for part in parts:
                yield from self.pieces(part)

    def pieces(self, part: Part) -> Iterator[Piece]:
        """Yield the batches of a part, checked.

        Raises
        ------
        SourceError
            A batch does not fit. It names the first batch that does not, and its first row if the rows are numbered.
        """
        try:
            if part.rows is None:  # a generator may fill the same arrays again
                part = replace(part, values=tuple(np.array(real_numbers(v)) for v in part.values))
            data = self._data(part.values)
        except Exception as error:
            raise self._named(part, error) from error
        total, size = len(data["x"]), part.size or len(data["x"])
        if self.drops and "weight" in data and len(counted_rows(data)) < total:
            for one in part.batches():
                yield self._counted(one)
            return
        full = total - total % size
        for start, stop, rows in ((0, full, size), (full, total, total - full)):
            if start < stop:
                columns = {name: v[start:stop].reshape(-1, rows, *v.shape[1:]) for name, v in data.items()}
                yield Piece(columns, part.whole)

    def _counted(self, part: Part) -> Piece:
        data = self._data(part.values)
        kept = counted_rows(data)
        if not len(kept):
            raise _error(
                part.number, "At least one weight must be above 0. Received: sample or class weights that are all 0"
            )
        return Piece({name: values[kept][None] for name, values in data.items()})

    def _data(self, values: tuple[Any, ...]) -> Data:
        if not self.fields <= len(values) <= 3:
            wanted = "(x, y) or (x, y, weight)" if self.fields == 2 else "x, (x, y) or (x, y, weight)"
            raise ValueError(f"A batch must be {wanted}. Received: {len(values)} values")
        values = values[: 3 if self.fields == 2 else 1]
        x = prepare_x(self.intake.backend, values[0])
        forms = tuple((tuple(v.shape[1:]), v.dtype) for v in (x, *map(to_numpy, values[1:2])))
        if self.known and forms != self.known:
            raise ValueError(
                f"All batches must have the shape and dtype of the first, {_described(self.known)}. Received: "
                f"{_described(forms)}"
            )
        if self.fields == 1:
            self.intake.accept(x)
            data = {"x": x}
            require_finite(self.intake.backend, data, values[0])
        else:
            data = self.intake.data(*values)
        for array in data.values():
            self.target.require_representable(array)
        self.known = forms
        return self._weighted(data)

    def _weighted(self, data: Data) -> Data:
        if self.class_weight is None:
            return data
        intake = self.intake
        output_shape = intake.measured[tuple(data["x"].shape[1:])].output_shape
        return weigh_classes(intake.backend, intake.loss, output_shape, data, self.class_weight)

    def _named(self, part: Part, error: Exception) -> SourceError:
        """Return the error with the first batch that causes it."""
        for one in part.batches():
            try:
                self._data(one.values)
            except Exception as found:
                return _error(one.number, f"{found}{_first_row(one)}")
        return _error(part.number, str(error))


def _first_row(part: Part) -> str:
    """Name the first row with a value that is not finite, if the rows are numbered."""
    if part.rows is None:
        return ""
    for values in part.values[:2]:
        array = to_numpy(values)
        if array.dtype.kind == "f":
            bad = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            if np.any(bad):
                return f", the first in row {part.rows[np.argmax(bad)]} of the data"
    return ""


def _error(number: int, what: str) -> SourceError:
    place = (
        f"Batch {number} of the epoch, counted from 0"
        if number >= 0
        else f"{-number} batches before the epoch that resumes"
    )
    return SourceError(f"{place}: {what}", number)


def ended(number: int) -> SourceError:
    """Return the error of a source that has no batch with this number."""
    found = f"{number} batches" if number >= 0 else "the end"
    return _error(
        number,
        "A source must give at least one batch, and all batches that its length or the number of steps promises. With steps, "
        f"use an iterable that can begin again, such as an object with __iter__, not a generator. Received: {found}",
    )


def named(name: str, pieces: Iterator[Piece]) -> Generator[Piece, None, None]:
    """Yield the pieces. Errors begin with the name of the data."""
    try:
        yield from pieces
    except SourceError as error:
        raise SourceError(f"{name}: {error}", error.batch) from error


@contextmanager
def reading(number: int) -> Iterator[None]:
    """Turn an error of the source inside the ``with`` block into a `SourceError` that names the batch."""
    try:
        yield
    except Exception as error:
        raise _error(number, f"The source could not read it. Received: {type(error).__name__}: {error}") from error


def _described(forms: tuple[Any, ...]) -> str:
    return ", ".join(
        f"{name}: {dtype} {('n', *shape)}".replace("'", "")
        for name, (shape, dtype) in zip(("x", "y"), forms, strict=False)
    )
