"""What people hand to a model, checked and moved to its device before anything is changed."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet import metrics
from xpnet.backend import Backend, namespace, quiet, to_numpy
from xpnet.callbacks import Callback
from xpnet.checks import boolean, count, is_integer, number, require_positive
from xpnet.layers.base import Layer, Shape
from xpnet.layers.sequential import Sequential
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.progress import check_verbose
from xpnet.tree import Array

PASSING = ("Dropout", "Flatten", "Identity", "Reshape")  # layers that leave values what they are


def check_shape(input_shape: Any) -> Shape:
    """The shape of one sample as a tuple of Python integers; raises ValueError where it is none."""
    sizes = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    if not sizes or not all(is_integer(n) and n >= 1 for n in sizes):
        raise ValueError(
            "input_shape is the shape of one sample, a tuple of integers of at least 1; samples may have another length "
            f"later, see Model. Received: input_shape={input_shape!r}"
        )
    return tuple(int(n) for n in sizes)


def require_fitting_end(network: Sequential, loss: Loss) -> None:
    """Raise ValueError where the network ends in the activation that its loss has in it, or lacks the one that it wants."""
    layer, loss = _last(network), loss.row_loss
    last = type(layer).__name__
    if last == loss.built_in:
        raise ValueError(
            f"{type(loss).__name__} has {last} in it: leave that layer out, or take a loss of probabilities "
            '("categorical_cross_entropy", BinaryCrossEntropy(from_logits=False)). predict applies it by itself. '
            f"Received: a network that ends in {last}"
        )
    if loss.of_probabilities and hasattr(layer, "activation"):  # a linear layer, which could have one and has none
        raise ValueError(
            f"{loss!r} wants probabilities: end the network with Softmax() or Sigmoid(), or take a loss of logits "
            '("softmax_cross_entropy", "binary_cross_entropy"), which has the activation in it. '
            f"Received: a network that ends in {last}"
        )


def _last(layer: Layer) -> Layer:
    if isinstance(layer, Sequential):
        ends = [part for part in layer.layers if type(part).__name__ not in PASSING]
        return _last(ends[-1]) if ends else layer
    return _last(layer.layer) if hasattr(layer, "layer") else layer  # of TimeDistributed


def get_metrics(chosen: Sequence[str | Metric] | None, loss: Loss) -> tuple[Metric, ...]:
    """Metrics by name or as objects; raises ValueError where names are unknown, taken twice, or no names."""
    if isinstance(chosen, (str, Metric)):
        raise ValueError(f'metrics is a list, such as ["accuracy"]. Received: metrics={chosen!r}')
    found = tuple(metrics.get(metric, loss) for metric in chosen or ())
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ValueError(f"Each metric may appear once. Received: {names}")
    for name in names:
        taken = name in ("loss", "weight", "step") or name.startswith(("_", "val_")) or keyword.iskeyword(name)
        if taken or not name.isidentifier():
            raise ValueError(
                'A metric\'s name is an identifier that does not begin with "_" or "val_", and not "loss", "weight" or "step". '
                f"Received: {name!r}"
            )
    return found


def check_seed(seed: Any) -> int | tuple[int, ...]:
    """One seed or a tuple of them, as Python integers; raises ValueError for anything else."""
    several = not is_integer(seed) and np.ndim(seed) == 1
    seeds = tuple(seed) if several else (seed,)
    if not seeds or not all(is_integer(s) and s >= 0 for s in seeds):
        raise ValueError(f"seed is an integer of at least 0, or a sequence of them. Received: seed={seed!r}")
    seeds = tuple(int(s) for s in seeds)
    return seeds if several else seeds[0]


def prepare_x(backend: Backend, x: Any, name: str = "x") -> Array:
    """Samples on the backend's device; integers (bytes) stay integers.

    Raises
    ------
    ValueError
        Not numbers, no sample axis or no sample, or a value that is not finite.
    """
    x = _moved(backend, x, name)
    if x.ndim < 2:
        raise ValueError(
            f"{name} must have samples along its first axis and features behind it. Reshape one feature for each "
            f"sample to (n, 1), one sample to (1, n). Received: {name} of shape {tuple(x.shape)}"
        )
    _require_samples(name, x)
    _require_finite(name, x)
    return x


def prepare_targets(
    backend: Backend,
    loss: Loss,
    output_shape: Shape,
    x: Array,
    y: Any,
    sample_weight: Any = None,
) -> dict[str, Array]:
    """The data of a training or evaluation run: ``{"x", "y"}`` and with weights ``"weight"``.

    Raises
    ------
    ValueError
        Another number of targets or weights than of samples; targets that do not fit the loss or the network's
        output; weights that are negative or not finite.
    """
    y = _moved(backend, y, "y")
    _require_length("y", y, x)
    data = {"x": x, "y": loss.check(y, output_shape, backend.dtype)}
    if sample_weight is not None:
        weight = _weight(sample_weight)
        shapes = loss.weight_shapes(x.shape[0], output_shape)
        if weight.shape not in shapes:
            raise ValueError(
                f"sample_weight must have shape {' or '.join(map(str, shapes))}, one for each sample of x. "
                f"Received: shape {weight.shape}"
            )
        data["weight"] = backend.asarray(weight)
    return data


def _weight(values: Any) -> np.ndarray:
    """Checked weights, divided by the largest, so that none leaves the range of float32: only their ratios count."""
    try:
        given = to_numpy(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Weights must be numbers: {error}") from error
    if given.dtype.kind not in "fiub":
        raise ValueError(f"Weights must be numbers. Received: {given!r:.200}")
    weight = given.astype(float)
    if not (np.all(np.isfinite(weight)) and np.all(weight >= 0)):
        raise ValueError(f"Weights must be finite and at least 0. Received: from {weight.min()} to {weight.max()}")
    return weight / (weight.max(initial=0.0) or 1.0)


def weigh_classes(
    backend: Backend, loss: Loss, output_shape: Shape, data: dict[str, Array], class_weight: Mapping[Any, float]
) -> dict[str, Array]:
    """The data with each sample's weight multiplied by that of its class; with `PerPosition`, each position's."""
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            "class_weight is a dict of label -> weight; sklearn.utils.class_weight.compute_class_weight makes balanced ones. "
            f"Received: class_weight={class_weight!r}"
        )
    y = loss.labels(to_numpy(data["y"]), output_shape)
    if y.ndim != len(output_shape):
        raise ValueError(f"class_weight wants one class label for each sample. Received: targets of shape {y.shape}")
    classes, position = np.unique(y, return_inverse=True)
    missing = [c.item() for c in classes if c.item() not in class_weight]
    if missing:
        raise ValueError(
            f"class_weight must hold every label of y. Missing: {missing[:10]}. Received: {dict(class_weight)}"
        )
    weight = _weight([class_weight[c.item()] for c in classes])[position].reshape(y.shape)
    if "weight" in data:
        given = to_numpy(data["weight"])
        weight *= given.reshape(*given.shape, *(1,) * (y.ndim - given.ndim))
    return data | {"weight": backend.asarray(weight)}


def require_weight(*data: dict[str, Array] | None) -> None:
    """Raise ValueError where all weights of a data set are 0: nothing is left to learn from, or to average."""
    for part in data:
        if part and "weight" in part and not np.any(to_numpy(part["weight"]) > 0):
            raise ValueError(
                "Some weights must be above 0. Received: weights that are all 0, of samples or their classes"
            )


def _moved(backend: Backend, x: Any, name: str) -> Array:
    try:
        return backend.asarray(x)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _require_samples(name: str, x: Array) -> None:
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: at least one sample is needed. Received: shape {tuple(x.shape)}")


def _require_length(name: str, values: Array, x: Array) -> None:
    if values.ndim == 0 or values.shape[0] != x.shape[0]:
        raise ValueError(
            f"{name} must have one entry for each sample of x. Received: {name} of shape {tuple(values.shape)} for x of "
            f"shape {tuple(x.shape)}"
        )


@quiet
def _require_finite(name: str, x: Array) -> None:
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating") or bool(xp.isfinite(xp.sum(x))):  # a finite sum has finite terms
        return
    if not bool(xp.all(xp.isfinite(x))):
        raise ValueError(
            f"{name} holds values that are not finite. Replace them, for example with numpy.nan_to_num or "
            f"sklearn.impute.SimpleImputer. Received: {name} with NaN or infinity"
        )


def validation_epochs(validation_freq: Any) -> Callable[[int], bool]:
    """Whether to validate after an epoch, counted from 0."""
    if is_integer(validation_freq):
        return lambda epoch: (epoch + 1) % validation_freq == 0
    return lambda epoch: epoch + 1 in validation_freq


def split(data: dict[str, Array], share: float) -> tuple[dict, dict]:
    """The first samples, and the last `share` of them."""
    n = data["x"].shape[0]
    kept = int(n * (1 - share))
    if not 0 < kept < n:
        raise ValueError(f"validation_split must leave samples on both sides. Received: {share} of {n} samples")
    parts = (slice(0, kept), slice(kept, n))
    first, last = ({name: values[part, ...] for name, values in data.items()} for part in parts)
    return first, last


def check_batch_size(batch_size: Any, n: int) -> int:
    """The size, 32 if None, and at most all n samples; raises ValueError unless it is an integer of at least 1."""
    return min(count("batch_size", 32 if batch_size is None else batch_size), n)


def check_fit_settings(
    epochs, initial_epoch, validation_split, validation_freq, record_every, verbose, shuffle, sample_with_replacement
) -> None:
    """Raise ValueError where a setting of `fit` is out of range."""
    require_positive(epochs=epochs)
    if not (is_integer(initial_epoch) and 0 <= initial_epoch < epochs):
        raise ValueError(
            "epochs is the number of the epoch to stop before: 0 <= initial_epoch < epochs. "
            f"Received: initial_epoch={initial_epoch!r}, epochs={epochs}"
        )
    number("validation_split", validation_split, "[0, 1)")
    boolean("shuffle", shuffle), boolean("sample_with_replacement", sample_with_replacement)
    after = [validation_freq] if is_integer(validation_freq) else validation_freq
    if not isinstance(after, Collection) or not all(is_integer(epoch) and epoch >= 1 for epoch in after):
        raise ValueError(
            "validation_freq is a number of epochs or a list of epochs, counted from 1. "
            f"Received: validation_freq={validation_freq!r}"
        )
    if record_every is not None:
        require_positive(record_every=record_every)
    check_verbose(verbose)


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Callbacks as a list; raises TypeError where one is something else."""
    chosen = list(callbacks) if isinstance(callbacks, Iterable) else [] if callbacks is None else [callbacks]
    for callback in chosen:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks is a list of xpnet.Callback objects. Received: {callback!r}")
    return chosen


def check_validation_data(validation_data: Any) -> tuple:
    """``(x, y)`` or ``(x, y, sample_weight)``; raises ValueError for anything else."""
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise ValueError(
            f"validation_data is (x, y) or (x, y, sample_weight). Received: a {type(validation_data).__name__}"
            + (f" of {len(validation_data)}" if isinstance(validation_data, (tuple, list)) else "")
        )
    return tuple(validation_data)
