"""Runs of `fit` as they happen to people: long, interrupted, diverging, with other batch sizes, optimizers and models between.

Each must leave what it leaves on NumPy. Most can go wrong where steps are captured and replayed: run this with
XPNET_TEST_BACKENDS=cupy-graphs and, with the CUDA emulator, FAKECUDA_LAZY=1.
"""

import gc
import signal
from dataclasses import dataclass

import numpy as np
import pytest

from xpnet import SGD, Adam, DivergenceError, Model, loop
from xpnet.backend import to_numpy
from xpnet.callbacks import Callback
from xpnet.layers import BatchNormalization, Dense, Dropout, Tanh
from xpnet.layers.base import Layer
from xpnet.tree import leaves

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40)


def network(*more):
    return [Dense(6, use_bias=False), BatchNormalization(), Tanh(), *more, Dropout(0.2), Dense(3)]


def classifier(backend, optimizer=None, layers=None, seed=0):
    optimizer = optimizer or SGD(0.1, momentum=0.9)
    return Model(layers or network(), "softmax_cross_entropy", optimizer, ["accuracy"], seed=seed, backend=backend)


def left(*models):
    """What training has left in models: numbers, on the host."""
    return [to_numpy(x) for model in models for x in leaves((model.state, model.history.history))] + [
        model.step for model in models
    ]


def assert_as_on_numpy(scenario, xp):
    for value, wanted in zip(scenario(xp), scenario("numpy"), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4)  # float32; sums of other orders


@pytest.fixture(autouse=True)
def chunks_of_four(monkeypatch):
    """How long a chunk is otherwise depends on the clock."""
    monkeypatch.setattr(loop.Loop, "_chunk_length", lambda self, steps: 4)


def test_ten_thousand_steps_under_a_schedule(xp, monkeypatch):
    """Longer than the table of a graph; elsewhere fewer, for they take longer. Least squares: rounding does not grow."""
    monkeypatch.setattr(loop.Loop, "_chunk_length", lambda self, steps: steps)
    steps = 10_000 if getattr(xp, "graphs", False) else 200
    x = np.random.default_rng(1).normal(size=(2 * steps, 3))
    y = x @ [[1.0], [-2.0], [0.5]] + 0.1 * x[:, :1] ** 2

    def scenario(backend):
        rate = SGD(lambda step: 0.05 / (1 + step / 1000), momentum=0.5)
        model = Model([Dense(1)], "mean_squared_error", rate, backend=backend)
        model.fit(x, y, batch_size=2, verbose=0)
        return left(model)

    assert_as_on_numpy(scenario, xp)


def test_batch_sizes_change_and_last_batches_are_short(xp):
    def scenario(backend):
        model = classifier(backend)
        for size in (3, 7, 3, 40, 16, 3):
            model.fit(X, Y, batch_size=size, epochs=2, verbose=0, validation_data=(X, Y))
        return left(model)

    assert_as_on_numpy(scenario, xp)


class ChangesTheOptimizer(Callback):
    """For another rate, another setting, and an optimizer with another state."""

    def on_epoch_end(self, epoch, logs):
        self.model.optimizer = [SGD(0.02, momentum=0.9), SGD(0.05, momentum=0.5), Adam(0.01), SGD(0.1)][epoch % 4]


def test_a_callback_changes_the_optimizer(xp):
    def scenario(backend):
        model = classifier(backend)
        model.fit(X, Y, batch_size=4, epochs=6, verbose=0, callbacks=[ChangesTheOptimizer()])
        return left(model)

    assert_as_on_numpy(scenario, xp)


def test_two_models_take_turns(xp):
    """Alike, so that they share what was captured, and on the same data."""

    def scenario(backend):
        models = [classifier(backend, seed=seed) for seed in (0, 1)]
        for _ in range(3):
            for model in models:
                model.fit(X, Y, batch_size=4, verbose=0)
        return left(*models)

    assert_as_on_numpy(scenario, xp)


def test_models_and_data_are_freed_and_made_again(xp):
    """The next ones come to lie where the last ones lay."""

    def scenario(backend):
        results = []
        for seed in range(6):
            model = classifier(backend, Adam(0.01) if seed % 3 else None, seed=seed)
            model.fit(X * (1 + seed), Y, batch_size=4 + seed // 4, verbose=0)
            results += left(model)
            del model
            gc.collect()
        return results

    assert_as_on_numpy(scenario, xp)


@dataclass(frozen=True, eq=False)
class FailsAtCall(Layer):
    """Of its forward pass."""

    calls: list
    fails: int

    def forward(self, params, x):
        self.calls.append(None)
        if len(self.calls) == self.fails:
            raise OSError("no space left")
        return x, lambda dy, need_dx=True: (dy, {})


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_inside_a_step(call, xp):
    """The third call is that in which a graph is captured. The model is as before the chunk, and can be trained."""
    if xp.compiles:
        pytest.skip("compiled code calls the layer once")

    def scenario(backend):
        layer = FailsAtCall([], 10**9)
        model = classifier(backend, layers=network(layer))
        model.fit(X[:8], Y[:8], batch_size=8, verbose=0)  # checks the layers, which calls them
        object.__setattr__(layer, "fails", len(layer.calls) + call)
        with pytest.raises(OSError, match="no space"):
            model.fit(X, Y, batch_size=4, verbose=0)
        before = left(model)[:-1]
        model.fit(X, Y, batch_size=4, verbose=0)
        return [*before, *left(model)]

    assert_as_on_numpy(scenario, xp)


@pytest.fixture
def listening():
    """Ctrl-C as Python handles it in a terminal: a process in the background may have been started to ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_ctrl_c_inside_a_chunk_waits_for_its_end(xp, listening):
    def interrupts(step):
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return 0.1

    def scenario(backend):
        model = classifier(backend, SGD(interrupts, momentum=0.9))
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y, batch_size=4, verbose=0)
        assert model.step == 8
        interrupted = left(model)
        model.fit(X, Y, batch_size=4, verbose=0)
        return interrupted + left(model)

    assert_as_on_numpy(scenario, xp)


@pytest.mark.parametrize("step", [1, 2, 9])
def test_divergence_at_a_step(step, xp):
    """In a step that runs as it is, in the one that is captured, and in a replay; another model is none the worse."""

    def scenario(backend):
        model = classifier(backend, SGD(lambda i: 1e38 if i == step - 1 else 0.1))
        with pytest.raises(DivergenceError) as caught:
            model.fit(X * 10, Y, batch_size=4, verbose=0)
        other = classifier(backend)
        other.fit(X, Y, batch_size=4, verbose=0)
        assert caught.value.step == step
        return left(model, other)

    assert_as_on_numpy(scenario, xp)
