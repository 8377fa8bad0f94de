"""Transfers between host and CUDA device, counted on the emulated device: uploads, downloads, bytes and waits.

A GPU does not count, so the tests that count are skipped there. Every chunk of steps is an epoch long, because the length of
chunks otherwise depends on the clock.
"""

import importlib

import numpy as np
import pytest

from xpnet import SGD, BackendNotAvailableError, Model, loop
from xpnet.backend import make_backend, to_numpy
from xpnet.callbacks import Callback
from xpnet.layers import Dense, Dropout, ReLU

STEPS, BATCH, FEATURES = 600, 4, 8  # as many steps as an epoch of MNIST in batches of 100
ROWS = STEPS * BATCH
X = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, ROWS)
DATA = X.nbytes + Y.nbytes
# the sum of x (4 bytes), whether a label is ignored (1 byte), the lowest and the highest label (4 bytes each)
CHECKS, CHECKED = 4, 13
RECORD, FLAG = 8, 1  # loss and accuracy of a step; whether the state is finite after a chunk


@pytest.fixture(params=[False, True], ids=["eager", "graphs"])
def backend(request):
    try:
        backend = make_backend("cupy", graphs=request.param)
    except BackendNotAvailableError as error:
        pytest.skip(str(error).partition(".")[0])
    if backend.graphs:  # without the recordings of other tests, because the 17th would wait before it replaces one
        backend.synchronize()
        scan = importlib.import_module("xpnet.backend.cupy").graph_scan(backend.device.id, backend.float_name)
        scan.recordings.clear()
    return backend


@pytest.fixture
def counted(backend):
    """Return a function that calls another one and returns the counts of this call."""
    fakecuda = pytest.importorskip("fakecuda", reason="a GPU does not count transfers")
    device = importlib.import_module("cupy").cuda.Device()

    def count(work):
        device.synchronize()
        before = fakecuda.counts()
        work()
        waits = fakecuda.counts()["waits"]
        device.synchronize()  # work on a lazy stream is counted when it runs
        after = fakecuda.counts() | {"waits": waits}
        return {name: after[name] - before[name] for name in COUNTED}

    return count


COUNTED = ("uploads", "upload_bytes", "downloads", "download_bytes", "waits")


@pytest.fixture
def model(backend, monkeypatch):
    monkeypatch.setattr(loop.Loop, "_chunk_length", lambda self, steps: 1 if self.every_step else steps)
    layers = [Dense(6), ReLU(), Dropout(0.1), Dense(3)]
    model = Model(layers, "softmax_cross_entropy", SGD(0.1), ["accuracy"], backend=backend)
    return model.fit(X[:40], Y[:40], batch_size=BATCH, verbose=0) and model


def tables(backend, chunks, steps):
    """Return the uploads and their bytes: row numbers and a key for each step; with graphs, one table of these and the rates.

    In eager mode, CuPy joins the records of more than eight steps with a kernel that reads their addresses from a table.
    """
    numbers, key, rate, address = 8 * BATCH, 8, 4, 8
    if backend.graphs:
        row = -(-(numbers + key + rate) // 8) * 8
        return chunks, row * steps
    joined = 2 if steps > 8 * chunks else 0
    return (2 + joined) * chunks, (numbers + key + joined * address) * steps


def test_fit(model, backend, counted):
    """Data are uploaded once. A chunk uploads its tables and downloads its records and one truth value. A step does neither."""
    epochs = 2
    uploads, upload_bytes = tables(backend, epochs, epochs * STEPS)

    assert counted(lambda: model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0)) == {
        "uploads": 2 + uploads,
        "upload_bytes": DATA + upload_bytes,
        "downloads": CHECKS + epochs,
        "download_bytes": CHECKED + epochs * (STEPS * RECORD + FLAG),
        "waits": CHECKS + epochs,
    }


def test_data_that_are_read(model, backend, counted, tmp_path):
    """Data are checked on the host, and a chunk uploads its samples, its targets and its table. Each epoch uploads all again."""
    np.save(tmp_path / "x.npy", X)
    x, epochs = np.load(tmp_path / "x.npy", mmap_mode="r"), 2
    rate, key, address, joined = 4, 8, 8, 0 if backend.graphs else 2
    uploads = 3 + joined  # x, y, the keys (in graphs with the rates), and in eager mode where the records are
    row = DATA // STEPS + key + (rate if backend.graphs else joined * address)

    assert counted(lambda: model.fit(x, Y, batch_size=BATCH, epochs=epochs, verbose=0)) == {
        "uploads": epochs * uploads,
        "upload_bytes": epochs * STEPS * row,
        "downloads": epochs,
        "download_bytes": epochs * (STEPS * RECORD + FLAG),
        "waits": epochs,
    }


def test_a_callback_after_each_step(model, backend, counted):
    """With such a callback, each chunk is one step."""
    n = 10
    uploads, upload_bytes = tables(backend, n, n)
    x, y = X[: n * BATCH], Y[: n * BATCH]

    class Listens(Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    assert counted(lambda: model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[Listens()])) == {
        "uploads": 2 + uploads,
        "upload_bytes": x.nbytes + y.nbytes + upload_bytes,
        "downloads": CHECKS + n,
        "download_bytes": CHECKED + n * (RECORD + FLAG),
        "waits": CHECKS + n,
    }


def test_validation(model, backend, counted):
    """The data are uploaded once for all epochs. Each epoch downloads the results of all batches of 512 at once."""
    x, y, validation = X[:80], Y[:80], (X[:600], Y[:600])
    plain = counted(lambda: model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0))
    both = counted(lambda: model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0, validation_data=validation))

    assert {name: both[name] - plain[name] for name in COUNTED} == {
        "uploads": 2,
        "upload_bytes": 600 * (4 * FEATURES + 8),
        "downloads": CHECKS + 3,
        "download_bytes": CHECKED + 3 * 2 * RECORD,
        "waits": CHECKS + 3,
    }


class OfEpochs(Callback):
    """Overrides all methods but those of batches."""


class OfTestBatches(Callback):
    def on_test_batch_end(self, batch, logs=None):
        pass


class OfPredictedBatches(Callback):
    def on_predict_batch_end(self, batch, logs=None):
        pass


for name in dir(Callback):
    if name.startswith("on_") and "batch" not in name:
        setattr(OfEpochs, name, lambda self, *arguments: None)


def test_methods_of_epochs_cost_nothing(model, counted):
    x, y, validation = X[:80], Y[:80], (X[:600], Y[:600])

    def fit(*callbacks):
        model.fit(x, y, batch_size=BATCH, epochs=3, verbose=0, validation_data=validation, callbacks=callbacks)

    assert counted(lambda: fit(OfEpochs())) == counted(fit)


def test_a_method_of_test_batches_costs_a_download_for_each(model, counted):
    found = counted(lambda: model.evaluate(X[:600], Y[:600], callbacks=[OfTestBatches()]))

    assert (found["downloads"], found["download_bytes"]) == (CHECKS + 2, CHECKED + 2 * RECORD)


def test_a_method_of_predicted_batches_costs_nothing(model, counted):
    assert counted(lambda: model.predict(X, callbacks=[OfPredictedBatches()])) == counted(lambda: model.predict(X))


def test_evaluate(model, counted):
    """The results of two batches are joined by one copy each, without a table."""
    assert counted(lambda: model.evaluate(X[:600], Y[:600])) == {
        "uploads": 2,
        "upload_bytes": 600 * (4 * FEATURES + 8),
        "downloads": CHECKS + 1,
        "download_bytes": CHECKED + 2 * RECORD,
        "waits": CHECKS + 1,
    }


@pytest.mark.parametrize("method", ["predict", "predict_logits", "predict_classes"])
def test_predict(method, model, counted):
    """The result stays on the device. Only the sum of x is downloaded, to see whether it is finite."""
    assert counted(lambda: getattr(model, method)(X)) == {
        "uploads": 1, "upload_bytes": X.nbytes, "downloads": 1, "download_bytes": 4, "waits": 1,
    }  # fmt: skip


def test_data_that_are_there_do_not_move(model, backend, counted):
    x, y = backend.asarray(X[:600]), backend.asarray(Y[:600])
    found = counted(lambda: model.evaluate(x, y))

    assert found["uploads"] == found["upload_bytes"] == 0


# ---------------------------------------------------------------------- arrays of another library


class Foreign:
    """An array in CUDA memory from a library that xpnet does not know, with the interfaces that it offers."""

    def __init__(self, x, *names):
        self.owner, self.shape = x, x.shape
        vars(self).update({name: getattr(x, name) for name in names})

    def __getattr__(self, name):
        raise AttributeError(name)


class ByDlpack(Foreign):
    def __init__(self, x):
        super().__init__(x, "__dlpack__", "__dlpack_device__")


class ByInterface(Foreign):
    def __init__(self, x):
        super().__init__(x, "__cuda_array_interface__")


@pytest.mark.parametrize("kind", [ByDlpack, ByInterface])
@pytest.mark.parametrize(
    "values", [X, Y, X[:, 0] > 0, X[:, ::2], X[:0]], ids=["float", "int", "bool", "strided", "empty"]
)
def test_arrays_of_another_library_come_in_where_they_lie(kind, values, backend, counted):
    ours = importlib.import_module("cupy").asarray(values)
    taken = []
    found = counted(lambda: taken.append(backend.asarray(kind(ours))))
    (taken,) = taken

    assert not any(found[name] for name in COUNTED[:-1])  # CuPy may wait for the stream that wrote the array
    assert backend.owns(taken)
    assert (taken.data.ptr, taken.strides, taken.dtype) == (ours.data.ptr, ours.strides, ours.dtype)
    np.testing.assert_array_equal(to_numpy(taken), values)


@pytest.mark.parametrize("kind", [ByDlpack, ByInterface])
def test_a_model_trains_on_arrays_of_another_library(kind, model, backend, counted):
    x, y = (kind(backend.asarray(values)) for values in (X, Y))
    found = counted(lambda: model.fit(x, y, batch_size=BATCH, verbose=0))

    assert found["upload_bytes"] == tables(backend, 1, STEPS)[1]


def test_arrays_go_out_where_they_lie(model):
    cupy = importlib.import_module("cupy")
    answer = model.predict(X)

    assert {x.data.ptr for x in (cupy.from_dlpack(answer), cupy.asarray(ByInterface(answer)))} == {answer.data.ptr}
