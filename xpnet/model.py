"""`Model`: a network with its parameters, loss and optimizer; what people train and ask."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet import inputs, inspection, optimizers, settings
from xpnet.averages import Averages
from xpnet.backend import Backend, all_in_scope, get_backend, make_backend, quiet, to_numpy
from xpnet.callbacks import Callback
from xpnet.evaluation import evaluate, in_target_form, named_values, run_batches
from xpnet.history import History
from xpnet.layers import base, contracts
from xpnet.layers.base import Layer, Shape
from xpnet.layers.frozen import Frozen
from xpnet.layers.mapping import swap_layers
from xpnet.layers.parameters import trainable
from xpnet.layers.sequential import Sequential
from xpnet.layers.shapes import Measured, measure
from xpnet.loop import Loop, Plan
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.progress import Progress
from xpnet.random import host_rng
from xpnet.settings import FitSettings
from xpnet.state import TrainingState
from xpnet.step import Evaluation, Inference, Scores, TrainingStep, training_step
from xpnet.tree import Array, Tree, graft, leaves, map_leaves
from xpnet.weights import in_keras_order, with_weights
from xpnet.workshop import Workshop, alone


def _part(name: str) -> Any:
    """A property that is an attribute of `Model.training_state`."""
    return property(
        lambda self: getattr(self.training_state, name), lambda self, value: setattr(self.training_state, name, value)
    )


@all_in_scope
class Model:
    """A network, its parameters, and how to train them.

    Parameters
    ----------
    network : Layer or list of Layer
    loss : str or Loss
        A name such as ``"softmax_cross_entropy"`` or an object from `xpnet.losses`.
    optimizer : str or Optimizer, default SGD(0.01)
    metrics : sequence of str or Metric, default ()
    seed : int or sequence of int, default 0
        Everything random follows from it: initial weights, the order of samples, dropout. Several seeds train that
        many dense networks at once, on a leading axis of every parameter; losses and metrics then have one value for
        each, and the order of samples and the random key of dropout follow from the first seed.
    backend : str or Backend, optional
        The backend in force when not given; the model keeps it, see `to`.

    Notes
    -----
    The first `fit` builds the model for the shape of its samples. `predict`, `evaluate` and later fits take samples of
    another shape if the network has the same parameters for it: sequences of another length into recurrent layers or
    attention, images of another size into convolutions up to global pooling. All samples of one call have one shape. (After
    `Flatten` only the number of elements counts: images of 3 by 5 pixels and of 5 by 3 are then alike.)

    Threads: one model is trained by one thread at a time; a second `fit`, `build`, `to`, `set_weights` or `train_on_batch` is
    refused with RuntimeError while the first runs. `predict`, `evaluate` and `get_weights` may run beside training in any number
    of threads: each call uses the parameters as the last finished chunk of steps left them. Models of their own
    (``copy.deepcopy(model)``) train side by side.

    Attributes
    ----------
    training_state : TrainingState
        Everything that training changes. `state` and the attributes below it are its parts.
    parameters : tree of arrays
        ``model.parameters[0]["weight"]``: the model's own arrays, no copies. RuntimeError until the model is built.
    state : dict of trees
        ``"params"``, ``"optimizer"``, ``"statistics"``: all that training changes.
    target_shape : tuple of int, optional
        Of one sample's targets in the last `fit` (before any, in the first `evaluate`): () of y of shape (n,). It decides the
        shape of predictions, see `predict`.
    step : int
        Training steps taken so far; schedules and random layers go by it.
    epoch : int
        Epochs trained so far; the order of samples goes by it.
    history : History
        Of the last `fit`, also after an interrupt or an error.
    stop_training : bool
        Set it in a callback to stop after the epoch.
    validates : bool
        Whether the last `fit` had validation data.
    """

    state, seed, step, epoch = _part("arrays"), _part("seed"), _part("step"), _part("epoch")
    target_shape, history, stop_training = _part("target_shape"), _part("history"), _part("stop_training")

    def __init__(
        self,
        network: Layer | Sequence[Layer],
        loss: str | Loss,
        optimizer: str | Optimizer = "sgd",
        metrics: Sequence[str | Metric] = (),
        seed: int | Sequence[int] = 0,
        backend: str | Backend | None = None,
    ):
        layers = [network] if isinstance(network, Layer) else network
        self.network = network if isinstance(network, Sequential) else Sequential(layers)
        self.loss, self.metrics = loss, metrics
        self.backend = get_backend() if backend is None else make_backend(backend)
        self.workshop = Workshop()
        self.training_state = TrainingState(optimizers.get(optimizer), settings.check_seed(seed))
        self.optimizer = optimizer
        self.input_shape: Any = None
        self.measured: dict[Shape, Measured] = {}  # for samples of that shape
        self.checked: Layer = self.network  # the same network with checks of custom layers
        self.validates = False

    def __repr__(self) -> str:
        names = ", ".join(type(layer).__name__ for layer in self.network.layers)
        return f"<Model [{names}], {type(self.loss).__name__}, {type(self.optimizer).__name__}, {self.backend}>"

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):
            return object.__getattribute__(self, name)  # of a property that failed, its own error
        remedy = settings.NOT_OF_MODEL.get(name)
        raise AttributeError(
            f"Model has no attribute {name!r}" + (f": {remedy}" if remedy else ""), name=name, obj=self
        )

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        """Unpickled arrays lie on their library's current device; they belong on the backend's."""
        vars(self).update(attributes)
        self.training_state = copy.copy(self.training_state)  # copy.copy(model) trains by itself
        if self.state is not None:
            self.state = map_leaves(self.backend.asarray, self.state)

    # ------------------------------------------------------------------ parameters

    @property
    def loss(self) -> Loss:
        """The loss. Set it, and then `metrics`, between runs of `fit` to train on with another."""
        return self._loss

    @loss.setter
    def loss(self, loss: str | Loss) -> None:
        chosen = settings.get_loss(loss, self.network)
        settings.require_fitting_end(self.network, chosen)
        self._loss = chosen

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, as they fit the loss."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Sequence[str | Metric]) -> None:
        self._metrics = settings.get_metrics(metrics, self.loss)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer from the next epoch on; a callback may set it. Its state is reset if it has another form."""
        return self.training_state.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | Optimizer) -> None:
        chosen = optimizers.get(optimizer)
        settings.require_paths(self.network, chosen)
        if self._batch_axis and (chosen.clipnorm or chosen.global_clipnorm):
            raise ValueError(
                "clipnorm and global_clipnorm would take one norm of all networks. Use clipvalue, or one seed at a "
                f"time. Received: {chosen!r} with {len(self.seeds)} seeds"
            )
        self.training_state.optimizer = chosen

    @property
    def parameters(self) -> Tree:
        """The tree of parameters, the model's own arrays; RuntimeError until the model is built."""
        return self.built_state()["params"]

    def get_weights(self) -> list[np.ndarray]:
        """Host copies of all parameters and running statistics, in Keras' order: layer by layer, weights before biases."""
        return [np.array(to_numpy(x)) for _, x in in_keras_order(self.built_state())]

    @alone
    def set_weights(self, weights: Sequence[Any]) -> None:
        """Take over a list in the form of `get_weights`; the optimizer's state stays. ValueError if anything does not fit."""
        self.state = with_weights(self.backend, self.built_state(), weights)

    @property
    def training_step(self) -> TrainingStep:
        """The function that `fit` runs: ``state, record = training_step(state, batch)``."""
        return self._keep(training_step(self._inference, self._scores, self.optimizer))

    @property
    def _inference(self) -> Inference:
        return Inference(self.network, self.backend.dtype)

    @property
    def _scores(self) -> Scores:
        return Scores(self.loss.checked, self.metrics)

    @property
    def _intake(self) -> inputs.Intake:
        built = self.state is not None
        return inputs.Intake(
            self.backend, self.network, self.loss, self.metrics, self.input_shape, self.measured if built else {}
        )

    def _keep(self, function: Any) -> Any:
        return self.workshop.keep(self.backend.name, function)

    @property
    def seeds(self) -> tuple[int, ...]:
        """`seed` as a tuple."""
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)

    @property
    def _batch_axis(self) -> int:
        return 1 if isinstance(self.seed, tuple) else 0

    @alone
    def build(self, input_shape: Shape) -> Model:
        """Check the network's shapes and draw its initial parameters.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample, without the batch axis. The first `fit` calls this by itself.

        Raises
        ------
        ValueError
            The shape is none; a layer does not take what the layer before it gives, and the message names the layer.
        """
        self.workshop.require_idle("build")
        shape = settings.check_shape(input_shape)
        self._begin(shape, self._drawn(shape), {shape: measure(self.network, shape)})
        return self

    def _drawn(self, shape: Shape) -> dict[str, Tree]:
        """Initial parameters and statistics, on the device."""
        drawn = [base.init(self.network, host_rng(seed, "weights"), shape) for seed in self.seeds]
        params, output_shape, statistics = drawn[0]
        base.require_one_output(output_shape)
        if self._batch_axis:
            settings.require_rows(self.network, shape, output_shape)
            params = map_leaves(lambda *values: np.stack(values), *(params for params, *_ in drawn))
        params = map_leaves(lambda p: np.asarray(p, dtype=self.backend.float_name), params)
        params, statistics = (_moved_copy(self.backend, tree) for tree in (params, statistics))
        return {"params": params, "optimizer": {}, "statistics": statistics}

    def _begin(self, shape: Shape, arrays: dict[str, Tree], measured: dict[Shape, Measured]) -> None:
        self.state = arrays
        self.training_state.begin_optimizer(self.network)
        self.input_shape, self.measured = shape, measured
        self.target_shape = None
        self.checked = contracts.checked(self.network, shape)
        self.step = self.epoch = 0

    @alone
    def to(self, backend: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any) -> Model:
        """Move the model to another backend, in place; the arguments are those of `set_backend`. Not during `fit`."""
        self.workshop.require_idle("to")
        target = make_backend(backend, device=device, dtype=dtype, **options)
        state = None if self.state is None else _moved_copy(target, self.state)
        self.backend, self.state = target, state
        return self

    @alone
    def freeze(self, *paths: str) -> None:
        """Make layers `Frozen`, with all that is inside: ``model.freeze("0", "2.1")``, paths as in `summary`.

        A layer that stands at several places is frozen at all of them.
        """
        self.workshop.require_idle("freeze")
        self._swap({id(layer): Frozen(layer) for layer in settings.layers_at(self.network, paths)})

    @alone
    def unfreeze(self, *paths: str) -> None:
        """Let the frozen layers at these paths train again; without paths, all. The optimizer's memory of them begins anew."""
        self.workshop.require_idle("unfreeze")
        layers = settings.layers_at(self.network, paths) if paths else [layer for _, layer in base.walk(self.network)]
        self._swap({id(layer): layer.layer for layer in layers if isinstance(layer, Frozen)})

    def _swap(self, layers: dict[int, Layer]) -> None:
        self.network = self.checked = swap_layers(self.network, layers)
        if self.state is not None:
            memory = self.state["optimizer"]
            self.training_state.begin_optimizer(self.network)
            self.state = self.state | {"optimizer": graft(self.state["optimizer"], memory)}
            self.checked = contracts.checked(self.network, self.input_shape)

    def summary(self, input_shape: Shape | None = None) -> None:
        """Print each layer with its output shape and number of parameters."""
        if (shape := input_shape or self.input_shape) is None:
            raise ValueError(
                "The shapes are known once the model is built: summary(input_shape) or build(input_shape)."
            )
        print(inspection.summary(self.network, settings.check_shape(shape)))

    # ------------------------------------------------------------------ training

    @alone
    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence[Any] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        sample_with_replacement: bool = False,
        validation_freq: int | Collection[int] = 1,
        validation_batch_size: int | None = None,
        record_every: int | None = None,
        **unknown: Any,
    ) -> History:
        """Train on mini-batches; again, and training goes on where it was: 5 epochs and 5 more are 10 epochs.

        Parameters
        ----------
        x : array, shape (n, ...)
            Of any array library. Integers such as bytes stay so on the device and become floating point a batch at a
            time.
        y : array
            Targets as the loss wants them; integer labels for ``"softmax_cross_entropy"``.
        batch_size : int, default 32
            The last batch of an epoch may be smaller. With ``batch_size=len(x)``, or more, every step takes all samples.
        epochs : int, default 1
            The number of the epoch to stop before: ``epochs - initial_epoch`` epochs are trained.
        verbose : {"auto", 0, 1, 2}, default "auto"
            0 is silent, 2 prints a line for each epoch, 1 and "auto" show a progress bar before it if a terminal or a notebook
            is there. Of several networks, or classes, the mean is shown.
        callbacks : sequence of Callback, optional
        validation_split : float, default 0.0
            The share of samples, from the end of x before shuffling, that is held out for validation; what is left for
            training is rounded down.
        validation_data : (x, y) or (x, y, sample_weight), optional
        shuffle : bool, default True
            Draw a new order for each epoch, from the seed and the model's `epoch`.
        class_weight : dict of label -> float, or "balanced", optional
            Each sample's weight is multiplied by that of its class; "balanced" makes all classes weigh the same, as in
            scikit-learn.
        sample_weight : array, shape (n,), optional
            The loss is Σ w_i loss_i / Σ w_i over the batch: weights count within a batch, so give batches enough samples.
            With the loss `PerPosition` also of shape (n, positions). A sample of weight 0 takes no part: it is in no batch,
            so whatever x and y hold there changes neither a gradient nor batch normalization.
        initial_epoch : int, default 0
            The epoch to resume from, as in Keras: the run is the rest of an uninterrupted run of `epochs` epochs, with its
            epoch numbers, orders of samples and validations. A model whose `epoch` is another number takes this one, and the
            `step` that belongs to it, so that schedules and dropout continue too. 0 continues from the model's own `epoch`.
        sample_with_replacement : bool, default False
            Draw each sample of an epoch from all n, so that some come twice and others not.
        validation_freq : int or collection of int, default 1
            Validate every so many epochs, or after these (counted from 1).
        validation_batch_size : int, default 512
            How many samples to validate at once; fewer take less memory.
        record_every : int, optional
            Also record every so many steps, see `History.iterations`.

        Returns
        -------
        History

        Raises
        ------
        ValueError
            Something given does not fit, or the network has no parameters: nothing has been changed. Or, during training, a
            learning rate is none, or a metric or a callback does not fit: the model is as after its last chunk of steps.
        DivergenceError
            The loss, a parameter, a running statistic or the optimizer's state became infinite or NaN; the model is as it was
            before that step.
        RuntimeError
            A callback moved the model to another backend.
        KeyboardInterrupt
            Ctrl-C, after the current chunk of steps: the model is usable and `history` holds what was recorded. SIGTERM, too,
            waits for the chunk's end, where the program has no handler of its own, and is then delivered again.
        """
        self.workshop.require_idle("fit")
        settings.require_no_arguments(unknown, inspect.signature(self.fit).parameters)
        chosen = FitSettings(
            32 if batch_size is None else batch_size, epochs, initial_epoch, verbose, shuffle, sample_with_replacement,
            validation_split, validation_freq, validation_batch_size, record_every,
        )  # fmt: skip
        callbacks = settings.check_callbacks(callbacks)
        plan = self._plan(x, y, sample_weight, class_weight, validation_data, chosen)
        self.training_state.begin_run(initial_epoch, plan.steps_per_epoch)
        self.validates = plan.validation is not None
        for callback in callbacks:
            callback.model = self
        with self.workshop.fitting(), Progress(verbose) as progress:
            return Loop(self.training_state, plan, callbacks, progress).run()

    @alone
    def train_on_batch(self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> Any:
        """One training step on the given batch -> its loss and metrics before the step, as `evaluate` returns them."""
        plan = self._plan(x, y, sample_weight, class_weight, None, FitSettings(len(x), shuffle=False))
        loop = Loop(self.training_state, plan, (), Progress(0))
        loop.begin_epoch()
        records = loop.train(plan.rows[None])
        return named_values(Averages(self.metrics).add(records, len(plan.rows)).values())

    def _plan(
        self, x: Any, y: Any, sample_weight: Any, class_weight: Any, validation_data: Any, chosen: FitSettings
    ) -> Plan:
        """Check everything that a run needs, and build the model if necessary. An error changes nothing."""
        if validation_data is not None:
            validation_data = settings.check_validation_data(validation_data)
        intake = self._intake
        data, validation = intake.run(x, y, sample_weight, class_weight, validation_data, chosen.validation_split)
        shape = tuple(data["x"].shape[1:])
        arrays = self._drawn(shape) if self.state is None else self.state
        if not leaves(trainable(self.network, arrays["params"])):
            raise ValueError(f"The network has no parameters to train. Add a layer such as Dense. Received: {self!r}")
        if self.state is None:
            self._begin(shape, arrays, intake.measured)
        self.target_shape = tuple(np.shape(y)[1:])
        rows = inputs.counted_rows(data)
        return Plan(
            self.backend,
            self.network,
            self.checked,
            self._scores,
            chosen,
            data,
            validation,
            rows,
            self.measured,
            self._keep,
        )

    # ------------------------------------------------------------------ inference

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: str | int = 0,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics on a data set, without dropout and with the running statistics.

        With ``verbose=1`` a bar and a line show them, as in `fit`.

        Returns
        -------
        named tuple, or dict with ``return_dict=True``
            ``loss, accuracy = model.evaluate(...)``, or ``model.evaluate(...).accuracy``.
        """
        state, data = self.built_state(), self._intake.data(x, y, sample_weight)
        inputs.require_weight(data)
        if self.target_shape is None:
            self.target_shape = tuple(np.shape(y)[1:])
        function = self._keep(Evaluation(self._inference, self._scores))
        multiplications = self.measured[tuple(data["x"].shape[1:])].multiplications
        logs = evaluate(self.backend, function, state, data, batch_size, verbose, multiplications)
        return logs if return_dict else named_values(logs)

    def predict_logits(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> Array:
        """The network's raw outputs for x, (n, ..., units), on the model's backend; a new array, also where layers pass x on."""
        state, function = self.built_state(), self._keep(self._inference)
        given, x = x, inputs.prepare_x(self.backend, x)
        inputs.require_finite(self.backend, {"x": x}, given)
        multiplications = self._intake.accept(x).multiplications
        with Progress(verbose) as progress:
            batches = run_batches(self.backend, function, state, {"x": x}, batch_size, progress, multiplications)
            outputs = [z for _, z in batches]
            progress.end()
        return self.backend.namespace.concat(outputs, axis=self._batch_axis)  # of one batch, a copy

    @quiet
    def predict(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> Array:
        """The network's answer: probabilities of classes, or values in the shape of the targets.

        The loss's own activation is applied: the softmax of ``"softmax_cross_entropy"``, the sigmoid of
        ``"binary_cross_entropy"``, the exponential of ``"poisson"``; of `GaussianNLL` the answer is the mean, and
        ``model.loss.activation(model.predict_logits(x))`` holds the variance as well.

        Returns
        -------
        array, shape (n, ..., units) or (n, ...)
            Without the last axis if there is one unit and the targets had no such axis: after ``fit(x, y)`` with y of shape
            (n,), `predict` gives (n,). A model that has met no targets gives (n, ..., units). Several seeds put an axis in front.
        """
        z = self.predict_logits(x, batch_size, verbose)
        answer = self.loss.activation(z) if self.loss.of_classes else self.loss.decide(z)
        return in_target_form(answer, self.target_shape, self._batch_axis)

    @quiet
    def predict_classes(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> Array:
        """The labels: the class of the largest probability; of `BinaryCrossEntropy` 0 or 1 for each unit.

        Returns
        -------
        array of integers
            In the shape of label targets: (n,), or (n, 1) where the targets had that shape; see `predict`.

        Raises
        ------
        ValueError
            The loss is not one of classes.
        """
        if not self.loss.of_classes:
            raise ValueError(f"{self.loss!r} is a loss of values, without classes. Use predict(x).")
        labels = self.loss.decide(self.predict_logits(x, batch_size, verbose))
        return in_target_form(labels, self.target_shape, self._batch_axis)

    def prepare(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, Array]:
        """Check a data set and move it to the device: ``{"x", "y"}`` and, with weights, ``"weight"``."""
        self.built_state()
        return self._intake.data(x, y, sample_weight)

    def built_state(self) -> dict[str, Tree]:
        if self.state is None:
            raise RuntimeError("The model has no parameters yet: call fit(x, y) or build(input_shape) first.")
        return self.state


def _moved_copy(backend: Backend, tree: Tree) -> Tree:
    return backend.copy(map_leaves(backend.asarray, tree))
