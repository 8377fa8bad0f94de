"""`Ensemble`: networks of one shape that predict together."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from xpnet.backend import Backend, all_in_scope, in_scope, namespace, quiet
from xpnet.callbacks.networks import params_of
from xpnet.checks import require
from xpnet.errors import DivergenceError
from xpnet.evaluation import in_target_form
from xpnet.files import StrPath
from xpnet.history import History
from xpnet.losses import BinaryCrossEntropy
from xpnet.model import Model
from xpnet.tree import Array, map_leaves


@all_in_scope
class Ensemble:
    """Networks of one shape that predict together. They are the networks of a `Model` with several seeds.

    ``ensemble[k]`` is a separate `Model` with the parameters of network k, and ``len(ensemble)`` is the number of networks.

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
    diverged : dict of int to DivergenceError
        The networks that diverged in `train_many`. Each keeps the parameters from before that step, or those of its best epoch
        with ``restore_best_weights=True``. `predict`, `spread` and `predict_classes` leave them out. This is an attribute of the
        model, and a file holds it.
    """

    def __init__(self, model: Model):
        received = f"seed={model.seed}" if isinstance(model, Model) else f"a {type(model).__name__}"
        several = isinstance(model, Model) and isinstance(model.seed, tuple)
        require(several, "An Ensemble needs a model with several seeds", received)
        model.built_state()
        self.model = model
        self.histories = [History() for _ in model.seeds]
        self.missed = [(0, 0) for _ in model.seeds]  # the epochs and steps of the model that each network did not make

    def __repr__(self) -> str:
        return f"<Ensemble of {len(self)}: {self.model!r}>"

    def __len__(self) -> int:
        return len(self.model.seeds)

    @property
    def backend(self) -> Backend:
        """The model's backend."""
        return self.model.backend

    @property
    def diverged(self) -> dict[int, DivergenceError]:
        """The networks that diverged."""
        return self.model.diverged

    @diverged.setter
    def diverged(self, diverged: dict[int, DivergenceError]) -> None:
        self.model.diverged = diverged

    @in_scope
    def __getitem__(self, k: int) -> Model:
        """Return network k as a model with its seed and a copy of its parameters. Its optimizer starts from its initial state."""
        model, seed = self.model, self.model.seeds[operator.index(k)]
        one = Model(model.network, model.loss, model.optimizer, model.metrics, seed, model.backend)
        one.build(model.input_shape)
        one.state = one.built_state() | {"params": params_of(model, k)}
        epochs, steps = self.missed[k]
        one.epoch, one.step, one.target_shape = model.epoch - epochs, model.step - steps, model.target_shape
        one.class_names, one.history = model.class_names, self.histories[k]
        return one

    @quiet
    def predict(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the mean of the networks' predictions, in the form of `Model.predict`."""
        each = self._each(x, batch_size)
        return namespace(each).mean(each, axis=0)

    @quiet
    def spread(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the standard deviation of the networks' predictions, in the form of `predict`. It divides by K, not K - 1."""
        each = self._each(x, batch_size)
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

    def _each(self, x: Any, batch_size: int | None) -> Array:
        """Return the predictions of each network that has not diverged."""
        each = self.model.predict(x, batch_size)
        if not self.diverged:
            return each
        kept = [k for k in range(len(self)) if k not in self.diverged]
        return namespace(each).take(each, self.model.backend.asarray(np.array(kept)), axis=0)

    def save(self, path: StrPath) -> None:
        """Write the model with all networks. ``Ensemble(xpnet.load_model(path))`` reads it."""
        self.model.save(path)


def joined(parts: list[Ensemble], places: list[int]) -> Ensemble:
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
    model.target_shape, model.validates = first.target_shape, first.validates
    model.epoch, model.step = max(one.epoch for one in models), max(one.step for one in models)
    ensemble, each = Ensemble(model), [(part, k) for part in parts for k in range(len(part))]
    for k, i in enumerate(order):
        part, place = each[i]
        epochs, steps = part.missed[place]
        ensemble.histories[k] = part.histories[place]
        ensemble.missed[k] = model.epoch - part.model.epoch + epochs, model.step - part.model.step + steps
        if place in part.diverged:
            ensemble.diverged[k] = part.diverged[place]
    return ensemble
