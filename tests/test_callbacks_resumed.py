"""A run with many callbacks that is interrupted anywhere and resumed equals an uninterrupted run, bit for bit."""

import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model
from xpnet import SGD
from xpnet.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLinesLogger,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)


class InterruptAt(Callback):
    """Sends Ctrl-C after this step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.step == self.step:
            raise KeyboardInterrupt

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def run(xp, folder, callbacks, interrupt=None, resume_from=None):
    """Run epochs of 6 steps, with validation every second epoch and a checkpoint every 4 steps and at the end of each epoch."""
    model = make_model(xp, SGD(0.4, momentum=0.9))
    saving = ModelCheckpoint(folder / "checkpoint", every_steps=4)
    history = fit(
        model,
        9,
        validation_data=(X, Y),
        validation_freq=2,
        callbacks=[saving, *callbacks(folder), InterruptAt(interrupt)],
        resume_from=resume_from,
    )
    return model, history


def plateaus(folder):
    return [
        CSVLogger(folder / "first.csv"),  # before the callback that adds the learning rate
        ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=0.05, cooldown=1),
        EarlyStopping("loss", patience=1, baseline=0.5, restore_best_weights=True, start_from_epoch=3),
        CSVLogger(folder / "last.csv", ";"),
        JSONLinesLogger(folder / "log.jsonl"),
        TerminateOnNaN(),
        LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(twice=2 * logs["loss"])),
    ]


def scheduled(folder):
    return [LearningRateScheduler(lambda epoch, rate: rate * 0.8), CSVLogger(folder / "log.csv", append=True)]


@pytest.mark.parametrize("callbacks", [plateaus, scheduled])
@pytest.mark.parametrize("interrupt", [7, 12, 15, 29])
def test_a_resumed_run_is_the_whole_run(callbacks, interrupt, xp, tmp_path):
    folders = [tmp_path / "whole", tmp_path / "halves"]
    whole, history = run(xp, folders[0], callbacks)
    with pytest.raises(KeyboardInterrupt):
        run(xp, folders[1], callbacks, interrupt)
    halves, resumed = run(xp, folders[1], callbacks, resume_from=folders[1] / "checkpoint")

    assert resumed == history
    assert len(set(history.history["learning_rate"])) > 1
    assert len(history.epoch) == {plateaus: 6, scheduled: 9}[callbacks]
    assert_same_parameters(halves, whole, rtol=0, atol=0)
    assert halves.optimizer == whole.optimizer
    for path in folders[0].iterdir():
        if path.name != "checkpoint":
            assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name
