"""Creates the readers of data that are read while a model computes: rows on disk, samples of datasets, and batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from xpnet.backend import real_numbers, recognition
from xpnet.checks import require_batch_size
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
from xpnet.sources.arrays import EVALUATION_BATCH
from xpnet.sources.base import InOrder, Source
from xpnet.sources.batches import IndexedBatches, IteratedBatches
from xpnet.sources.choose import require_repeatable
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
    opened: ExitStack, intake: Intake, how: str, x: Any, y: Any, sample_weight: Any, class_weight: ClassWeight,
    share: float, settings: FitSettings,
) -> tuple[Source, InOrder | None]:  # fmt: skip
    """Return the source of the training data, and the last `share` of them for validation unless it is 0."""
    if how == recognition.ROWS:
        return _of_rows(intake, x, y, sample_weight, class_weight, share, settings)
    balanced = class_weight if isinstance(class_weight, str) else None
    _refuse(x, sample_weight=sample_weight, validation_split=share or None, class_weight=balanced)
    return Stream(_reader(opened, how, x, settings), Form(intake, 2, class_weight, drops=True)), None


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
    opened: ExitStack, intake: Intake, how: str, x: Any, y: Any, sample_weight: Any, batch_size: int | None,
    steps: int | None, fields: int, name: str,
) -> InOrder:  # fmt: skip
    """See `xpnet.sources.choose.evaluation`."""
    target_shape: Shape | None = None
    if how == recognition.ROWS:
        columns = {"x": Column(x)}
        if fields == 2:
            columns, target_shape = _columns(intake, x, y, sample_weight)
        reader: Reader = _in_order(ColumnRows(list(columns.values()), 0, columns["x"].count), batch_size)
    else:
        _refuse(x, sample_weight=sample_weight)
        if how == recognition.SAMPLES:
            reader = _in_order(SampleRows(x), batch_size)
        else:
            _refuse(x, batch_size=batch_size)
            reader = _batches(opened, x, False, None)
    return StreamInOrder(reader, Form(intake, fields), steps, name, target_shape)


def _in_order(rows: Rows, batch_size: int | None) -> RowReader:
    size = EVALUATION_BATCH if batch_size is None else require_batch_size(batch_size)
    return RowReader(rows, FitSettings(size, shuffle=False))


def _reader(opened: ExitStack, how: str, x: Any, settings: FitSettings) -> Reader:
    if how == recognition.SAMPLES:
        return RowReader(SampleRows(x), settings)
    _refuse(x, batch_size=settings.batch_size, sample_with_replacement=settings.sample_with_replacement or None)
    if settings.epochs - settings.initial_epoch > 1:
        require_repeatable(x, settings.steps_per_epoch, "steps_per_epoch")
    return _batches(opened, x, settings.shuffle, settings.steps_per_epoch)


def _batches(opened: ExitStack, x: Any, shuffle: bool, steps: int | None) -> Reader:
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return IndexedBatches(x, shuffle)
    reader = IteratedBatches(x, steps)
    opened.callback(reader.close)
    return reader


def _refuse(x: Any, **given: Any) -> None:
    """Raise ValueError for the first argument that is given although `x` is a dataset of samples or gives batches."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} cannot be used with data of type {type(x).__name__}. {INSTEAD[name]}. Received: {name}={value!r:.100}"
            )
