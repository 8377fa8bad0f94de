"""The data given to a model, checked and moved to its device before anything changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend, make_backend, namespace, quiet, real_numbers, to_numpy
from xpnet.checks import share_of
from xpnet.errors import SourceError
from xpnet.layers import base
from xpnet.layers.base import Shape
from xpnet.layers.sequential import Sequential
from xpnet.layers.shapes import Measured, measure, measure_alike
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.tree import Array

HUGE = 1e15  # if the largest weight is above this, or below 1 / HUGE, only the ratios of weights are kept


Data = dict[str, Array]  # "x", "y" and, with weights, "weight"


@dataclass
class Intake:
    """Checks a model's data and moves them to its device. The model does not change.

    Attributes
    ----------
    backend, network, loss, metrics
        The parts of the model with these names.
    input_shape : tuple of int, optional
        The shape of the samples that the model was built for, or None before `build`.
    measured : dict
        The network's `Measured` for each shape of samples seen so far. `accept` adds entries.
    """

    backend: Backend
    network: Sequential
    loss: Loss
    metrics: Sequence[Metric]
    input_shape: Shape | None
    measured: dict[Shape, Measured]

    def accept(self, x: Array) -> Measured:
        """Check that the network accepts these samples."""
        shape = tuple(x.shape[1:])
        if shape not in self.measured:
            known = self.input_shape
            found = measure(self.network, shape) if known is None else measure_alike(self.network, shape, known)
            base.require_one_output(found.output_shape)
            self.measured[shape] = found
        self.network.check_input(x)
        return self.measured[shape]

    def data(self, x: Any, y: Any, sample_weight: Any = None) -> Data:
        """Return the data of an evaluation. Arrays that are already on the device are not copied."""
        given, x = x, prepare_x(self.backend, x)
        data = self._data(x, y, sample_weight)
        require_finite(self.backend, data, given)
        return data

    def _data(self, x: Array, y: Any, sample_weight: Any) -> Data:
        output_shape = self.accept(x).output_shape
        data = prepare_targets(self.backend, self.loss, output_shape, x, y, sample_weight)
        for metric in self.metrics:
            metric.check(*self.loss.row_shapes(tuple(data["y"].shape), output_shape))
        return data

    def samples(self, x: Any) -> Data:
        """Return the data of predictions."""
        data = {"x": prepare_x(self.backend, x)}
        require_finite(self.backend, data, x)
        self.accept(data["x"])
        return data

    def run(self, x: Any, y: Any, sample_weight: Any, class_weight: Any, share: float) -> tuple[Data, Data | None]:
        """Return the training data of `fit`, and the last `share` of them for validation unless it is 0."""
        given, x = x, prepare_x(self.backend, x)
        data, validation = self._data(x, y, sample_weight), None
        if share:
            data, validation = split(data, share)
        if class_weight is not None:
            output_shape = self.measured[tuple(x.shape[1:])].output_shape
            data = weigh_classes(self.backend, self.loss, output_shape, data, class_weight)
        require_weight(data)
        kept = data["x"].shape[0]
        require_finite(self.backend, data, given, slice(kept))
        if validation is not None:
            with part("validation_split"):
                require_weight(validation)
                require_finite(self.backend, validation, given, slice(kept, None))
        return data, validation


def prepare_x(backend: Backend, x: Any) -> Array:
    """Move samples to the backend's device. Integers, such as bytes, stay integers.

    Raises
    ------
    ValueError
        The samples are not numbers, or the sample axis is missing or empty. `require_finite` checks the values.
    """
    x = _moved(backend, x, "x")
    if x.ndim < 2:
        raise ValueError(
            "x must have samples along its first axis and features along the others. Reshape samples with one feature to "
            f"(n, 1), and a single sample to (1, n). Received: x of shape {tuple(x.shape)}"
        )
    if 0 in x.shape:
        raise ValueError(f"x must hold at least one sample and one feature. Received: x of shape {tuple(x.shape)}")
    return x


def prepare_targets(
    backend: Backend, loss: Loss, output_shape: Shape, x: Array, y: Any, sample_weight: Any = None
) -> dict[str, Array]:
    """Return the data of a training or evaluation run: ``"x"``, ``"y"``, and with sample weights ``"weight"``.

    Raises
    ------
    ValueError
        The numbers of samples, targets and weights differ; the targets do not fit the loss or the network's output; or a
        weight is negative or not finite.
    """
    # JAX would compile each operation of the checks, so targets from the host are checked there
    from_host = backend.compiles and isinstance(y, (np.ndarray, list, tuple))
    place = make_backend("numpy", dtype=backend.float_name) if from_host else backend
    given, y = y, _moved(place, y, "y")
    require_length("y", y, x)
    weight = None
    if sample_weight is not None:
        weight = checked_weight(place, loss, output_shape, x, sample_weight)
    try:
        y, weight = loss.check(y, output_shape, place.dtype, weight)
    except ValueError as error:
        raise _overflow(backend, "y", y, given, weight) or error from None
    moved = {"x": x, "y": _moved(backend, y, "y")}
    return moved if weight is None else moved | {"weight": backend.asarray(weight)}


def checked_weight(backend: Backend, loss: Loss, output_shape: Shape, x: Array, sample_weight: Any) -> Array:
    """Move the weights of the samples x to the device. Raises ValueError if they do not fit."""
    weight = _weight(sample_weight, "sample_weight")
    shapes = loss.weight_shapes(x.shape[0], output_shape)
    if weight.shape not in shapes:
        raise ValueError(
            f"sample_weight must have shape {' or '.join(map(str, shapes))}, one weight for each sample of x. "
            f"Received: shape {weight.shape}"
        )
    return backend.asarray(weight)


def _weight(values: Any, name: str) -> np.ndarray:
    """Check weights. Huge or tiny weights are divided by the largest, so that they and their sums stay within float32."""
    with part(name):
        weight = real_numbers(values).astype(float)
    if not (np.all(np.isfinite(weight)) and np.all(weight >= 0)):
        raise ValueError(
            f"{name}: weights must be finite and at least 0. Received: weights from {weight.min()} to {weight.max()}"
        )
    largest = weight.max(initial=0.0) or 1.0
    return weight if 1 / HUGE <= largest <= HUGE else weight / largest


def weigh_classes(
    backend: Backend, loss: Loss, output_shape: Shape, data: dict[str, Array], class_weight: Mapping[Any, float] | str
) -> dict[str, Array]:
    """Multiply the weight of each sample, or with `PerPosition` of each position, by the weight of its class.

    "balanced" gives class c the weight Σ w / (classes · Σ_c w), so that all classes have the same total weight, as in
    scikit-learn. A sample with weight 0 may have a label without a class weight.
    """
    balanced = isinstance(class_weight, str) and class_weight == "balanced"
    if balanced and not loss.of_classes:
        raise ValueError(
            f"class_weight needs a classification loss. Pass sample_weight, one weight for each sample. Received: {loss!r}"
        )
    if not (balanced or isinstance(class_weight, Mapping)):
        raise ValueError(
            f'class_weight must be a dict of label -> weight, or "balanced". Received: class_weight={class_weight!r}'
        )
    if isinstance(class_weight, Mapping):  # those of classes that only later batches hold, too
        _weight(list(class_weight.values()), "class_weight")
    y = loss.labels(to_numpy(data["y"]), output_shape)
    if y.ndim != len(output_shape):
        raise ValueError(f"class_weight needs one class label for each sample. Received: targets of shape {y.shape}")
    given = to_numpy(data["weight"]).astype(float) if "weight" in data else np.ones(len(y))
    given = np.broadcast_to(given.reshape(*given.shape, *(1,) * (y.ndim - given.ndim)), y.shape)
    classes, position = np.unique(y[given > 0], return_inverse=True)
    if isinstance(class_weight, Mapping):
        missing = [c.item() for c in classes if c.item() not in class_weight]
        if missing:
            raise ValueError(
                f"class_weight must hold every label of y. Missing: {missing[:10]}. Received: {dict(class_weight)}"
            )
        chosen: Any = [class_weight[c.item()] for c in classes]
    else:
        chosen = given.sum() / (len(classes) * np.bincount(position, given[given > 0]))
    weight = np.zeros(y.shape)
    weight[given > 0] = _weight(chosen, "class_weight")[position] * given[given > 0]
    return data | {"weight": backend.asarray(weight)}


def require_weight(data: dict[str, Array]) -> None:
    """Raise ValueError if all weights are 0, because then no sample counts."""
    if "weight" in data and not np.any(to_numpy(data["weight"]) > 0):
        raise ValueError("At least one weight must be above 0. Received: sample or class weights that are all 0")


@contextmanager
def part(name: str) -> Iterator[None]:
    """Prefix ValueErrors raised inside with the name of the part of the data."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{name}: {error}", error.batch) from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def counted_rows(data: dict[str, Array]) -> np.ndarray:
    """Return the indices of the rows with a weight above 0 for at least one position; all rows if there are no weights."""
    return _counted_rows(np.arange(data["x"].shape[0]), data.get("weight"))


def _moved(backend: Backend, x: Any, name: str) -> Array:
    try:
        return backend.asarray(x)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def require_length(name: str, values: Array, x: Array) -> None:
    """Raise ValueError unless `values` has an entry for each sample of x."""
    if not values.shape or values.shape[0] != x.shape[0]:
        raise ValueError(
            f"{name} must have one entry for each sample of x. Received: {name} of shape {tuple(values.shape)} for x of "
            f"shape {tuple(x.shape)}"
        )


@quiet
def require_finite(backend: Backend, data: dict[str, Array], given: Any, rows: slice = slice(None)) -> None:
    """Raise ValueError if a row of x that counts is not finite. `given` is x before conversion, and `data` holds its `rows`."""
    x = data["x"]
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating") or math.isfinite(xp.sum(x)):  # a finite sum implies finite terms
        return
    if error := _overflow(backend, "x", x, given, data.get("weight"), rows):
        raise error
    bad = ~np.isfinite(_counted_rows(to_numpy(x), data.get("weight"))).all(axis=tuple(range(1, x.ndim)))
    if np.any(bad):
        raise ValueError(
            "x must be finite. Replace other values, for example with numpy.nan_to_num or sklearn.impute.SimpleImputer"
            f"{', or set the weights of their samples to 0' if 'y' in data else ''}. "
            f"Received: NaN or infinity in {np.count_nonzero(bad)} of {x.shape[0]} samples"
        )


def _counted_rows(values: np.ndarray, weight: Array | None) -> np.ndarray:
    """The rows with a weight above 0 for at least one position."""
    return values if weight is None else values[np.any(to_numpy(weight).reshape(len(values), -1) > 0, axis=1)]


def _overflow(
    backend: Backend, name: str, values: Array, given: Any, weight: Array | None, rows: slice = slice(None)
) -> ValueError | None:
    """Return the error for rows that count and hold finite values that overflow the backend's float type."""
    host = to_numpy(values)
    if host.dtype.kind != "f" or np.all(np.isfinite(host)):
        return None
    host, original = (_counted_rows(array, weight) for array in (host, real_numbers(given)[rows]))
    lost = np.isfinite(original) & ~np.isfinite(host)
    if not np.any(lost):
        return None
    return ValueError(
        f"{name} must fit in {backend.float_name}, whose largest number is {np.finfo(host.dtype).max:.3g}. Rescale the "
        'values, or compute in double precision with set_backend(..., dtype="float64"). '
        f"Received: values up to {np.abs(original[lost]).max():.3g}"
    )


def kept_rows(n: int, share: float) -> int:
    """Return how many of n samples are left for training, if the last `share` of them are held out."""
    kept = math.floor(n - share_of(n, share))
    if not 0 < kept < n:
        raise ValueError(
            f"validation_split must leave samples for training and for validation. Received: {share} of {n} samples"
        )
    return kept


def split(data: dict[str, Array], share: float) -> tuple[Data, Data]:
    """Split the data into the first samples and the last `share` of them."""
    n = data["x"].shape[0]
    kept = kept_rows(n, share)
    parts = (slice(0, kept), slice(kept, n))
    first, last = ({name: values[part, ...] for name, values in data.items()} for part in parts)
    return first, last
