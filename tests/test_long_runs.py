"""Realistic runs of `fit`: long, interrupted or diverging, with changes of batch size, optimizer and model in between.

Each must have the same result as on NumPy. Most of these runs are risky only where steps are captured and replayed, so run them
with XPNET_TEST_BACKENDS=cupy-graphs and, in the CUDA emulator, with FAKECUDA_LAZY=1.
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
    """Return the numbers in trained models, on the host."""
    return [to_numpy(x) for model in models for x in leaves((model.state, model.history.history))] + [
        model.step for model in models
    ]


def assert_as_on_numpy(scenario, xp):
    for value, wanted in zip(scenario(xp), scenario("numpy"), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4)  # float32; sums round in another order


@pytest.fixture(autouse=True)
def chunks_of_four(monkeypatch):
    """Fix the length of chunks, which otherwise depends on the clock."""
    monkeypatch.setattr(loop.Loop, "_chunk_length", lambda self, steps: 4)


def test_ten_thousand_steps_under_a_schedule(xp, monkeypatch):
    """More steps than a graph's table holds; fewer on slower backends. In least squares, rounding errors do not grow."""
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
    """Changes the learning rate, then another setting, then to an optimizer with another state."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer = [SGD(0.02, momentum=0.9), SGD(0.05, momentum=0.5), Adam(0.01), SGD(0.1)][epoch % 4]


def test_a_callback_changes_the_optimizer(xp):
    def scenario(backend):
        model = classifier(backend)
        model.fit(X, Y, batch_size=4, epochs=6, verbose=0, callbacks=[ChangesTheOptimizer()])
        return left(model)

    assert_as_on_numpy(scenario, xp)


def test_two_models_take_turns(xp):
    """The models are equal and use the same data, so they share captured steps."""

    def scenario(backend):
        models = [classifier(backend, seed=seed) for seed in (0, 1)]
        for _ in range(3):
            for model in models:
                model.fit(X, Y, batch_size=4, verbose=0)
        return left(*models)

    assert_as_on_numpy(scenario, xp)


def test_models_and_data_are_freed_and_made_again(xp):
    """New models and data reuse the addresses of released ones."""

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
    """Raises an error in a call of its forward pass."""

    calls: list
    fails: int

    def forward(self, params, x):
        self.calls.append(None)
        if len(self.calls) == self.fails:
            raise OSError("no space left")
        return x, lambda dy, need_dx=True: (dy, {})


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_inside_a_step(call, xp):
    """A graph is captured in the third call. After the error, the model is as before the chunk, and it can be trained."""
    if xp.compiles:
        pytest.skip("compiled code calls the layer only once")

    def scenario(backend):
        layer = FailsAtCall([], 10**9)
        model = classifier(backend, layers=network(layer))
        model.fit(X[:8], Y[:8], batch_size=8, verbose=0)  # checks the layers, which counts as a call
        object.__setattr__(layer, "fails", len(layer.calls) + call)
        with pytest.raises(OSError, match="no space"):
            model.fit(X, Y, batch_size=4, verbose=0)
        before = left(model)[:-1]
        model.fit(X, Y, batch_size=4, verbose=0)
        return [*before, *left(model)]

    assert_as_on_numpy(scenario, xp)


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
    """Divergence occurs in an eager step, in the captured step, or in a replay. Another model is not affected."""

    def scenario(backend):
        model = classifier(backend, SGD(lambda i: 1e38 if i == step - 1 else 0.1))
        with pytest.raises(DivergenceError) as caught:
            model.fit(X * 10, Y, batch_size=4, verbose=0)
        other = classifier(backend)
        other.fit(X, Y, batch_size=4, verbose=0)
        assert caught.value.step == step
        return left(model, other)

    assert_as_on_numpy(scenario, xp)
