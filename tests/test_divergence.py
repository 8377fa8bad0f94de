"""Training that diverges or is interrupted."""

import math
import os
import pickle
import signal
import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model, writable
from xpnet import SGD, Adam, Callback, DivergenceError, Model, loop, schedules
from xpnet.backend import to_numpy
from xpnet.divergence import diagnose
from xpnet.layers import BatchNormalization, Dense, Layer, ReLU, Residual, Sequential
from xpnet.tree import leaves, map_leaves

LAYERS = [Dense(8), ReLU(), Sequential([Dense(8), ReLU()]), Dense(3)]


def diverging(xp, at):
    """Run training with a learning rate that becomes huge at one step."""
    return make_model(xp, optimizer=SGD(schedules.PiecewiseConstantDecay([at], [0.1, 1e25])), layers=LAYERS)


@pytest.mark.parametrize("at", [1, 7, 11])
def test_the_step_and_the_layer_are_named_and_the_last_finite_state_kept(xp, at):
    model, reference = diverging(xp, at), diverging(xp, at)
    with pytest.raises(
        DivergenceError, match=r"(?s)diverged at step.*is not finite.*Lower the learning rate"
    ) as caught:
        fit(model, epochs=4)

    assert caught.value.step == at + 1  # the result of that step is huge but finite
    assert caught.value.layer in str(caught.value)
    assert model.step == caught.value.step
    assert all(np.all(np.isfinite(to_numpy(p))) for p in leaves(model.parameters))
    if at == 11:  # the last finite step ends an epoch
        fit(reference, epochs=2)
        assert_same_parameters(model, reference, rtol=1e-4, atol=0)
    model.evaluate(X, Y)


def test_the_layer_is_the_first_in_the_chain(xp):
    model = make_model(xp, optimizer=SGD(0.1), layers=LAYERS).build((2,))
    poisoned = model.parameters
    poisoned[2][0]["weight"] = writable(xp).asarray(np.full((8, 8), 3e38))

    with pytest.raises(DivergenceError) as caught:
        fit(model)
    assert caught.value.layer == "2.0 Dense output"
    assert caught.value.step == 0


def test_the_layer_is_found_inside_a_branch(xp):
    model = make_model(xp, optimizer=SGD(0.1), layers=[Dense(8), Residual(Sequential([ReLU(), Dense(8)])), Dense(3)])
    poisoned = model.build((2,)).parameters
    poisoned[1][0][1]["weight"] = writable(xp).asarray(np.full((8, 8), 3e38))

    with pytest.raises(DivergenceError) as caught:
        fit(model)
    assert caught.value.layer == "1.0.1 Dense output"


def test_a_run_that_ends_non_finite_is_noticed(xp):
    """Only the last step overflows, so no later loss would show it."""
    model = make_model(xp, optimizer=SGD(schedules.PiecewiseConstantDecay([5], [1e-9, 1e38])), layers=[Dense(3)])

    with pytest.raises(DivergenceError) as caught:
        model.fit(X * 1e3, Y, batch_size=20, verbose=0)
    assert (caught.value.step, caught.value.layer) == (5, "0.weight after the update")


def require_finite_state(model):
    assert all(np.all(np.isfinite(to_numpy(x))) for x in leaves(model.state))


class EveryStep(Callback):
    """Makes every chunk one step long."""

    def on_train_batch_end(self, batch, logs=None):
        pass


@pytest.mark.parametrize("callbacks", [[], [EveryStep()]], ids=["chunks", "steps"])
@pytest.mark.parametrize("at", np.random.default_rng(0).integers(0, 12, size=4).tolist())
def test_a_spike_is_found_in_its_step(at, callbacks, xp):
    """The squares of 2e19 overflow float32, so the running variance stays infinite, while the loss stays finite."""
    x = np.random.default_rng(at).normal(size=(120, 3))
    x[at * 10 + 4, 1] = 2e19
    layers = [BatchNormalization(), Dense(4), ReLU(), Dense(2)]
    model = Model(layers, "softmax_cross_entropy", Adam(), backend=writable(xp))
    with pytest.raises(DivergenceError, match=f"at step {at}.*look for extreme values") as caught:
        model.fit(x, np.arange(120) % 2, batch_size=10, shuffle=False, verbose=0, callbacks=callbacks)

    assert (caught.value.step, model.step) == (at, at)
    assert caught.value.layer == "running 0.variance after the update"
    require_finite_state(model)
    assert np.all(np.isfinite(to_numpy(model.predict(x[:4]))))


@pytest.mark.parametrize("at", [0, 7])
def test_a_gradient_that_would_freeze_adam_is_found(at, xp):
    """The gradient's square is infinite, so v stays infinite, and no parameter would ever change again."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[at * 4] = 3e20
    model = Model([Dense(2)], "mean_absolute_error", Adam(), backend=writable(xp))
    with pytest.raises(DivergenceError) as caught:
        model.fit(x, x[:, :2], batch_size=4, shuffle=False, verbose=0)

    assert (caught.value.step, model.step) == (at, at)
    assert caught.value.layer == "optimizer's v.0.weight after the update"
    require_finite_state(model)


@dataclass(frozen=True)
class Faulty(Layer):
    """Returns NaN while a fault lasts."""

    faults: ClassVar[list] = []

    def forward(self, params, x):
        factor = np.nan if self.faults else 1.0
        return x * 1.0, lambda dy, need_dx=True: (dy * factor, {})


def test_what_is_not_found_again_leaves_the_last_finite_state(xp, monkeypatch):
    """After a race or a flipped bit, the steps give correct results when they are run again."""

    class Breaks(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                Faulty.faults.append(1)
                self.model.optimizer = Adam(beta_1=0.8)  # a different step, which JAX must compile

    def diagnose_later(*arguments):
        Faulty.faults.clear()
        return diagnose(*arguments)

    monkeypatch.setattr(loop, "diagnose", diagnose_later)
    model = make_model(xp, layers=[Dense(4), Faulty(), Dense(3)], optimizer=Adam())
    with pytest.raises(DivergenceError, match=r"steps from step 6: 0\.bias was not finite at the end") as caught:
        fit(model, epochs=2, callbacks=[Breaks()])

    assert (caught.value.step, model.step, caught.value.layer) == (6, 6, "0.bias")
    require_finite_state(model)


@pytest.mark.parametrize(
    ("part", "name"), [("params", "0.bias"), ("statistics", "running 1.mean"), ("optimizer", "optimizer's m.0.bias")]
)
def test_a_state_that_somebody_set_is_named_and_taken_back(part, name, xp):
    class Sets(Callback):
        def on_epoch_end(self, epoch, logs=None):
            broken = map_leaves(lambda p: p * math.nan, self.model.state[part])
            self.model.state = self.model.state | {part: broken}

    model = make_model(xp, layers=[Dense(4), BatchNormalization(), Dense(3)], optimizer=Adam())
    with pytest.raises(DivergenceError, match=f"{name} was not finite before it, because a callback") as caught:
        fit(model, epochs=2, callbacks=[Sets()])

    assert (caught.value.step, caught.value.layer) == (6, name)
    require_finite_state(model)


class InterruptAt(Callback):
    """Sends Ctrl-C in the middle of an epoch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.step - 1 == self.step:
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
        def on_epoch_end(self, epoch, logs=None):
            raise ZeroDivisionError

    model = make_model(xp)
    with pytest.raises(ZeroDivisionError):
        fit(model, callbacks=[Fails()])
    assert model.history.epoch == [0]


class InterruptAfterEpoch(Callback):
    """Sends Ctrl-C while the last epoch is validated or its callbacks run."""

    def on_epoch_end(self, epoch, logs=None):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("listening")
def test_an_interrupt_at_the_very_end_is_not_lost(xp):
    model = make_model(xp)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[InterruptAfterEpoch()])
    assert model.step == 6


def test_the_error_can_be_pickled():
    """No arrays, so no backend."""
    error = pickle.loads(pickle.dumps(DivergenceError("message", 3, "0.weight gradient", (1,))))

    assert (str(error), error.step, error.layer, error.networks) == ("message", 3, "0.weight gradient", (1,))


def test_a_divergence_after_another_optimizer_goes_back_to_its_own_steps(xp):
    class Explode(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer = SGD(3e38)
            self.before = [np.array(to_numpy(p)) for p in leaves(self.model.parameters)]

    x, callback = np.random.default_rng(0).normal(size=(40, 3)), Explode()
    model = Model([Dense(2)], "mean_squared_error", Adam(1e6), backend=writable(xp))

    with pytest.raises(DivergenceError, match="at step 10"):
        model.fit(x, 1000 * x[:, :2], batch_size=4, epochs=2, verbose=0, callbacks=[callback])

    assert model.step == 10
    for p, before in zip(leaves(model.parameters), callback.before, strict=True):
        np.testing.assert_array_equal(to_numpy(p), before)
