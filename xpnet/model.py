"""`Model`: a network with its parameters, loss and optimizer; what people train and ask."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from xpnet import inputs, inspection, losses, metrics, optimizers
from xpnet.backend import Backend, get_backend, make_backend
from xpnet.callbacks import Callback, History, Progress
from xpnet.evaluation import Evaluation, Inference, evaluate, run_batches
from xpnet.layers import base
from xpnet.layers.base import Layer, Shape
from xpnet.layers.sequential import Sequential
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.random import host_rng
from xpnet.training import Loop, Plan, TrainingStep
from xpnet.tree import Array, Tree, map_leaves


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

    Attributes
    ----------
    parameters : tree of arrays
        ``model.parameters[0]["weight"]``; None until the model is built.
    state : dict of trees
        ``"params"``, ``"optimizer"``, ``"statistics"``: all that training changes.
    step : int
        Training steps taken so far.
    history : History
        Of the last `fit`, also after an interrupt or an error.
    stop_training : bool
        Set it in a callback to stop after the epoch.
    """

    def __init__(
        self,
        network: Layer | Sequence[Layer],
        loss: str | Loss,
        optimizer: str | Optimizer = "sgd",
        metrics: Sequence[str | Metric] = (),
        seed: int | Sequence[int] = 0,
        backend: str | Backend | None = None,
    ):
        self.network = network if isinstance(network, Sequential) else Sequential(_as_list(network))
        self.loss = losses.get(loss)
        self.optimizer = optimizers.get(optimizer)
        self.metrics = _get_metrics(metrics, self.loss)
        self.seed = seed
        self.backend = get_backend() if backend is None else make_backend(backend)
        self.state: dict[str, Tree] | None = None
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None
        self.step = 0
        self.history = History()
        self.stop_training = False

    def __repr__(self) -> str:
        names = ", ".join(type(layer).__name__ for layer in self.network.layers)
        return f"<Model [{names}], {type(self.loss).__name__}, {type(self.optimizer).__name__}, {self.backend}>"

    # ------------------------------------------------------------------ parameters

    @property
    def parameters(self) -> Tree:
        """The tree of parameters; None until the model is built."""
        return None if self.state is None else self.state["params"]

    @property
    def training_step(self) -> TrainingStep:
        """The function that `fit` runs: ``state, record = training_step(state, batch)``."""
        return TrainingStep(self.network, self.backend.dtype, self.loss, self.metrics, self.optimizer)

    @property
    def seeds(self) -> tuple[int, ...]:
        """`seed` as a tuple."""
        return tuple(self.seed) if isinstance(self.seed, Sequence) else (self.seed,)

    @property
    def _batch_axis(self) -> int:
        return 1 if isinstance(self.seed, Sequence) else 0

    def build(self, input_shape: Shape) -> Model:
        """Check the network's shapes and draw its initial parameters.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample, without the batch axis. The first `fit` calls this by itself.

        Raises
        ------
        ValueError
            A layer does not take what the layer before it gives; the message names the layer.
        """
        shape = tuple(int(n) for n in input_shape)
        drawn = [base.init(self.network, host_rng(seed, "weights"), shape) for seed in self.seeds]
        params, output_shape, statistics = drawn[0]
        if self._batch_axis:
            if self.network.running or len(shape) != len(output_shape) != 1:
                raise ValueError(
                    "Several seeds train dense networks at once: rows of features in, rows out, no running statistics. "
                    f"Received: samples of shape {shape}, outputs of shape {output_shape}"
                )
            params = map_leaves(lambda *values: np.stack(values), *(params for params, _, _ in drawn))
        params, statistics = self._moved_copy(params), self._moved_copy(statistics)
        self.state = {"params": params, "optimizer": self.optimizer.init(params), "statistics": statistics}
        self.input_shape, self.output_shape, self.step = shape, output_shape, 0
        return self

    def to(self, backend: str | Backend, *, device: Any = None, dtype: str | None = None) -> Model:
        """Move the model to another backend, in place; the arguments are those of `set_backend`."""
        self.backend = make_backend(backend, device=device, dtype=dtype)
        if self.state is not None:
            self.state = self._moved_copy(self.state)
        return self

    def _moved_copy(self, tree: Tree) -> Tree:
        return self.backend.copy(map_leaves(self.backend.asarray, tree))

    def summary(self, input_shape: Shape | None = None) -> None:
        """Print each layer with its output shape and number of parameters."""
        if (shape := input_shape or self.input_shape) is None:
            raise ValueError(
                "The shapes are known once the model is built: summary(input_shape) or build(input_shape)."
            )
        print(inspection.summary(self.network, tuple(shape)))

    # ------------------------------------------------------------------ training

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Sequence | None = None,
        shuffle: bool = True,
        class_weight: Mapping[Any, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        sample_with_replacement: bool = False,
        validation_freq: int | Collection[int] = 1,
        record_every: int | None = None,
    ) -> History:
        """Train on mini-batches.

        Parameters
        ----------
        x : array, shape (n, ...)
            Of any array library. Integers such as bytes stay so on the device and become floating point a batch at a
            time.
        y : array
            Targets as the loss wants them; integer labels for ``"softmax_cross_entropy"``.
        batch_size : int, default 32
            The last batch of an epoch may be smaller. ``batch_size=len(x)`` is gradient descent on all samples.
        epochs : int, default 1
            The number of the epoch to stop before.
        verbose : {"auto", 0, 1, 2}, default "auto"
            0 silent, 1 a progress bar (which "auto" means), 2 a line for each epoch.
        callbacks : sequence of Callback, optional
        validation_split : float, default 0.0
            The share of samples, from the end of x before shuffling, that is held out for validation.
        validation_data : (x, y) or (x, y, sample_weight), optional
        shuffle : bool, default True
            Draw a new order for each epoch.
        class_weight : dict of label -> float, optional
            Each sample's weight is multiplied by that of its class.
        sample_weight : array, shape (n,), optional
            The loss is Σ w_i loss_i / Σ w_i over the batch.
        initial_epoch : int, default 0
            The number of the first epoch; the same number draws the same order of samples.
        sample_with_replacement : bool, default False
            Draw each sample of an epoch from all n, so that some come twice and others not.
        validation_freq : int or collection of int, default 1
            Validate every so many epochs, or after these (counted from 1).
        record_every : int, optional
            Also record every so many steps, see `History.iterations`.

        Returns
        -------
        History

        Raises
        ------
        ValueError
            Something given does not fit; nothing has been changed.
        DivergenceError
            A loss, gradient or parameter became infinite or NaN; the model is as it was before that step.
        KeyboardInterrupt
            Ctrl-C, after the current chunk of steps: the model is usable and `history` holds what was recorded.
        """
        _check_fit_settings(epochs, initial_epoch, validation_split, validation_freq, record_every, verbose)
        data = self.prepare(x, y, sample_weight, class_weight)
        input_shape, validation = tuple(data["x"].shape[1:]), None
        if validation_data is not None:
            x_validation, y_validation, *weight = validation_data
            validation = self.prepare(x_validation, y_validation, weight[0] if weight else None, input_shape=input_shape)
        elif validation_split:
            data, validation = _split(data, validation_split)
        _check_batch_size(batch_size, data["x"].shape[0])
        if self.state is None:
            self.build(input_shape)
        plan = Plan(
            data=data,
            validation=validation,
            batch_size=batch_size,
            epochs=range(initial_epoch, epochs),
            seed=self.seeds[0],
            shuffle=shuffle,
            with_replacement=sample_with_replacement,
            validation_epochs=_validation_epochs(validation_freq),
            record_every=record_every,
        )
        self.history, self.stop_training = plan.history, False
        progress = Progress(1 if verbose == "auto" else int(verbose))
        callbacks = list(callbacks or ())
        for callback in callbacks:
            callback.model = self
        try:
            return Loop(self, plan, callbacks, progress).run()
        finally:
            progress.close()

    def train_on_batch(self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None) -> Any:
        """One training step on the given batch -> its loss and metrics before the step, as `evaluate` returns them."""
        loss_before: dict = {}

        class Keep(Callback):
            def on_train_batch_end(self, step, logs):
                nonlocal loss_before
                loss_before = logs

        history = self.history
        self.fit(
            x, y, batch_size=len(x), verbose=0, callbacks=[Keep()], shuffle=False, sample_weight=sample_weight,
            class_weight=class_weight,
        )  # fmt: skip
        self.history = history
        return _named_values(loss_before)

    # ------------------------------------------------------------------ inference

    def evaluate(
        self, x: Any, y: Any, batch_size: int | None = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics on a data set, without dropout and with the running statistics.

        Returns
        -------
        named tuple, or dict with ``return_dict=True``
            ``loss, accuracy = model.evaluate(...)``, or ``model.evaluate(...).accuracy``.
        """
        self.built_state()
        logs = self.evaluate_prepared(self.prepare(x, y, sample_weight), batch_size)
        return logs if return_dict else _named_values(logs)

    def evaluate_prepared(self, data: dict[str, Array], batch_size: int | None = None) -> dict:
        """`evaluate` on data that has been checked and moved; a dict."""
        function = Evaluation(self.network, self.backend.dtype, self.loss, self.metrics)
        return evaluate(self.backend, function, self.built_state(), data, batch_size)

    def predict_logits(self, x: Any, batch_size: int | None = None) -> Array:
        """The network's outputs for x, on the model's backend."""
        state = self.built_state()
        x = inputs.prepare_x(self.backend, x)
        self._output_shape_for(x, self.input_shape)
        function = Inference(self.network, self.backend.dtype)
        outputs = [z for _, z in run_batches(self.backend, function, state, {"x": x}, batch_size)]
        return outputs[0] if len(outputs) == 1 else self.backend.namespace.concat(outputs, axis=self._batch_axis)

    def predict_proba(self, x: Any, batch_size: int | None = None) -> Array:
        """Probabilities (of a regression loss: its predictions): softmax or sigmoid of the outputs, as the loss has it."""
        return self.loss.activation(self.predict_logits(x, batch_size))

    def predict(self, x: Any, batch_size: int | None = None) -> Array:
        """The label of the largest probability; of a regression loss its predictions."""
        return self.loss.decide(self.predict_logits(x, batch_size))

    # ------------------------------------------------------------------ checks

    def prepare(
        self, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None, input_shape: Shape | None = None
    ) -> dict[str, Array]:
        """Check a data set and move it to the backend -> ``{"x", "y"}`` and, with weights, ``"weight"``.

        Raises ValueError, as `fit` does, also where samples are not of `input_shape`, the model's own unless given.
        """
        x = inputs.prepare_x(self.backend, x)
        output_shape = self._output_shape_for(x, input_shape or self.input_shape)
        return inputs.prepare_targets(self.backend, self.loss, output_shape, x, y, sample_weight, class_weight)

    def _output_shape_for(self, x: Array, input_shape: Shape | None) -> Shape:
        shape = tuple(x.shape[1:])
        if input_shape not in (None, shape):
            raise ValueError(
                f"The model takes samples of shape {input_shape}. Give x of shape (n, *that), or build a new model. "
                f"Received: samples of shape {shape}"
            )
        return self.output_shape or base.init(self.network, host_rng(0, "weights"), shape)[1]

    def built_state(self) -> dict[str, Tree]:
        if self.state is None:
            raise RuntimeError("The model has no parameters yet: call fit(x, y) or build(input_shape) first.")
        return self.state


def _as_list(network: Any) -> list[Layer]:
    return [network] if isinstance(network, Layer) else list(network)


def _get_metrics(chosen: Sequence[str | Metric], loss: Loss) -> tuple[Metric, ...]:
    if isinstance(chosen, str):
        raise ValueError(f'metrics is a list, such as ["accuracy"]. Received: metrics={chosen!r}')
    found = tuple(metrics.get(metric, loss) for metric in chosen)
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise ValueError(f"Each metric may appear once. Received: {names}")
    return found


def _named_values(logs: dict) -> Any:
    return collections.namedtuple("Evaluation", logs)(**logs)  # type: ignore[misc]


def _validation_epochs(validation_freq: int | Collection[int]) -> Callable[[int], bool]:
    if isinstance(validation_freq, int):
        return lambda epoch: (epoch + 1) % validation_freq == 0
    return lambda epoch: epoch + 1 in validation_freq


def _split(data: dict[str, Array], share: float) -> tuple[dict, dict]:
    n = data["x"].shape[0]
    kept = n - round(n * share)
    if not 0 < kept < n:
        raise ValueError(f"validation_split must leave samples on both sides. Received: {share} of {n} samples")
    parts = (slice(0, kept), slice(kept, n))
    first, last = ({name: values[part, ...] for name, values in data.items()} for part in parts)
    return first, last


def _check_batch_size(batch_size: Any, n: int) -> None:
    base.require_positive(batch_size=batch_size)
    if batch_size > n:
        raise ValueError(
            f"batch_size must not exceed the number of samples; batch_size=len(x) takes them all at once. "
            f"Received: batch_size={batch_size} for {n} samples"
        )


def _check_fit_settings(epochs, initial_epoch, validation_split, validation_freq, record_every, verbose) -> None:
    base.require_positive(epochs=epochs)
    if not (isinstance(initial_epoch, int) and 0 <= initial_epoch < epochs):
        raise ValueError(
            "epochs is the number of the epoch to stop before: 0 <= initial_epoch < epochs. "
            f"Received: initial_epoch={initial_epoch!r}, epochs={epochs}"
        )
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1). Received: validation_split={validation_split!r}")
    if isinstance(validation_freq, int):
        base.require_positive(validation_freq=validation_freq)
    if record_every is not None:
        base.require_positive(record_every=record_every)
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'verbose must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')
