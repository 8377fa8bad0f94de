"""The training state as one value."""

from contextlib import ExitStack

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model
from xpnet import SGD, Adagrad, Callback, RMSprop, schedules
from xpnet.backend import to_numpy
from xpnet.loop import Loop
from xpnet.progress import Progress
from xpnet.settings import FitSettings


def test_a_new_model_resumes_at_an_initial_epoch(xp):
    """A new model with the weights of epoch 5 runs epochs 5 to 9 as the first model would: orders, rates, dropout, validation."""
    optimizer = SGD(schedules.CosineDecay(0.3, 60))
    whole, first, second = (make_model(xp, optimizer) for _ in range(3))
    options = {"validation_data": (X, Y), "validation_freq": 2}
    history = fit(whole, epochs=10, **options)
    fit(first, epochs=5, **options)
    second.build((2,)).set_weights(first.get_weights())

    rest = fit(second, epochs=10, initial_epoch=5, **options)

    assert_same_parameters(whole, second, rtol=1e-5, atol=1e-6)
    assert (second.epoch, second.step) == (whole.epoch, whole.step)
    assert rest.epoch == [5, 6, 7, 8, 9]
    assert rest.validation_epoch == [5, 7, 9] == history.validation_epoch[2:]
    assert rest.history["loss"] == pytest.approx(history.history["loss"][5:], rel=1e-5)


def test_another_optimizer_begins_anew(xp):
    """The names in the state show that it belongs to another optimizer."""
    model = make_model(xp, SGD(0.2))
    for optimizer, names in [
        (SGD(0.2, momentum=0.9), {"velocity"}), (SGD(0.2, momentum=0.9, moving_average=True), {"average"}),
        (Adagrad(0.01), {"square_sum"}), (RMSprop(0.01), {"square"}), (SGD(0.1), set()),
    ]:  # fmt: skip
        model.optimizer = optimizer
        fit(model)
        assert set(model.state["optimizer"]) == names

    with pytest.raises(ValueError, match="need a model with one seed"):
        make_model(xp, seed=(0, 1)).optimizer = SGD(0.1, clipnorm=1.0)


def test_kept_parameters_do_not_change_and_an_error_in_a_chunk_leaves_the_model_whole(xp):
    class Broken(type(make_model(xp).loss)):
        def __call__(self, y, z, sample_weight=None):
            raise ZeroDivisionError

    model = make_model(xp)
    fit(model)
    kept = model.parameters[0]["weight"]
    values = np.array(to_numpy(kept))
    fit(model)
    np.testing.assert_array_equal(to_numpy(kept), values)

    good, model.loss = model.loss, Broken()
    before = np.array(to_numpy(model.parameters[0]["weight"]))
    with pytest.raises(ZeroDivisionError):
        fit(model)
    model.loss = good
    np.testing.assert_array_equal(to_numpy(model.parameters[0]["weight"]), before)
    assert model.step == 12
    fit(model)


def test_a_run_continues_within_an_epoch(xp):
    """A run that is interrupted and continued equals an uninterrupted one."""
    whole, halves = make_model(xp), make_model(xp)
    history = fit(whole).history

    class Interrupt(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(halves, callbacks=[Interrupt()])
    state = halves.training_state
    assert (state.step, state.position) == (2, 2)
    with xp.scope():
        plan = halves._plan(ExitStack(), X, Y, None, None, None, FitSettings(20))
        resumed = Loop(state, plan, (), Progress(0)).run().history

    assert (state.step, state.epoch, state.position) == (6, 1, 0)
    assert_same_parameters(whole, halves, rtol=1e-5, atol=1e-7)
    assert resumed["loss"] == pytest.approx(history["loss"])
    assert resumed["accuracy"] == history["accuracy"]
