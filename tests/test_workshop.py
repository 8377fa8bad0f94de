"""One model in several threads, and its compiled functions."""

import copy
import gc
import pickle
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, fit, make_model, writable
from xpnet import Callback, Model
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import Dense, Layer
from xpnet.workshop import KEPT, keep_recent


class Elsewhere(Callback):
    """Calls a function in another thread in the middle of training, and stores its result or error."""

    def __init__(self, function):
        self.function, self.result = function, None

    def on_train_batch_end(self, batch, logs=None):
        def run():
            try:
                self.result = self.function(self.model)
            except Exception as error:
                self.result = error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()


@pytest.mark.parametrize(
    "change",
    [
        fit,
        lambda model: model.train_on_batch(X, Y),
        lambda model: model.build((2,)),
        lambda model: model.to("numpy"),
        lambda model: model.set_weights(model.get_weights()),
    ],
    ids=["fit", "train_on_batch", "build", "to", "set_weights"],
)
def test_a_second_thread_is_refused_while_a_model_trains(change, xp):
    model, reference, other = make_model(xp), make_model(xp), Elsewhere(change)
    fit(model, callbacks=[other])
    fit(reference)

    assert isinstance(other.result, RuntimeError)
    assert "a separate model, such as copy.deepcopy(model)" in str(other.result)
    assert_same_parameters(model, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_copy_trains_in_another_thread(copied):
    """Needs no arrays, so only on NumPy."""
    model, other = make_model(make_backend("numpy")), Elsewhere(lambda model: fit(copied(model)))
    fit(model, callbacks=[other])

    assert list(other.result.history) == ["loss", "accuracy"]


def test_predictions_beside_training_are_those_of_the_model(xp):
    model, other = make_model(xp), Elsewhere(lambda model: to_numpy(model.predict(X)))
    fit(model, callbacks=[other])

    np.testing.assert_allclose(other.result, to_numpy(model.predict(X)), rtol=1e-5, atol=1e-6)


def test_after_an_error_the_next_thread_may_train():
    """Needs no arrays, so only on NumPy."""
    model = make_model(make_backend("numpy"))
    with pytest.raises(ValueError, match="y must have one entry"):
        model.fit(X, Y[:5], verbose=0)
    thread = threading.Thread(target=fit, args=(model,))
    thread.start()
    thread.join()

    assert model.epoch == 1


@pytest.fixture
def jax_backend():
    pytest.importorskip("jax")
    return make_backend("jax")


def test_compiled_steps_are_released_with_their_model(fresh_jax):
    """Only JAX compiles."""
    model = make_model(make_backend("jax"))
    fit(model, validation_data=(X, Y))
    model.predict(X)
    functions = [weakref.ref(f) for f in model.workshop.functions.values()]
    compiled = [weakref.ref(f) for function in functions for f in fresh_jax.compiled_functions[function()].values()]
    assert len(compiled) == len(functions) == 4
    del model
    gc.collect()

    assert not any(ref() for ref in functions + compiled)


def test_models_that_train_alike_share_what_is_compiled(jax_backend):
    """The compiled function is kept as long as one of the models exists."""
    first, second = make_model(jax_backend), make_model(jax_backend)
    fit(first, 2)
    step = weakref.ref(first.training_step)
    fit(second)
    assert second.training_step is step()
    del first
    gc.collect()

    assert second.training_step is step()


def test_a_shallow_copy_trains_beside_its_original(xp):
    class Aside(Callback):
        def on_epoch_end(self, epoch, logs=None):
            fit(copy.copy(self.model))

    model, alone = make_model(xp), make_model(xp)
    fit(model, callbacks=[Aside()]), fit(alone)

    assert_same_parameters(model, alone)


def test_settings_that_cannot_be_hashed_are_refused(xp):
    @dataclass
    class Mutable(Layer):
        a: float = 1.0

    with pytest.raises(TypeError, match=r"Make them frozen dataclasses.*unhashable type: 'Mutable'"):
        Model([Mutable(), Dense(3)], "softmax_cross_entropy", backend=writable(xp)).fit(X, Y, verbose=0)


def test_recent_functions_outlive_their_models():
    """Needs no arrays."""
    layers = [Dense(units) for units in range(1, KEPT + 2)]
    references = [weakref.ref(layer) for layer in layers]
    keep_recent(layers[:-1])
    keep_recent(layers[:1])  # used again
    keep_recent(layers[-1:])
    del layers
    gc.collect()

    assert [i for i, reference in enumerate(references) if reference() is None] == [1]
