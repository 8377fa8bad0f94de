"""Creates the source for the data of `fit`, `evaluate` or `predict`; see `xpnet.backend.recognition`.

Arrays and tables are moved to the device as a whole. `xpnet.sources.readers`, which is imported when it is needed, creates the
sources that read while the model computes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from xpnet.backend import recognition
from xpnet.checks import require_positive
from xpnet.inputs import Intake, part, require_weight
from xpnet.settings import FitSettings
from xpnet.sources.arrays import ArraySource, Slices
from xpnet.sources.base import InOrder, Repeated, Source

READERS = "xpnet.sources.readers"


def training(
    opened: ExitStack,
    intake: Intake,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Mapping[Any, float] | str | None,
    validation_data: tuple[Any, ...] | None,
    settings: FitSettings,
) -> tuple[Source, InOrder | None]:
    """Return the sources of the training data and of the validation data of `fit`. `opened` closes what they open."""
    steps, share = settings.steps_per_epoch, settings.validation_split if validation_data is None else 0.0
    how = recognition.kind(x, y)
    make = _of_arrays if how == recognition.ARRAYS else importlib.import_module(READERS).training
    source, validation = make(opened, intake, how, x, y, sample_weight, class_weight, share, settings)
    intake.input_shape = intake.input_shape or source.shape
    if steps is not None and source.steps != steps:
        source = Repeated(source, steps)
    if validation_data is not None:
        name, size, steps = "validation_data", settings.validation_batch_size, settings.validation_steps
        require_repeatable(validation_data[0], steps, "validation_steps")
        with part(name):
            validation = evaluation(opened, intake, *validation_data, batch_size=size, steps=steps, name=name)
    return source, validation


def _of_arrays(
    opened: ExitStack, intake: Intake, how: str, x: Any, y: Any, sample_weight: Any, class_weight: Any, share: float,
    settings: FitSettings,
) -> tuple[Source, InOrder | None]:  # fmt: skip
    data, held_out = intake.run(x, y, sample_weight, class_weight, share)
    target_shape = tuple(np.shape(y)[1:])
    source = ArraySource(data, settings, target_shape)
    size, steps = settings.validation_batch_size, settings.validation_steps
    return source, None if held_out is None else Slices(held_out, size, target_shape, steps)


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
    how = recognition.kind(x, y, predicts=fields == 1)
    if how == recognition.ARRAYS:
        data = intake.data(x, y, sample_weight) if fields == 2 else intake.samples(x)
        require_weight(data)
        return Slices(data, batch_size, tuple(np.shape(y)[1:]), steps)
    make = importlib.import_module(READERS).evaluation
    return make(opened, intake, how, x, y, sample_weight, batch_size, steps, fields, name)


def require_repeatable(x: Any, steps: int | None, name: str) -> None:
    """Raise ValueError for a generator that would be read to its end more than once."""
    if isinstance(x, Iterator) and steps is None:
        raise ValueError(
            f"A generator can be read only once. Pass {name}, or an iterable that can begin again, such as an object with "
            f"__iter__. Received: {type(x).__name__}"
        )
