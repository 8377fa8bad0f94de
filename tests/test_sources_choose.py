"""How data are read, and which arguments are refused for data in batches. Decided before any array is moved, so no backend."""

import collections

import array_api_strict
import numpy as np
import pytest

from tests.test_model import X, Y, make_model
from tests.test_sources_rows import Samples, Stored
from tests.test_sources_stream import Iterable, batches, endless, fit
from xpnet.backend import make_backend
from xpnet.backend.recognition import ARRAYS, BATCHES, READ, ROWS, kind


class Converts(Stored):
    """A dataset on disk that NumPy can convert as a whole, like those of h5py and zarr."""

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("the data were loaded as a whole")


class Table:
    """An object of a library of tables."""

    shape = (3, 2)

    def __len__(self):
        return 3

    def __getitem__(self, name):
        raise KeyError(name)

    def __array__(self, dtype=None, copy=None):
        return np.ones((3, 2))


def memory_mapped(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (X, ARRAYS),
        (X.tolist(), ARRAYS),
        (array_api_strict.asarray(X), ARRAYS),
        (Table(), ARRAYS),
        (range(3), ARRAYS),
        (memoryview(X), ARRAYS),
        (collections.UserList([1, 2]), ARRAYS),
        ({"x": X}, ARRAYS),  # refused there
        (None, ARRAYS),
        ("text", ARRAYS),
        (Stored(X), ROWS),
        (Converts(X, chunks=(4, 2)), ROWS),
        (Samples(3), ROWS),  # `__len__` and `__getitem__`
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_type_decides_how_rows_are_read(x, expected):
    assert kind(x, Y) == expected
    assert kind(X, x) == expected


def test_a_memory_mapped_file_and_its_slices_are_read_by_rows(tmp_path):
    file = memory_mapped(tmp_path)

    assert kind(file, Y) == kind(file[10:20], Y) == kind(file, None, predicts=True) == ROWS
    assert kind(np.array(file), Y) == kind(file + 1, Y) == ARRAYS


@pytest.mark.parametrize(
    ("x", "fits", "predicts"),
    [
        (batches(), BATCHES, ARRAYS),  # to `predict`, a list is an array
        (iter(batches()), BATCHES, BATCHES),
        (Iterable(batches()), BATCHES, BATCHES),
        (Samples(3), BATCHES, BATCHES),  # as a PyDataset
        (Stored(X), ROWS, ROWS),
        (X, ARRAYS, ARRAYS),
        (Table(), ARRAYS, ARRAYS),
        ({"x": X}, ARRAYS, ARRAYS),
        ({1, 2}, ARRAYS, ARRAYS),
        ("text", ARRAYS, ARRAYS),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_without_y_other_objects_give_batches(x, fits, predicts):
    assert kind(x, None) == fits
    assert kind(x, None, predicts=True) == predicts
    assert (fits in READ) is (fits == BATCHES)


def test_data_on_disk_are_not_loaded(xp):
    model = make_model(xp)
    x = Converts(X.astype(np.float32), chunks=(16, 2))
    fit(model, x, Converts(Y, chunks=(16,)), validation_data=(x, Converts(Y, chunks=(16,))))

    assert model.evaluate(x, Y).loss == pytest.approx(model.evaluate(X, Y).loss, rel=1e-5)
    model.predict(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 5}, "batch_size cannot be used .* Iterable. The source determines the size of its batches"),
        ({"sample_weight": np.ones(120)}, r"sample_weight cannot be used .* Give \(x, y, weight\) in each batch"),
        ({"validation_split": 0.5}, "validation_split cannot be used .* Pass validation_data"),
        ({"class_weight": "balanced"}, "class_weight cannot be used .* Pass a dict of label -> weight"),
        ({"sample_with_replacement": True}, "sample_with_replacement cannot be used"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer of at least 1"),
        ({"initial_epoch": 1}, "initial_epoch needs the number of steps in an epoch. Pass steps_per_epoch"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_batches_cannot_do_is_refused_before_training(settings, message):
    model = make_model(make_backend("numpy"))

    with pytest.raises(ValueError, match=message):
        fit(model, Iterable(batches()), **settings)
    assert model.step == 0


def test_a_generator_is_refused_where_it_would_be_read_twice():
    model = make_model(make_backend("numpy"))

    with pytest.raises(ValueError, match=r"A generator can be read only once. Pass steps_per_epoch.* generator"):
        fit(model, endless(batches()))
    with pytest.raises(ValueError, match=r"A generator can be read only once. Pass validation_steps"):
        fit(model, X, Y, validation_data=endless(batches()))
    fit(model, iter(batches()), epochs=1)
    assert model.step == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: fit(model, X), "y: An array of numbers is needed.*Received: None"),
        (lambda model: fit(model, Stored(X)), "y must be given with x. Received: y=None and x of type Stored"),
        (lambda model: fit(model, Stored(X), Y[1:]), "y must have one entry for each sample of x"),
        (lambda model: fit(model, Stored(X), Stored(Y[1:])), "y must have one entry for each sample of x"),
        (lambda model: fit(model, Stored(X), Y, sample_weight=np.ones(3)), r"sample_weight must have shape \(120,\)"),
        (lambda model: fit(model, Stored(X), Stored(Y), sample_weight=np.ones(3)), "sample_weight must have shape"),
        (lambda model: fit(model, Stored(X), Stored(Y), class_weight="balanced"), "needs targets in memory, such as y"),
        (lambda model: fit(model, Stored(X), Y, sample_weight=np.zeros(120)), "At least one weight must be above 0"),
        (lambda model: fit(model, Stored(X), Y + 5), r"labels in 0 \.\. 2"),
        (lambda model: fit(model, Stored(X.astype(str)), Y), "x: Arrays must hold real numbers"),
        (lambda model: fit(model, X, Y, validation_data=5), r"validation_data must be \(x, y\).* gives batches"),
        (lambda model: fit(model, Iterable([{"x": X}])), "Batch 0 .*A batch must be"),
        (lambda model: fit(model, Iterable([(X, Y, Y, Y)])), "A batch must be .*Received: 4 values"),
    ],
)
def test_errors_before_training_change_nothing(call, message):
    model = make_model(make_backend("numpy"))

    with pytest.raises(ValueError, match=message):
        call(model)
    assert model.state is None
