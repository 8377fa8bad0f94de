"""The training state as one value."""

import copy
import pickle
import sys
from contextlib import ExitStack

import numpy as np
import pytest

from tests.scripts import run
from tests.test_model import X, Y, assert_same_parameters, fit, make_model
from xpnet import SGD, Adagrad, Adam, Callback, EarlyStopping, Ensemble, RMSprop, schedules
from xpnet.backend import to_numpy
from xpnet.layers import Dense
from xpnet.loop import Loop
from xpnet.progress import Progress
from xpnet.settings import FitSettings
from xpnet.tree import leaves


def pickled(x):
    return pickle.loads(pickle.dumps(x))


def jax_has_float64():
    return "jax" in sys.modules and sys.modules["jax"].config.read("jax_enable_x64")


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


@pytest.mark.parametrize("copied", [pickled, copy.copy, copy.deepcopy])
def test_a_copy_of_a_float64_model_continues_to_the_same_bits(xp, copied):
    model = make_model(xp.computing_in("float64"), Adam(0.01))
    fit(model)
    other = copied(model)

    assert not jax_has_float64()
    assert other.backend == model.backend
    assert {str(x.dtype) for x in leaves(other.state)} == {str(x.dtype) for x in leaves(model.state)}
    assert fit(model, 2) == fit(other, 2)
    assert not jax_has_float64()
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, theirs)


def test_a_pickle_of_everything_with_arrays_holds_them_on_the_host(xp):
    """A state, an ensemble, and a callback with the best state of a model."""
    stop = EarlyStopping("loss", restore_best_weights=True)
    model = make_model(xp.computing_in("float64"))
    fit(model, callbacks=[stop])
    ensemble = Ensemble(make_model(model.backend, layers=[Dense(3)], seed=(0, 1)).build((2,)))
    expected = [np.array(x) for x in model.backend.to_host(leaves(model.state))]

    for copied in (pickled, copy.deepcopy):
        for state in (copied(model.training_state).arrays, copied(stop).best_state):
            for x, value in zip(leaves(state), expected, strict=True):
                assert isinstance(x, np.ndarray)
                assert x.dtype == value.dtype
                np.testing.assert_array_equal(x, value)
        one = copied(ensemble)
        assert str(one.spread(X).dtype).endswith("float64")
        np.testing.assert_array_equal(to_numpy(one.predict(X)), to_numpy(ensemble.predict(X)))
        np.testing.assert_array_equal(one[1].get_weights()[0], ensemble.model.get_weights()[0][1])
    assert copy.copy(model.training_state).arrays is model.training_state.arrays
    assert pickled(make_model(xp).training_state).arrays is None
    assert not jax_has_float64()


WRITE = """
import sys, pickle, numpy as np, xpnet
from tests.test_model import Adam, fit, make_model

model = make_model(xpnet.set_backend("jax", dtype="float64"), Adam(0.01))
fit(model)
with open(sys.argv[1], "wb") as file:
    pickle.dump(model, file)
fit(model)
np.savez(sys.argv[2], *model.get_weights())
"""
READ = """
import sys, pickle, jax, numpy as np
from tests.test_model import fit

with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
assert not jax.config.read("jax_enable_x64")
fit(model)
assert not jax.config.read("jax_enable_x64")
assert jax.numpy.ones(1).dtype == "float32"
for ours, theirs in zip(model.get_weights(), np.load(sys.argv[2]).values(), strict=True):
    assert ours.dtype == "float64"
    np.testing.assert_array_equal(ours, theirs)
"""


def test_another_process_continues_a_float64_model_of_jax_without_x64(tmp_path):
    """In separate processes, because the switch is global in JAX."""
    pytest.importorskip("jax")
    for program in (WRITE, READ):
        run("-c", program, tmp_path / "model.pickle", tmp_path / "weights.npz")
