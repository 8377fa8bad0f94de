"""The guarantees of the training loop: orders, keys, learning rates, weights and records, across batches and steps."""

import math

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model, writable
from xpnet import SGD, Adam, Callback, DivergenceError, Model
from xpnet.backend import make_backend, to_numpy
from xpnet.inputs import split
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, ReLU, Softmax, TimeDistributed
from xpnet.losses import BinaryCrossEntropy, PerPosition, SoftmaxCrossEntropy
from xpnet.metrics import Metric
from xpnet.tree import leaves

STILL = SGD(0.0)  # parameters do not change, so that the losses show everything else
WEIGHT = np.linspace(0, 3, len(X)) ** 2


def test_the_order_of_samples_depends_on_the_seed_and_the_epoch(xp):
    def batch_losses(seed):
        model = make_model(xp, STILL, [Dense(3, weight_initializer=lambda rng, shape, **fans: np.eye(2, 3))], seed=seed)
        return fit(model, 2, record_every=1).iterations["loss"]

    first, second = batch_losses(0), batch_losses(1)

    assert first[:6] != first[6:]
    assert first != second


def test_with_replacement_some_samples_come_twice(xp):
    model = make_model(xp, STILL, [Dense(3)])
    once, twice = (fit(model, batch_size=120, sample_with_replacement=again).history["loss"] for again in (False, True))

    assert once == pytest.approx([model.evaluate(X, Y).loss])
    assert abs(once[0] - twice[0]) > 1e-4


@pytest.mark.parametrize("size", [1e-40, 1e38])
def test_only_the_ratios_of_weights_count(size, xp):
    """Neither the small weights nor the sum of the large ones can be represented in float32."""
    large, small = make_model(xp), make_model(xp)
    fit(small, sample_weight=WEIGHT + 1)
    history = fit(large, sample_weight=size * (WEIGHT + 1) / 10).history

    assert_same_parameters(large, small, rtol=1e-4, atol=1e-5)
    assert np.all(np.isfinite(history["loss"]))


def test_l2_reaches_the_weights_of_a_model(xp):
    models = [make_model(xp, optimizer, [Dense(3)]).build((2,)) for optimizer in (SGD(0.1), SGD(0.1, l2=0.5))]
    start = np.array(to_numpy(models[0].parameters[0]["weight"]))
    for model in models:
        fit(model, batch_size=120)
    plain, decayed = (to_numpy(model.parameters[0]["weight"]) for model in models)

    np.testing.assert_allclose(decayed, plain - 0.1 * 0.5 * start, rtol=1e-5, atol=1e-6)


def test_a_batch_larger_than_the_data_is_all_of_it(xp):
    large, whole = make_model(xp), make_model(xp)
    fit(large, 2, batch_size=1000)
    fit(whole, 2, batch_size=120)

    assert large.step == 2
    assert_same_parameters(large, whole, rtol=1e-6, atol=1e-7)


def test_validation_split_rounds_as_keras_does():
    """Host arrays only."""
    first, last = split({"x": np.arange(10)}, 0.25)

    assert (len(first["x"]), len(last["x"])) == (7, 3)


@pytest.mark.parametrize("rate", [-1.0, float("nan"), None, float("inf"), "0.1", np.array([0.1, 0.2]), 1j], ids=repr)
def test_learning_rates_of_a_function_are_checked(rate, xp):
    model = make_model(xp, SGD(lambda step: rate if step == 2 else 0.1))

    with pytest.raises(ValueError, match=r"learning_rate\(2\) must be a number in \[0, inf\)"):
        fit(model)


def test_the_step_that_a_schedule_was_asked_for_is_named():
    """On the host, so no backend."""

    def rate(step):
        return np.float32(0.1) if step < 3 else -1.0

    rate.restart_every_epoch = True
    with pytest.raises(ValueError, match=r"learning_rate\(3\) must be a number"):
        fit(make_model(make_backend("numpy"), SGD(rate)))


@pytest.mark.parametrize("event", ["on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_batch_end"])
def test_a_model_does_not_move_in_a_callback(event, xp):
    callback = Callback()
    setattr(callback, event, lambda *args: callback.model.to("numpy", dtype="float64"))

    with pytest.raises(RuntimeError, match=r"Cannot call `model.to\(\)` during `fit`"):
        fit(make_model(xp), validation_data=(X, Y), callbacks=[callback])


def test_one_batch_in_a_callback_leaves_the_run_as_it_is(xp):
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

        def on_epoch_end(self, epoch, logs=None):
            self.model.train_on_batch(X, Y)

    history = fit(make_model(xp), 5, callbacks=[Stop()], validation_data=(X, Y))

    assert history.epoch == [0]


def test_a_batch_of_weights_0_counts_nothing(xp):
    weight = np.repeat([0.0, 1.0], 60)
    model = make_model(xp, STILL, [Dense(3)])
    history = fit(model, batch_size=60, shuffle=False, sample_weight=weight).history

    assert history["loss"] == pytest.approx([model.evaluate(X[60:], Y[60:]).loss], rel=1e-5)
    assert history["accuracy"] == pytest.approx([model.evaluate(X[60:], Y[60:]).accuracy], rel=1e-5)


@pytest.mark.parametrize("fill", [math.nan, math.inf, 1e37])
def test_what_samples_of_weight_0_hold_is_not_looked_at(fill, xp):
    counted = np.resize([True, False, True], len(X))
    x, y = np.where(counted[:, None], X, fill), np.where(counted, X[:, 0], fill)
    layers = [Dense(4, use_bias=False), BatchNormalization(), ReLU(), Dense(1)]
    model, without = (Model(layers, "mean_squared_error", Adam(), backend=writable(xp)) for _ in range(2))
    model.fit(x, y, 16, sample_weight=counted, verbose=0)
    without.fit(x[counted], y[counted], 16, verbose=0)

    assert_same_parameters(model, without, rtol=1e-5, atol=1e-6)
    assert model.evaluate(x, y, sample_weight=counted) == pytest.approx(
        without.evaluate(x[counted], y[counted]), rel=1e-5
    )


@pytest.mark.parametrize("batch_size", [20, 1000])
@pytest.mark.parametrize("settings", [{}, {"shuffle": False}, {"sample_with_replacement": True}], ids=str)
@pytest.mark.parametrize("given", ["sample_weight", "class_weight", "validation_split"])
def test_samples_of_weight_0_take_no_part(given, settings, batch_size, xp):
    """They do not affect batch normalization or appear as 0 · ∞ in a product. The run equals a run without them."""
    counted = np.resize([True, False, True], len(X))
    x, y, weight = np.where(counted[:, None], X, 1e37), np.array(Y), np.linspace(1, 2, len(X)) * counted
    weights = {"sample_weight": weight}
    if given == "class_weight":
        y = np.where(counted, np.minimum(Y, 1), 2)
        weights = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.0}}
    rest = {"sample_weight": weight[counted]} if given != "class_weight" else {"class_weight": {0: 1.0, 1: 2.0}}
    if given == "validation_split":
        weights |= {"validation_split": 0.25}
        rest |= {"validation_data": (X[90:], Y[90:], weight[90:])}
        counted[90:] = False
        rest["sample_weight"] = weight[counted]
        x[90:] = X[90:]
    layers = [
        Dense(4, use_bias=False),
        BatchNormalization(),
        ReLU(),
        Dense(3),
    ]  # the gradient of that bias would be only rounding noise
    model, without = (make_model(xp, layers=layers, optimizer=Adam()) for _ in range(2))
    settings |= {"epochs": 2, "batch_size": batch_size, "verbose": 0}
    history = model.fit(x, y, **weights, **settings).history
    expected = without.fit(x[counted], y[counted], **rest, **settings).history

    assert model.step == without.step
    assert_same_parameters(model, without, rtol=1e-5, atol=1e-6)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_a_sample_with_one_position_that_counts_takes_part(xp):
    """The sample's other positions have weight 0."""
    x = np.random.default_rng(0).normal(size=(6, 4, 3))
    y = np.random.default_rng(1).integers(0, 2, (6, 4))
    weight = np.zeros((6, 4))
    weight[1, 2] = weight[4] = 1.0
    layers = [TimeDistributed(Dense(2))]
    model, without = (Model(layers, PerPosition(SoftmaxCrossEntropy()), backend=writable(xp)) for _ in range(2))
    model.fit(x, y, 1, sample_weight=weight, shuffle=False, verbose=0)
    without.fit(x[[1, 4]], y[[1, 4]], 1, sample_weight=weight[[1, 4]], shuffle=False, verbose=0)

    assert model.step == 2
    assert_same_parameters(model, without, rtol=1e-6, atol=1e-7)


def test_a_method_given_to_a_callback_object_is_called(xp):
    callback, batches = Callback(), []
    callback.on_train_batch_end = lambda batch, logs: batches.append(batch)
    fit(make_model(xp), callbacks=[callback])

    assert batches == list(range(6))


def test_a_network_without_parameters_predicts_and_is_not_trained(xp):
    model = Model([Flatten()], "mean_squared_error", Adam(), backend=writable(xp)).build((2,))

    np.testing.assert_allclose(to_numpy(model.predict(X)), X, rtol=1e-6)
    with pytest.raises(ValueError, match="no parameters to train"):
        model.fit(X, X, verbose=0)


def test_whole_numbers_as_initial_values_become_floating_point(xp):
    ones = lambda rng, shape, **fans: np.ones(shape, dtype=int)  # noqa: E731
    model = make_model(xp, Adam(), [Dense(3, weight_initializer=ones)])
    fit(model)

    assert all(p.dtype == model.backend.dtype for p in leaves(model.parameters))


def test_one_batch_that_diverges_leaves_the_history(xp):
    model = make_model(xp, layers=[Dense(3)])
    fit(model)
    model.parameters[0]["weight"] = model.backend.asarray(np.full((2, 3), np.nan))
    history = model.history
    with pytest.raises(DivergenceError):
        model.train_on_batch(X, Y)

    assert model.history is history


def test_terms_of_a_metric_are_one_number_for_each_sample(xp):
    rows = 20 // (xp.parts(0, 0) * xp.pieces(0, 0))
    for terms, received in ((lambda z: (z * z,), rf"tuple \[\({rows}, 3\)\]"), (lambda z: z[:, 0], r".*\[\]"),
                            (lambda z: (0.5,), r"tuple \[None\]"), (lambda z: (), r"tuple \[\]")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"x.terms must return a tuple.*\({rows},\).*Received: {received}"):
            fit(make_model(xp, metrics=[Named("x", terms)]))


def test_losses_and_ends_of_networks_that_do_not_fit_are_refused():
    """Checks only settings, so no backend."""
    for loss in ("categorical_cross_entropy", "binary_cross_entropy"):
        Model([Dense(3), Dense(3, activation="softmax" if loss.startswith("cat") else None)], loss)
    for layers, loss in (([Dense(3)], "categorical_cross_entropy"), ([Conv2D(3, 3), Flatten()], "categorical_cross_entropy"),
                         ([Dense(1)], BinaryCrossEntropy(from_logits=False))):  # fmt: skip
        with pytest.raises(ValueError, match=r"needs probabilities. .*ends in (Dense|Conv2D)"):
            Model(layers, loss)
    with pytest.raises(ValueError, match="includes Softmax"):
        Model([Dense(3), Softmax(), Dropout(0.1), Flatten()], "softmax_cross_entropy")
    for metrics, message in (([Named("class")], "identifier"), ([Named("_x")], "identifier"),
                             ([Named("val_x")], "identifier"), (Named("x"), "metrics must be a list")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Model([Dense(3)], "huber", metrics=metrics)
    assert Model([Dense(3)], "huber", metrics=None).metrics == ()


class Named(Metric):
    def __init__(self, name, function=lambda z: (z[..., 0],)):
        self.name, self.function = name, function

    def check(self, y_shape, units):
        pass

    def terms(self, y, z):
        return self.function(z)


@pytest.mark.parametrize("call", [lambda model: model.fit(X, Y), lambda model: model.build(X.shape[1:])])
def test_a_callback_neither_fits_nor_builds_its_model(call, xp):
    class Calls(Callback):
        def on_epoch_end(self, epoch, logs=None):
            call(self.model)

    with pytest.raises(RuntimeError, match="during `fit`"):
        fit(make_model(xp), callbacks=[Calls()])


class Pauses(Callback):
    """Wants a pause after every 7 steps, and notes where training pauses."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def next_pause(self, step):
        return step + 7 - step % 7

    def on_pause(self, logs):
        self.steps.append(self.model.step)
        self.epochs.append((logs or {}).get("loss"))


def test_training_pauses_where_a_callback_wants_it(xp):
    model, pauses = make_model(xp, layers=[Dense(3)]), Pauses()
    history = fit(model, 3, batch_size=5, callbacks=[pauses]).history  # 24 steps in an epoch

    assert {*range(7, 72, 7), 24, 48, 72} <= {*pauses.steps}
    assert pauses.steps == sorted({*pauses.steps})
    assert [pauses.epochs[pauses.steps.index(step)] for step in (24, 48, 72)] == history["loss"]
    assert sum(loss is not None for loss in pauses.epochs) == 3


def test_an_optimizer_set_inside_an_epoch_waits_for_the_next_one(xp):
    class Switch(Pauses):
        def on_pause(self, logs):
            self.model.optimizer = Adam(0.0)
            self.steps.append((self.model.training_state.epoch_optimizer, sorted(self.model.state["optimizer"])))

    model, switch = make_model(xp, SGD(0.1, momentum=0.9), [Dense(3)]), Switch()
    fit(model, 2, batch_size=5, callbacks=[switch])

    names = [names for optimizer, names in switch.steps]
    assert switch.steps[0] == (SGD(0.1, momentum=0.9), ["velocity"])
    assert names == sorted(names, reverse=True)
    assert switch.steps[-1] == (Adam(0.0), ["m", "t", "v"])


def test_a_callback_may_take_a_step_inside_an_epoch(xp):
    class Extra(Pauses):
        def on_pause(self, logs):
            super().on_pause(logs)
            self.model.train_on_batch(X[:10], Y[:10])

    model, extra = make_model(xp, layers=[Dense(3)]), Extra()
    fit(model, 2, batch_size=5, callbacks=[extra])

    assert model.step == 48 + len(extra.steps)
    assert model.epoch == 2
