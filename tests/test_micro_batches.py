"""`fit(micro_batch_size=...)`: the gradients of micro-batches are added up, so a step equals that of the whole batch."""

import tracemalloc

import numpy as np
import pytest

from tests.test_model import writable
from xpnet import SGD, Adam, CheckpointError, DivergenceError, Model, callbacks, layers
from xpnet.backend import make_backend, to_numpy
from xpnet.losses import SoftmaxCrossEntropy
from xpnet.tree import leaves

RNG = np.random.default_rng(0)
X = RNG.normal(size=(46, 6, 6, 2)).astype(np.float32)
Y = np.arange(46) % 3
WEIGHT = np.where(Y == 1, 0.2, RNG.random(46))
LAYERS = [
    layers.RandomFlip(), layers.Conv2D(4, 3, activation="tanh"), layers.GroupNormalization(2), layers.Flatten(),
    layers.Dropout(0.3), layers.Dense(3),
]  # fmt: skip


def trained(xp, chosen=LAYERS, **options):
    model = Model(
        chosen, "softmax_cross_entropy", Adam(0.01, global_clipnorm=1.0), ["accuracy", "f1"], seed=3, backend=xp
    )
    model.fit(**{"x": X, "y": Y, "batch_size": 20, "epochs": 2, "verbose": 0} | options)
    return model


@pytest.mark.parametrize("options", [{}, {"sample_weight": WEIGHT}], ids=["", "weighted"])
def test_a_step_equals_that_of_the_whole_batch(options, xp):
    """46 rows are batches of 20, 20 and 6, and micro-batches of at most 7."""
    xp = writable(xp)
    whole, model = trained(xp, **options), trained(xp, micro_batch_size=7, **options)

    for array, expected in zip(leaves(model.state), leaves(whole.state), strict=True):
        np.testing.assert_allclose(to_numpy(array), to_numpy(expected), rtol=1e-4, atol=1e-5)
    for name, values in whole.history.history.items():
        np.testing.assert_allclose(model.history.history[name], values, rtol=1e-5, err_msg=name)


def test_no_more_rows_than_a_micro_batch_are_computed_at_once(monkeypatch):
    """Needs no arrays, so only on NumPy. The micro-batches of each of two threads count alone."""
    rows = []
    forward = layers.Conv2D.forward
    monkeypatch.setattr(
        layers.Conv2D, "forward", lambda self, params, x: (rows.append(len(x)), forward(self, params, x))[1]
    )
    monkeypatch.setattr("xpnet.backend.workers.pay", lambda activations, parameters: True)
    for threads, size in ((1, 7), (2, 4), (1, 1)):
        trained(make_backend("numpy", threads=threads), micro_batch_size=size)
        assert max(rows) <= size
        rows.clear()
    uneven = [(X[i:j], Y[i:j]) for i, j in ((0, 4), (4, 40), (40, 46))]
    trained(make_backend("numpy", threads=1), x=uneven, y=None, batch_size=None, micro_batch_size=8)

    assert max(rows) == 8


def test_numpy_still_chooses_pieces_that_fit_into_the_cache(monkeypatch):
    """Only NumPy's backend chooses pieces."""
    rows = []
    forward = layers.Conv2D.forward
    monkeypatch.setattr(
        layers.Conv2D, "forward", lambda self, params, x: (rows.append(len(x)), forward(self, params, x))[1]
    )
    monkeypatch.setattr("xpnet.backend.workers.pieces", lambda activations, parameters: 4)
    trained(make_backend("numpy", threads=1), micro_batch_size=20)

    assert max(rows) == 5


def test_memory_is_that_of_a_micro_batch():
    """Only NumPy's memory can be measured."""
    x, network = np.zeros((256, 32, 32, 1), np.float32), [layers.Conv2D(16, 3, activation="relu"), layers.Flatten()]

    def peak(**options):
        model = Model([*network, layers.Dense(1)], "mean_squared_error", backend=make_backend("numpy", threads=1))
        model.build((32, 32, 1))
        tracemalloc.start()
        model.fit(x, np.zeros(256), 256, verbose=0, **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(micro_batch_size=16) < 0.3 * peak(micro_batch_size=256)


def test_jax_compiles_one_micro_batch_and_keeps_only_its_activations(fresh_jax, monkeypatch):
    """Only JAX compiles. Its compiler would compute all micro-batches at the same time if they were not a loop."""
    network = [layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), layers.Dense(1)]
    needed = []
    compile_scan = fresh_jax.JaxBackend.compile_scan

    def measured(self, step):
        scan = compile_scan(self, step)

        def run(*arguments):
            needed.append(scan.lower(*arguments).compile().memory_analysis().temp_size_in_bytes)
            return scan(*arguments)

        return run

    monkeypatch.setattr(fresh_jax.JaxBackend, "compile_scan", measured)
    for size in (256, 16):
        model = Model(network, "mean_squared_error", backend=make_backend("jax"))
        model.fit(np.zeros((256, 32, 32, 1), np.float32), np.zeros(256), 256, verbose=0, micro_batch_size=size)

    assert needed[1] < 0.3 * needed[0]


class OwnLoss(SoftmaxCrossEntropy):
    pass


class OwnLayer(layers.Layer):
    def forward(self, params, x):
        return x, lambda dy, need_dx=True: (dy, {})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"network": [layers.Dense(3), layers.BatchNormalization()]}, "BatchNormalization"),
        ({"network": [layers.Dense(3), layers.BatchNormalization(synchronized=False)]}, "BatchNormalization"),
        ({"network": [OwnLayer(), layers.Dense(3)]}, "OwnLayer"),
        ({"loss": OwnLoss()}, "the loss OwnLoss"),
        ({"seed": (0, 1)}, r"seed=\(0, 1\)"),
    ],
    ids=["batch normalization", "not synchronized", "layer", "loss", "seed"],
)
def test_rows_that_are_not_computed_alone_are_refused(change, found, xp):
    model = Model(**{"network": [layers.Dense(3)], "loss": "softmax_cross_entropy", "backend": xp} | change)
    with pytest.raises(ValueError, match=f"LayerNormalization or.*Received: micro_batch_size=8 with {found}"):
        model.fit(X[:, 0, 0, :], Y, micro_batch_size=8, verbose=0)

    assert model.state is None


def test_a_step_that_diverges_is_named(xp):
    """The step is run again without compilation."""
    model = Model([layers.Dense(8), layers.Dense(3)], "softmax_cross_entropy", SGD(1e30), backend=writable(xp))
    with pytest.raises(DivergenceError, match="step"):
        model.fit(X[:, 0, 0, :] * 1e9, Y, 20, 3, verbose=0, micro_batch_size=7)


def test_frozen_batch_normalization_does_not_mix_rows(xp):
    """It uses its running statistics."""
    network = [layers.Frozen(layers.Sequential([layers.Dense(4), layers.BatchNormalization()])), layers.Dense(3)]
    x, xp = X[:, 0, 0, :], writable(xp)
    whole, model = trained(xp, network, x=x), trained(xp, network, x=x, micro_batch_size=7)

    for array, expected in zip(leaves(model.state), leaves(whole.state), strict=True):
        np.testing.assert_allclose(to_numpy(array), to_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [0, -1, 2.5, "8", True])
def test_the_size_is_checked(size):
    """Needs no arrays."""
    with pytest.raises(ValueError, match=r"micro_batch_size .*Received: micro_batch_size="):
        trained(make_backend("numpy"), micro_batch_size=size)


def test_names_of_other_libraries_get_the_name():
    """Needs no arrays."""
    with pytest.raises(TypeError, match="gradient_accumulation_steps: pass micro_batch_size"):
        trained(make_backend("numpy"), gradient_accumulation_steps=4)
    with pytest.raises(TypeError, match="Pass micro_batch_size to fit"):
        Adam(gradient_accumulation_steps=4)


def test_a_resumed_run_needs_the_same_size(tmp_path):
    """Needs no arrays, so only on NumPy. The bits depend on the size."""
    numpy, path = make_backend("numpy"), tmp_path / "run.safetensors"
    trained(numpy, micro_batch_size=7, callbacks=[callbacks.ModelCheckpoint(str(path), save_freq=4)])
    with pytest.raises(CheckpointError, match="micro_batch_size"):
        trained(numpy, micro_batch_size=8, resume_from=path)
    whole = trained(numpy, micro_batch_size=7)
    for array, expected in zip(
        leaves(trained(numpy, micro_batch_size=7, resume_from=path).state), leaves(whole.state), strict=True
    ):
        np.testing.assert_array_equal(array, expected)
