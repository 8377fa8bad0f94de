"""`fit`, `evaluate` and `predict` with batches in parts. Only NumPy's backend divides batches, so no `xp` fixture."""

import contextlib
import copy
import pickle
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from xpnet import SGD, CheckpointError, DivergenceError, Model, callbacks, layers, tensorfile
from xpnet.backend import blas, make_backend, namespace, workers
from xpnet.losses import Loss, SoftmaxCrossEntropy
from xpnet.metrics import Metric
from xpnet.tree import named_leaves

X = np.random.default_rng(0).normal(size=(50, 8, 8, 2)).astype(np.float32)
Y = np.arange(50) % 3


@pytest.fixture(autouse=True)
def small_batches_count(monkeypatch):
    monkeypatch.setattr(workers, "LARGE", 0)
    monkeypatch.setattr(workers, "MANY", 1)


def make(threads=2, *, inside=(), loss="softmax_cross_entropy", **settings):
    network = [
        layers.Conv2D(3, 3, activation="relu"),
        layers.BatchNormalization(),
        *inside,
        layers.MaxPooling2D(),
        layers.Dropout(0.3),
        layers.Flatten(),
        layers.Dense(3),
    ]
    backend = make_backend("numpy", threads=threads)
    return Model(
        network, loss, SGD(0.1, momentum=0.9), ["accuracy", "auc"], **{"seed": 0, "backend": backend} | settings
    )


def fit(model, epochs=2, x=X, **options):
    return model.fit(x, Y, batch_size=16, epochs=epochs, verbose=0, **options)


def values(model):
    return {name: np.array(leaf) for name, leaf in named_leaves(model.state)}


def assert_same(one, other, **tolerance):
    for name, value in values(one).items():
        np.testing.assert_allclose(value, values(other)[name], err_msg=name, **tolerance)


def threads_of(model, call):
    """Return the names of the threads that computed convolutions."""
    seen = set()
    original = layers.Conv2D.forward

    def forward(self, params, x):
        seen.add(
            (threading.current_thread().name, max(library.get_num_threads() for library in blas.process.libraries))
        )
        return original(self, params, x)

    layers.Conv2D.forward = forward
    try:
        call(model)
    finally:
        layers.Conv2D.forward = original
    return seen


needs_blas = pytest.mark.skipif(not blas.process.libraries, reason="threadpoolctl does not know this NumPy's BLAS")


@needs_blas
@pytest.mark.parametrize(
    "call",
    [
        fit,
        lambda model: model.predict(X),
        lambda model: model.evaluate(X, Y),
        lambda model: model.train_on_batch(X, Y),
    ],
    ids=["fit", "predict", "evaluate", "train_on_batch"],
)
def test_two_threads_compute_with_one_blas_thread_each(call):
    model = make().build(X.shape[1:])

    assert threads_of(model, call) == {(threading.current_thread().name, 1), ("xpnet worker 1", 1)}


def test_a_thread_computes_its_rows_in_pieces(monkeypatch):
    """Their size depends on the activations. Batch normalization needs all rows at once, so its networks have no pieces."""
    rows, forward = [], layers.Dense.forward

    def watched(self, params, x):
        rows.append(x.shape[0])
        return forward(self, params, x)

    monkeypatch.setattr(layers.Dense, "forward", watched)
    network = [layers.Flatten(), layers.Dropout(0.3), layers.Dense(8, activation="relu"), layers.Dense(3)]

    def trained(activations_of_piece, threads, network=network, **options):
        monkeypatch.setattr(workers, "PIECE", activations_of_piece)
        model = Model(network, "softmax_cross_entropy", "adam", seed=0, backend=make_backend("numpy", threads=threads))
        rows.clear()
        fit(model, epochs=1, **options)
        return model, set(rows)

    one = 128 + 128 + 8 + 8 + 3  # the activations of a row
    whole, counts = trained(10**9, 1)
    assert counts == {16, 2}
    for threads, largest in ((1, 8), (1, 4), (2, 4)):
        model, counts = trained(one * largest, threads)
        assert max(counts) == largest, (threads, counts)
        assert_same(model, whole, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.predict(X), whole.predict(X), rtol=1e-4, atol=1e-6)
    assert trained(one, 1, [layers.Flatten(), layers.BatchNormalization(), layers.Dense(3)])[1] == {16, 2}


class AsATeacher(Metric):
    """Compares outputs with those of another model, which predicts within the step."""

    def __init__(self, teacher):
        self.teacher, self.name = teacher, "as_a_teacher"

    def check(self, y_shape, units):
        pass

    def terms(self, y, z):
        return (np.abs(self.teacher.predict_logits(X[: z.shape[0]]) - z).sum(axis=1),)


def test_a_metric_may_predict_with_another_model():
    """It computes in a worker, which cannot wait for the workers."""
    teacher = make().build(X.shape[1:])
    model = make()
    model.metrics = [AsATeacher(teacher)]
    thread = threading.Thread(target=fit, args=(model,), daemon=True)
    thread.start()
    thread.join(60)

    assert not thread.is_alive()
    assert len(model.history.history["as_a_teacher"]) == 2


def test_batches_of_a_source_are_divided_by_their_own_size(monkeypatch):
    """Not by the default batch size, which such data do not use."""
    monkeypatch.setattr(workers, "LARGE", 6_000)  # activations: 50 rows have 6,950, and 32 rows 4,448
    network = [layers.Flatten(), layers.Dense(8), layers.Dense(3)]
    divided = []
    for x, y in ((X, Y), ([(X, Y)], None)):
        model = Model(network, "softmax_cross_entropy", backend=make_backend("numpy", threads=2))
        model.fit(x, y, epochs=1, verbose=0)
        divided.append(model.training_state.parts)

    assert divided == [1, 2]


def test_results_are_those_of_one_thread_up_to_rounding():
    one, two = make(1), make(2)
    histories = [fit(model, validation_data=(X, Y)).history for model in (one, two)]

    assert (one.training_state.parts, two.training_state.parts) == (1, 2)
    assert_same(one, two, rtol=1e-3, atol=1e-5)
    for name, series in histories[0].items():
        np.testing.assert_allclose(histories[1][name], series, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(one.predict(X), two.predict(X), rtol=1e-3, atol=1e-5)


def test_the_same_number_of_parts_gives_the_same_bits():
    one, two = make(3), make(3)
    fit(one)
    fit(two)

    assert_same(one, two, rtol=0)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))


def test_pickles_and_copies_train_in_parts():
    model = make()
    fit(model)
    others = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for other in (model, *others):
        fit(other)

    for other in others:
        assert other.training_state.parts == 2
        assert_same(model, other, rtol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_resumed_run_uses_the_parts_of_its_checkpoint(threads, tmp_path):
    path = tmp_path / "middle.safetensors"
    whole = make(2)
    fit(whole, 3, callbacks=[callbacks.ModelCheckpoint(path, save_freq=6)])
    resumed = make(threads)
    with pytest.warns(UserWarning, match="last bits"):
        fit(resumed, 3, resume_from=path)

    assert resumed.training_state.parts == 2
    assert_same(whole, resumed, rtol=0)


def test_a_checkpoint_of_parts_may_be_resumed_elsewhere(tmp_path):
    """array-api-strict does not divide batches."""
    path = tmp_path / "middle.safetensors"
    whole = make(2)
    fit(whole, 3, callbacks=[callbacks.ModelCheckpoint(path, save_freq=6)])
    resumed = make(backend=make_backend("array_api_strict"))
    with pytest.warns(UserWarning, match="last bits"):
        fit(resumed, 3, resume_from=path)

    assert resumed.training_state.parts == 1


@pytest.mark.parametrize("parts", [0, -1, 2.5, 10**9, None])
def test_a_file_cannot_ask_for_any_number_of_threads(parts, tmp_path):
    path = tmp_path / "run.safetensors"
    fit(make(), 1, callbacks=[callbacks.ModelCheckpoint(path)])
    file = tensorfile.read(path)
    file.description["run"]["parts"] = parts
    tensorfile.write(
        path, dict(zip(file.table, tensorfile.arrays(file, list(file.table)), strict=True)), file.description
    )

    with pytest.raises(CheckpointError, match="parts"):
        fit(make(), 2, resume_from=path)


@dataclass(frozen=True)
class Mixing(layers.Layer):
    """y = x - mean x, over the batch."""

    def forward(self, params, x):
        return x - namespace(x).mean(x, axis=0), lambda dy, need_dx=True: (dy - namespace(dy).mean(dy, axis=0), {})


@dataclass(frozen=True)
class OwnLoss(Loss):
    def elements(self, y, z):
        return (z - y) ** 2, 2 * (z - y)


def test_layers_and_losses_of_others_are_not_divided():
    """They may mix the rows of a batch."""
    model, other = make(inside=[Mixing()]), Model([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)], OwnLoss())
    other.to(make_backend("numpy", threads=2))
    fit(model)
    fit(other)

    assert model.training_state.parts == other.training_state.parts == 1
    assert make().loss == SoftmaxCrossEntropy()


def test_networks_of_several_seeds_are_not_divided():
    model = Model([layers.Dense(3)], "softmax_cross_entropy", seed=(0, 1), backend=make_backend("numpy", threads=2))
    x = X.reshape(50, -1)[:, :3]
    fit(model, x=x)

    assert model.training_state.parts == 1
    assert model.predict(x).shape == (2, 50, 3)


def test_divergence_is_reported():
    model = make(inside=[layers.Rescaling(1e38), layers.Rescaling(1e38)])

    with pytest.raises(DivergenceError, match="Rescaling"):
        fit(model)


def test_an_error_in_a_part_is_raised():
    model = make().build(X.shape[1:])
    original = layers.Dropout.forward

    def forward(self, params, x, *, key):
        if threading.current_thread().name.startswith("xpnet worker"):
            raise ZeroDivisionError
        return original(self, params, x, key=key)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ZeroDivisionError):
        patch.setattr(layers.Dropout, "forward", forward)
        fit(model)
        pytest.fail("no error")
    fit(model)

    assert model.step == 8
