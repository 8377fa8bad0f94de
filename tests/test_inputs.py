"""Data that users pass to a model: what it accepts, and the error messages for everything else."""

from dataclasses import FrozenInstanceError, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from xpnet import SGD, Callback, Model, to_numpy
from xpnet.backend.conversion import real_numbers
from xpnet.inputs import prepare_targets, require_finite, split
from xpnet.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    Sigmoid,
    SimpleRNN,
    Softmax,
    TimeDistributed,
)
from xpnet.losses import BinaryCrossEntropy, CategoricalCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy

from .test_model import writable

X = np.random.default_rng(0).normal(size=(8, 2))
Y = X[:, 0]


def regression(xp):
    return Model([Dense(1)], "mean_squared_error", backend=writable(xp))


def refused(call, *args, **settings):
    with pytest.raises((ValueError, TypeError)) as error:
        call(*args, **settings)
    return str(error.value)


# ---------------------------------------------------------------------- arrays of numbers


class Batches:
    """Can be iterated over, like a DataLoader."""

    def __iter__(self):
        return iter([(X, Y)])


class Samples:
    """Can be indexed, like PyTorch's Dataset."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        if i >= 2:
            raise IndexError
        return X[i], Y[i]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "An array of numbers is needed.*Received: None"),
        ({"input": X}, "An array of numbers is needed.*Received: an object of type dict"),
        (len, "An array of numbers is needed.*Received: an object of type builtin_function_or_method"),
        ("data.csv", "An array of numbers is needed.*Received: an object of type str"),
        (((X, Y) for _ in range(2)), "fit\\(batches\\).*type generator"),
        (Batches(), "fit\\(batches\\).*type Batches"),
        (Samples(), "with np.stack.*type Samples"),
        ([[1, 2], [3]], "rows of the same length.*type list"),
        (np.array([[1.5, True]], dtype=object), r"these numbers with x.astype\(float\)\. Received: an array of dtype obj"),
        (np.array([1, 2], dtype=object), r"x.astype\(float\), or astype\(int\) for labels"),
        (np.array(["1", "2"]), r"Convert these numbers with x.astype\(float\)"),
        ([Decimal("1.5"), Fraction(1, 2)], r"x.astype\(float\)\. Received: an array of dtype object from a list"),
        (np.array([1.0, None]), r"Fill or drop missing values \(None\)"),
        (np.array([np.ones(2), np.ones(3)], dtype=object), r"np.stack\(list\(x\)\)"),
        (np.array(["a", "b"]), "Convert text to numbers"),
        (np.array(["a", 1], dtype=object), "Convert text to numbers"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "Convert dates"),
        (np.array([[1.5, date(2020, 1, 1)]], dtype=object), "Convert dates"),
        (np.ones(2) * 1j, "np.stack.*x.real, x.imag"),
        (np.zeros(2, dtype=[("a", float)]), "structured_to_unstructured"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_real_numbers_is_named_with_the_remedy(given, message):
    """Checked on the host before a backend is involved, so no `xp` fixture."""
    with pytest.raises(ValueError, match=message):
        real_numbers(given)


def test_sparse_matrices_are_made_dense_by_their_owner():
    sparse = pytest.importorskip("scipy.sparse")

    assert "x.toarray()" in refused(real_numbers, sparse.csr_matrix(np.eye(3)))


def test_tables_of_numbers_and_truth_values_are_taken(xp):
    pd = pytest.importorskip("pandas")
    tables = [
        pd.get_dummies(pd.DataFrame({"age": np.arange(8.0), "city": list("abababab")})),
        pd.DataFrame({"a": np.arange(8.0)}, dtype="Float64"),
        pd.DataFrame({"a": np.arange(8), "b": np.arange(8) > 3}).astype({"a": "Int64", "b": "boolean"}),
    ]

    for table in tables:
        regression(xp).fit(table, Y, verbose=0)


def test_a_column_of_pandas_keeps_its_kind():
    pd = pytest.importorskip("pandas")

    assert real_numbers(pd.Series([1, 2], dtype="Int64")).dtype == int
    assert real_numbers(pd.Series([True, False], dtype="boolean")).dtype == bool
    np.testing.assert_array_equal(real_numbers(pd.Series([1, None], dtype="Int64")), [1, np.nan])


def test_a_column_of_dates_is_answered_with_what_makes_numbers_of_dates():
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"age": [1, 2], "day": pd.to_datetime(["2020-01-01", "2020-01-02"])})

    assert "Convert dates" in refused(real_numbers, table)


@pytest.mark.parametrize("form", ["bfloat16", "to_sparse"])
def test_a_tensor_that_numpy_cannot_hold_is_answered_with_what_converts_it(form):
    torch = pytest.importorskip("torch")

    message = refused(real_numbers, getattr(torch.ones(2, 2), form)())

    assert message.startswith("A dense tensor with a NumPy dtype is needed. Convert it with x.to_dense() or x.float().")


def test_the_columns_of_a_table_that_are_no_numbers_are_named():
    pd = pytest.importorskip("pandas")
    message = refused(real_numbers, pd.DataFrame({"age": [1, 2], "city": ["a", "b"]}))

    assert "pandas.get_dummies(x)" in message
    assert "'city'" in message
    assert "'age'" not in message


# ---------------------------------------------------------------------- finite numbers


def test_numbers_beyond_float32_are_called_so(xp):
    large = X.copy()
    large[3, 1] = 1e300

    for part, x, y in (("x", large, Y), ("y", X, large[:, 1])):
        message = refused(regression(xp).fit, x, y, verbose=0)
        assert f"{part} must fit in float32, whose largest number is 3.4e+38" in message
        assert 'dtype="float64"' in message
        assert message.endswith("Received: values up to 1e+300")


@pytest.mark.parametrize("row", [1, 7], ids=["training", "validation"])
def test_numbers_beyond_float32_are_called_so_beside_nan_of_weight_0(xp, row):
    large, weight = X.copy(), np.ones(8)
    large[row, 1] = 1e300
    large[2], weight[2] = np.nan, 0

    message = refused(regression(xp).fit, large, Y, sample_weight=weight, validation_split=0.25, verbose=0)

    assert "x must fit in float32" in message


def test_labels_that_are_missing_are_answered_with_ignore_index(xp):
    labels = np.array([0, 1, np.nan, 2, 0, 1, 2, 0])

    message = refused(Model([Dense(3)], "softmax_cross_entropy", backend=writable(xp)).fit, X, labels, verbose=0)

    assert "np.where(np.isnan(y), -100, y).astype(int)" in message


def test_nan_and_infinity_are_counted(xp):
    bad = X.copy()
    bad[[1, 4]] = np.nan, np.inf

    assert "Received: NaN or infinity in 2 of 8 samples" in refused(regression(xp).fit, bad, Y, verbose=0)
    assert "NaN or infinity in 2 of 8 samples" in refused(regression(xp).build((2,)).predict, bad)


def test_samples_of_weight_0_need_not_be_finite(xp):
    bad, weight = X.copy(), np.ones(8)
    bad[2], weight[2] = np.nan, 0

    require_finite(xp, {"x": xp.asarray(bad), "weight": xp.asarray(weight)}, bad)
    weight[2] = 1e-6
    assert "in 1 of 8 samples" in refused(regression(xp).fit, bad, Y, sample_weight=weight, verbose=0)


# ---------------------------------------------------------------------- which part of the data


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ((X * np.nan, Y), "validation_data: x must be finite"),
        ((X, Y * np.nan), "validation_data: MeanSquaredError with 1 network output needs finite targets"),
        ((X, Y[:3]), "validation_data: y must have one entry for each sample of x"),
        ((X, None), "validation_data: y: An array of numbers is needed"),
        ((X, Y, np.zeros(8)), "validation_data: At least one weight must be above 0"),
        ((X, Y, np.full(8, -1)), "validation_data: sample_weight: weights must be finite and at least 0"),
        ((np.ones((8, 3)), Y), "validation_data: The model accepts samples of shape"),
    ],
)
def test_errors_name_the_validation_data(xp, validation, message):
    assert message in refused(regression(xp).fit, X, Y, validation_data=validation, verbose=0)


def test_weights_of_zero_name_their_part(xp):
    last, first = np.r_[np.ones(6), np.zeros(2)], np.r_[np.zeros(6), np.ones(2)]

    def fit(weight):
        return refused(regression(xp).fit, X, Y, validation_split=0.25, sample_weight=weight, verbose=0)

    assert fit(last).startswith("validation_split: At least one weight must be above 0")
    assert fit(first).startswith("At least one weight must be above 0")


# ---------------------------------------------------------------------- shares and sizes


@pytest.mark.parametrize(
    ("n", "share", "kept"),
    [(10, 0.9, 1), (100, 0.9, 10), (1000, 0.33, 670), (10, 0.7, 3), (10, 0.3, 7), (5, 0.3, 3), (7, 0.5, 3),
     (3, Fraction(1, 3), 2), (100, np.float32(0.9), 10), (100, Decimal("0.9"), 10), (49, 1 / 49, 48)],
)  # fmt: skip
def test_the_share_of_validation_is_counted_in_decimals(n, share, kept):
    """The number of training samples is rounded down, as in Keras. Host arrays are enough."""
    first, last = split({"x": np.ones((n, 1))}, share)

    assert len(first["x"]) == kept
    assert len(last["x"]) == n - kept


class Count(Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.steps = batch + 1


def test_fit_trains_on_what_the_share_leaves(xp):
    count = Count()
    x = np.ones((10, 1))
    regression(xp).fit(x, x[:, 0], batch_size=1, verbose=0, validation_split=0.9, callbacks=[count])

    assert count.steps == 1


@pytest.mark.parametrize("meant", [np.ones(8), [1.0] * 8, (X, Y)])
def test_an_array_in_the_place_of_batch_size_was_meant_for_another_argument(xp, meant):
    model = regression(xp).build((2,))

    for call in (model.fit, model.evaluate):
        assert "Pass sample_weight=... and validation_data=(x, y) by name" in refused(call, X, Y, meant)


# ---------------------------------------------------------------------- names in other libraries


@pytest.mark.parametrize(
    ("name", "end", "loss"),
    [
        ("sparse_categorical_crossentropy", Softmax(), CategoricalCrossEntropy()),
        ("categorical_crossentropy", Softmax(), CategoricalCrossEntropy()),
        ("binary_crossentropy", Sigmoid(), BinaryCrossEntropy(from_logits=False)),
        ("binary_crossentropy", Softmax(), BinaryCrossEntropy(from_logits=False)),
    ],
)
def test_keras_cross_entropies_hold_behind_the_activation_that_they_speak_of(xp, name, end, loss):
    labels = np.arange(8) % 2
    y = labels if "sparse" in name else np.eye(2)[labels]
    model = Model([Dense(2), end], name, backend=writable(xp))
    model.fit(X, y, verbose=0)

    assert model.loss == loss


@pytest.mark.parametrize("layers", [[Dense(2)], [Dense(2), Sigmoid()]])
def test_keras_cross_entropies_elsewhere_are_answered_with_our_name(layers):
    """No arrays."""
    message = refused(Model, layers, "sparse_categorical_crossentropy")

    assert 'Write "softmax_cross_entropy", which includes the softmax, so the network must not end with one' in message


def test_the_end_of_the_network_may_lie_inside(xp):
    model = Model([TimeDistributed(Dense(2, activation="softmax"))], "categorical_crossentropy", backend=writable(xp))

    assert model.loss == CategoricalCrossEntropy()


def test_hooks_written_for_keras_are_taken(xp):
    hooks = {"on_train_begin": lambda self, logs=None: None, "on_epoch_begin": lambda self, epoch, logs=None: None}

    regression(xp).fit(X, Y, callbacks=[type("Own", (Callback,), hooks)()], verbose=0)


def test_a_property_that_fails_says_why(xp):
    model = regression(xp).build((2,))
    vars(model)["_loss"] = "mae"

    with pytest.raises(AttributeError, match="'str' object has no attribute"):
        _ = model.training_step


def test_parameters_are_there_once_the_model_is_built(xp):
    model = regression(xp)

    with pytest.raises(RuntimeError, match=r"Call fit\(x, y\) or build\(input_shape\) first"):
        model.parameters  # noqa: B018
    assert model.build((2,)).parameters[0]["weight"].shape == (2, 1)


def test_an_optimizer_is_replaced_and_not_changed(xp):
    model = Model([Dense(1)], "mse", SGD(0.5, momentum=0.9), backend=writable(xp))
    model.fit(X, Y, verbose=0)

    with pytest.raises(
        FrozenInstanceError, match=r"model.optimizer = dataclasses.replace\(model.optimizer, learning_rate=0.1\)"
    ):
        model.optimizer.learning_rate = 0.1
    model.optimizer = replace(model.optimizer, learning_rate=0.1)
    assert model.optimizer == SGD(0.1, momentum=0.9)


# ---------------------------------------------------------------------- the order of arguments in other libraries


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: Dense(784, 100), "Write Dense(100)."),
        (lambda: LSTM(28, 128), "Write LSTM(128)."),
        (lambda: GRU(28, 128), "Write GRU(128)."),
        (lambda: SimpleRNN(28, 128), "Write SimpleRNN(128)."),
        (lambda: BatchNormalization(64), "Write BatchNormalization()."),
        (lambda: LayerNormalization(64), "Write LayerNormalization()."),
        (lambda: RMSNormalization(64), "Write RMSNormalization()."),
        (lambda: GroupNormalization(8, 64), "Write GroupNormalization(8)."),
        (lambda: Conv2D(1, 32, 3).init(np.random.default_rng(0), (28, 28, 1)), "For 32 filters, write Conv2D(32, 3)"),
        (lambda: Conv1D(1, 32, 3).init(np.random.default_rng(0), (28, 1)), "For 32 filters, write Conv1D(32, 3)"),
    ],
)
def test_sizes_of_the_input_are_not_given(make, remedy):
    """No arrays."""
    message = refused(make)

    assert remedy in message
    assert "with the data" in message


# ---------------------------------------------------------------------- where targets are checked


@pytest.mark.parametrize("weight", [None, np.arange(8.0)], ids=["", "weights"])
@pytest.mark.parametrize(
    ("targets", "loss"),
    [
        (np.array([0, 1, 2, 0, 1, 2, 0, -100]), SoftmaxCrossEntropy()),
        (np.eye(3)[np.arange(8) % 3], SoftmaxCrossEntropy()),
        (X @ np.ones((2, 3)), MeanSquaredError()),
    ],
    ids=["labels", "rows", "values"],
)
def test_targets_are_checked_where_they_are(xp, targets, loss, weight, monkeypatch):
    """JAX would compile each operation, so it gets targets from the host checked there. The results are the same."""
    backend, seen, check = writable(xp), [], type(loss).check
    monkeypatch.setattr(type(loss), "check", lambda self, y, *others: seen.append(y) or check(self, y, *others))
    with backend.scope():
        x = backend.asarray(X)
        given = [targets, backend.asarray(targets)]
        host, device = (prepare_targets(backend, loss, (3,), x, y, weight) for y in given)

    assert isinstance(seen[0], np.ndarray) or not backend.compiles
    assert backend.owns(seen[1])
    assert host.keys() == device.keys() == {"x", "y"} | ({"weight"} if len(host) > 2 else set())
    for name, array in host.items():
        assert (array.dtype, backend.owns(array)) == (device[name].dtype, True)
        np.testing.assert_array_equal(to_numpy(array), to_numpy(device[name]))
