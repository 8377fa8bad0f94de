"""Model: what fit, evaluate and predict guarantee, and what they refuse."""

import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from xpnet import SGD, Adam, Callback, EarlyStopping, Model, schedules
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import (
    Dense,
    Dropout,
    Flatten,
    GroupNormalization,
    Identity,
    LayerNormalization,
    ReLU,
    Rescaling,
    Reshape,
    Residual,
    RMSNormalization,
    Tanh,
)  # fmt: skip
from xpnet.losses import Huber
from xpnet.tree import leaves, map_leaves, named_leaves


def spirals(n=120, classes=3):
    """Return a small problem that a linear model cannot solve."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    radius = rng.uniform(0.1, 1, n)
    angle = 3 * radius + 2 * np.pi * y / classes + rng.normal(scale=0.1, size=n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), y


X, Y = spirals()


def make_model(xp, optimizer=None, layers=None, **settings):
    layers = layers or [Dense(16), Tanh(), Dropout(0.1), Dense(3)]
    settings = {"loss": "softmax_cross_entropy", "metrics": ["accuracy"], "seed": 3} | settings
    return Model(layers, optimizer=optimizer or SGD(0.2, momentum=0.9), backend=writable(xp), **settings)


def writable(xp):
    """Return the backend, or NumPy instead of read-only NumPy, because training reuses the memory of parameters."""
    return make_backend("numpy", dtype=xp.float_name) if xp.__class__.__name__ == "ReadOnlyNumpy" else xp


def fit(model, epochs=1, **settings):
    return model.fit(X, Y, **({"batch_size": 20, "epochs": epochs, "verbose": 0} | settings))


def assert_same_parameters(a, b, **tolerance):
    for (name, p), (_, q) in zip(named_leaves(a.parameters), named_leaves(b.parameters), strict=True):
        np.testing.assert_allclose(to_numpy(p), to_numpy(q), err_msg=name, **tolerance)


def test_fit_learns(xp):
    model = make_model(xp, optimizer=Adam(0.02), layers=[Dense(32), ReLU(), Dense(3)])
    before = model.build((2,)).evaluate(X, Y)
    history = fit(model, epochs=40)
    loss, accuracy = model.evaluate(X, Y)

    assert loss < before.loss / 2
    assert accuracy > 0.9
    assert history.epoch == list(range(40))
    assert sorted(history.history) == ["accuracy", "loss"]
    assert model.step == 40 * 6
    np.testing.assert_array_equal(
        to_numpy(model.predict_classes(X)) == Y, np.argmax(to_numpy(model.predict_logits(X)), 1) == Y
    )
    np.testing.assert_allclose(to_numpy(model.predict(X)).sum(axis=1), 1, rtol=1e-5)


def test_the_same_seed_is_the_same_run_on_every_backend(xp):
    """After 50 steps with dropout and momentum, the parameters agree to 1e-5."""
    reference, model = make_model(make_backend("numpy")), make_model(xp)
    for one in (reference, model):
        fit(one, epochs=10, batch_size=24)  # 5 steps per epoch

    assert model.step == 50
    assert_same_parameters(model, reference, rtol=1e-5, atol=1e-5)


def test_another_seed_is_another_run(xp):
    first, second = make_model(xp), make_model(xp, seed=4)
    first.build((2,)), second.build((2,))

    assert not np.allclose(to_numpy(first.parameters[0]["weight"]), to_numpy(second.parameters[0]["weight"]))


def test_float64_on_request(xp64):
    model = make_model(xp64)
    fit(model)

    assert all(p.dtype == xp64.dtype for p in leaves(model.parameters))
    assert model.predict_logits(X).dtype == xp64.dtype


def test_bytes_stay_bytes_until_a_batch_is_used(xp):
    images = np.random.default_rng(0).integers(0, 256, size=(30, 4, 4), dtype=np.uint8)
    model = make_model(xp, layers=[Rescaling(1 / 255), Flatten(), Dense(3)])
    model.fit(images, Y[:30], batch_size=10, verbose=0)

    as_floats = make_model(xp, layers=[Identity(), Flatten(), Dense(3)])
    as_floats.fit(images / 255, Y[:30], batch_size=10, verbose=0)
    np.testing.assert_allclose(
        to_numpy(model.parameters[2]["weight"]), to_numpy(as_floats.parameters[2]["weight"]), rtol=1e-5, atol=1e-6
    )


def test_sample_weights_are_repetitions(xp):
    """A sample with weight 2 counts like two copies of a sample with weight 1."""
    weighted, repeated = make_model(xp, layers=[Dense(3)]), make_model(xp, layers=[Dense(3)])
    weight = np.where(np.arange(len(X)) < 60, 2.0, 1.0)
    weighted.fit(X, Y, sample_weight=weight, batch_size=len(X), epochs=3, verbose=0)
    twice = np.concatenate([np.arange(60), np.arange(len(X))])
    repeated.fit(X[twice], Y[twice], batch_size=len(twice), epochs=3, verbose=0)

    assert_same_parameters(weighted, repeated, rtol=1e-4, atol=1e-5)


def test_class_weights_multiply_sample_weights(xp):
    by_class, by_sample = make_model(xp), make_model(xp)
    fit(by_class, class_weight={0: 1.0, 1: 2.0, 2: 0.5}, sample_weight=np.full(len(X), 3.0))
    fit(by_sample, sample_weight=3 * np.array([1.0, 2.0, 0.5])[Y])

    assert_same_parameters(by_class, by_sample, rtol=1e-6, atol=1e-7)


def test_validation_data_and_split(xp):
    split, given = make_model(xp), make_model(xp)
    first = fit(split, epochs=4, validation_split=0.25, validation_freq=2)
    second = given.fit(X[:90], Y[:90], 20, 4, verbose=0, validation_data=(X[90:], Y[90:]), validation_freq=[2, 4])

    assert first.history == second.history
    assert len(first.history["loss"]) == 4
    assert len(first.history["val_accuracy"]) == 2
    assert first.validation_epoch == [1, 3]


def test_sampling_with_replacement(xp):
    seen = []

    class Count(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(epoch)

    model = make_model(xp)
    fit(model, epochs=2, sample_with_replacement=True, callbacks=[Count()])

    assert seen == [0, 1]
    assert model.step == 12


def test_a_schedule_restarts_every_epoch(xp):
    """With a learning rate of 0 after the first step of each epoch, an epoch equals one step."""
    restarting = schedules.PiecewiseConstantDecay([1], [0.5, 0.0], restart_every_epoch=True)
    model, one_step = (make_model(xp, optimizer=SGD(rate), layers=[Dense(3)]) for rate in (restarting, 0.5))
    model.fit(X, Y, batch_size=60, epochs=2, shuffle=False, verbose=0)
    one_step.fit(X[:60], Y[:60], batch_size=60, epochs=2, shuffle=False, verbose=0)

    assert_same_parameters(model, one_step, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", [{"epochs": 2}, {"epochs": 4, "initial_epoch": 2}], ids=["again", "numbered on"])
def test_going_on_is_the_same_run(xp, more):
    """2 epochs and 2 more equal 4, because each epoch has its own order."""
    parts, whole = make_model(xp), make_model(xp)
    fit(parts, epochs=2)
    history = fit(parts, **more)
    fit(whole, epochs=4)

    assert_same_parameters(parts, whole, rtol=1e-6, atol=1e-7)
    assert parts.epoch == whole.epoch == 4
    assert history.epoch == list(range(more.get("initial_epoch", 0), more["epochs"]))


def test_building_begins_anew(xp):
    model, once = make_model(xp), make_model(xp)
    fit(model, epochs=2)
    model.build((2,))
    fit(model)
    fit(once)

    assert_same_parameters(model, once, rtol=1e-6, atol=1e-7)
    assert model.epoch == 1


def test_to_moves_the_model(xp):
    model = make_model(xp)
    fit(model)
    before = to_numpy(model.predict_logits(X))
    model.to("numpy")

    np.testing.assert_allclose(model.predict_logits(X), before, rtol=1e-5, atol=1e-5)
    fit(model)


def test_k_seeds_train_k_networks(xp):
    """Three seeds at once give the same results as each one alone (without dropout, whose masks they share)."""
    settings = {"layers": [Dense(8), Tanh(), Dense(3)]}
    together = make_model(xp, seed=(5, 6, 7), **settings)
    history = fit(together, epochs=2, shuffle=False, validation_data=(X, Y))

    assert together.predict_classes(X).shape == (3, 120)
    for k, seed in enumerate((5, 6, 7)):
        alone = make_model(xp, seed=seed, **settings)
        one = fit(alone, epochs=2, shuffle=False, validation_data=(X, Y))
        assert [losses[k] for losses in history.history["val_loss"]] == pytest.approx(one.history["val_loss"], rel=1e-4)
        np.testing.assert_allclose(
            to_numpy(together.parameters[0]["weight"])[k], to_numpy(alone.parameters[0]["weight"]), rtol=1e-4, atol=1e-5
        )


def test_eight_threads_predict_like_one(xp):
    model = make_model(xp)
    fit(model)
    parts = np.array_split(X, 8)
    expected = [to_numpy(model.predict(part)) for part in parts]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for one, other in zip(expected, pool.map(lambda p: to_numpy(model.predict(p)), parts), strict=True):
                np.testing.assert_array_equal(other, one)


def test_fit_works_outside_the_main_thread(xp):
    model = make_model(xp)
    thread = threading.Thread(target=fit, args=(model,))
    thread.start()
    thread.join()

    assert model.step == 6


def test_fit_changes_no_array_it_is_given(xp):
    x, y = xp.asarray(X), xp.asarray(Y)
    fit(make_model(xp), epochs=1)
    model = make_model(xp)
    model.fit(x, y, batch_size=20, verbose=0)

    np.testing.assert_array_equal(to_numpy(x), X.astype("float32"))
    np.testing.assert_array_equal(to_numpy(y), Y)


def test_regression_targets_may_be_one_dimensional(xp):
    model = make_model(xp, loss="mean_squared_error", metrics=["r2", "mae", "rmse"], layers=[Dense(1)])
    target = X @ [2.0, -1.0] + 0.5
    model.fit(X, target, batch_size=30, epochs=60, verbose=0)
    result = model.evaluate(X, target, return_dict=True)

    assert list(result) == ["loss", "r2", "mae", "rmse"]
    assert result["r2"] > 0.999
    assert result["rmse"] == pytest.approx(result["loss"] ** 0.5, rel=1e-4)
    assert model.predict(X).shape == (120,)


def test_early_stopping_restores_the_best_weights(xp):
    stop = EarlyStopping(patience=2, restore_best_weights=True)
    model = make_model(xp, optimizer=SGD(schedules.PiecewiseConstantDecay([12], [0.2, 3.0]), momentum=0.9))
    history = fit(model, epochs=30, validation_data=(X, Y), callbacks=[stop])

    assert len(history.epoch) < 30
    assert model.evaluate(X, Y).loss == pytest.approx(min(history.history["val_loss"]), rel=1e-5)


def test_on_train_batch_end_sees_every_batch_of_each_epoch(xp):
    batches = []

    class Watch(Callback):
        def on_train_batch_end(self, batch, logs=None):
            batches.append((batch, sorted(logs)))

    fit(make_model(xp), 2, callbacks=[Watch()])

    assert batches == [(i, ["accuracy", "loss"]) for i in range(6)] * 2


def replaced(values, index, value):
    values = np.array(values, dtype=float)
    values[index] = value
    return values


BAD = {
    "labels out of range": (X, Y + 1, {}, "labels from 1 to 3 for 3 classes"),
    "negative labels": (X, Y - 1, {}, "labels from -1 to 1"),
    "float labels": (X, Y * 1.0, {}, "needs integer labels"),
    "string labels": (
        X,
        np.array(["a", "b", "c"])[Y],
        {},
        r"y: Arrays must hold real numbers. Convert text to numbers: .*return_inverse",
    ),
    "too few labels": (X, Y[:-1], {}, r"y must have one entry for each sample of x.*\(119,\)"),
    "wide targets": (X, np.zeros((120, 4)), {}, r"targets of shape \(120, 4\)"),
    "NaN in x": (replaced(X, (3, 1), np.nan), Y, {}, "x must be finite"),
    "infinity in x": (replaced(X, (3, 1), np.inf), Y, {}, "x must be finite"),
    "empty data": (X[:0], Y[:0], {}, "x must hold at least one sample"),
    "no features": (X[:, 0], Y, {}, r"Reshape samples with one feature to \(n, 1\)"),
    "text": (X.astype(str), Y, {}, "x: Arrays must hold real numbers"),
    "complex": (X + 1j, Y, {}, "x: Arrays must hold real numbers"),
    "images for Dense": (np.zeros((120, 2, 2)), Y, {}, r"Layer 0, Dense: .*Flatten\(\)"),
    "batch of zero": (X, Y, {"batch_size": 0}, "batch_size must be an integer of at least 1"),
    "no epochs": (X, Y, {"epochs": 0}, "epochs must be an integer of at least 1"),
    "initial epoch": (X, Y, {"initial_epoch": 1}, "0 <= initial_epoch < epochs"),
    "validation split": (X, Y, {"validation_split": 1.0}, r"validation_split must be a number in \[0, 1\)"),
    "no validation split": (X, Y, {"validation_split": None}, r"validation_split must be a number in \[0, 1\)"),
    "large validation split": (X, Y, {"validation_split": 0.999}, "leave samples for training and for validation"),
    "shuffle": (X, Y, {"shuffle": "batch"}, "shuffle must be True or False"),
    "validation shape": (X, Y, {"validation_data": (np.zeros((5, 3)), Y[:5])}, r"Received: samples of shape \(3,\)"),
    "weights' length": (
        X,
        Y,
        {"sample_weight": np.ones(3)},
        r"sample_weight must have shape \(120,\), one.*Received: shape \(3,\)",
    ),
    "weights' shape": (X, Y, {"sample_weight": np.ones((120, 1))}, r"must have shape \(120,\), one"),
    "weights of 0": (X, Y, {"sample_weight": np.zeros(120)}, "At least one weight must be above 0"),
    "class weights of 0": (X, Y, {"class_weight": {0: 0, 1: 0, 2: 0}}, "At least one weight must be above 0"),
    "validation weights of 0": (
        X,
        Y,
        {"validation_data": (X, Y, np.zeros(120))},
        "At least one weight must be above 0",
    ),
    "negative weights": (X, Y, {"sample_weight": -np.ones(120)}, "finite and at least 0"),
    "infinite weights": (
        X,
        Y,
        {"sample_weight": replaced(np.ones(120), 0, np.inf)},
        "Received: weights from 1.0 to inf",
    ),
    "text weights": (X, Y, {"sample_weight": ["a"] * 120}, "sample_weight: Arrays must hold real numbers"),
    "class weights": (X, Y, {"class_weight": {0: 1.0}}, r"Missing: \[1, 2\]"),
    "negative class weight": (X, Y, {"class_weight": {0: 1, 1: 1, 2: -1}}, "class_weight: weights must be finite"),
    "class weight of None": (
        X,
        Y,
        {"class_weight": {0: 1, 1: 1, 2: None}},
        "class_weight: Arrays must hold real numbers",
    ),
    "class weight of text": (
        X,
        Y,
        {"class_weight": {0: "1", 1: "1", 2: "1"}},
        "class_weight: Arrays must hold real numbers",
    ),
    "ragged weights": (
        X,
        Y,
        {"sample_weight": [[1], [1, 2]]},
        "sample_weight: An array of numbers is needed, with rows of the same length",
    ),
    "complex weights": (X, Y, {"sample_weight": np.ones(120) + 1j}, "sample_weight: Arrays must hold real numbers"),
    "verbose": (X, Y, {"verbose": 3}, "verbose must be"),
    "record_every": (X, Y, {"record_every": 0}, "record_every must be an integer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_changes(case, xp):
    x, y, settings, message = BAD[case]
    model = make_model(xp)

    with pytest.raises(ValueError, match=message):
        model.fit(x, y, **({"batch_size": 20, "verbose": 0} | settings))
    assert model.step == 0
    assert model.history.history == {}


def test_integers_beyond_the_types_of_the_library_are_labels_too(xp):
    model = make_model(xp)
    model.fit(X, Y.astype(np.uint8), batch_size=20, verbose=0)
    model.fit(X, Y.astype(np.int32), batch_size=20, verbose=0)

    assert model.step == 12


def test_another_shape_after_building_is_refused(xp):
    model = make_model(xp)
    fit(model)

    with pytest.raises(ValueError, match=r"accepts samples of shape \(2,\).*Received: samples of shape \(3,\)"):
        model.predict(np.zeros((4, 3)))


def test_fewer_samples_than_the_default_batch_are_one_batch(xp):
    model = make_model(xp)
    model.fit(X[:5], Y[:5], epochs=2, verbose=0)

    assert model.step == 2


class Halt(Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer = replace(self.model.optimizer, learning_rate=0.0)


def test_an_optimizer_set_in_the_middle_of_an_epoch_waits_for_the_next(xp):
    class Change(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer = SGD(0.0)

    model, other = make_model(xp, Adam(0.1)), make_model(xp, Adam(0.1))
    fit(model, epochs=2, callbacks=[Change()])
    fit(other)

    assert_same_parameters(model, other, rtol=0, atol=0)


def test_a_callback_may_change_the_learning_rate(xp):
    optimizer = SGD(0.2)  # without momentum, a learning rate of 0 changes nothing
    halted, short = make_model(xp, optimizer), make_model(xp, optimizer)
    fit(halted, epochs=3, callbacks=[Halt()])
    fit(short, epochs=1)

    assert_same_parameters(halted, short, rtol=0, atol=0)


def test_predict_before_fit_says_what_to_do(xp):
    with pytest.raises(RuntimeError, match="Call fit"):
        make_model(xp).predict(X)


def test_parameters_are_not_shared_between_models(xp):
    first, second = make_model(xp).build((2,)), make_model(xp).build((2,))
    before = map_leaves(lambda p: np.array(to_numpy(p)), second.parameters)
    fit(first)

    for p, q in zip(leaves(before), leaves(second.parameters), strict=True):
        np.testing.assert_array_equal(to_numpy(q), p)


def test_all_samples_at_once_are_not_copied(xp):
    """With ``batch_size=len(x)``, training uses the arrays themselves and gathers nothing."""
    model, reference = make_model(xp), make_model(xp)
    gather = []
    object.__setattr__(model.backend, "gather", lambda x, index: gather.append(1))
    try:
        model.fit(X, Y, batch_size=len(X), epochs=3, verbose=0)
    finally:
        object.__delattr__(model.backend, "gather")
    reference.fit(X, Y, batch_size=len(X), epochs=3, verbose=0, shuffle=False)

    assert not gather
    assert_same_parameters(model, reference, rtol=1e-6, atol=1e-7)


MORE_BAD = {
    "metric of numbers for labels": ({"metrics": ["mae"]}, {}, "mae compares each output with a number"),
    "top 5 of 3 classes": ({"metrics": ["top_5_accuracy"]}, {}, "needs more than 5 classes"),
    "classes of one output": (
        {"loss": "mean_squared_error", "layers": [Dense(1)]}, {}, "accuracy needs one output for each class",
    ),
    "class weights by name": ({}, {"class_weight": "equal"}, "class_weight must be a dict"),
    "validation_freq": ({}, {"validation_freq": 2.0}, "validation_freq must be a number of epochs"),
    "validation_batch_size": ({}, {"validation_batch_size": 0}, "validation_batch_size must be an integer of at least 1"),
    "validation data": ({}, {"validation_data": (X,)}, r"validation_data must be \(x, y\)"),
    "masked data": ({}, {"x": np.ma.masked_array(X, X > 0)}, "Arrays must not be masked"),
    "several seeds that reshape": (
        {"seed": (0, 1), "layers": [Reshape((2, 1)), Flatten(), Dense(3)]}, {}, "no layer that changes the axes",
    ),
    "several seeds in groups": (
        {"seed": (0, 1), "layers": [Dense(4), GroupNormalization(2), Dense(3)]}, {}, "changes the axes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MORE_BAD)
def test_more_bad_settings_are_refused_before_anything_changes(case, xp):
    settings, arguments, message = MORE_BAD[case]
    model = make_model(xp, **settings)

    with pytest.raises(ValueError, match=message):
        model.fit(**({"x": X, "y": Y, "batch_size": 20, "verbose": 0} | arguments))
    assert model.state is None
    assert model.history.history == {}


@pytest.mark.parametrize("dtype", [">i8", "uint16", "uint32", "uint64", "int8"])
def test_labels_of_any_integer_type(dtype, xp):
    expected, model = make_model(xp), make_model(xp)
    fit(expected)
    model.fit(np.asfortranarray(X)[::-1][::-1], Y.astype(dtype), batch_size=20, verbose=0)

    assert_same_parameters(model, expected, rtol=1e-6, atol=1e-7)


def test_class_weights_do_not_weigh_validation_samples(xp):
    split, given = make_model(xp), make_model(xp)
    weights = {0: 1.0, 1: 2.0, 2: 0.5}
    first = fit(split, validation_split=0.25, class_weight=weights)
    second = given.fit(X[:90], Y[:90], 20, verbose=0, validation_data=(X[90:], Y[90:]), class_weight=weights)

    assert first.history == second.history


def test_results_and_models_can_be_pickled(xp):
    model = make_model(xp)
    fit(model)
    copy = pickle.loads(pickle.dumps(model))

    result = model.evaluate(X, Y)
    assert pickle.loads(pickle.dumps(result)) == result
    assert copy.evaluate(X, Y).loss == pytest.approx(result.loss, rel=1e-6)
    assert copy.backend == model.backend
    double = make_backend("numpy", dtype="float64")
    assert pickle.loads(pickle.dumps(double)).float_name == "float64"


def test_early_stopping_passes_over_epochs_without_validation(xp):
    history = fit(make_model(xp), 6, callbacks=[EarlyStopping(patience=9)], validation_data=(X, Y), validation_freq=2)
    assert len(history.history["val_loss"]) == 3

    with pytest.raises(ValueError, match=r"validation_data .*Received: monitor='val_loss' without validation data"):
        fit(make_model(xp), callbacks=[EarlyStopping()])


def test_jax_compiles_a_step_once_whatever_the_learning_rate(fresh_jax):
    """Only on JAX; the other backends do not compile."""
    models = [
        make_model(make_backend("jax"), optimizer=SGD(rate)) for rate in (0.1, 0.2, schedules.CosineDecay(0.1, 100))
    ]
    for model in models:
        fit(model, epochs=2)
    (scan,) = fresh_jax.compiled_functions[models[0].training_step].values()

    assert scan._cache_size() == 1


@pytest.mark.parametrize(
    "layer", [LayerNormalization(), RMSNormalization(), Residual(Dense(4)), Dropout(0.0)], ids=repr
)
def test_several_seeds_give_what_each_gives_alone(layer, xp):
    layers = [Dense(4), layer, ReLU(), Dense(3)]
    together = make_model(xp, layers=layers, seed=(0, 1)).build((2,))
    alone = [make_model(xp, layers=layers, seed=seed).build((2,)) for seed in (0, 1)]

    logits = to_numpy(together.predict_logits(X))

    for k, model in enumerate(alone):
        np.testing.assert_allclose(logits[k], to_numpy(model.predict_logits(X)), rtol=1e-5, atol=1e-6)


def test_loss_and_metrics_are_checked_where_they_are_set(xp):
    model = make_model(xp, layers=[Dense(3)])
    fit(model)
    for name, value, message in [
        ("loss", "mse_loss", "mean_squared_error"), ("loss", "categorical_cross_entropy", "needs probabilities"),
        ("metrics", ["acuracy"], "accuracy"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            setattr(model, name, value)
    assert [type(model.loss).__name__, model.metrics[0].name] == ["SoftmaxCrossEntropy", "accuracy"]

    model.loss, model.metrics = "mse", ["mae"]
    history = model.fit(X, np.eye(3)[Y], batch_size=20, verbose=0).history
    assert set(history) == {"loss", "mae"} or set(history) == {"loss", "mean_absolute_error"}


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"optimizer": Adam(1e39)}, "Adam.learning_rate"),
        ({"layers": [Rescaling(1e39), Dense(3)]}, "Rescaling.scale"),
        ({"layers": [Dense(3)], "loss": Huber(1e-46), "metrics": []}, "Huber.delta"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_outside_the_range_of_the_float_type_are_refused(xp, wrong, name):
    """In float32, 1e39 is infinite, and 1e-46 is 0. Training would diverge with an error about the data, or learn nothing."""
    single = writable(xp).computing_in("float32")
    model = make_model(writable(xp).computing_in("float64"), **wrong)
    for make in (lambda: make_model(single, **wrong), lambda: model.to(single)):
        with pytest.raises(ValueError, match=rf"{re.escape(name)} must be 0 or between .*the range of float32"):
            make()

    assert model.backend.float_name == "float64"


@pytest.mark.parametrize("rate", [1e39, 1e300])
def test_a_rate_outside_the_range_of_the_float_type_is_refused(xp, rate):
    model = make_model(writable(xp).computing_in("float32"), SGD(lambda step: rate if step else 1e-99))
    with pytest.raises(ValueError, match=r"learning_rate\(1\) must be 0 or between .*the range of float32"):
        model.fit(X.astype(np.float32), Y, 60, verbose=0)

    model.optimizer = SGD(1e-99)
    fit(model)
