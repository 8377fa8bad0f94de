"""Our callbacks beside those of Keras, given the same values epoch by epoch. They compute nothing, so NumPy is enough.

Values are multiples of 1/4, which are exact in float32, the type in which Keras compares. Series without a first value of
NaN, because Keras then never sees an improvement, and ours does.
"""

import math
import warnings

import numpy as np
import pytest

from tests.keras_reference import keras, quiet_keras
from xpnet import SGD, Model, callbacks
from xpnet.layers import Dense

RATE = 0.5

pytestmark = quiet_keras


def our_model():
    model = Model([Dense(1)], "mse", SGD(RATE), ["mae"], backend="numpy").build((1,))
    model.validates = True
    return model


@pytest.fixture(scope="module")
def keras_model():
    model = keras().Sequential([keras().Input((1,)), keras().layers.Dense(1)])
    model.compile(keras().optimizers.SGD(RATE), "mse", metrics=["mae"])
    return model


def mark(model, epoch):
    """Give the model weights that tell its epoch."""
    model.set_weights([np.full_like(array, epoch) for array in model.get_weights()])


def drive(callback, model, series, first=0):
    """Show the callback a run with these logs -> what it did in each epoch, and the epoch whose weights remain."""
    seen = []
    mark(model, -1)
    model.stop_training = False
    callback.set_model(model)
    callback.set_params({"epochs": len(series), "steps": 1, "verbose": 0})
    callback.on_train_begin({})
    for epoch, values in enumerate(series, first):
        callback.on_epoch_begin(epoch, {})
        rate = float(np.float32(model.optimizer.learning_rate))
        mark(model, epoch)
        logs = dict(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Keras: conditioned on a metric which is not available
            callback.on_epoch_end(epoch, logs)
        counts = [getattr(callback, name, None) for name in ("wait", "cooldown_counter", "stopped_epoch", "best_epoch")]
        seen.append((epoch, rate, counts, list(logs)))
        if model.stop_training:
            break
    callback.on_train_end({})
    return seen, float(model.get_weights()[0].ravel()[0])


def both(name, theirs, series, *args, **settings):
    """Return what both callbacks did."""
    theirs.optimizer.learning_rate = RATE
    peer = getattr(keras().callbacks, name)(*args, **settings)
    own = getattr(callbacks, name)(*args, **settings)
    return drive(own, our_model(), series), drive(peer, theirs, series)


def series_of(rng, monitor):
    """Up to 14 epochs with plateaus, improvements of exactly min_delta, epochs without validation, and NaN."""
    values = rng.integers(0, 9, size=rng.integers(1, 15)) / 4
    return [
        {"loss": 1.0}
        | ({} if i and rng.random() < 0.1 else {monitor: math.nan if i and rng.random() < 0.1 else float(value)})
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_early_stopping(seed, keras_model):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        settings = {
            "monitor": "val_loss",
            "min_delta": float(rng.choice([0.0, 0.25, -0.5])),
            "patience": int(rng.integers(0, 4)),
            "mode": str(rng.choice(["auto", "min", "max"])),
            "baseline": rng.choice([None, 0.5, 1.0, 1.5]),
            "restore_best_weights": bool(rng.integers(2)),
            "start_from_epoch": int(rng.choice([0, 0, 1, 3])),
        }
        series = series_of(rng, "val_loss")
        if math.isnan(first_value(series, settings["start_from_epoch"])):
            continue
        ours, theirs = both("EarlyStopping", keras_model, series, **settings)

        assert ours == theirs, (settings, series)


def first_value(series, start):
    return next((logs["val_loss"] for logs in series[start:] if "val_loss" in logs), 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_reduce_lr_on_plateau(seed, keras_model):
    rng = np.random.default_rng(100 + seed)
    for _ in range(25):
        settings = {
            "factor": float(rng.choice([0.5, 0.25])),
            "patience": int(rng.integers(0, 4)),
            "mode": str(rng.choice(["auto", "min", "max"])),
            "min_delta": float(rng.choice([0.0, 0.25])),
            "cooldown": int(rng.integers(0, 4)),
            "min_lr": float(rng.choice([0.0, 0.1, 0.125, 0.5])),
        }
        series = series_of(rng, "val_loss")
        ours, theirs = both("ReduceLROnPlateau", keras_model, series, **settings)

        assert ours == theirs, (settings, series)


@pytest.mark.parametrize("name", ["EarlyStopping", "ReduceLROnPlateau"])
def test_defaults(name, keras_model):
    rng = np.random.default_rng(5)
    for _ in range(10):
        series = [{"val_loss": float(v)} for v in rng.integers(0, 9, size=30) / 4]
        ours, theirs = both(name, keras_model, series)

        assert ours == theirs


@pytest.mark.parametrize(
    "schedule",
    [lambda epoch: 0.5 / (epoch + 1), lambda epoch, rate: rate * 0.5, lambda epoch, rate: rate if epoch < 2 else 0.25],
)
def test_learning_rate_scheduler(schedule, keras_model):
    ours, theirs = both("LearningRateScheduler", keras_model, [{"loss": 1.0}] * 5, schedule)

    assert ours == theirs


@pytest.mark.parametrize(("patience", "stops"), [(0, 2), (2, 3)])
def test_a_first_value_of_nan_is_no_improvement(patience, stops, keras_model):
    """A difference: Keras takes it as the best value, with which no later value compares, and stops."""
    series = [{"val_loss": math.nan}, {"val_loss": 2.0}, {"val_loss": 1.0}, {"val_loss": 0.5}]
    ours, theirs = both("EarlyStopping", keras_model, series, patience=patience, restore_best_weights=True)

    assert (len(ours[0]), ours[1]) == (4, 3.0)
    assert len(theirs[0]) == stops


def test_without_any_number_the_first_state_is_restored(keras_model):
    settings = {"patience": 2, "restore_best_weights": True}
    ours, theirs = both("EarlyStopping", keras_model, [{"val_loss": math.nan}] * 4, **settings)

    assert ours[1] == theirs[1] == 0.0


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("gaps", [False, True])
def test_csv_logger(separator, gaps, keras_model, tmp_path):
    """Every second epoch is without validation if there are gaps."""
    texts = []
    for which, model in ((callbacks.CSVLogger, our_model()), (keras().callbacks.CSVLogger, keras_model)):
        path = tmp_path / f"{which.__module__}.csv"
        for run in range(3):  # begin, append, overwrite
            series = [
                {"mae": 0.1, "loss": 1 / 3 + i} | ({} if gaps and not i % 2 else {"val_loss": math.nan, "val_mae": 1.0})
                for i in range(run, run + 3)
            ]
            drive(which(path, separator, append=run == 1), model, series, first=run)
            texts.append(path.read_bytes())

    assert texts[:3] == texts[3:]
    assert len(texts[0]) < len(texts[1])


def test_csv_logger_writes_lists_as_keras_does(keras_model, tmp_path):
    series = [{"loss": [1.0, 0.5], "mae": 1.0, "val_loss": [2.0], "val_mae": 2.0}]
    for which, model in ((callbacks.CSVLogger, our_model()), (keras().callbacks.CSVLogger, keras_model)):
        drive(which(tmp_path / which.__module__), model, series)
    ours, theirs = (path.read_bytes() for path in tmp_path.iterdir())

    assert ours == theirs


def test_terminate_on_nan():
    """A difference: Keras stops after the step, and its weights are not finite; ours are those before the step."""
    x = np.float32([[1.0], [2.0], [3.0], [4.0]])
    theirs = keras().Sequential([keras().Input((1,)), keras().layers.Dense(1)])
    theirs.compile(keras().optimizers.SGD(1e15), "mse")
    ours = Model([Dense(1)], "mse", SGD(1e15), backend="numpy").build((1,))
    epochs = {}
    for model, package in ((ours, callbacks), (theirs, keras().callbacks)):
        mark(model, 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the message of ours
            history = model.fit(
                x, -x, 2, 9, 0, callbacks=[package.TerminateOnNaN()], shuffle=False, validation_data=(x, x)
            )
        epochs[package] = history.epoch

    assert not np.all(np.isfinite(theirs.get_weights()[0]))
    assert np.all(np.isfinite(ours.get_weights()[0]))
    assert len(epochs[callbacks]) == len(epochs[keras().callbacks]) - 1  # Keras counts the broken epoch
