"""Checks of the settings of a model and of `fit`, made before anything changes."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xpnet import losses, metrics
from xpnet.backend import recognition
from xpnet.callbacks import Callback
from xpnet.checks import is_integer, number, require_batch_size, require_positive, set_booleans, unknown_name
from xpnet.layers import base
from xpnet.layers.base import Container, Layer, Shape
from xpnet.layers.dropout import DropoutBase
from xpnet.layers.parameters import holds_parameters
from xpnet.layers.reshaping import Flatten, Identity, Reshape
from xpnet.layers.sequential import Sequential
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.progress import check_verbose

PASSING = (DropoutBase, Flatten, Identity, Reshape)  # layers that do not change values at inference
_SAVE = "save(path) writes the network and everything else to one file, which xpnet.load_model reads"
_MODES = "fit trains, and predict and evaluate do not, so a model has no mode to set"
NOT_OF_MODEL = {  # attributes of Keras' and scikit-learn's models -> what to use here
    "compile": "pass the same arguments to Model(network, loss, optimizer, metrics)",
    "add": "pass the layers as a list, Model([Dense(10), ReLU(), ...], ...)",
    "layers": "use model.network.layers",
    "weights": "use model.parameters",
    "trainable_variables": "use model.parameters",
    "predict_proba": "predict returns probabilities",
    "predict_on_batch": "use predict with batch_size",
    "test_on_batch": "use evaluate",
    "fit_generator": "fit accepts generators",
    "partial_fit": "fit continues from the current state, and train_on_batch takes one step",
    "score": "evaluate returns the loss and the metrics",
    "load": "xpnet.load_model(path) returns the model that model.save(path) wrote",
    "load_model": "xpnet.load_model(path) returns the model that model.save(path) wrote",
    "export": "xpnet.interchange.save_onnx(model, path) writes an ONNX file",
    "to_json": _SAVE,
    "get_config": _SAVE,
    "train": _MODES,
    "eval": _MODES,
    "forward": "predict returns probabilities or values, and predict_logits returns the raw outputs",
    "cuda": 'use model.to("cupy"), or model.to("torch", device="cuda")',
    "cpu": 'use model.to("numpy")',
    "count_params": "summary() shows them",
}
_MICRO = "pass micro_batch_size, the number of rows that fit into memory; batch_size counts the rows of a step"
UNKNOWN_IN_FIT = {  # arguments of Keras and PyTorch -> what to use here
    "workers": "one thread reads ahead. For several processes, pass a DataLoader with num_workers",
    "use_multiprocessing": "one thread reads ahead. For several processes, pass a DataLoader with num_workers",
    "max_queue_size": "one thread reads ahead, up to 8 MB or 32 batches",
    "optimizer": "pass it to Model(network, loss, optimizer)",
    "loss": "pass it to Model(network, loss, optimizer)",
    "metrics": "pass them to Model(network, loss, optimizer, metrics)",
    "learning_rate": "pass it to the optimizer, Model(network, loss, Adam(0.01))",
    "lr": "pass it to the optimizer, Model(network, loss, Adam(0.01))",
    "seed": "pass it to Model(..., seed=...)",
    "gradient_accumulation_steps": _MICRO,
    "accumulate_grad_batches": _MICRO,
    "ckpt_path": "pass resume_from=path to continue from a training checkpoint",
    "resume_from_checkpoint": "pass resume_from=path to continue from a training checkpoint",
}


def check_shape(input_shape: Any) -> Shape:
    """Return the shape of one sample as a tuple of Python integers; raise ValueError if it is invalid."""
    sizes = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    if not sizes or not all(is_integer(n) and n >= 1 for n in sizes):
        raise ValueError(
            "input_shape must be the shape of one sample, a tuple of integers of at least 1. Later samples may have a different "
            f"length; see Model. Received: input_shape={input_shape!r}"
        )
    return tuple(int(n) for n in sizes)


def require_fitting_end(network: Sequential, loss: Loss) -> None:
    """Raise ValueError if the network ends in the activation that its loss includes, or lacks the one that it needs."""
    ends, loss = _ends(network), loss.row_loss
    last = type(ends[0]).__name__
    if all(type(end).__name__ == loss.built_in for end in ends):
        raise ValueError(
            f"{type(loss).__name__} includes {last}, and predict applies it. Remove that layer, or use a loss of "
            'probabilities ("categorical_cross_entropy", BinaryCrossEntropy(from_logits=False)). '
            f"Received: a network that ends in {last}"
        )
    if loss.of_probabilities and all(hasattr(end, "activation") for end in ends):  # layers whose activation is not set
        raise ValueError(
            f"{loss!r} needs probabilities. End the network with Softmax() or Sigmoid(), or use a loss of logits "
            '("softmax_cross_entropy", "binary_cross_entropy"), which includes the activation. '
            f"Received: a network that ends in {last}"
        )


def get_loss(loss: str | Loss, network: Sequential) -> Loss:
    """Return the loss with this name. After Softmax or Sigmoid, Keras' names mean its losses of probabilities."""
    ends = {type(end).__name__ for end in _ends(network)}
    if ends == {"Softmax"} and loss in ("categorical_crossentropy", "sparse_categorical_crossentropy"):
        return losses.categorical_cross_entropy
    if ends in ({"Softmax"}, {"Sigmoid"}) and loss == "binary_crossentropy":
        return losses.BinaryCrossEntropy(from_logits=False)
    return losses.get(loss)


def _ends(layer: Layer) -> list[Layer]:
    """The layers whose outputs form the output of `layer`, ignoring layers that only pass values on."""
    if isinstance(layer, Sequential):
        last = next((inner for inner in reversed(layer.layers) if not isinstance(inner, PASSING)), None)
        return [layer] if last is None else _ends(last)
    exits = layer.exits if isinstance(layer, Container) else []
    return [end for inner in exits for end in _ends(inner)] or [layer]


def layers_at(network: Sequential, paths: Sequence[str]) -> list[Layer]:
    """Return the layers at these paths, with their wrappers; raise ValueError for a path without a layer."""
    places: dict[str, Layer] = {}
    for path, layer in base.walk(network):
        places.setdefault(path, layer)
    del places[""]
    for path in paths:
        if path not in places:
            raise unknown_name("The paths of this network's layers are", path, places)
    return [places[path] for path in paths]


def require_paths(network: Sequential, optimizer: Optimizer) -> None:
    """Raise ValueError unless each path in the optimizer's settings holds parameters."""
    paths = sorted(optimizer.paths)
    for path, layer in zip(paths, layers_at(network, paths), strict=True):
        if not holds_parameters(layer):
            raise ValueError(
                f"A path of an optimizer's settings must name a layer with parameters. Received: {path!r}, a "
                f"{type(layer).__name__}, which has none"
            )
    for later, first in network.links:
        if named := [path for path in optimizer.paths if f"{path}.".startswith(f"{later}.")]:
            raise ValueError(
                f"A shared layer is named by its first path. The layer at {later} is the layer at {first}; use that path. "
                f"Received: {named[0]!r}"
            )


def get_metrics(chosen: Sequence[str | Metric] | None, loss: Loss) -> tuple[Metric, ...]:
    """Return the metrics, given as names or objects; raise ValueError if a name is unknown, used twice, or invalid."""
    if isinstance(chosen, (str, Metric)):
        raise ValueError(f'metrics must be a list, such as ["accuracy"]. Received: metrics={chosen!r}')
    found = tuple(metrics.get(metric, loss) for metric in chosen or ())
    for metric in found:
        if not hasattr(metric, "name"):
            raise ValueError(
                "A metric needs a name, its key in the history. Add name: str = ... to its settings. "
                f"Received: {type(metric).__name__} without a name"
            )
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ValueError(f"Each metric must have a different name. Received: {names}")
    for name in names:
        taken = name in ("loss", "weight", "step") or name.startswith(("_", "val_")) or keyword.iskeyword(name)
        if taken or not name.isidentifier():
            raise ValueError(
                'A metric\'s name must be an identifier that does not begin with "_" or "val_" and is not a keyword, "loss", '
                f'"weight" or "step". Received: {name!r}'
            )
    return found


def check_seed(seed: Any) -> int | tuple[int, ...]:
    """Return one seed or a tuple of seeds as Python integers; raise ValueError for anything else."""
    several = not is_integer(seed) and np.ndim(seed) == 1
    seeds = tuple(seed) if several else (seed,)
    if not seeds or not all(is_integer(s) and s >= 0 for s in seeds):
        raise ValueError(f"seed must be an integer of at least 0, or a sequence of them. Received: seed={seed!r}")
    seeds = tuple(int(s) for s in seeds)
    return seeds if several else seeds[0]


def require_rows(network: Sequential, input_shape: Shape, output_shape: Shape) -> None:
    """Raise ValueError unless several sets of parameters can be trained at once, along a leading axis."""
    counts_axes = network.has_statistics or network.needs_leading_batch
    if counts_axes or not len(input_shape) == len(output_shape) == 1:
        raise ValueError(
            "Several seeds need a dense network, which takes and returns rows and has no running statistics and no layer that "
            "changes the axes. Train other networks one seed at a time. Received: samples of shape "
            f"{input_shape}, outputs of shape {output_shape}, {network!r:.200}"
        )


def require_no_arguments(unknown: Mapping[str, Any], fit: Callable[..., Any]) -> None:
    """Raise TypeError if `fit` received unknown arguments, and say what to use instead."""
    for name in unknown:
        known = f"fit has no argument {name}"
        if name in UNKNOWN_IN_FIT:
            raise TypeError(f"{known}: {UNKNOWN_IN_FIT[name]}. Received: {name}={unknown[name]!r:.100}")
        parameters = inspect.signature(fit).parameters.items()
        own = [one for one, parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        raise TypeError(str(unknown_name(f"{known}. Its arguments are", name, own)))


@dataclass(frozen=True)
class FitSettings:
    """The numbers and switches among the settings of `fit`; see `Model.fit`. Raises ValueError if one is out of range."""

    batch_size: int | None = None
    epochs: int = 1
    initial_epoch: int = 0
    verbose: str | int = "auto"
    shuffle: bool = True
    sample_with_replacement: bool = False
    validation_split: float = 0.0
    validation_freq: int | Collection[int] = 1
    validation_batch_size: int | None = None
    record_every: int | None = None
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(epochs=self.epochs)
        if not (is_integer(self.initial_epoch) and 0 <= self.initial_epoch < self.epochs):
            raise ValueError(
                "initial_epoch must be an integer with 0 <= initial_epoch < epochs, because training stops before epoch "
                f"number `epochs`. Received: initial_epoch={self.initial_epoch!r}, epochs={self.epochs}"
            )
        number("validation_split", self.validation_split, "[0, 1)")
        set_booleans(self, "shuffle", "sample_with_replacement")
        freq = self.validation_freq
        after = [freq] if is_integer(freq) else freq
        if not isinstance(after, Collection) or not all(is_integer(epoch) and epoch >= 1 for epoch in after):
            raise ValueError(
                "validation_freq must be a number of epochs or a list of epochs, counted from 1. "
                f"Received: validation_freq={freq!r}"
            )
        check_verbose(self.verbose)
        for name in (
            "record_every",
            "validation_batch_size",
            "steps_per_epoch",
            "validation_steps",
            "micro_batch_size",
        ):
            if getattr(self, name) is not None:
                require_positive(**{name: getattr(self, name)})
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", require_batch_size(self.batch_size))

    @property
    def rows(self) -> int:
        """The number of rows in a batch, by default 32."""
        return 32 if self.batch_size is None else self.batch_size

    def described(self, source: Any, callbacks: Iterable[Callback], class_weight: Any) -> dict[str, Any]:
        """Return the settings of a run with the sizes of its data, for `History.params`."""
        sizes = {"batch_size": self.rows, "samples": source.samples, "steps": source.steps, "weighted": source.weighted}
        names = [type(callback).__name__ for callback in callbacks]
        return asdict(self) | sizes | {"class_weight": class_weight, "callbacks": names}

    def validates_after(self, epoch: int) -> bool:
        """Whether to validate after this epoch, counted from 0."""
        freq = self.validation_freq
        return epoch + 1 in freq if isinstance(freq, Collection) else (epoch + 1) % freq == 0


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Return the callbacks as a list; raise TypeError if an entry is not a callback or has an unknown method ``on_...``."""
    chosen = list(callbacks) if isinstance(callbacks, Iterable) else [] if callbacks is None else [callbacks]
    for callback in chosen:
        if not isinstance(callback, Callback):
            remedy = f" Make an object of the class: {callback.__name__}(...)." if isinstance(callback, type) else ""
            raise TypeError(f"callbacks must be a list of xpnet.Callback objects.{remedy} Received: {callback!r}")
        hooks = [name for name in dir(Callback) if name.startswith("on_")]
        for name in hooks:
            _require_arguments(callback, name)
        for name in dir(callback):
            if name.startswith("on_") and name not in hooks and callable(getattr(callback, name)):
                rule = f"{type(callback).__name__}.{name} would never be called. The methods of a callback are"
                raise TypeError(str(unknown_name(rule, name, hooks)))
    return chosen


def _require_arguments(callback: Callback, hook: str) -> None:
    """Raise TypeError unless the callback's method accepts the arguments of the hook."""
    expected = list(inspect.signature(getattr(Callback, hook)).parameters)
    try:
        inspect.signature(getattr(callback, hook)).bind(*expected[1:])
    except TypeError as error:
        written = ", ".join(expected).replace("logs", "logs=None")
        raise TypeError(
            f"{type(callback).__name__}.{hook} must accept {', '.join(expected[1:])}. Write "
            f"def {hook}({written}). Received: a method with other arguments ({error})"
        ) from error


def check_validation_data(validation_data: Any) -> tuple[Any, ...]:
    """Return ``(x, y)``, ``(x, y, sample_weight)`` or ``(batches,)``; raise ValueError for anything else."""
    if not isinstance(validation_data, (tuple, list)) and recognition.kind(validation_data, None) in recognition.READ:
        return (validation_data,)
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise ValueError(
            "validation_data must be (x, y), (x, y, sample_weight), or an object that gives batches. "
            f"Received: a {type(validation_data).__name__}"
            + (f" of {len(validation_data)}" if isinstance(validation_data, (tuple, list)) else "")
        )
    return tuple(validation_data)
