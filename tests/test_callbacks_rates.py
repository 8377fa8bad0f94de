"""Callbacks that set the learning rate, stop at NaN, or consist of functions, in runs of `fit`.

tests/test_callbacks_keras.py compares their decisions with those of Keras.
"""

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model, writable
from xpnet import SGD, Adam, DivergenceError, Model, callbacks, schedules
from xpnet.backend import to_numpy
from xpnet.callbacks import LambdaCallback, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN
from xpnet.layers import Dense
from xpnet.tree import leaves


def test_the_scheduled_learning_rate_is_that_of_its_epoch(xp):
    scheduled, plain = make_model(xp, SGD(0.3)), make_model(xp, SGD(0.3))
    history = fit(scheduled, 2, callbacks=[LearningRateScheduler(lambda epoch, rate: rate if epoch == 0 else rate / 4)])
    fit(plain, 1)
    plain.optimizer = SGD(0.075)
    fit(plain, 1)

    assert history.history["learning_rate"] == [0.3, 0.075]
    assert_same_parameters(scheduled, plain, rtol=0, atol=0)


def test_a_plateau_reduces_the_learning_rate_of_the_next_epoch(xp):
    model = make_model(xp, SGD(0.5))
    reduce = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0)
    history = fit(model, 4, callbacks=[reduce])

    assert history.history["learning_rate"] == [0.5, 0.5, 0.25, 0.125]
    assert model.optimizer.learning_rate == 0.0625


def test_a_reduction_keeps_the_optimizers_state(xp):
    """The learning rate is no part of it."""
    reduced, plain = make_model(xp, Adam(0.1)), make_model(xp, Adam(0.1))
    fit(reduced, 2, callbacks=[LearningRateScheduler(lambda epoch: 0.1)])
    fit(plain, 2)

    assert_same_parameters(reduced, plain, rtol=0, atol=0)


def test_plateaus_continue_from_their_state():
    """No arrays."""
    model = Model([Dense(1)], "mse", SGD(0.5), backend="numpy")
    one, other = (ReduceLROnPlateau("loss", patience=2, cooldown=3) for _ in range(2))
    for callback in (one, other):
        callback.set_model(model)
        callback.on_train_begin()
    for epoch, value in enumerate([1.0, 2.0, 2.0, 2.0]):
        one.on_epoch_end(epoch, {"loss": value})
    other.load_state_dict(one.state_dict())

    assert (other.best, other.wait, other.cooldown_counter) == (one.best, one.wait, one.cooldown_counter) == (1.0, 0, 2)


@pytest.mark.parametrize("verbose", [0, 1])
def test_messages(verbose, xp, capsys):
    stop = callbacks.EarlyStopping("loss", min_delta=100.0, patience=2, verbose=verbose, restore_best_weights=True)
    rates = [
        LearningRateScheduler(lambda epoch: 0.5, verbose),
        ReduceLROnPlateau("loss", 0.5, 1, verbose, min_delta=9.0),
    ]
    fit(make_model(xp), 9, callbacks=[*rates, stop])
    shown = capsys.readouterr().out.splitlines()

    assert (
        shown[: 9 * verbose]
        == [
            "Epoch 1: LearningRateScheduler sets the learning rate to 0.5.",
            "Epoch 2: LearningRateScheduler sets the learning rate to 0.5.",
            "Epoch 2: ReduceLROnPlateau reduces the learning rate to 0.25.",
            "Epoch 3: LearningRateScheduler sets the learning rate to 0.5.",
            "Epoch 3: ReduceLROnPlateau reduces the learning rate to 0.25.",
            "Epoch 3: early stopping",
            "Restoring the state of the best epoch: 1.",
        ]
        * verbose
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearningRateScheduler(0.1), "schedule must be a function of .*Received: schedule=0.1"),
        (lambda: LearningRateScheduler(lambda: 0.1), r"schedule must be a function of \(epoch, learning_rate\)"),
        (lambda: ReduceLROnPlateau(factor=1.0), r"factor must be a number in \[0, 1\). Received: factor=1.0"),
        (lambda: ReduceLROnPlateau(cooldown=-1), "cooldown must be an integer of at least 0"),
        (lambda: ReduceLROnPlateau(min_lr=-1.0), "min_lr must be a number"),
        (lambda: callbacks.EarlyStopping(start_from_epoch=0.5), "start_from_epoch must be an integer of at least 0"),
        (lambda: callbacks.EarlyStopping(baseline="low"), "baseline must be a number"),
        (lambda: LambdaCallback(on_epoch_end=3), "on_epoch_end must be a function. Received: on_epoch_end=3"),
        (lambda: LambdaCallback(on_epoch_ended=print), 'Did you mean "on_epoch_end"'),
    ],
)
def test_settings_are_checked(make, message):
    """No arrays."""
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_of_the_optimizer_is_refused_before_training(xp):
    model = make_model(xp, SGD(schedules.Constant(0.1)))
    for callback in (LearningRateScheduler(lambda epoch: 0.1), ReduceLROnPlateau("loss")):
        with pytest.raises(
            ValueError, match=r"needs an optimizer whose learning rate is a number\. Received: .*Constant"
        ):
            fit(model, callbacks=[callback])

    assert model.step == 0


def test_a_learning_rate_out_of_range_names_its_epoch(xp):
    with pytest.raises(ValueError, match=r"The learning rate of epoch 1 must be a number in \[0, inf\)"):
        fit(make_model(xp), 2, callbacks=[LearningRateScheduler(lambda epoch: [0.1, -1.0][epoch])])


def test_functions_are_called_as_methods(xp):
    seen = []
    note = LambdaCallback(
        on_train_begin=lambda logs: seen.append("begin"),
        on_epoch_end=lambda epoch, logs: seen.append((epoch, sorted(logs))),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        on_test_end=lambda logs: seen.append("tested"),
        on_train_end=None,
    )
    fit(make_model(xp), validation_data=(X, Y), callbacks=[note])

    assert seen == ["begin", *range(6), "tested", (0, ["accuracy", "loss", "val_accuracy", "val_loss"])]
    assert note.state_dict() == {}


def test_what_a_callback_adds_to_the_logs_enters_the_history(xp):
    add = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(doubled=2 * logs["loss"], loss=0.0))
    history = fit(make_model(xp), 2, callbacks=[add]).history

    assert history["doubled"] == [2 * loss for loss in history["loss"]]


# ---------------------------------------------------------------------- TerminateOnNaN


def diverging(xp):
    return Model([Dense(2)], "mean_squared_error", SGD(lambda step: 0.1 if step < 8 else 3e38), backend=writable(xp))


def test_terminate_on_nan_ends_the_run_with_finite_parameters(xp):
    """It is as if the steps before the divergence had been the whole run, and other callbacks see a normal end."""
    model, plain, ended, nan = diverging(xp), diverging(xp), [], TerminateOnNaN()
    y = np.stack([Y, Y], axis=-1)
    other = LambdaCallback(on_train_end=lambda logs: ended.append(logs))
    with pytest.warns(RuntimeWarning, match=r"TerminateOnNaN stopped training\. .* at step"):
        history = model.fit(X, y, 20, 5, 0, callbacks=[nan, other])
    plain.fit(X, y, 20, 1, 0)

    assert isinstance(nan.error, DivergenceError)
    assert history is model.history
    assert history.epoch == [0]
    assert ended == [{"loss": history.history["loss"][0]}]
    assert model.step == nan.error.step >= 8
    assert all(np.all(np.isfinite(to_numpy(p))) for p in leaves(model.parameters))


def test_terminate_on_nan_does_not_catch_an_interrupt(xp):
    def interrupt(epoch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_model(xp), callbacks=[TerminateOnNaN(), LambdaCallback(on_epoch_end=interrupt)])


def test_a_callback_may_end_a_run_after_an_interrupt(xp):
    def interrupt(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    handles = LambdaCallback(on_epoch_end=interrupt, on_train_interrupt=lambda error: True)

    assert fit(make_model(xp), 5, callbacks=[handles]).epoch == [0, 1]
