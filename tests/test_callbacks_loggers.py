"""Files with the values of each epoch. tests/test_callbacks_keras.py compares CSV files with those of Keras."""

import csv
import json
import math
import shutil

import numpy as np
import pytest

from tests.test_model import X, Y, fit, make_model
from xpnet import CheckpointError
from xpnet.callbacks import CSVLogger, JSONLinesLogger, LearningRateScheduler

KINDS = {"csv": CSVLogger, "jsonl": JSONLinesLogger}


def test_a_csv_file_holds_the_history(xp, tmp_path):
    path = tmp_path / "runs" / "log.csv"
    rates = LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1))
    history = fit(make_model(xp), 3, validation_data=(X, Y), callbacks=[rates, CSVLogger(path)])
    rows = list(csv.DictReader(path.read_text().splitlines()))

    assert list(rows[0]) == ["epoch", "accuracy", "learning_rate", "loss", "val_accuracy", "val_loss"]
    for name, values in history.history.items():
        assert [float(row[name]) for row in rows] == values
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]


def test_a_csv_file_without_validation_has_no_columns_for_it(xp, tmp_path):
    """A difference: Keras writes columns of NA."""
    fit(make_model(xp), callbacks=[CSVLogger(tmp_path / "log.csv")])

    assert (tmp_path / "log.csv").read_text().splitlines()[0] == "epoch,accuracy,loss"


def test_a_json_lines_file_holds_the_history(xp, tmp_path):
    path = tmp_path / "log.jsonl"
    history = fit(make_model(xp), 4, validation_data=(X, Y), validation_freq=2, callbacks=[JSONLinesLogger(path)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    assert [row.pop("epoch") for row in rows] == [0, 1, 2, 3]
    assert [sorted(row) for row in rows[:2]] == [["accuracy", "loss"], ["accuracy", "loss", "val_accuracy", "val_loss"]]
    for name, values in history.history.items():
        assert [row[name] for row in rows if name in row] == values


def write(callback, model, epochs):
    """Show epochs to a callback -> its state after each of them."""
    states = []
    for epoch in epochs:
        callback.on_epoch_end(epoch, {"loss": 1 / (epoch + 3), "val_loss": math.nan, "table": [1.0, math.inf]})
        states.append(callback.state_dict())
    return states


@pytest.fixture
def model():
    """Not used for computing."""
    made = make_model("numpy")
    made.validates = True
    return made


def begun(kind, path, model, **settings):
    callback = KINDS[kind](path, **settings)
    callback.set_model(model)
    callback.on_train_begin()
    return callback


def test_json_has_no_infinity(model, tmp_path):
    write(begun("jsonl", tmp_path / "log", model), model, [0])

    assert json.loads((tmp_path / "log").read_text(), parse_constant=pytest.fail) == {
        "epoch": 0,
        "loss": 1 / 3,
        "val_loss": None,
        "table": [1.0, None],
    }


def test_json_takes_what_callbacks_add(model, tmp_path):
    begun("jsonl", tmp_path / "log", model).on_epoch_end(0, {"rate": np.float32(0.5), "norms": np.array([1.0, np.nan])})

    assert json.loads((tmp_path / "log").read_text()) == {"epoch": 0, "rate": 0.5, "norms": [1.0, None]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("append", [False, True])
def test_a_resumed_run_writes_the_file_of_an_unbroken_one(kind, append, model, tmp_path):
    """The broken run had written two rows after its checkpoint, and part of a third one."""
    paths = [tmp_path / name for name in ("whole", "broken")]
    for path in paths:
        write(begun(kind, path, model), model, range(2))
    write(begun(kind, paths[0], model, append=append), model, range(6))
    state = write(begun(kind, paths[1], model, append=append), model, range(5))[2]
    with paths[1].open("a") as file:
        file.write("half a r")
    resumed = begun(kind, paths[1], model, append=append)
    resumed.load_state_dict(state)
    write(resumed, model, range(3, 6))

    assert paths[1].read_bytes() == paths[0].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_without_the_file_begins_a_new_one(kind, model, tmp_path):
    state = write(begun(kind, tmp_path / "log", model), model, range(3))[-1]
    resumed = begun(kind, tmp_path / "new", model)
    resumed.load_state_dict(state)
    write(resumed, model, [3])
    write(begun(kind, tmp_path / "alone", model), model, [3])

    assert (tmp_path / "new").read_bytes() == (tmp_path / "alone").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_file_is_not_that_of_the_run(kind, model, tmp_path):
    state = write(begun(kind, tmp_path / "log", model), model, range(3))[-1]
    shutil.copy(tmp_path / "log", tmp_path / "copy")
    write(begun(kind, tmp_path / "log", model), model, [0])

    with pytest.raises(CheckpointError, match=r"continues the file of the run, .*Received: .* of \d+ bytes"):
        begun(kind, tmp_path / "log", model).load_state_dict(state)
    begun(kind, tmp_path / "copy", model).load_state_dict(state)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"separator must be one character\. Received: separator=';;'"):
        CSVLogger(tmp_path / "log", ";;")
    with pytest.raises(ValueError, match="append must be True or False"):
        JSONLinesLogger(tmp_path / "log", "yes")
