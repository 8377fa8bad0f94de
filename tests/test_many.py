"""`train_many`: each network equals one that is trained alone."""

import inspect
from dataclasses import replace

import numpy as np
import pytest

import xpnet
from xpnet import (
    SGD,
    Adam,
    AdamW,
    DivergenceError,
    EarlyStopping,
    Model,
    RMSprop,
    schedules,
    to_numpy,
    train_many,
)
from xpnet.callbacks.networks import StopEach
from xpnet.layers import BatchNormalization, Dense, Dropout, LayerNormalization, ReLU, Tanh
from xpnet.loop import Loop
from xpnet.metrics import TopKAccuracy

rng = np.random.default_rng(0)
X = rng.normal(size=(53, 4))
LABELS = (X[:, 0] > 0) * 1 + (X[:, 1] > 0.3)
ONE_HOT = np.eye(3)[LABELS]
VALUES = X @ [1.0, -1.0, 0.5, 0.0]
HELD_OUT = (X[:20], LABELS[:20])
ROWS = [rng.integers(0, 53, 40), rng.integers(0, 53, 31), rng.integers(0, 53, 40)]
SEEDS = [3, 5, 8]
RATES = [0.1, 0.0, 0.01]
DECAYS = [0.0, 0.3, 0.02]
METRICS = ["accuracy", TopKAccuracy(2), "elementwise_accuracy", "f1_macro", "log_loss", "auc", "confusion_matrix"]


def make(xp, *, layers=None, loss="softmax_cross_entropy", optimizer=None, metrics=(), seed=0):
    return Model(layers or [Dense(6), Tanh(), Dense(3)], loss, optimizer or Adam(0.05), metrics, seed, xp)


def assert_same(one, alone):
    for ours, theirs in zip(one.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-6)
    assert one.history.epoch == alone.history.epoch
    assert one.history.validation_epoch == alone.history.validation_epoch
    assert one.history.history.keys() == alone.history.history.keys()
    for name, column in alone.history.history.items():
        np.testing.assert_allclose(one.history.history[name], column, rtol=2e-4, atol=2e-6, err_msg=name)


CASES = {
    "seeds": ({}, {"seeds": SEEDS}),
    "a range of seeds": ({}, {"seeds": range(2, 5)}),
    "rates": ({}, {"learning_rates": RATES}),
    "rates of SGD": ({"optimizer": SGD(1.0, momentum=0.9, nesterov=True)}, {"learning_rates": RATES, "seeds": SEEDS}),
    "rates of RMSprop": ({"optimizer": RMSprop()}, {"learning_rates": RATES}),
    "a schedule": ({"optimizer": SGD(schedules.CosineDecay(0.3, 8))}, {"seeds": SEEDS}),
    "decays": ({}, {"weight_decays": DECAYS}),
    "decays and rates": ({"optimizer": AdamW(0.1)}, {"weight_decays": DECAYS, "learning_rates": RATES}),
    "the optimizer's penalties": ({"optimizer": SGD(0.1, l2=0.1, l1=0.01, weight_decay=0.1, clipvalue=0.05)}, {"seeds": SEEDS}),
    "rows": ({}, {"rows": ROWS, "seeds": SEEDS, "weight_decays": DECAYS}),
    "bootstrap": ({}, {"rows": rng.integers(0, 53, (3, 53))}),
    "metrics": ({"metrics": METRICS}, {"seeds": SEEDS, "validation_data": HELD_OUT}),
    "normalization": ({"layers": [Dense(6), LayerNormalization(), ReLU(), Dense(3)]}, {"seeds": SEEDS}),
    "smooth labels": ({"loss": xpnet.losses.SoftmaxCrossEntropy(label_smoothing=0.1)}, {"seeds": SEEDS}),
    "in order": ({}, {"seeds": SEEDS, "shuffle": False}),
    "one batch": ({}, {"seeds": SEEDS, "batch_size": 100}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_network_equals_one_that_is_trained_alone(case, xp):
    settings, options = CASES[case]
    settings, fit = (
        {**settings},
        {"batch_size": 16, "epochs": 2, "verbose": 0}
        | {name: value for name, value in options.items() if name in ("validation_data", "shuffle", "batch_size")},
    )
    ensemble = train_many(make(xp, **settings), X, LABELS, **(options | fit))

    assert len(ensemble) == 3
    optimizer = settings.pop("optimizer", Adam(0.05))
    for k, one in enumerate(ensemble):
        given = {"learning_rate": options.get("learning_rates"), "weight_decay": options.get("weight_decays")}
        own = {name: values[k] for name, values in given.items() if values is not None}
        rows = options["rows"][k] if "rows" in options else slice(None)
        seed = options["seeds"][k] if "seeds" in options else 0
        alone = make(xp, optimizer=replace(optimizer, **own), seed=seed, **settings)
        alone.fit(X[rows], LABELS[rows], **fit)
        assert_same(one, alone)


TARGETS = {
    "probabilities": ("softmax_cross_entropy", 3, ONE_HOT, METRICS),
    "labels of probabilities": ("categorical_cross_entropy", 3, LABELS, ["accuracy"]),
    "yes or no": ("binary_cross_entropy", 1, LABELS > 0, ["binary_accuracy"]),
    "several labels": ("binary_cross_entropy", 3, ONE_HOT, ["binary_accuracy", "f1"]),
    "values": ("mean_squared_error", 1, VALUES, ["r2", "mae"]),
    "rows of values": ("huber", 4, X, ["r2"]),
}


@pytest.mark.parametrize("case", TARGETS)
def test_each_form_of_targets(case, xp):
    loss, outputs, y, metrics = TARGETS[case]
    end = [xpnet.layers.Softmax()] if loss == "categorical_cross_entropy" else []
    settings = {"layers": [Dense(5), Tanh(), Dense(outputs), *end], "loss": loss, "metrics": metrics}
    fit = {"batch_size": 16, "epochs": 2, "verbose": 0, "validation_data": (X, y)}
    ensemble = train_many(make(xp, **settings), X, y, seeds=SEEDS, **fit)

    for seed, one in zip(SEEDS, ensemble, strict=True):
        alone = make(xp, seed=seed, **settings)
        alone.fit(X, y, **fit)
        assert_same(one, alone)
        np.testing.assert_allclose(to_numpy(one.predict(X)), to_numpy(alone.predict(X)), rtol=2e-4, atol=2e-6)
    each = to_numpy(ensemble.model.predict(X))
    np.testing.assert_allclose(to_numpy(ensemble.predict(X)), each.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(ensemble.spread(X)), each.std(axis=0), rtol=1e-4, atol=1e-6)
    if ensemble.model.loss.of_classes:
        classes = to_numpy(ensemble.predict_classes(X))
        assert classes.shape == to_numpy(ensemble[0].predict_classes(X)).shape
        mean = each.mean(axis=0)
        np.testing.assert_array_equal(classes, mean.argmax(axis=-1) if "cat" in loss or "soft" in loss else mean > 0.5)


@pytest.mark.parametrize("restores", [False, True])
def test_each_network_stops_on_its_own(restores, xp):
    stop = EarlyStopping(patience=2, restore_best_weights=restores)
    rates = [0.5, 0.003, 0.3]
    fit = {"batch_size": 16, "epochs": 12, "verbose": 0, "validation_data": (X[::-1], (LABELS + 1) % 3)}
    ensemble = train_many(make(xp), X, LABELS, learning_rates=rates, early_stopping=stop, **fit)

    assert len({len(history.epoch) for history in ensemble.histories}) > 1
    for rate, one in zip(rates, ensemble, strict=True):
        alone = make(xp, optimizer=Adam(rate))
        alone.fit(X, LABELS, callbacks=[EarlyStopping(patience=2, restore_best_weights=restores)], **fit)
        assert_same(one, alone)
        assert (one.epoch, one.step) == (alone.epoch, alone.step)


def test_training_ends_when_all_have_stopped(xp):
    stop = EarlyStopping("loss", min_delta=100.0, patience=1)
    ensemble = train_many(make(xp), X, LABELS, seeds=SEEDS, epochs=50, early_stopping=stop, verbose=0)

    assert ensemble.model.epoch == 2
    assert [history.epoch for history in ensemble.histories] == [[0, 1]] * 3


def test_the_template_does_not_change(xp):
    model = make(xp)
    model.fit(X, LABELS, verbose=0)
    weights, optimizer = model.get_weights(), model.optimizer
    train_many(model, X, LABELS, learning_rates=RATES, verbose=0)

    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.optimizer is optimizer
    assert model.epoch == 1


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.5), Adam()])
def test_networks_that_diverge_stop_alone(optimizer, xp):
    """The rates of 1e20 diverge in the first epoch; a weight decay of 60 makes the parameters larger with each step."""
    rates, decays = [0.1, 1e20, 0.02, 0.5], [0.0, 0.0, 0.1, 60.0]
    fit = {"batch_size": 16, "epochs": 6, "verbose": 0, "validation_data": (X[:20], VALUES[:20])}
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=optimizer, metrics=["mae"])
    with pytest.warns(RuntimeWarning, match=r"2 of 4 networks diverged and stopped: 1, 3\. The others are trained"):
        ensemble = train_many(model, X, VALUES, learning_rates=rates, weight_decays=decays, **fit)

    assert sorted(ensemble.diverged) == [1, 3]
    for k in (0, 2):
        own = replace(optimizer, learning_rate=rates[k], weight_decay=decays[k])
        alone = make(xp, layers=[Dense(1)], loss="mse", optimizer=own, metrics=["mae"])
        alone.fit(X, VALUES, **fit)
        assert_same(ensemble[k], alone)
        assert (ensemble[k].epoch, ensemble[k].step) == (alone.epoch, alone.step)
    undivided = xp.eager() if xp.divides else xp  # the losses of parts overflow earlier, multiplied by their rows
    for k in (1, 3):
        own = replace(optimizer, learning_rate=rates[k], weight_decay=decays[k])
        alone = make(undivided, layers=[Dense(1)], loss="mse", optimizer=own, metrics=["mae"])
        with pytest.raises(DivergenceError) as error:
            alone.fit(X, VALUES, **fit)
        one, ours = ensemble[k], ensemble.diverged[k]
        layer = ours.layer.replace("memory.", "")  # the state of the optimizer inside `PerNetwork`
        assert (ours.step, layer, ours.networks) == (error.value.step, error.value.layer, (k,))
        assert f"of network {k} is not finite" in str(ours)
        assert f"(it was {rates[k]:g})" in str(ours)
        assert (one.epoch, one.step) == (alone.epoch, alone.step)
        for a, b in zip(one.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3)
        assert one.history.epoch == list(range(alone.epoch + 1))
        for name, column in one.history.history.items():
            np.testing.assert_allclose(column, [*alone.history.history.get(name, []), np.nan], rtol=1e-3)
    assert ensemble[3].epoch > 0


def test_the_mean_leaves_out_networks_that_diverged(xp):
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=SGD())
    with pytest.warns(RuntimeWarning, match="1 of 3 networks diverged and stopped: 0"):
        ensemble = train_many(model, X, VALUES, learning_rates=[1e20, 0.1, 0.2], epochs=3, verbose=0)

    each = np.stack([to_numpy(ensemble[k].predict(X)) for k in (1, 2)])
    np.testing.assert_allclose(to_numpy(ensemble.predict(X)), each.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(ensemble.spread(X)), each.std(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("restores", [False, True])
def test_networks_diverge_beside_others_that_stop(restores, xp):
    stop = EarlyStopping("loss", patience=1, min_delta=100.0, restore_best_weights=restores)
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=SGD())
    decays, rates = [0.0, 60.0, 0.0], [0.1, 0.5, 1e20]
    rows = [np.arange(53), np.arange(40), np.arange(40)]
    fit = {"early_stopping": stop, "epochs": 9, "verbose": 0, "batch_size": 16}
    with pytest.warns(RuntimeWarning, match="1 of 3 networks diverged and stopped: 2"):
        ensemble = train_many(model, X, VALUES, learning_rates=rates, weight_decays=decays, rows=rows, **fit)

    error = ensemble.diverged[2]
    assert error.networks == (2,)
    assert "of network 2 is not finite" in str(error)
    assert [(one.epoch, one.step) for one in ensemble] == [(2, 8), (2, 6), (0, error.step)]
    assert [len(history.epoch) for history in ensemble.histories] == [2, 2, 1]
    assert all(np.isfinite(weight).all() for one in ensemble for weight in one.get_weights())


def test_each_network_that_diverges_has_its_own_error(xp):
    stop = EarlyStopping("loss", patience=99, restore_best_weights=True)
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=SGD())
    with pytest.warns(RuntimeWarning, match="2 of 3 networks diverged and stopped: 0, 2"):
        ensemble = train_many(
            model, X, VALUES, learning_rates=[0.5, 0.1, 0.5], weight_decays=[60.0, 0.0, 60.0], early_stopping=stop,
            epochs=20, verbose=0,
        )  # fmt: skip

    assert ensemble[0].epoch > 0
    assert all(error.networks == (0, 2) and len(error.__notes__) == 1 for error in ensemble.diverged.values())


def test_a_chunk_in_which_many_networks_diverge_is_not_a_recursion(monkeypatch):
    depths, survive = [], StopEach.survive

    def watched(self, error, arrays):
        depths.append(len(inspect.stack(0)))
        return survive(self, error, arrays)

    monkeypatch.setattr(StopEach, "survive", watched)
    monkeypatch.setattr(Loop, "_chunk_length", lambda self, steps: steps)
    model = make("numpy", layers=[Dense(1)], loss="mse", optimizer=SGD())
    with pytest.warns(RuntimeWarning, match="6 of 7 networks diverged"):
        train_many(
            model, X, VALUES, learning_rates=[10.0**k for k in range(-1, 18, 3)], batch_size=1, epochs=1, verbose=0
        )

    assert len(depths) > 3
    assert len(set(depths)) == 1


def test_a_divergence_of_all_networks_is_an_error(xp):
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=SGD())

    with pytest.raises(
        DivergenceError, match=r"of networks 0, 1 is not finite.*learning rate \(it was 1e\+25, 1e\+20\)"
    ):
        train_many(model, X, VALUES, learning_rates=[1e25, 1e20], epochs=3, verbose=0)
    with pytest.raises(DivergenceError, match="of network 1 is not finite"):
        train_many(model, X, VALUES, learning_rates=[1e25, 1e20], rows=ROWS[:2], epochs=3, verbose=0)


def test_the_warning_lists_the_networks_in_ascending_order(xp):
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=SGD())

    with pytest.warns(RuntimeWarning, match="2 of 3 networks diverged and stopped: 0, 2"):
        ensemble = train_many(model, X, VALUES, learning_rates=[1e10, 0.01, 1e30], epochs=9, verbose=0)
    assert [*ensemble.diverged] == [2, 0]  # as they diverged
    assert "(it was 1e+10)" in str(ensemble.diverged[0])
    assert "(it was 1e+30)" in str(ensemble.diverged[2])


BAD = {
    "no networks": ({}, {}, "needs one value for each network"),
    "other lengths": ({}, {"seeds": [1, 2], "learning_rates": [0.1]}, "needs one value for each network"),
    "a negative rate": ({}, {"learning_rates": [0.1, -1.0]}, "learning_rates must be a number in"),
    "an infinite rate": ({}, {"learning_rates": [1e39, 0.01]}, r"learning_rates must be .*Received: learning_rates=1e\+39"),
    "an infinite decay": ({}, {"weight_decays": [1e39, 0.01]}, r"weight_decays must be .*Received: weight_decays=1e\+39"),
    "a negative decay": ({}, {"weight_decays": [-1.0]}, "weight_decays must be a number in"),
    "a bad seed": ({}, {"seeds": [0.5]}, "seed must be an integer"),
    "a mask": ({}, {"rows": [X[:, 0] > 0]}, "np.flatnonzero"),
    "a row out of range": ({}, {"rows": [[0, 53]]}, "row numbers in 0 .. 52"),
    "a schedule": ({"optimizer": SGD(schedules.CosineDecay(0.1, 9))}, {"learning_rates": [0.1]}, "replace a constant"),
    "two penalties": ({"optimizer": SGD(0.1, l2=0.1)}, {"weight_decays": [0.1]}, "cannot be combined"),
    "norms": ({"optimizer": SGD(0.1, clipnorm=1.0)}, {"seeds": [0, 1]}, "need a model with one seed"),
    "statistics": ({"layers": [Dense(3), BatchNormalization()]}, {"seeds": [0, 1]}, "need a dense network"),
    "ignored labels": ({}, {"seeds": [0, 1], "y": np.where(X[:, 0] > 1, -100, LABELS)}, "a label for each sample"),
    "one number for all": ({}, {"learning_rates": 0.1}, "learning_rates must be a list or an array"),
    "a generator of rows": ({}, {"rows": iter([[1], [2]])}, "rows must be a list or an array"),
    "one list of rows": ({}, {"rows": [1, 2]}, "row numbers in 0 .. 52"),
    "a list of callbacks": ({}, {"seeds": [0], "early_stopping": [EarlyStopping()]}, "early_stopping must be an EarlyStopping"),
    "nothing to train": ({"layers": [ReLU()], "loss": "mse"}, {"seeds": [0], "y": X}, "needs parameters with two axes"),
    "validation samples": ({}, {"seeds": [0], "validation_data": (X[:, :2], LABELS)}, "validation_data: The model accepts"),
    "validation": ({}, {"seeds": [0], "early_stopping": EarlyStopping()}, "needs validation data"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case, xp):
    settings, options, message = BAD[case]

    with pytest.raises(ValueError, match=message):
        train_many(make(xp, **settings), **({"x": X, "y": LABELS, "verbose": 0} | options))


def test_all_rows_are_checked_before_training(xp, capsys):
    with pytest.raises(ValueError, match=r"row numbers in 0 \.\. 52"):
        train_many(make(xp), X, LABELS, rows=[[0, 1], [0, 1, 53]], verbose=2)
    assert capsys.readouterr().out == ""


def test_the_seeds_of_the_model_are_the_default(xp):
    ensemble = train_many(make(xp, seed=(4, 7)), X, LABELS, learning_rates=[0.1, 0.2], verbose=0)

    assert ensemble.model.seeds == (4, 7)
    assert len(train_many(make(xp, seed=(4, 7, 9)), X, LABELS, verbose=0)) == 3


def test_dropout_differs_between_networks(xp):
    model = make(xp, layers=[Dense(6), Dropout(0.5), Dense(3)])
    ensemble = train_many(model, X, LABELS, learning_rates=[0.1, 0.1], verbose=0)

    first, second = (one.get_weights()[0] for one in ensemble)
    assert np.any(first != second)
