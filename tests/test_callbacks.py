"""EarlyStopping, given the values of a run. No arrays, so no backend."""

from types import SimpleNamespace

import pytest

from xpnet import EarlyStopping
from xpnet.metrics import Accuracy, Metric, R2Score, RootMeanSquaredError, TopKAccuracy


class Own(Metric):
    def __init__(self, name, higher_is_better=None):
        self.name, self.higher_is_better = name, higher_is_better

    def terms(self, y, z):
        return (z[..., 0],)


METRICS = [R2Score(), Accuracy(), *map(TopKAccuracy, (5, 2)), RootMeanSquaredError(), Own("gain", True), Own("cost")]


def run(values, monitor="loss", **settings):
    """The epochs trained, and which epoch's state the model has in the end."""
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
            "Pass validation_data or validation_split to fit. Received: monitor='val_loss' without validation data",
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
