"""The number of threads of NumPy's matrix products. Only NumPy's backend has the rule, so no `xp` fixture."""

import os
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from xpnet import Callback, Model
from xpnet.backend import blas, make_backend
from xpnet.layers import (
    Dense,
    Layer,
    ReLU,
)

pytestmark = pytest.mark.skipif(not blas.process.libraries, reason="threadpoolctl does not know this NumPy's BLAS")


def threads():
    return {library.get_num_threads() for library in blas.process.libraries}  # SciPy may load a second one


@pytest.fixture(autouse=True)
def two_outside():
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield


class Spy(Layer):
    """Returns x unchanged, and records the number of threads."""

    def forward(self, params, x):
        noted.append(threads())
        return x * 1.0, lambda dy, need_dx=True: (dy, {})


noted = []


def used(backend, rows, units=10):
    """Return the numbers of threads inside fit, evaluate and predict, for products with 100 · units multiplications per row."""
    noted.clear()
    x, y = np.ones((rows, 100), np.float32), np.zeros(rows, int)
    model = Model([Dense(units), Spy()], "softmax_cross_entropy", backend=backend)
    model.fit(x, y, batch_size=rows, verbose=0)
    model.evaluate(x, y, batch_size=rows)
    model.predict_logits(x, batch_size=rows)
    return set().union(*noted)


def test_small_steps_use_one_thread():
    assert used(make_backend("numpy"), rows=10) == {1}


def test_large_steps_use_what_is_in_force():
    assert used(make_backend("numpy"), rows=1000, units=200) == {2}


def test_a_setting_holds_for_all_sizes():
    assert used(make_backend("numpy", threads=2), rows=10) == {2}
    assert used(make_backend("numpy", threads=1), rows=1000, units=200) == {1}


def test_the_number_is_restored():
    used(make_backend("numpy"), rows=10)

    assert threads() == {2}


def test_the_number_is_restored_after_an_error():
    class Broken(Layer):
        def forward(self, params, x):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        Model([Dense(2), Broken()], "mean_squared_error").build((3,)).predict_logits(np.ones((2, 3)))

    assert threads() == {2}


def test_callbacks_have_the_number_from_outside():
    class Look(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.seen = threads()

    look, x = Look(), np.ones((4, 3))
    Model([Dense(1)], "mean_squared_error").fit(x, np.ones(4), verbose=0, callbacks=[look])

    assert look.seen == {2}


def test_the_last_run_to_end_restores_the_number():
    first, second = blas.limited(1, None), blas.limited(1, 1)
    with first:
        second.__enter__()
    assert threads() == {1}
    second.__exit__()

    assert threads() == {2}


def test_every_thread_sets_the_number():
    """threadpoolctl 3.8 lets only one thread set the number, and ignores the others."""
    inside = []

    def run():
        with blas.limited(0, 1):
            inside.append(threads())

    with blas.limited(0, 1):
        other = threading.Thread(target=run)
        other.start()
        other.join()
    run()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()

    assert inside == [{1}] * 3
    assert threads() == {2}


def test_other_threads_can_limit_the_number_before_and_after_a_run():
    """threadpoolctl 3.8 obeys the thread that has set a number last, until it is released."""

    def limited():
        with ThreadpoolController().limit(limits=1, user_api="blas"):
            return threads()

    def run():
        with blas.limited(0, 1):
            return threads()

    with ThreadPoolExecutor(1) as pool:
        run()
        assert pool.submit(limited).result() == {1}
        with ThreadpoolController().limit(limits=1, user_api="blas"):
            pool.submit(run).result()
        assert threads() == {2}
        pool.submit(limited).result()
        assert run() == {1}
    assert threads() == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")  # of Python 3.12 and JAX, because the process has threads
def test_a_fork_during_runs_of_other_threads_leaves_a_child_that_works():
    """Another thread may hold the lock at the time of the fork, and its run never ends in the child."""
    begun, end = threading.Event(), threading.Event()

    def other():
        with blas.limited(0, 1), blas.process._lock:
            begun.set()
            end.wait(20)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(20)
    if not (child := os.fork()):
        signal.alarm(10)
        with blas.limited(0, 1):
            inside = threads()
        os._exit((inside, threads()) != ({1}, {2}))
    _, status = os.waitpid(child, 0)
    end.set()
    thread.join()

    assert status == 0
    assert threads() == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")  # of Python 3.12 and JAX, because the process has threads
def test_a_fork_within_a_run_keeps_its_number():
    with blas.limited(0, 1):
        if not (child := os.fork()):
            os._exit(threads() != {1})
        _, status = os.waitpid(child, 0)

    assert status == 0


def test_runs_repeat_bit_for_bit_whatever_is_in_force():
    def weights():
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(300, 100)), rng.integers(0, 3, 300)
        model = Model([Dense(50), ReLU(), Dense(3)], "softmax_cross_entropy")
        model.fit(x, y, epochs=2, verbose=0)
        return model.parameters[0]["weight"]

    with ThreadpoolController().limit(limits=1, user_api="blas"):
        one = weights()

    np.testing.assert_array_equal(weights(), one)


def test_threads_is_a_positive_integer():
    with pytest.raises(ValueError, match="threads must be an integer of at least 1"):
        make_backend("numpy", threads=0)


def test_other_backends_have_no_such_option():
    with pytest.raises(ValueError, match="no option threads"):
        make_backend("array_api_strict", threads=1)


def test_the_setting_is_pickled_and_shown():
    backend = pickle.loads(pickle.dumps(make_backend("numpy", threads=3)))

    assert backend == make_backend("numpy", threads=3)
    assert "threads=3" in repr(backend)
