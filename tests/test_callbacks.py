"""Callbacks, fed with the values of a run. Tests without arrays need no backend."""

from types import SimpleNamespace

import numpy as np
import pytest

from xpnet import Callback, CheckpointError, EarlyStopping, Model, callbacks, to_numpy
from xpnet.layers import BatchNormalization, Dense
from xpnet.metrics import Accuracy, Metric, R2Score, RootMeanSquaredError, TopKAccuracy
from xpnet.tree import named_leaves


class Own(Metric):
    def __init__(self, name, higher_is_better=None):
        self.name, self.higher_is_better = name, higher_is_better

    def terms(self, y, z):
        return (z[..., 0],)


METRICS = [R2Score(), Accuracy(), *map(TopKAccuracy, (5, 2)), RootMeanSquaredError(), Own("gain", True), Own("cost")]


def run(values, monitor="loss", **settings):
    """Return the epochs trained, and the epoch whose state the model has at the end."""
    stop = EarlyStopping(monitor, restore_best_weights=True, **settings)
    model = SimpleNamespace(seed=0, validates=False, stop_training=False, state=None, metrics=METRICS)
    stop.model = model
    stop.on_train_begin()
    for epoch, value in enumerate(values):
        model.state = epoch
        stop.on_epoch_end(epoch, {monitor: value})
        if model.stop_training:
            break
    stop.on_train_end()
    return epoch + 1, model.state


@pytest.mark.parametrize(
    ("settings", "epochs", "best"),
    [
        ({}, 3, 1),
        ({"patience": 1}, 3, 1),
        ({"patience": 2}, 4, 1),
        ({"patience": 3}, 8, 7),
        ({"patience": 3, "min_delta": 0.5}, 5, 1),
        ({"patience": 2, "min_delta": -0.5}, 4, 1),
        ({"mode": "max"}, 2, 0),
        ({"monitor": "r2"}, 2, 0),
        ({"monitor": "accuracy"}, 2, 0),
        ({"monitor": "top_5_accuracy"}, 2, 0),
        ({"monitor": "rmse"}, 3, 1),
        ({"monitor": "top_2_accuracy"}, 2, 0),
        ({"monitor": "gain"}, 2, 0),
        ({"monitor": "cost", "mode": "max"}, 2, 0),
    ],
    ids=str,
)
def test_training_stops_after_so_many_epochs_without_improvement(settings, epochs, best):
    assert run([3.0, 2.0, 2.1, 2.2, 1.9, 2.0, 2.0, 1.8], **settings) == (epochs, best)


def test_a_second_run_begins_anew():
    stop = EarlyStopping("loss")
    stop.model = SimpleNamespace(seed=0, validates=False, stop_training=False, state=None, metrics=METRICS)
    for value in (1.0, 2.0):
        stop.on_train_begin()
        stop.on_epoch_end(0, {"loss": value})

    assert not stop.model.stop_training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "up"}, 'mode must be one of "auto", "min", "max". Received: mode='),
        (
            {"monitor": "val_acc"},
            r'monitor must be a name in the history, .*Write "val_accuracy". Received: monitor=.val_acc',
        ),
        ({"monitor": None}, "monitor must be a name in the history, .*Received: monitor=None"),
        ({"patience": "3"}, "patience must be an integer of at least 0"),
        ({"patience": -1}, "patience must be an integer of at least 0"),
        ({"min_delta": "a"}, "min_delta must be a number"),
        ({"restore_best_weights": "yes"}, "restore_best_weights must be True or False"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**settings)


def test_several_seeds_are_refused_before_training():
    stop = EarlyStopping("loss")
    stop.model = SimpleNamespace(seed=(0, 1))
    with pytest.raises(ValueError, match=r"Train the seeds one at a time. Received: seed=\(0, 1\)"):
        stop.on_train_begin()


def test_the_metric_is_asked_which_way_is_better():
    with pytest.raises(ValueError, match=r'Set mode="min" or mode="max". Received: monitor='):
        run([1.0], "cost")
    assert run([1.0, 2.0], "cost", mode="max") == (2, 1)


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("acuracy", r'must be one of "loss", "r2", .*. Did you mean "accuracy"\? Received: monitor='),
        ("val_precision", r'Write metrics=\["precision"\] in Model. Received: monitor='),
        ("val_gini", "must be one of .*Received: monitor='val_gini'"),
        (
            "val_loss",
            "Pass validation_data or validation_split to fit, or .*Received: monitor='val_loss' without validation data",
        ),
    ],
)
def test_what_is_not_recorded_is_refused_before_training(monitor, message):
    for mode in ("auto", "min"):
        with pytest.raises(ValueError, match=message):
            run([], monitor, mode=mode)


def test_a_list_of_values_is_refused():
    with pytest.raises(ValueError, match=r"monitors a single number, not a list. Received: monitor='r2'"):
        run([[1.0, 2.0]], "r2")


def test_every_callback_can_be_saved():
    for name in set(callbacks.__all__) - {"Callback", "LearningRateFinder"}:  # a test of learning rates is not resumed
        for method in ("state_dict", "load_state_dict"):
            assert getattr(getattr(callbacks, name), method) is not getattr(Callback, method), name


def test_a_callback_without_a_saved_state_says_what_to_define():
    for call in (Callback().state_dict, lambda: Callback().load_state_dict({})):
        with pytest.raises(
            CheckpointError, match=r"returns {} and sets nothing. Received: Callback without \w*state_dict"
        ):
            call()


def test_early_stopping_continues_from_its_state(xp):
    """The best state goes through host arrays and back."""
    model = Model([Dense(2), BatchNormalization()], "mse", "adam", backend=xp).build((3,))
    one, other = (EarlyStopping("loss", patience=3, restore_best_weights=True) for _ in range(2))
    for stop in (one, other):
        stop.model = model
        stop.on_train_begin()
    other.load_state_dict(one.state_dict())
    assert (other.best, other.wait, other.best_state) == (float("inf"), 0, None)
    one.on_epoch_end(0, {"loss": 2.0})
    one.on_epoch_end(1, {"loss": 3.0})
    other.load_state_dict(one.state_dict())

    assert (other.best, other.wait) == (2.0, 1)
    for name, x in named_leaves(model.state):
        found = dict(named_leaves(other.best_state))[name]
        assert type(found) is type(x)
        assert np.array_equal(to_numpy(found), to_numpy(x))
    wrong = one.state_dict() | {"best_state": {"params": ({"weight": np.zeros((2, 2), np.float32)},)}}
    with pytest.raises(CheckpointError, match="Expected a best state with the shapes"):
        other.load_state_dict(wrong)
