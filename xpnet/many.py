"""Many networks at once: `train_many`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from xpnet import settings
from xpnet.backend import in_scope
from xpnet.callbacks import EarlyStopping
from xpnet.callbacks.base import attach
from xpnet.callbacks.networks import StopEach
from xpnet.checks import number, require
from xpnet.ensemble import Ensemble, joined
from xpnet.history import History
from xpnet.inputs import Intake, part
from xpnet.loop import Loop
from xpnet.model import Model
from xpnet.optimizers import Optimizer
from xpnet.optimizers.networks import PerNetwork
from xpnet.plan import Plan
from xpnet.progress import Progress
from xpnet.settings import FitSettings
from xpnet.sources import OwnOrders
from xpnet.sources.choose import evaluation
from xpnet.step import Scores
from xpnet.tree import leaves


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
        All networks diverged. If some did, they stop, with NaN at the end of their histories, and the others continue; a
        RuntimeWarning names them, and `Ensemble.diverged` holds the errors.
    """
    if seeds is None and isinstance(model.seed, tuple):
        seeds = model.seed
    stopping = early_stopping is None or isinstance(early_stopping, EarlyStopping)
    require(stopping, "early_stopping must be an EarlyStopping, such as EarlyStopping(patience=3)", early_stopping)
    if rows is not None and (shape := np.shape(x)):
        rows = [_checked_rows(one, shape[0]) for one in _sequence("rows", rows)]
    given = {"seeds": seeds, "learning_rates": learning_rates, "weight_decays": weight_decays, "rows": rows}
    count = _count(given)
    every_seed: Any = (model.seeds[0],) * count if seeds is None else settings.check_seed(seeds)
    optimizer, numbers = _per_network(model.optimizer, learning_rates, weight_decays, model.backend.float_name)
    chosen = FitSettings(batch_size, epochs, verbose=verbose, shuffle=shuffle)
    groups = [[*range(count)]] if rows is None else _equally_long(rows)
    parts = []
    for group in groups:
        of_group = {name: [values[k] for k in group] for name, values in numbers.items()}
        own_rows, own_seeds = None if rows is None else [rows[k] for k in group], tuple(every_seed[k] for k in group)
        networks = Model(model.network, model.loss, model.optimizer, model.metrics, own_seeds, model.backend)
        stops = StopEach(early_stopping, group)
        parts.append(_train(networks, x, y, optimizer, of_group, own_rows, chosen, validation_data, stops))
    ensemble = parts[0] if len(parts) == 1 else joined(parts, [k for group in groups for k in group])
    if lost := [*ensemble.diverged]:
        if len(lost) == count:
            raise ensemble.diverged[lost[-1]]
        warnings.warn(
            f"{len(lost)} of {count} networks diverged and stopped: {str(sorted(lost))[1:-1]}. The others are trained. "
            "Ensemble.diverged holds the errors.", RuntimeWarning, stacklevel=3,
        )  # fmt: skip
    return ensemble


def _train(
    networks: Model, x: Any, y: Any, optimizer: PerNetwork, numbers: dict[str, list[float]], rows: Sequence[Any] | None,
    chosen: FitSettings, validation_data: Any, stops: StopEach,
) -> Ensemble:  # fmt: skip
    """Train networks with equally many rows at once."""
    count = len(networks.seeds)
    intake = Intake(networks.backend, networks.network, networks.loss, networks.metrics, None, {})
    with ExitStack() as opened, Progress(chosen.verbose) as progress:
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
        own = networks.optimizer
        _begin(networks, optimizer, numbers)
        plan = Plan(
            networks.backend, networks.network, networks.checked, Scores(networks.loss.checked, networks.metrics), chosen,
            source, validation, networks.measured | intake.measured, partial(networks.workshop.keep, networks.backend.name),
            survive=stops.survive,
        )  # fmt: skip
        attach([stops], networks, chosen.verbose, chosen.epochs, source.steps)
        history = Loop(networks.training_state, plan, [stops], progress).run()
    networks.optimizer, networks.history = own, History()
    networks.training_state.begin_optimizer(networks.network)
    ensemble = Ensemble(networks)
    ensemble.diverged = stops.diverged
    for k, view in enumerate(stops.views):
        error = stops.diverged.get(k)
        ensemble.histories[k] = _of_network(history, k, view.epochs, error is not None)
        made = source.steps * view.epochs if error is None else error.step
        ensemble.missed[k] = networks.epoch - view.epochs, networks.step - made
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


def _equally_long(rows: Sequence[Any]) -> list[list[int]]:
    """Return the numbers of the networks, in groups with equally many rows."""
    groups: dict[int, list[int]] = {}
    for k, one in enumerate(rows):
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


def _per_network(
    optimizer: Optimizer, rates: Any, decays: Any, float_name: str
) -> tuple[PerNetwork, dict[str, list[float]]]:
    """Return an optimizer for several networks, and the numbers for its state, which are finite in its floating type."""
    interval = f"[0, {float(np.finfo(float_name).max)}]"
    numbers: dict[str, list[float]] = {}
    rate = optimizer.learning_rate
    if rates is not None:
        rule = "learning_rates replace a constant. Use an optimizer with a number as its learning rate"
        require(not callable(rate), rule, f"{rate!r}")
        numbers["rate"], rate = [number("learning_rates", one, interval) for one in rates], 1.0
    if decays is not None:
        rule = "weight_decays cannot be combined with the optimizer's l1 or l2. Set them to 0"
        require(not (optimizer.l1 or optimizer.l2), rule, f"{optimizer!r}")
        numbers["decay"] = [number("weight_decays", one, interval) for one in decays]
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


def _of_network(history: History, k: int, epochs: int, diverged: bool) -> History:
    """Return the history of network k after this number of epochs, and NaN for the epoch in which it diverged."""
    columns = {name: [values[k] for values in column[:epochs]] for name, column in history.history.items()}
    if diverged:
        columns, epochs = {name: [*column, math.nan] for name, column in columns.items()}, epochs + 1
    return History(columns, history.epoch[:epochs], validation_epoch=history.validation_epoch[:epochs])
