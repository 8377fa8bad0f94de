"""Training that goes non-finite or is interrupted."""

import os
import pickle
import signal
import threading

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model, writable
from xpnet import SGD, Adam, Callback, DivergenceError, Model, schedules
from xpnet.backend import to_numpy
from xpnet.layers import Dense, ReLU, Residual, Sequential
from xpnet.tree import leaves

LAYERS = [Dense(8), ReLU(), Sequential([Dense(8), ReLU()]), Dense(3)]


def diverging(xp, at):
    """A run whose learning rate explodes at a step."""
    return make_model(xp, optimizer=SGD(schedules.Piecewise([at], [0.1, 1e25])), layers=LAYERS)


@pytest.mark.parametrize("at", [1, 7, 11])
def test_the_step_and_the_layer_are_named_and_the_last_finite_state_kept(xp, at):
    model, reference = diverging(xp, at), diverging(xp, at)
    with pytest.raises(
        DivergenceError, match=r"(?s)diverged at step.*is not finite.*Lower the learning rate"
    ) as caught:
        fit(model, epochs=4)

    assert caught.value.step == at + 1  # the step itself is huge but finite
    assert caught.value.layer in str(caught.value)
    assert model.step == caught.value.step
    assert all(np.all(np.isfinite(to_numpy(p))) for p in leaves(model.parameters))
    if at == 11:  # its last good step ends an epoch
        fit(reference, epochs=2)
        assert_same_parameters(model, reference, rtol=1e-4, atol=0)
    model.evaluate(X, Y)


def test_the_layer_is_the_first_in_the_chain(xp):
    model = make_model(xp, optimizer=SGD(0.1), layers=LAYERS).build((2,))
    poisoned = model.parameters
    poisoned[2][0]["weight"] = writable(xp).asarray(np.full((8, 8), np.nan))

    with pytest.raises(DivergenceError) as caught:
        fit(model)
    assert caught.value.layer == "2.0 Dense output"
    assert caught.value.step == 0


def test_the_layer_is_found_inside_a_branch(xp):
    model = make_model(xp, optimizer=SGD(0.1), layers=[Dense(8), Residual(Sequential([ReLU(), Dense(8)])), Dense(3)])
    poisoned = model.build((2,)).parameters
    poisoned[1][0][1]["weight"] = writable(xp).asarray(np.full((8, 8), np.nan))

    with pytest.raises(DivergenceError) as caught:
        fit(model)
    assert caught.value.layer == "1.0.1 Dense output"


def test_a_run_that_ends_non_finite_is_noticed(xp):
    """The last step alone overflows: no further loss would show it."""
    model = make_model(xp, optimizer=SGD(schedules.Piecewise([5], [1e-9, 1e38])), layers=[Dense(3)])

    with pytest.raises(DivergenceError) as caught:
        model.fit(X * 1e3, Y, batch_size=20, verbose=0)
    assert (caught.value.step, caught.value.layer) == (5, "0.weight after the update")


@pytest.fixture
def listening():
    """Ctrl-C as Python handles it in a terminal: a process in the background may have been started to ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


class InterruptAt(Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, step, logs):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("listening")
def test_interrupt_leaves_a_usable_model_with_its_history(xp):
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)
    model = make_model(xp)
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=5, callbacks=[InterruptAt(8)], record_every=1)

    assert model.step == 9
    assert model.history.epoch == [0]
    assert model.history.iterations["step"] == list(range(9))
    assert signal.getsignal(signal.SIGINT) is handler
    fit(model)
    assert model.step == 15


@pytest.mark.usefixtures("listening")
def test_an_interrupt_in_the_last_chunk_of_an_epoch_lets_the_epoch_count(xp):
    model = make_model(xp)
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=5, callbacks=[InterruptAt(5)])

    assert (model.step, model.epoch, model.history.epoch) == (6, 1, [0])


def test_a_callbacks_error_comes_through(xp):
    class Fails(Callback):
        def on_epoch_end(self, epoch, logs):
            raise ZeroDivisionError

    model = make_model(xp)
    with pytest.raises(ZeroDivisionError):
        fit(model, callbacks=[Fails()])
    assert model.history.epoch == [0]


class InterruptAfterEpoch(Callback):
    """Ctrl-C while the last epoch is validated or its callbacks run."""

    def on_epoch_end(self, epoch, logs):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("listening")
def test_an_interrupt_at_the_very_end_is_not_lost(xp):
    model = make_model(xp)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[InterruptAfterEpoch()])
    assert model.step == 6


def test_the_error_can_be_pickled():
    """No arrays, so no backend."""
    error = pickle.loads(pickle.dumps(DivergenceError("message", 3, "0.weight gradient")))

    assert (str(error), error.step, error.layer) == ("message", 3, "0.weight gradient")


def test_a_divergence_after_another_optimizer_goes_back_to_its_own_steps(xp):
    class Explode(Callback):
        def on_epoch_end(self, epoch, logs):
            self.model.optimizer = SGD(3e38)
            self.before = [np.array(to_numpy(p)) for p in leaves(self.model.parameters)]

    x, callback = np.random.default_rng(0).normal(size=(40, 3)), Explode()
    model = Model([Dense(2)], "mean_squared_error", Adam(1e6), backend=writable(xp))

    with pytest.raises(DivergenceError, match="at step 10"):
        model.fit(x, 1000 * x[:, :2], batch_size=4, epochs=2, verbose=0, callbacks=[callback])

    assert model.step == 10
    for p, before in zip(leaves(model.parameters), callback.before, strict=True):
        np.testing.assert_array_equal(to_numpy(p), before)
