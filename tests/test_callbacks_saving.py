"""ModelCheckpoint and BackupAndRestore. Files are written on the host, so NumPy is enough; tests/test_run.py has the rest."""

import errno
import math
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from xpnet import CheckpointError, Model, load_model
from xpnet.callbacks import BackupAndRestore, Callback, ModelCheckpoint
from xpnet.files import remove_leftovers
from xpnet.layers import Dense
from xpnet.metrics import Accuracy

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3


class Fails(Callback):
    """Raises an error, which ends `fit` like the end of the process."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.step == self.step:
            raise OSError("the process ends")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def make():
    return Model([Dense(3)], "softmax_cross_entropy", "adam", ["accuracy"])


def fit(model, *callbacks, epochs=3, **settings):
    settings = {"batch_size": 10, "verbose": 0, "validation_data": (X, Y)} | settings
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings)


def saves(values, monitor="val_loss", **settings):
    """Return the numbers of the epochs after which a ModelCheckpoint writes, and the file names."""
    checkpoint = ModelCheckpoint("{epoch}", monitor, save_weights_only=True, **settings)
    written = []
    metrics = [Accuracy()]
    checkpoint.model = SimpleNamespace(
        seed=0, validates=True, metrics=metrics, step=0, save_weights=lambda path: written.append(int(path)),
        workshop=SimpleNamespace(run=SimpleNamespace(callbacks=[checkpoint])),
    )  # fmt: skip
    checkpoint.on_train_begin()
    for epoch, value in enumerate(values):
        checkpoint.on_epoch_begin(epoch)
        checkpoint.on_pause({} if value is None else {monitor: value})
    return written


SERIES = [3.0, 2.0, 2.5, 2.0, 1.5, 4.0]
BEST = [
    ({}, [1, 2, 5]),
    ({"mode": "max"}, [1, 6]),
    ({"monitor": "val_accuracy"}, [1, 6]),
    ({"initial_value_threshold": 2.0}, [5]),
    ({"mode": "max", "initial_value_threshold": 3.5}, [6]),
]


@pytest.mark.parametrize(("settings", "epochs"), BEST, ids=str)
def test_only_the_best_epochs_are_saved(settings, epochs):
    assert saves(SERIES, save_best_only=True, **settings) == epochs
    assert saves(SERIES) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("settings", "epochs"), BEST, ids=str)
def test_keras_saves_after_the_same_epochs(settings, epochs):
    keras = pytest.importorskip("keras", reason='Keras comes with the extra "dev"')
    settings = {"monitor": "val_loss"} | settings
    checkpoint = keras.callbacks.ModelCheckpoint(
        "{epoch}.weights.h5", save_best_only=True, save_weights_only=True, **settings
    )
    written = []
    model = SimpleNamespace(save_weights=lambda path, overwrite: written.append(int(path.split(".")[0])), metrics=[],
                            _compile_metrics=None, stop_training=False)  # fmt: skip
    checkpoint.set_model(model)
    if settings["monitor"] == "val_accuracy":
        checkpoint.mode = "max"
        checkpoint.monitor_op = keras.ops.greater
    for epoch, value in enumerate(SERIES):
        checkpoint.on_epoch_begin(epoch)
        checkpoint.on_epoch_end(epoch, {settings["monitor"]: value})

    assert written == epochs


def test_an_epoch_without_validation_is_not_the_best():
    assert saves([None, 2.0, None, 1.0], save_best_only=True) == [2, 4]


def test_nan_is_never_the_best():
    assert saves([math.nan, 2.0, math.nan], save_best_only=True) == [2]


def test_a_second_fit_remembers_the_best_value(tmp_path):
    model, checkpoint = make(), ModelCheckpoint(tmp_path / "{step}", save_best_only=True)
    fit(model, checkpoint)
    checkpoint.best = 0.0
    fit(model, checkpoint)

    assert sorted(os.listdir(tmp_path)) == ["12", "4", "8"]


def test_names_hold_epochs_steps_and_values(tmp_path):
    model = make()
    history = fit(model, ModelCheckpoint(tmp_path / "{epoch:02d}-{step}-{val_loss:.3f}-{{x}}", every_steps=3)).history

    losses = [f"{loss:.3f}" for loss in history["val_loss"]]
    ends = [f"01-4-{losses[0]}-{{x}}", f"02-8-{losses[1]}-{{x}}", f"03-12-{losses[2]}-{{x}}"]
    assert {*os.listdir(tmp_path)} == {"01-3-nan-{x}", "02-6-nan-{x}", "03-9-nan-{x}", *ends}


def test_inside_an_epoch_a_name_holds_the_values_so_far(tmp_path):
    fit(make(), ModelCheckpoint(tmp_path / "{step}-{loss}", save_freq=2), epochs=1)
    loss = next(float(name[2:]) for name in os.listdir(tmp_path) if name.startswith("2-"))
    model = make()
    model.fit(X, Y, batch_size=10, epochs=1, verbose=0, record_every=1)

    assert loss == pytest.approx(np.mean(model.history.iterations["loss"][:2]), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["1-4", "2-8", "3-12"]),
        ({"save_freq": 5}, ["2-5", "3-10"]),
        ({"save_freq": 4}, ["1-4", "2-8", "3-12"]),
        ({"every_steps": 5}, ["1-4", "2-5", "2-8", "3-10", "3-12"]),
        ({"every_seconds": 0}, None),
        ({"every_seconds": 1000}, ["1-4", "2-8", "3-12"]),
        ({"keep": 2}, ["2-8", "3-12"]),
        ({"keep": 1, "every_steps": 1}, ["3-12"]),
        ({"save_weights_only": True, "keep": 1}, ["3-12"]),
    ],
    ids=str,
)
def test_when_it_saves_and_what_it_keeps(tmp_path, settings, names):
    fit(make(), ModelCheckpoint(tmp_path / "{epoch}-{step}", **settings))

    found = os.listdir(tmp_path)
    assert {*found} == {*names} if names else {"1-4", "2-8", "3-12"} < {*found}


def test_one_name_is_replaced_and_kept(tmp_path):
    fit(make(), ModelCheckpoint(tmp_path / "model", keep=2))

    assert os.listdir(tmp_path) == ["model"]
    assert load_model(tmp_path / "model").epoch == 3


def test_a_resumed_run_deletes_the_files_of_the_first(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "{step}", keep=2)
    fit(make(), checkpoint)
    fit(make(), ModelCheckpoint(tmp_path / "{step}", keep=2), resume_from=tmp_path / "12", epochs=4)
    assert {*os.listdir(tmp_path)} == {"12", "16"}


def test_a_checkpoint_cannot_name_other_files_to_delete(tmp_path):
    fit(make(), ModelCheckpoint(tmp_path / "{step}", keep=2))
    fit(make(), ModelCheckpoint(tmp_path / "else-{step}", keep=1), resume_from=tmp_path / "12", epochs=5)

    assert {*os.listdir(tmp_path)} == {"8", "12", "else-20"}


def test_verbose_prints_a_line_for_each_file(capsys):
    saves([2.0, 3.0, 1.0], save_best_only=True, verbose=1)

    assert capsys.readouterr().out.splitlines() == [
        "Epoch 1: val_loss improved from inf to 2.00000, saving model to 1",
        "Epoch 3: val_loss improved from 2.00000 to 1.00000, saving model to 3",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"save_freq": 0}, "save_freq must be"),
        ({"save_freq": "batch"}, "save_freq must be"),
        ({"save_freq": 5, "every_steps": 5}, "Pass every_steps only with"),
        ({"every_steps": 0}, "every_steps must be an integer of at least 1"),
        ({"every_seconds": -1}, "every_seconds must be a number"),
        ({"keep": 0}, "keep must be an integer of at least 1"),
        ({"verbose": 2}, "verbose must be 0 or 1"),
        ({"mode": "up"}, "mode must be one of"),
        ({"monitor": "val_acc", "save_best_only": True}, 'Write "val_accuracy"'),
        ({"save_best_only": True, "every_steps": 5}, "save_best_only compares epochs"),
        ({"save_best_only": True, "save_freq": 5}, "save_best_only compares epochs"),
        ({"initial_value_threshold": 1.0}, "initial_value_threshold is for save_best_only"),
        ({"save_weights_only": 1}, "save_weights_only must be True or False"),
        ({"filepath": "{epoch"}, "filepath must be a path with placeholders"),
        ({"filepath": "{epoch:zz}"}, "filepath must be a path with placeholders"),
        ({"filepath": "{epoch:.2f}-{val_loss:02d}"}, "filepath must be a path with placeholders"),
    ],
    ids=str,
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelCheckpoint(**{"filepath": "model"} | settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [("{batch}", 'Write "step"'), ("{los}", 'Did you mean "loss"'), ("{}", "The placeholders of filepath are"),
     ("{val_loss}", 'The placeholders of filepath are "epoch", "step", "loss", "accuracy"')],
)  # fmt: skip
def test_unknown_placeholders_are_refused_before_training(tmp_path, name, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        fit(model, ModelCheckpoint(tmp_path / name), validation_data=None)
    assert model.step == 0


def test_two_callbacks_with_one_path_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for one, other in (
        (ModelCheckpoint("{epoch}"), ModelCheckpoint(tmp_path / "{epoch}", save_weights_only=True)),
        (BackupAndRestore("backup"), BackupAndRestore("./backup", "epoch", every_steps=2)),
        (BackupAndRestore("backup"), ModelCheckpoint("backup/backup.safetensors")),
    ):
        model = make()
        with pytest.raises(ValueError, match=r"Each callback that saves needs a different path.*Received: '.*' twice"):
            fit(model, one, other)
        assert model.step == 0
    assert list(tmp_path.iterdir()) == []
    fit(make(), ModelCheckpoint("last"), ModelCheckpoint("best", save_best_only=True), BackupAndRestore("backup"))


def test_a_value_that_is_a_list_is_not_for_a_name(tmp_path):
    model = Model([Dense(3)], "softmax_cross_entropy", metrics=["confusion_matrix"])
    with pytest.raises(ValueError, match="filepath can hold single numbers"):
        fit(model, ModelCheckpoint(tmp_path / "{confusion_matrix}"))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    """The disk is full from the third file on, so everything written is lost."""
    written, fsync = [], os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("xpnet.files.os.fsync", full)
    model = make()
    with pytest.raises(OSError, match="No space left"):
        fit(model, ModelCheckpoint(tmp_path / "model"))
    assert os.listdir(tmp_path) == ["model"]
    assert load_model(tmp_path / "model").epoch == 2
    assert model.epoch == 3

    monkeypatch.undo()
    resumed, whole = make(), make()
    fit(resumed, resume_from=tmp_path / "model")
    fit(whole)
    assert all(np.array_equal(a, b) for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True))


def test_a_run_resumes_from_its_backup(tmp_path):
    whole, folder = make(), tmp_path / "backup"
    fit(whole)

    with pytest.raises(OSError, match="the process ends"):
        fit(make(), BackupAndRestore(folder, every_steps=2), Fails(7))
    assert os.listdir(folder) == ["backup.safetensors"]
    model = make()
    history = fit(model, BackupAndRestore(folder, every_steps=2), Fails(0))

    assert history == whole.history
    assert history.epoch == [0, 1, 2]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), whole.get_weights(), strict=True))
    assert not folder.exists()


def test_a_backup_may_stay_and_other_files_do(tmp_path):
    fit(make(), BackupAndRestore(tmp_path / "a", delete_checkpoint=False))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "note").write_text("a user's file")
    fit(make(), BackupAndRestore(tmp_path / "b"))

    assert os.listdir(tmp_path / "a") == ["backup.safetensors"]
    assert os.listdir(tmp_path / "b") == ["note"]
    again = make()
    assert len(fit(again, BackupAndRestore(tmp_path / "a", delete_checkpoint=False), epochs=5).epoch) == 5
    assert again.step == 20


def test_the_name_of_a_backup_may_hold_braces(tmp_path):
    with pytest.raises(OSError, match="the process ends"):
        fit(make(), BackupAndRestore(tmp_path / "{a"), Fails(7))
    assert os.listdir(tmp_path / "{a") == ["backup.safetensors"]


def test_a_backup_of_another_run_is_refused(tmp_path):
    fit(make(), BackupAndRestore(tmp_path, delete_checkpoint=False))
    model = make()
    with pytest.raises(CheckpointError, match=r"backup\.safetensors: Expected batch_size=10, as in the checkpoint"):
        fit(model, BackupAndRestore(tmp_path), batch_size=20)

    assert model.state is None
    assert os.listdir(tmp_path) == ["backup.safetensors"]


def test_the_backup_is_newer_than_the_file_that_the_run_began_with(tmp_path):
    fit(make(), ModelCheckpoint(tmp_path / "{step}"), epochs=1)
    with pytest.raises(OSError, match="the process ends"):
        fit(make(), BackupAndRestore(tmp_path / "b"), Fails(11), resume_from=tmp_path / "4")
    begun = Begun()
    fit(make(), BackupAndRestore(tmp_path / "b"), begun, Fails(0), resume_from=tmp_path / "4")

    assert begun.step == 8


class Begun(Fails):
    def __init__(self):
        self.step = None

    def on_train_begin(self, logs=None):
        self.step = self.model.step

    def on_train_batch_end(self, batch, logs=None):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"save_freq": False}, "save_freq must be"),
        ({"delete_checkpoint": 1}, "delete_checkpoint must be True or False"),
    ],
)
def test_settings_of_a_backup_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        BackupAndRestore("folder", **settings)


def test_what_killed_processes_left_is_deleted(tmp_path):
    left, other, wanted = f"2-a.{'0' * 32}.part", f"b.{'0' * 32}.part", "2-b"
    for name in (left, other, wanted, "2-a.part"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, re.compile(rf"{re.escape(str(tmp_path))}/[^/]+-[^/]+"))

    assert {*os.listdir(tmp_path)} == {other, wanted, "2-a.part"}
    fit(make(), ModelCheckpoint(tmp_path / "b"))
    assert {*os.listdir(tmp_path)} == {"b", wanted, "2-a.part"}
    remove_leftovers(tmp_path / "no folder", re.compile(".*"))
