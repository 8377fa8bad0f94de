"""Many networks at once: `train_many` and `Ensemble`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from xpnet import settings
from xpnet.backend import Backend, all_in_scope, in_scope, namespace, quiet
from xpnet.callbacks import EarlyStopping
from xpnet.callbacks.base import attach
from xpnet.callbacks.networks import StopEach, params_of
from xpnet.checks import number, require
from xpnet.evaluation import in_target_form
from xpnet.files import StrPath
from xpnet.history import History
from xpnet.inputs import Intake, part
from xpnet.loop import Loop
from xpnet.losses import BinaryCrossEntropy
from xpnet.model import Model
from xpnet.optimizers import Optimizer
from xpnet.optimizers.networks import PerNetwork
from xpnet.plan import Plan
from xpnet.progress import Progress
from xpnet.settings import FitSettings
from xpnet.sources import OwnOrders
from xpnet.sources.choose import evaluation
from xpnet.step import Scores
from xpnet.tree import Array, leaves, map_leaves


@all_in_scope
class Ensemble:
    """Networks of one shape that predict together. They are the networks of a `Model` with several seeds.

    ``ensemble[k]`` is network k as a `Model` of its own, and ``len(ensemble)`` the number of networks.

    Parameters
    ----------
    model : Model
        A built model with several seeds. ``Ensemble(xpnet.load_model(path))`` reads a file of `save`.

    Attributes
    ----------
    model : Model
        ``ensemble.model.predict(x)`` and ``ensemble.model.evaluate(x, y)`` return the values of each network.
    histories : list of History
        The records of each network in `train_many`. They end with its last epoch. Files do not hold them.
    """

    def __init__(self, model: Model):
        received = f"seed={model.seed}" if isinstance(model, Model) else f"a {type(model).__name__}"
        several = isinstance(model, Model) and isinstance(model.seed, tuple)
        require(several, "An Ensemble needs a model with several seeds", received)
        model.built_state()
        self.model = model
        self.histories = [History() for _ in model.seeds]

    def __repr__(self) -> str:
        return f"<Ensemble of {len(self)}: {self.model!r}>"

    def __len__(self) -> int:
        return len(self.model.seeds)

    @property
    def backend(self) -> Backend:
        """The model's backend."""
        return self.model.backend

    @in_scope
    def __getitem__(self, k: int) -> Model:
        """Return network k as a model with its seed and a copy of its parameters. Its optimizer begins anew."""
        model, seed = self.model, self.model.seeds[operator.index(k)]
        one = Model(model.network, model.loss, model.optimizer, model.metrics, seed, model.backend)
        one.build(model.input_shape)
        one.state = one.built_state() | {"params": params_of(model, k)}
        one.epoch, one.step, one.target_shape = model.epoch, model.step, model.target_shape
        one.class_names, one.history = model.class_names, self.histories[k]
        return one

    @quiet
    def predict(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the mean of the networks' predictions, in the form of `Model.predict`."""
        each = self.model.predict(x, batch_size)
        return namespace(each).mean(each, axis=0)

    @quiet
    def spread(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the standard deviation of the networks' predictions, in the form of `predict`. It divides by K, not K - 1."""
        each = self.model.predict(x, batch_size)
        return namespace(each).std(each, axis=0)

    @quiet
    def predict_classes(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the class with the largest mean probability. With one output, or several labels, 0 or 1 for each."""
        loss, mean = self.model.loss, self.predict(x, batch_size)
        require(loss.of_classes, "predict_classes needs a loss of classes. Use predict(x)", f"{loss!r}")
        xp = namespace(mean)
        if isinstance(loss, BinaryCrossEntropy):
            return xp.astype(mean > 0.5, xp.int32)
        return in_target_form(xp.argmax(mean, axis=-1), self.model.target_shape, 0)

    def save(self, path: StrPath) -> None:
        """Write the model with all networks. ``Ensemble(xpnet.load_model(path))`` reads it."""
        self.model.save(path)


@in_scope
def train_many(
    model: Model, x: Any, y: Any, *, seeds: Sequence[int] | None = None, learning_rates: Sequence[float] | None = None,
    weight_decays: Sequence[float] | None = None, rows: Sequence[Any] | None = None, batch_size: int | None = None,
    epochs: int = 1, validation_data: Any = None, early_stopping: EarlyStopping | None = None, shuffle: bool = True,
    verbose: str | int = "auto",
) -> Ensemble:  # fmt: skip
    """Train K networks at once, on a leading axis of every array. Each becomes what it would be if it were trained alone.

    A step costs the overhead of one network instead of K. This is several times as fast as one run after the other if the
    networks are small; docs/ensembles.md says when. Network k equals that of ``Model(..., seed=seeds[k]).fit(x[rows[k]],
    y[rows[k]], ...)`` with its learning rate and weight decay, up to rounding. Only the masks of dropout are others.

    Parameters
    ----------
    model : Model
        The network, loss, optimizer, metrics and backend of all networks. It may be built or not, and does not change.
    x, y : array
        As in `Model.fit`. Without weights, and without ignored labels.
    seeds : sequence of int, optional
        The seed of each network, for its initial weights and its orders of samples. The default is the model's seed for all,
        or its seeds if it has several.
    learning_rates : sequence of float, optional
        The learning rate of each network, instead of the optimizer's, which must not be a schedule.
    weight_decays : sequence of float, optional
        The decoupled weight decay of each network, instead of the optimizer's.
    rows : sequence of arrays of integers, optional
        The numbers of the rows of x that each network trains on, such as folds or bootstrap samples. By default, all rows.
        Networks with equally many rows train at once.
    batch_size, epochs, validation_data, shuffle, verbose
        As in `Model.fit`.
    early_stopping : EarlyStopping, optional
        Stops each network on its own. The others continue.

    Returns
    -------
    Ensemble

    Raises
    ------
    ValueError
        Before training: the number of networks is not the same in all sequences, an argument does not fit, the network is not
        a dense one (see `Model`), or its optimizer limits norms.
    DivergenceError
        A loss or a parameter became infinite or NaN.
    """
    if seeds is None and isinstance(model.seed, tuple):
        seeds = model.seed
    stopping = early_stopping is None or isinstance(early_stopping, EarlyStopping)
    require(stopping, "early_stopping must be an EarlyStopping, such as EarlyStopping(patience=3)", early_stopping)
    if rows is not None and (shape := np.shape(x)):
        rows = [_checked_rows(one, shape[0]) for one in _sequence("rows", rows)]
    given = {"seeds": seeds, "learning_rates": learning_rates, "weight_decays": weight_decays, "rows": rows}
    count = _count(given)
    chosen = FitSettings(batch_size, epochs, verbose=verbose, shuffle=shuffle)
    if len(groups := _equally_long(rows)) > 1:
        parts = []
        for group in groups:
            of_group = {name: None if values is None else [values[k] for k in group] for name, values in given.items()}
            parts.append(train_many(
                model, x, y, **of_group, batch_size=batch_size, epochs=epochs, validation_data=validation_data,
                early_stopping=early_stopping, shuffle=shuffle, verbose=verbose,
            ))  # fmt: skip
        return _joined(parts, [k for group in groups for k in group])

    all_seeds = (model.seeds[0],) * count if seeds is None else settings.check_seed(seeds)
    networks = Model(model.network, model.loss, model.optimizer, model.metrics, all_seeds, model.backend)
    optimizer, numbers = _per_network(model.optimizer, learning_rates, weight_decays)
    intake = Intake(model.backend, model.network, model.loss, model.metrics, None, {})
    callbacks = [] if early_stopping is None else [StopEach(early_stopping, count)]
    with ExitStack() as opened, Progress(verbose) as progress:
        data, _ = intake.run(x, y, None, None, 0.0)
        require(
            "weight" not in data, "train_many needs a label for each sample. Leave the others out", "ignored labels"
        )
        if data["y"].ndim == 1:
            data["y"] = data["y"][:, None]  # a batch of labels is (K, batch, 1); (K, batch) could be probabilities
        validation = None
        if validation_data is not None:
            pair, intake.input_shape = settings.check_validation_data(validation_data), tuple(data["x"].shape[1:])
            with part("validation_data"):
                validation = evaluation(opened, intake, *pair, name="validation_data")
        of_each = np.stack([np.arange(data["x"].shape[0])] * count if rows is None else rows)
        source = OwnOrders(data, chosen, tuple(np.shape(y)[1:]), networks.seeds, of_each)
        networks.build(source.shape)
        networks.target_shape, networks.validates = source.target_shape, validation is not None
        _begin(networks, optimizer, numbers)
        plan = Plan(
            networks.backend, networks.network, networks.checked, Scores(networks.loss.checked, networks.metrics), chosen,
            source, validation, networks.measured | intake.measured, partial(networks.workshop.keep, model.backend.name),
        )  # fmt: skip
        attach(callbacks, networks, verbose, epochs, source.steps)
        history = Loop(networks.training_state, plan, callbacks, progress).run()
    networks.optimizer, networks.history = model.optimizer, History()
    networks.training_state.begin_optimizer(networks.network)
    ensemble = Ensemble(networks)
    lasted = callbacks[0].epochs if callbacks else [len(history.epoch)] * count
    ensemble.histories = [_of_network(history, k, last) for k, last in enumerate(lasted)]
    return ensemble


def _count(given: dict[str, Any]) -> int:
    """Return the number of networks. Raise ValueError if it is not the same everywhere."""
    lengths = {name: len(_sequence(name, values)) for name, values in given.items() if values is not None}
    rule = "train_many needs one value for each network in seeds, learning_rates, weight_decays or rows"
    require(len(set(lengths.values())) == 1 and 0 not in lengths.values(), rule, lengths)
    return next(iter(lengths.values()))


def _sequence(name: str, values: Any) -> Any:
    """Return the values. Raise ValueError unless they are in a sequence."""
    require(
        hasattr(values, "__len__"),
        f"{name} must be a list or an array with a value for each network",
        f"{values!r:.100}",
    )
    return values


def _equally_long(rows: Sequence[Any] | None) -> list[list[int]]:
    """Return the numbers of the networks, in groups with equally many rows."""
    groups: dict[int, list[int]] = {}
    for k, one in enumerate(() if rows is None else rows):
        groups.setdefault(len(one), []).append(k)
    return list(groups.values())


def _checked_rows(rows: Any, n: int) -> np.ndarray:
    values = np.asarray(rows)
    fits = values.ndim == 1 and values.size and values.dtype.kind in "iu" and values.min() >= 0 and values.max() < n
    rule = (
        f"rows must hold a list of row numbers in 0 .. {n - 1} for each network. For a mask, use np.flatnonzero(mask)"
    )
    require(bool(fits), rule, f"{values.dtype} of shape {values.shape}, {values!r:.100}")
    return values


def _per_network(optimizer: Optimizer, rates: Any, decays: Any) -> tuple[PerNetwork, dict[str, list[float]]]:
    """Return an optimizer for several networks, and the numbers for its state."""
    numbers: dict[str, list[float]] = {}
    rate = optimizer.learning_rate
    if rates is not None:
        rule = "learning_rates replace a constant. Use an optimizer with a number as its learning rate"
        require(not callable(rate), rule, f"{rate!r}")
        numbers["rate"], rate = [number("learning_rates", one, "[0, inf)") for one in rates], 1.0
    if decays is not None:
        rule = "weight_decays cannot be combined with the optimizer's l1 or l2. Set them to 0"
        require(not (optimizer.l1 or optimizer.l2), rule, f"{optimizer!r}")
        numbers["decay"] = [number("weight_decays", one, "[0, inf)") for one in decays]
        optimizer = replace(optimizer, weight_decay=0.0)
    return PerNetwork(rate, optimizer=replace(optimizer, learning_rate=0.0), decays=decays is not None), numbers


def _begin(networks: Model, optimizer: Optimizer, numbers: dict[str, list[float]]) -> None:
    """Set the optimizer, and put the numbers of the networks into its state."""
    params = leaves(networks.parameters)
    rule = "train_many needs parameters with two axes, as in Dense"
    require(bool(params) and all(x.ndim == 3 for x in params), rule, f"{networks.network!r:.200}")
    networks.optimizer = optimizer
    networks.training_state.begin_optimizer(networks.network)
    state, backend = networks.built_state(), networks.backend
    columns = {name: backend.asarray(np.reshape(np.array(of), (-1, 1, 1))) for name, of in numbers.items()}
    networks.state = state | {"optimizer": state["optimizer"] | columns}


def _of_network(history: History, k: int, epochs: int) -> History:
    """Return the history of network k, which ends after this number of epochs."""
    columns = {name: [values[k] for values in column[:epochs]] for name, column in history.history.items()}
    return History(columns, history.epoch[:epochs], validation_epoch=history.validation_epoch[:epochs])


def _joined(parts: list[Ensemble], places: list[int]) -> Ensemble:
    """Return the networks of several ensembles as one. Network i of all parts has the place `places[i]`."""
    models, order = [part.model for part in parts], np.argsort(places)
    seeds, first = [seed for model in models for seed in model.seeds], models[0]
    in_order = tuple(seeds[i] for i in order)
    model = Model(first.network, first.loss, first.optimizer, first.metrics, in_order, first.backend)
    model.build(first.input_shape)
    xp, index = model.backend.namespace, model.backend.asarray(order)

    def join(*arrays: Array) -> Array:
        return xp.take(xp.concat(arrays), index, axis=0)

    model.state = model.built_state() | {"params": map_leaves(join, *[one.parameters for one in models])}
    model.target_shape, model.validates, model.epoch = first.target_shape, first.validates, first.epoch
    ensemble, histories = Ensemble(model), [history for part in parts for history in part.histories]
    ensemble.histories = [histories[i] for i in order]
    return ensemble
