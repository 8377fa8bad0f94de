"""Makes the source that reads what `fit`, `evaluate` or `predict` is given; see `xpnet.backend.recognition`.

Arrays and tables are moved to the device as a whole. Data on disk, objects that only give slices, datasets of samples, and
batches are read while the model computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from xpnet.backend import real_numbers, recognition
from xpnet.checks import require_batch_size, require_positive
from xpnet.inputs import (
    Intake,
    checked_weight,
    kept_rows,
    part,
    prepare_targets,
    prepare_x,
    require_length,
    require_weight,
    weigh_classes,
)
from xpnet.layers.base import Shape
from xpnet.settings import FitSettings
from xpnet.sources.arrays import EVALUATION_BATCH, ArraySource, Slices
from xpnet.sources.base import InOrder, Repeated, Source
from xpnet.sources.batches import IndexedBatches, IteratedBatches
from xpnet.sources.form import Form, on_host
from xpnet.sources.rows import Column, ColumnRows, RowReader, Rows, SampleRows
from xpnet.sources.stream import Reader, Stream, StreamInOrder

ClassWeight = Mapping[Any, float] | str | None
INSTEAD = {  # what cannot be used with batches or samples -> what to do
    "batch_size": "The source determines the size of its batches",
    "sample_weight": "Give (x, y, weight) in each batch or sample",
    "validation_split": "Pass validation_data",
    "sample_with_replacement": "Draw the samples in the source",
    "class_weight": 'Pass a dict of label -> weight, because "balanced" needs all targets before training',
}


def training(
    opened: ExitStack,
    intake: Intake,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: ClassWeight,
    validation_data: tuple | None,
    settings: FitSettings,
) -> tuple[Source, InOrder | None]:
    """Return the sources of the training data and of the validation data of `fit`. `opened` closes what they open."""
    steps, share = settings.steps_per_epoch, settings.validation_split if validation_data is None else 0.0
    validation: InOrder | None = None
    match recognition.kind(x, y):
        case recognition.ARRAYS:
            source, validation = _of_arrays(intake, x, y, sample_weight, class_weight, share, settings)
        case recognition.ROWS:
            source, validation = _of_rows(intake, x, y, sample_weight, class_weight, share, settings)
        case how:
            balanced = class_weight if isinstance(class_weight, str) else None
            _refuse(x, sample_weight=sample_weight, validation_split=share or None, class_weight=balanced)
            source = Stream(_reader(opened, how, x, settings), Form(intake, 2, class_weight, drops=True))
    intake.input_shape = intake.input_shape or source.shape
    if steps is not None and source.steps != steps:
        source = Repeated(source, steps)
    if validation_data is not None:
        name, size, steps = "validation_data", settings.validation_batch_size, settings.validation_steps
        _require_repeatable(validation_data[0], steps, "validation_steps")
        with part(name):
            validation = evaluation(opened, intake, *validation_data, batch_size=size, steps=steps, name=name)
    return source, validation


def _of_arrays(
    intake: Intake, x: Any, y: Any, sample_weight: Any, class_weight: ClassWeight, share: float, settings: FitSettings
) -> tuple[Source, InOrder | None]:
    data, held_out = intake.run(x, y, sample_weight, class_weight, share)
    target_shape = tuple(np.shape(y)[1:])
    source = ArraySource(data, settings, target_shape)
    size, steps = settings.validation_batch_size, settings.validation_steps
    return source, None if held_out is None else Slices(held_out, size, target_shape, steps)


def _of_rows(
    intake: Intake, x: Any, y: Any, sample_weight: Any, class_weight: ClassWeight, share: float, settings: FitSettings
) -> tuple[Source, InOrder | None]:
    columns, target_shape = _columns(intake, x, y, sample_weight)
    count = columns["x"].count
    kept = kept_rows(count, share) if share else count
    known: dict[str, Any] = {}  # what is in memory beside x
    for name, column in columns.items():
        if name != "x" and column.loaded:
            known[name] = column.values[:kept]
    if class_weight is not None and "y" in known:
        output_shape = intake.measured[columns["x"].shape[1:]].output_shape
        known = weigh_classes(on_host(intake).backend, intake.loss, output_shape, known, class_weight)
        class_weight = None
    if isinstance(class_weight, str):
        raise ValueError(
            f'class_weight="balanced" needs targets in memory, such as y[:]. Received: y of type {type(y).__name__}'
        )
    counted = None
    if "weight" in known:
        require_weight(known)
        used = np.any(known["weight"].reshape(kept, -1) > 0, axis=1)
        counted = None if np.all(used) else np.flatnonzero(used)
    trained = columns | {name: Column(values) for name, values in known.items()}
    reader = RowReader(ColumnRows(list(trained.values()), 0, kept), settings, counted)
    source = Stream(reader, Form(intake, 2, class_weight, drops=True), target_shape)
    if not share:
        return source, None
    reader = _in_order(ColumnRows(list(columns.values()), kept, count), settings.validation_batch_size)
    steps, name = settings.validation_steps, "validation_split"
    with part(name):
        return source, StreamInOrder(reader, Form(intake, 2), steps, name, target_shape)


def _columns(intake: Intake, x: Any, y: Any, sample_weight: Any) -> tuple[dict[str, Column], Shape]:
    """Return x, y and the weights as columns, and the shape of one sample's targets. What is in memory is checked."""
    host = on_host(intake)
    if y is None:
        raise ValueError(f"y must be given with x. Received: y=None and x of type {type(x).__name__}")
    with part("x"):
        columns = {"x": Column(x if recognition.is_stored(x) else real_numbers(x))}
        first = prepare_x(host.backend, columns["x"].cut(0, 1))
    output_shape = host.accept(first).output_shape
    if not recognition.is_stored(y):
        data = prepare_targets(host.backend, intake.loss, output_shape, columns["x"], y, sample_weight)
        return columns | {name: Column(data[name]) for name in data if name != "x"}, tuple(np.shape(y)[1:])
    with part("y"):
        columns["y"] = Column(y)
    require_length("y", columns["y"], columns["x"])
    if sample_weight is not None:
        weight = checked_weight(host.backend, intake.loss, output_shape, columns["x"], sample_weight)
        columns["weight"] = Column(weight)
    return columns, columns["y"].shape[1:]


def evaluation(
    opened: ExitStack,
    intake: Intake,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    fields: int = 2,
    name: str = "",
) -> InOrder:
    """Return the data for `evaluate`, or with ``fields=1`` for `predict`. `opened` closes what it opens.

    `steps` is the number of batches to use, by default all. `name` is the name of the data in errors.
    """
    if steps is not None:
        require_positive(steps=steps)
    match recognition.kind(x, y, predicts=fields == 1):
        case recognition.ARRAYS:
            data = intake.data(x, y, sample_weight) if fields == 2 else intake.samples(x)
            require_weight(data)
            return Slices(data, batch_size, tuple(np.shape(y)[1:]), steps)
        case recognition.ROWS:
            columns, target_shape = _columns(intake, x, y, sample_weight) if fields == 2 else ({"x": Column(x)}, None)
            rows = ColumnRows(list(columns.values()), 0, columns["x"].count)
            return StreamInOrder(_in_order(rows, batch_size), Form(intake, fields), steps, name, target_shape)
        case recognition.SAMPLES:
            _refuse(x, sample_weight=sample_weight)
            return StreamInOrder(_in_order(SampleRows(x), batch_size), Form(intake, fields), steps, name)
        case _:
            _refuse(x, sample_weight=sample_weight, batch_size=batch_size)
            return StreamInOrder(_batches(opened, x, False, None), Form(intake, fields), steps, name)


def _in_order(rows: Rows, batch_size: int | None) -> RowReader:
    size = EVALUATION_BATCH if batch_size is None else require_batch_size(batch_size)
    return RowReader(rows, FitSettings(size, shuffle=False))


def _reader(opened: ExitStack, how: str, x: Any, settings: FitSettings) -> Reader:
    if how == recognition.SAMPLES:
        return RowReader(SampleRows(x), settings)
    _refuse(x, batch_size=settings.batch_size, sample_with_replacement=settings.sample_with_replacement or None)
    if settings.epochs - settings.initial_epoch > 1:
        _require_repeatable(x, settings.steps_per_epoch, "steps_per_epoch")
    return _batches(opened, x, settings.shuffle, settings.steps_per_epoch)


def _batches(opened: ExitStack, x: Any, shuffle: bool, steps: int | None) -> Reader:
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return IndexedBatches(x, shuffle)
    reader = IteratedBatches(x, steps)
    opened.callback(reader.close)
    return reader


def _require_repeatable(x: Any, steps: int | None, name: str) -> None:
    if isinstance(x, Iterator) and steps is None:
        raise ValueError(
            f"A generator can be read only once. Pass {name}, or an iterable that can begin again, such as an object with "
            f"__iter__. Received: {type(x).__name__}"
        )


def _refuse(x: Any, **given: Any) -> None:
    """Raise ValueError for the first argument that is given although `x` is a dataset of samples or gives batches."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} cannot be used with data of type {type(x).__name__}. {INSTEAD[name]}. Received: {name}={value!r:.100}"
            )
