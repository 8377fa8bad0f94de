"""`Model`: a network with its parameters, loss and optimizer, for training and prediction."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module  # the modules of files take several ms to import
from typing import Any

import numpy as np

from xpnet import inputs, optimizers, settings
from xpnet.backend import Backend, all_in_scope, get_backend, make_backend, quiet, to_numpy
from xpnet.callbacks.base import Callbacks, attach
from xpnet.checks import require_range
from xpnet.errors import DivergenceError
from xpnet.evaluation import evaluate, in_target_form, named_values, predict
from xpnet.files import StrPath
from xpnet.groups import collective
from xpnet.history import History
from xpnet.keywords import Settings
from xpnet.layers import contracts
from xpnet.layers.base import Layer, Shape
from xpnet.layers.frozen import freeze, unfreeze
from xpnet.layers.sequential import Sequential
from xpnet.layers.shapes import Measured, measure
from xpnet.loop import Loop
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.plan import Plan, require_trainable
from xpnet.progress import Progress
from xpnet.settings import FitSettings
from xpnet.sources.choose import evaluation, training
from xpnet.state import TrainingState, part
from xpnet.step import Evaluation, Inference, Scores, TrainingStep, training_step
from xpnet.tree import Array, Tree
from xpnet.weights import drawn, in_keras_order, in_order, moved_copy, named_weights, with_weights
from xpnet.workshop import Workshop, alone


@all_in_scope
class Model(metaclass=Settings):
    """A network, its parameters, and how to train them.

    Parameters
    ----------
    network : Layer or list of Layer
        A list of layers means ``Sequential(list)``.
    loss : str or Loss
        A name such as ``"softmax_cross_entropy"`` or an object from `xpnet.losses`.
    optimizer : str or Optimizer, default SGD(0.01)
        A name such as ``"adam"`` or an object such as ``Adam(0.001)``.
    metrics : sequence of str or Metric, default ()
        Names such as ``"accuracy"`` or objects from `xpnet.metrics`.
    seed : int or sequence of int, default 0
        Determines everything random: initial weights, the order of samples, and dropout. Several seeds train one dense
        network each, all at once, on a leading axis of every parameter. Losses and metrics then have one value for each
        network. The first seed determines the order of samples and the random key of dropout.
    backend : str or Backend, optional
        The default is the current backend. The model keeps its backend; see `to`.

    Notes
    -----
    The first `fit` builds the model for the shape of its samples. Later calls accept samples of a different shape if the network
    has the same parameters for it: sequences of another length for recurrent layers or attention, and images of another size
    before a global pooling. After `Flatten` only the number of elements matters, so 3 x 5 and 5 x 3 images look the same.

    Threads: only one thread at a time may change a model. While it does, `fit`, `build`, `to`, `set_weights`, `freeze` and
    `train_on_batch` raise RuntimeError in other threads. `predict`, `evaluate` and `get_weights` may run in other threads, with
    the parameters of the last finished chunk of steps. Separate models, such as ``copy.deepcopy(model)``, train in parallel.

    Attributes
    ----------
    training_state : TrainingState
        Everything that training changes. The attributes from `state` to `stop_training` are its parts.
    parameters : tree of arrays
        The model's own arrays, not copies, as in ``model.parameters[0]["weight"]``. Raises RuntimeError until the model is built.
    state : dict of trees
        The arrays that training changes: ``"params"``, ``"optimizer"`` and ``"statistics"``.
    target_shape : tuple of int, optional
        The shape of one sample's targets in the last `fit`, or in the first `evaluate` before any fit. It is () if y has
        shape (n,). It determines the shape of predictions; see `predict`.
    step, epoch : int
        Training steps and epochs so far. Schedules and random layers depend on the step, and the order of samples on the epoch.
    history : History
        The record of the last `fit`, even after an interrupt or an error.
    stop_training : bool
        Set it in a callback to stop training after the current epoch, or in a callback of batches after the current batch.
    validates : bool
        Whether the last `fit` had validation data.
    class_names : tuple of str
        Names of the classes, if you set them. A model file keeps them, and the command line prints them.
    diverged : dict of int to DivergenceError
        The networks of an `Ensemble` that diverged. A model file keeps them, too.
    """

    state, seed, step, epoch = part("arrays"), part("seed"), part("step"), part("epoch")
    target_shape, history, stop_training = part("target_shape"), part("history"), part("stop_training")

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
        self.backend = get_backend() if backend is None else make_backend(backend)
        self.loss, self.metrics = loss, metrics
        self.workshop = Workshop()
        self.training_state = TrainingState(optimizers.get(optimizer), settings.check_seed(seed))
        self.optimizer = optimizer
        self.input_shape: Any = None
        self.measured: dict[Shape, Measured] = {}  # by the shape of samples
        self.checked: Layer = self.network  # the same network with checks of custom layers
        self.validates, self.class_names, self.diverged = False, tuple[str, ...](), dict[int, DivergenceError]()

    def __repr__(self) -> str:
        names = ", ".join(type(layer).__name__ for layer in self.network.layers)
        return f"<Model [{names}], {type(self.loss).__name__}, {type(self.optimizer).__name__}, {self.backend}>"

    def _repr_html_(self) -> str:
        return import_module("xpnet.inspection").model_html(self)

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):
            return object.__getattribute__(self, name)  # a property failed; raise its error again
        remedy = settings.NOT_OF_MODEL.get(name)
        message = f"Model has no attribute {name!r}" + (f": {remedy}" if remedy else "")
        raise AttributeError(message, name=name, obj=self)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        """Move the arrays of a pickle or a deep copy, which are on the host, to the backend."""
        vars(self).update(attributes)
        # so that copy.copy(model) trains independently
        self.training_state, self.workshop = self.training_state.on(self.backend), copy.copy(self.workshop)

    # ------------------------------------------------------------------ parameters

    @property
    def loss(self) -> Loss:
        """The loss. To continue training with another loss, set it and then `metrics` between runs of `fit`."""
        return self._loss

    @loss.setter
    def loss(self, loss: str | Loss) -> None:
        chosen = settings.get_loss(loss, self.network)
        settings.require_fitting_end(self.network, chosen)
        require_range(self.backend.float_name, self.network, chosen)
        self._loss = chosen

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, with their settings completed for the loss."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Sequence[str | Metric]) -> None:
        self._metrics = settings.get_metrics(metrics, self.loss)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer. A callback may set a new one, used from the next epoch with a new state if needed."""
        return self.training_state.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | Optimizer) -> None:
        chosen = optimizers.get(optimizer)
        settings.require_paths(self.network, chosen)
        require_range(self.backend.float_name, chosen)
        if self._batch_axis and (chosen.clipnorm or chosen.global_clipnorm):
            raise ValueError(
                "clipnorm and global_clipnorm need a model with one seed, because they would compute one norm over all "
                f"networks. Use clipvalue, or train the seeds one at a time. Received: {chosen!r} with {len(self.seeds)} seeds"
            )
        self.training_state.optimizer = chosen

    @property
    def parameters(self) -> Tree:
        """The tree of parameters: the model's own arrays. Raises RuntimeError until the model is built."""
        return self.built_state()["params"]

    def get_weights(self) -> list[np.ndarray]:
        """Return host copies of all parameters and running statistics in Keras' order: by layer, weights before biases."""
        return [np.array(to_numpy(x)) for _, x in in_keras_order(self.built_state())]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return these arrays by name, such as ``"0.weight"``."""
        return {name: np.array(to_numpy(x)) for name, x in named_weights(self.built_state()).items()}

    @alone
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the arrays that `state_dict` returns. Raises ValueError if they do not fit."""
        self.set_weights(in_order(self.built_state(), state_dict))

    @alone
    def save(self, path: StrPath) -> None:
        """Write the model and its training state for `load_model`. Raises CheckpointError if a file cannot hold some part."""
        import_module("xpnet.checkpoint").save(self, path)

    def save_weights(self, path: StrPath) -> None:
        """Write the arrays of `state_dict` to a file."""
        import_module("xpnet.checkpoint").save_weights(self, path)

    @alone
    def load_weights(self, path: StrPath) -> None:
        """Read a file of `save_weights` or `save`. If its arrays do not fit, raise CheckpointError and change nothing."""
        import_module("xpnet.checkpoint").load_weights(self, path)

    @alone
    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the arrays that `get_weights` returns, but not the optimizer's state. Raises ValueError if they do not fit."""
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
        measured = {} if self.state is None else self.measured
        return inputs.Intake(self.backend, self.network, self.loss, self.metrics, self.input_shape, measured)

    def _keep(self, function: Any) -> Any:
        return self.workshop.keep(self.backend.name, function)

    @property
    def seeds(self) -> tuple[int, ...]:
        """`seed` as a tuple."""
        return self.training_state.seeds

    @property
    def _batch_axis(self) -> int:
        return 1 if isinstance(self.seed, tuple) else 0

    @alone
    def build(self, input_shape: Shape) -> Model:
        """Check the network's shapes and draw its initial parameters.

        Parameters
        ----------
        input_shape : tuple of int
            The shape of one sample, without the batch axis. The first `fit` builds the model automatically.

        Raises
        ------
        ValueError
            `input_shape` is invalid, or a layer cannot accept the previous layer's output. The message names the layer.
        """
        self.workshop.require_idle("build")
        shape = settings.check_shape(input_shape)
        self._begin(shape, drawn(self.backend, self.network, self.seed, shape), {shape: measure(self.network, shape)})
        return self

    def _begin(self, shape: Shape, arrays: dict[str, Tree], measured: dict[Shape, Measured]) -> None:
        self.state = arrays
        self.training_state.begin_optimizer(self.network)
        self.input_shape, self.measured = shape, measured
        self.checked = contracts.checked(self.network, shape)
        self.target_shape, self.step, self.epoch = None, 0, 0

    @alone
    def to(self, backend: str | Backend, *, device: Any = None, dtype: str | None = None, **options: Any) -> Model:
        """Move the model to another backend, in place, with the arguments of `set_backend`. Raises RuntimeError during `fit`."""
        self.workshop.require_idle("to")
        target = make_backend(backend, device=device, dtype=dtype, **options)
        require_range(target.float_name, self.network, self.loss, self.optimizer)
        self.backend, self.state = target, None if self.state is None else moved_copy(target, self.state)
        return self

    @alone
    def freeze(self, *paths: str) -> None:
        """Freeze the layers at these paths and all layers inside them, as in ``model.freeze("0", "2.1")``.

        `summary` shows the paths. A layer that appears at several places is frozen at all of them. See `xpnet.layers.Frozen`.
        """
        self.workshop.require_idle("freeze")
        self._exchange(freeze(self.network, settings.layers_at(self.network, paths)))

    @alone
    def unfreeze(self, *paths: str) -> None:
        """Unfreeze the layers at these paths, or all layers if there are no paths. Their optimizer state starts from zero."""
        self.workshop.require_idle("unfreeze")
        settings.layers_at(self.network, paths)
        self._exchange(unfreeze(self.network, paths))

    def _exchange(self, network: Any) -> None:
        self.network = self.checked = network
        if self.state is not None:
            self.training_state.exchange_network(network)
            self.checked = contracts.checked(self.network, self.input_shape)

    def summary(
        self, input_shape: Shape | None = None, *, line_length: int | None = None, print_fn: Any = None,
        expand_nested: bool = True, show_trainable: bool = False, layer_range: Sequence[str] | None = None,
    ) -> str:  # fmt: skip
        """Print each layer with its output shape, parameters and FLOPs, and the memory. Return the table as a string.

        FLOPs are two for each multiplication by a weight. In a notebook, the table is not printed; it is HTML if it is the
        value of a cell. The options are those of Keras; `layer_range` holds the paths of the first and the last layer.
        """
        options = line_length, print_fn, expand_nested, show_trainable, layer_range
        return import_module("xpnet.inspection").summary(self, input_shape, *options)

    def playground(self, path: StrPath, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Write a page in which a browser computes the network; see `xpnet.playground.playground` for the options."""
        return import_module("xpnet.playground").playground(self, path, x, y, **options)

    # ------------------------------------------------------------------ training

    @alone
    @collective
    def fit(
        self, x: Any, y: Any = None, batch_size: int | None = None, epochs: int = 1, verbose: str | int = "auto",
        callbacks: Callbacks = None, validation_split: float = 0.0, validation_data: Any = None, shuffle: bool = True,
        class_weight: Mapping[Any, float] | str | None = None, sample_weight: Any = None, initial_epoch: int = 0,
        steps_per_epoch: int | None = None, validation_steps: int | None = None,
        sample_with_replacement: bool = False, validation_freq: int | Collection[int] = 1,
        validation_batch_size: int | None = None, record_every: int | None = None, resume_from: StrPath | None = None,
        micro_batch_size: int | None = None, **unknown: Any,
    ) -> History:  # fmt: skip
        """Train on mini-batches. A second call continues where the first stopped: 5 epochs and 5 more are 10 epochs.

        Parameters
        ----------
        x : array, shape (n, ...), or batches
            Samples, as an array of any library. Integers, such as bytes, stay integers on the device, and each batch is
            converted to floating point. Memory-mapped files, HDF5 and zarr datasets are read while the model trains. Without
            y, x gives batches ``(x, y)`` or ``(x, y, weight)``, such as a DataLoader or a generator; see docs/big-data.md.
        y : array, optional
            Targets in the form that the loss needs, such as integer labels for ``"softmax_cross_entropy"``.
        batch_size : int, default 32
            The last batch of an epoch may be smaller. With ``batch_size=len(x)`` or more, every step uses all samples.
        epochs : int, default 1
            Training stops before the epoch with this number, so `fit` trains ``epochs - initial_epoch`` epochs.
        verbose : {"auto", 0, 1, 2}, default "auto"
            0 is silent. 2 prints a line for each epoch. 1 and "auto" also show a progress bar in a terminal or notebook. For
            several networks or classes, the mean is shown.
        callbacks : sequence of Callback, optional
        validation_split : float, default 0.0
            The share of samples to hold out for validation, from the end of x before shuffling. The number of training
            samples is rounded down.
        validation_data : (x, y), (x, y, sample_weight), or batches, optional
        shuffle : bool, default True
            Draw a new order for each epoch, from the seed and the model's `epoch`.
        class_weight : dict of label -> float, or "balanced", optional
            Multiply each sample's weight by the weight of its class. "balanced" gives all classes the same total weight.
        sample_weight : array, shape (n,), optional
            The loss is Σ w_i loss_i / Σ w_i over a batch. Weights compare only samples of the same batch, so use large
            enough batches. `PerPosition` also accepts the shape (n, positions). Samples with weight 0 are in no batch, so
            their x and y affect neither gradients nor batch normalization.
        initial_epoch : int, default 0
            The epoch to resume from, as in Keras. The run then equals the rest of an uninterrupted run of `epochs` epochs,
            with the same epoch numbers, orders of samples and validations. The model's `epoch` and `step` are set to match,
            so that schedules and dropout continue too. 0 continues from the model's own `epoch`.
        steps_per_epoch : int, optional
            The number of batches in an epoch. The next epoch continues with the batches after them. A generator needs it if
            there are several epochs.
        validation_steps : int, optional
            Validate on this many batches from the beginning of the validation data, or on the next ones of a generator.
        sample_with_replacement : bool, default False
            Draw each sample of an epoch from all n samples, so some appear more than once and others do not appear.
        validation_freq : int or collection of int, default 1
            Validate every `validation_freq` epochs, or after the epochs in the collection, counted from 1.
        validation_batch_size : int, default 512
            The number of samples to validate at once. Smaller batches need less memory.
        record_every : int, optional
            Also record a value every `record_every` steps; see `History.iterations`.
        resume_from : path-like, optional
            A file of `ModelCheckpoint`, or a folder with such files, of which the newest is used. The run continues inside its
            epoch and ends as if it had not been interrupted. The model may be new: everything comes from the file. The other
            arguments must be the same again, but `epochs` may be larger.
        micro_batch_size : int, optional
            Compute each batch in micro-batches of at most this many rows, and add up their gradients (gradient accumulation). The
            step is the same up to rounding. It needs less memory, because only one micro-batch has activations.

        Returns
        -------
        History
            After `resume_from`, that of the whole run.

        Raises
        ------
        ValueError
            Before training: an argument does not fit, the network has no parameters to train, or the file of `resume_from` is
            damaged or belongs to another run (`CheckpointError`). Nothing has changed. During training: a learning rate is
            invalid, or a metric or callback does not fit. The model keeps its state after the last finished chunk of steps.
        DivergenceError
            The loss, a parameter, a running statistic or the optimizer's state became infinite or NaN. The model is as it was
            before that step.
        RuntimeError
            A callback called `fit`, `build`, `to`, `freeze` or `unfreeze`, or another thread is changing the model.
        SourceError
            Data that are read during training could not be read, ended early, or changed their form. The message names the
            batch, and the model keeps its state after the last finished chunk of steps.
        KeyboardInterrupt
            Ctrl-C was pressed. The current chunk of steps was finished, the model is usable, and `history` holds the records.
            SIGTERM also waits for the end of the chunk and is then delivered again, unless the program handles it.
        """
        self.workshop.require_idle("fit")
        settings.require_no_arguments(unknown, self.fit)
        chosen = FitSettings(
            batch_size, epochs, initial_epoch, verbose, shuffle, sample_with_replacement, validation_split,
            validation_freq, validation_batch_size, record_every, steps_per_epoch, validation_steps, micro_batch_size,
        )  # fmt: skip
        run = import_module("xpnet.run").Run(self, settings.check_callbacks(callbacks), resume_from)
        with ExitStack() as opened:
            plan = self._plan(opened, x, y, sample_weight, class_weight, validation_data, chosen)
            restore = run.begin(plan)
            with self.workshop.fitting(run), Progress(verbose) as progress:
                return Loop(self.training_state, plan, run.active, progress).run(restore)

    @alone
    @collective
    def train_on_batch(self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> Any:
        """Take one training step on this batch. Return its loss and metrics before the step, in the form of `evaluate`."""
        plan = self._plan(ExitStack(), x, y, sample_weight, class_weight, None, FitSettings(len(x), shuffle=False))
        return named_values(Loop(self.training_state, plan, (), Progress(0)).one_step())

    def _plan(
        self, opened: ExitStack, x: Any, y: Any, sample_weight: Any, class_weight: Any, validation_data: Any,
        chosen: FitSettings,
    ) -> Plan:  # fmt: skip
        """Check everything that a run needs, and build the model if necessary. An error changes nothing."""
        if validation_data is not None:
            validation_data = settings.check_validation_data(validation_data)
        intake = self._intake
        source, validation = training(opened, intake, x, y, sample_weight, class_weight, validation_data, chosen)
        arrays = drawn(self.backend, self.network, self.seed, source.shape) if self.state is None else self.state
        require_trainable(self, chosen, intake.measured[source.shape], arrays["params"])
        if self.state is None:
            self._begin(source.shape, arrays, intake.measured)
        self.target_shape = source.target_shape
        parts = self.backend, self.network, self.checked, self._scores, chosen, source, validation
        return Plan(*parts, self.measured, self._keep, class_weight)

    # ------------------------------------------------------------------ inference

    @collective
    def evaluate(
        self, x: Any, y: Any = None, batch_size: int | None = None, verbose: str | int = 0, sample_weight: Any = None,
        steps: int | None = None, callbacks: Callbacks = None, return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """Return the loss and metrics on a data set, without dropout and with the running statistics.

        x and y are as in `fit`. `steps` is the number of batches to use, by default all, so a generator that never ends needs
        it. With ``verbose=1`` it shows a progress bar and a line, as in `fit`. `callbacks` get ``on_test_...``.

        Returns
        -------
        named tuple, or dict with ``return_dict=True``
            ``loss, accuracy = model.evaluate(...)``, or ``model.evaluate(...).accuracy``.
        """
        state, function = self.built_state(), self._keep(Evaluation(self._inference, self._scores))
        with ExitStack() as opened:
            data = evaluation(opened, self._intake, x, y, sample_weight, batch_size=batch_size, steps=steps)
            self.target_shape = data.target_shape if self.target_shape is None else self.target_shape
            chosen = attach(settings.check_callbacks(callbacks), self, verbose, 1, data.steps)
            logs = evaluate(self.backend, function, state, data, verbose, self.measured[data.shape], chosen)
        return logs if return_dict else named_values(logs)

    def predict_logits(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> Array:
        """Return the network's raw outputs for x, (n, ..., units), as a new array on the model's backend."""
        return self._predict(x, batch_size, verbose, lambda z: z)

    @quiet
    def predict(
        self, x: Any, batch_size: int | None = None, verbose: str | int = 0, steps: int | None = None,
        callbacks: Callbacks = None,
    ) -> Array:  # fmt: skip
        """Return predictions: probabilities of classes, or values in the shape of the targets.

        `predict` applies the activation that the loss includes: the softmax of ``"softmax_cross_entropy"``, the sigmoid of
        ``"binary_cross_entropy"`` or the exponential of ``"poisson"``. With `GaussianNLL` it returns the mean, and
        ``model.loss.activation(model.predict_logits(x))`` also returns the variance. `callbacks` get ``on_predict_...``. As
        in `evaluate`, `steps` is the number of batches to use, and a generator that never ends needs it.

        Returns
        -------
        array, shape (n, ..., units) or (n, ...)
            If the network has one unit and the targets had no axis of units, the last axis is omitted: after ``fit(x, y)``
            with y of shape (n,), the shape is (n,). Without known targets it is (n, ..., units). Seeds add a first axis.
        """
        answer = self.loss.activation if self.loss.of_classes else self.loss.decide
        form = self.target_shape, self._batch_axis
        return self._predict(x, batch_size, verbose, lambda z: in_target_form(answer(z), *form), steps, callbacks)

    @quiet
    def predict_classes(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> Array:
        """Return labels: the class with the largest probability. With `BinaryCrossEntropy`, 0 or 1 for each unit.

        Returns
        -------
        array of integers
            It has the shape of label targets: (n,), or (n, 1) if the targets had this shape; see `predict`.

        Raises
        ------
        ValueError
            The targets of the loss are not classes.
        """
        if not self.loss.of_classes:
            raise ValueError(f"predict_classes needs a loss of classes. Use predict(x). Received: {self.loss!r}")
        form = self.target_shape, self._batch_axis
        return self._predict(x, batch_size, verbose, lambda z: in_target_form(self.loss.decide(z), *form))

    def _predict(
        self, x: Any, batch_size: int | None, verbose: str | int, answer: Any, steps: int | None = None,
        callbacks: Callbacks = None,
    ) -> Array:  # fmt: skip
        state, function = self.built_state(), self._keep(self._inference)
        with ExitStack() as opened:
            data = evaluation(opened, self._intake, x, batch_size=batch_size, steps=steps, fields=1)
            measured, axis = self.measured[data.shape], self._batch_axis
            chosen = attach(settings.check_callbacks(callbacks), self, verbose, 1, data.steps)
            return predict(self.backend, function, state, data, verbose, measured, axis, answer, chosen)

    def prepare(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, Array]:
        """Check a data set and move it to the device: ``{"x", "y"}`` and, with weights, ``"weight"``."""
        self.built_state()
        return self._intake.data(x, y, sample_weight)

    def built_state(self) -> dict[str, Tree]:
        if self.state is None:
            raise RuntimeError("The model has no parameters yet. Call fit(x, y) or build(input_shape) first.")
        return self.state
