"""Data of other packages: files of HDF5 and zarr, tables, and the data sets and loaders of PyTorch and Keras.

They give host arrays, so most tests need no backend.
"""

import importlib

import numpy as np
import pytest

from tests.scripts import run
from tests.test_model import X, Y, assert_same_parameters, make_model
from tests.test_sources_lookahead import threads
from tests.test_sources_stream import SIZE, batches, fit
from xpnet.backend import make_backend, to_numpy

X = X.astype(np.float32)


def needed(package):
    return pytest.importorskip(package, reason=f'{package} comes with the extra "dev"')


@pytest.fixture
def stored(request, tmp_path):
    """The samples and targets as datasets of the requested format."""
    form = request.param
    if form.startswith("hdf5"):
        h5py = needed("h5py")
        chosen = {"hdf5": {}, "hdf5-chunks": {"chunks": (7, 2), "compression": "gzip"}}[form]
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file.create_dataset("x", data=X, **chosen)
            file["y"] = Y
        with h5py.File(tmp_path / "data.h5") as file:
            yield file["x"], file["y"]
    else:
        zarr = needed("zarr")
        for name, values, chunks in (("x", X, (7, 2)), ("y", Y, (7,))):
            shards = tuple(2 * n if i == 0 else n for i, n in enumerate(chunks)) if form == "zarr-shards" else None
            array = zarr.create_array(
                tmp_path / name, shape=values.shape, dtype=values.dtype, chunks=chunks, shards=shards
            )
            array[:] = values
        yield zarr.open_array(tmp_path / "x", mode="r"), zarr.open_array(tmp_path / "y", mode="r")


FORMATS = ["hdf5", "hdf5-chunks", "zarr", "zarr-shards"]


@pytest.mark.parametrize("stored", FORMATS, indirect=True)
def test_files_train_and_predict_as_arrays_in_the_same_order(xp, stored):
    x, y = stored
    array, streamed = make_model(xp), make_model(xp)
    fit(array, X, Y, batch_size=SIZE, shuffle=False)
    fit(streamed, x, y, batch_size=SIZE, shuffle=False, validation_data=(x, y))

    exact = {"rtol": 0, "atol": 0} if xp.name == "numpy" else {"rtol": 1e-5, "atol": 1e-6}
    assert_same_parameters(array, streamed, **exact)
    assert streamed.evaluate(x, y) == pytest.approx(array.evaluate(X, Y), rel=1e-5)
    np.testing.assert_allclose(to_numpy(streamed.predict(x)), to_numpy(array.predict(X)), rtol=1e-5, atol=1e-6)
    assert not threads()


@pytest.mark.parametrize("stored", FORMATS, indirect=True)
def test_files_are_shuffled_and_learned(stored):
    from xpnet import Adam
    from xpnet.layers import Dense, ReLU

    model = make_model(make_backend("numpy"), Adam(0.02), [Dense(32), ReLU(), Dense(3)])
    fit(model, *stored, epochs=40, batch_size=SIZE)

    assert model.evaluate(X, Y).accuracy > 0.9


def test_tables_are_arrays(xp):
    """pandas, polars and pyarrow convert their tables and columns by themselves."""
    wanted = make_model(xp)
    fit(wanted, X, Y, batch_size=SIZE)
    columns = {"a": X[:, 0], "b": X[:, 1]}
    pandas, polars, pyarrow = needed("pandas"), needed("polars"), needed("pyarrow")
    for x, y in (
        (pandas.DataFrame(columns), pandas.Series(Y)),
        (polars.DataFrame(columns), polars.Series(Y)),
        (pyarrow.table(columns), pyarrow.chunked_array([Y[:50], Y[50:]])),
        (pyarrow.RecordBatch.from_pydict(columns), pyarrow.array(Y)),
    ):
        model = make_model(xp)
        fit(model, x, y, batch_size=SIZE)
        assert_same_parameters(wanted, model, rtol=0, atol=0)


def test_missing_values_of_tables_are_reported(xp):
    polars, pyarrow = needed("polars"), needed("pyarrow")
    missing = [None, *X[1:, 0].tolist()]
    for table in (
        polars.DataFrame({"a": missing, "b": range(len(X))}),
        pyarrow.table({"a": missing, "b": range(len(X))}),
    ):
        with pytest.raises(ValueError, match="x must be finite"):
            fit(make_model(xp), table, Y)


# ---------------------------------------------------------------------- PyTorch


def tensors():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


@pytest.mark.parametrize("steps", [None, 4])
def test_a_loader_of_pytorch(xp, steps):
    data = tensors()
    loader = importlib.import_module("torch.utils.data").DataLoader(data, SIZE)
    array, loaded = make_model(xp), make_model(xp)
    fit(array, X, Y, batch_size=SIZE, shuffle=False, steps_per_epoch=steps)
    fit(loaded, loader, steps_per_epoch=steps, validation_data=loader)

    assert_same_parameters(array, loaded, rtol=1e-5, atol=1e-6)
    assert loaded.evaluate(loader) == pytest.approx(array.evaluate(X, Y), rel=1e-4)
    assert not threads()


def test_a_dataset_of_pytorch_is_shuffled_as_an_array(xp):
    array, sampled = make_model(xp), make_model(xp)
    data = tensors()
    fit(array, X, Y, batch_size=SIZE, sample_with_replacement=True)
    fit(sampled, data, batch_size=SIZE, sample_with_replacement=True, validation_data=data)

    assert_same_parameters(array, sampled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(sampled.predict(data)), to_numpy(array.predict(X)), rtol=1e-4, atol=1e-5)


WORKERS = """
import multiprocessing, sys, threading
import numpy as np
from torch.utils.data import DataLoader
from xpnet import Model, SourceError
from xpnet.layers import Dense


class Samples:
    def __init__(self, broken):
        self.broken = broken

    def __len__(self):
        return 60

    def __getitem__(self, i):
        if i == self.broken:
            raise OSError("the disk is gone")
        return np.full(2, i, np.float32), i % 3


def left():
    return multiprocessing.active_children(), [t.name for t in threading.enumerate() if t.name.startswith('xpnet')]


model = Model([Dense(3)], "softmax_cross_entropy", backend="numpy")
for steps in (None, 4):
    good = DataLoader(Samples(None), 10, num_workers=2)
    model.fit(good, epochs=3, steps_per_epoch=steps, validation_data=good, verbose=0)
    print(model.step, *left())
try:
    model.fit(DataLoader(Samples(35), 10, num_workers=2), verbose=0)
except SourceError as error:
    print(error.batch, repr(error.__cause__)[:7], model.step, *left())  # while the traceback is alive
"""


@pytest.mark.slow
def test_the_workers_of_a_loader_end_with_the_run(tmp_path):
    """In a program without JAX, which must not be forked."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "program.py").write_text(WORKERS, encoding="utf-8")

    lines = run("-W", "ignore::DeprecationWarning", "program.py", cwd=tmp_path).stdout.splitlines()

    assert lines == ["18 [] []", "30 [] []", "3 OSError 33 [] []"]


def test_an_iterable_dataset_needs_a_loader():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(zip(X, Y, strict=True))

    model = make_model(make_backend("numpy"))
    with pytest.raises(ValueError, match="An IterableDataset needs a DataLoader"):
        fit(model, Stream())
    fit(model, torch.utils.data.DataLoader(Stream(), SIZE))
    assert model.step == 12


# ---------------------------------------------------------------------- Keras


def test_a_dataset_of_keras():
    keras = needed("keras")

    class Batches(keras.utils.PyDataset):
        ended = 0

        def __len__(self):
            return len(batches())

        def __getitem__(self, i):
            return batches()[i]

        def on_epoch_end(self):
            self.ended += 1

    array, read = (make_model(make_backend("numpy")) for _ in range(2))
    data = Batches()
    fit(array, X, Y, batch_size=SIZE, shuffle=False)
    fit(read, data, shuffle=False, validation_data=Batches())

    assert_same_parameters(array, read, rtol=0, atol=0)
    assert data.ended == 2
    assert read.evaluate(data) == pytest.approx(array.evaluate(X, Y))
    np.testing.assert_allclose(read.predict(data), array.predict(X), rtol=1e-6)
