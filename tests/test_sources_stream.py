"""Training, evaluation and prediction from data that are read meanwhile: the same results as arrays, and errors."""

import pickle
import signal
import threading

import numpy as np
import pytest

from tests.test_model import X, Y, assert_same_parameters, make_model
from tests.test_sources_lookahead import threads
from tests.test_sources_rows import Stored
from xpnet import Callback, Model, SourceError
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import BatchNormalization, Dense, Embedding, Flatten, Rescaling
from xpnet.losses import PerPosition, SoftmaxCrossEntropy
from xpnet.settings import FitSettings
from xpnet.sources import stream
from xpnet.sources.form import Form, Piece
from xpnet.sources.rows import Column, ColumnRows, RowReader
from xpnet.tree import leaves

X = X.astype(np.float32)
WEIGHT = (np.arange(len(X)) % 4).astype(float)
SIZE = 20


@pytest.fixture
def file(tmp_path):
    """The samples in a memory-mapped file."""
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def batches(x=X, y=Y, *more, size=SIZE):
    return [tuple(v[i : i + size] for v in (x, y, *more)) for i in range(0, len(x), size)]


class Iterable:
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def endless(items):
    while True:
        yield from items


def fit(model, *data, epochs=2, **settings):
    return model.fit(*data, **({"epochs": epochs, "verbose": 0} | settings))


def assert_same_run(xp, one, other):
    """Check that history and parameters are the same, bit for bit on NumPy."""
    exact = {"rtol": 0, "atol": 0} if xp.name == "numpy" else {"rtol": 1e-5, "atol": 1e-6}
    assert_same_parameters(one, other, **exact)
    for name, values in one.history.history.items():
        np.testing.assert_allclose(other.history.history[name], values, **exact)


# ---------------------------------------------------------------------- the same order gives the same parameters


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shuffle": False},
        {"sample_with_replacement": True},
        {"batch_size": 1000},
        {"validation_split": 0.25},
        {"sample_weight": WEIGHT},
        {"class_weight": "balanced"},
        {"class_weight": {0: 1.0, 1: 2.0, 2: 0.0}},
        {"steps_per_epoch": 4},
        {"validation_data": (X, Y), "validation_steps": 2, "validation_batch_size": 16},
        {"record_every": 2, "validation_data": (X, Y)},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_a_memory_mapped_file_trains_as_an_array(xp, file, settings):
    array, mapped = make_model(xp), make_model(xp)
    for model, x in ((array, X), (mapped, file)):
        fit(model, x, Y, **({"batch_size": SIZE} | settings))

    assert_same_run(xp, array, mapped)
    for name, values in array.history.iterations.items():
        assert mapped.history.iterations[name] == pytest.approx(values, rel=1e-5)
    assert mapped.target_shape == ()
    assert not threads()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ((batches(),), {"shuffle": False}),
        lambda: ((Iterable(batches()),), {}),
        lambda: ((Iterable(batches()),), {"steps_per_epoch": 6}),
        lambda: ((endless(batches()),), {"steps_per_epoch": 6}),
        lambda: ((Stored(X), Stored(Y)), {"shuffle": False, "batch_size": SIZE}),
        lambda: ((Stored(X), Y), {"shuffle": False, "batch_size": SIZE}),
        lambda: ((X, Stored(Y)), {"shuffle": False, "batch_size": SIZE}),
    ],
    ids=["list", "iterable", "iterable-steps", "generator", "stored", "stored x", "stored y"],
)
def test_other_sources_in_the_same_order_train_as_an_array(xp, make):
    array, streamed = make_model(xp), make_model(xp)
    data, settings = make()
    fit(array, X, Y, shuffle=False, batch_size=SIZE)
    fit(streamed, *data, **settings)

    assert_same_run(xp, array, streamed)
    assert not threads()


@pytest.mark.parametrize("steps", [4, 6, 7])
def test_epochs_of_chosen_length_continue_through_the_data(xp, steps):
    """12 epochs of half the batches are therefore 6 whole epochs."""
    array, streamed = make_model(xp), make_model(xp)
    fit(array, X, Y, batch_size=SIZE, shuffle=False, steps_per_epoch=steps, epochs=3)
    fit(streamed, Iterable(batches()), steps_per_epoch=steps, epochs=3)

    assert array.step == 3 * steps
    assert_same_run(xp, array, streamed)


def test_half_epochs_have_the_order_of_whole_ones(xp):
    whole, halves = make_model(xp), make_model(xp)
    fit(whole, X, Y, batch_size=SIZE, epochs=3)
    fit(halves, X, Y, batch_size=SIZE, epochs=6, steps_per_epoch=3)

    assert_same_parameters(whole, halves, rtol=1e-5, atol=1e-6)


def test_batches_carry_weights_and_rows_of_weight_0_take_no_part(xp):
    bad = np.where(WEIGHT[:, None] > 0, X, np.nan).astype(np.float32)
    layers = [Dense(4, use_bias=False), BatchNormalization(), Dense(3)]
    weighted, without = (make_model(xp, layers=layers) for _ in range(2))
    fit(weighted, Iterable(batches(bad, Y, WEIGHT)))
    kept = [tuple(v[w > 0] for v in (x, y, w)) for x, y, w in batches(X, Y, WEIGHT)]
    fit(without, Iterable(kept))

    assert_same_run(xp, weighted, without)
    assert weighted.evaluate(Iterable(batches(bad, Y, WEIGHT))) == pytest.approx(
        weighted.evaluate(X, Y, sample_weight=WEIGHT), rel=1e-5
    )


def test_class_weights_apply_to_batches(xp):
    weights = {0: 1.0, 1: 2.0, 2: 0.5}
    by_class, by_sample = make_model(xp), make_model(xp)
    fit(by_class, Iterable(batches()), class_weight=weights)
    fit(by_sample, Iterable(batches(X, Y, np.array([1.0, 2.0, 0.5])[Y])))

    assert_same_parameters(by_class, by_sample, rtol=1e-6, atol=1e-7)


def test_labels_that_are_ignored_take_no_part(xp):
    y = np.where(np.arange(len(Y)) % 5 == 0, -100, Y)
    array, streamed = make_model(xp, layers=[Dense(3)]), make_model(xp, layers=[Dense(3)])
    fit(array, X, y, batch_size=len(X))
    fit(streamed, Iterable([(X, y)]))

    assert_same_parameters(array, streamed, rtol=1e-4, atol=1e-5)


def test_bytes_tokens_and_positions(xp):
    """Integers stay integers, and targets and weights may have an axis of positions."""
    images = (np.arange(len(X) * 4) % 256).astype(np.uint8).reshape(-1, 2, 2)
    tokens = np.arange(len(X) * 4).reshape(-1, 4) % 7
    weight = (np.arange(len(X) * 4).reshape(-1, 4) % 3).astype(float)
    cases = [
        ([Rescaling(1 / 255), Flatten(), Dense(3)], SoftmaxCrossEntropy(), (images, Y)),
        ([Embedding(7, 3)], PerPosition(SoftmaxCrossEntropy()), (tokens, tokens % 3, weight)),
    ]
    for layers, loss, data in cases:
        array, streamed = (make_model(xp, layers=layers, loss=loss) for _ in range(2))
        x, y, *w = data
        fit(array, x, y, shuffle=False, batch_size=SIZE, sample_weight=w[0] if w else None)
        fit(streamed, Iterable(batches(*data)))
        assert_same_run(xp, array, streamed)


def test_integers_that_a_library_would_change_are_refused(xp):
    """JAX has 32-bit integers, except with float64."""
    large = np.full((SIZE, 2), 2**40)
    model = make_model(xp, layers=[Rescaling(1 / 2**40), Dense(3)])
    items = Iterable([(large // 2**40, Y[:SIZE]), (large, Y[:SIZE])])
    if xp.name != "jax":
        fit(model, items, epochs=1)
        return
    with pytest.raises(SourceError, match=r"Batch 1 .*Integers must fit into 32 bits in JAX"):
        fit(model, items, epochs=1)
    fit(make_model(make_backend("jax", dtype="float64"), layers=[Rescaling(1 / 2**40), Dense(3)]), items, epochs=1)


def test_several_networks_and_regression(xp):
    several = [make_model(xp, layers=[Dense(3)], seed=(1, 2)) for _ in range(2)]
    regression = [make_model(xp, layers=[Dense(1)], loss="mean_squared_error", metrics=["r2"]) for _ in range(2)]
    for models, y in ((several, Y), (regression, X[:, 0])):
        fit(models[0], X, y, shuffle=False, batch_size=SIZE)
        fit(models[1], Iterable(batches(X, y)))
        assert_same_parameters(*models, rtol=1e-5, atol=1e-6)
    assert tuple(regression[1].predict(X).shape) == (len(X),)  # the form of the targets


def test_chunks_do_not_change_the_run(xp, file, monkeypatch):
    one, other = make_model(xp), make_model(xp)
    fit(one, file, Y, batch_size=SIZE)
    monkeypatch.setattr(stream, "PART_BYTES", 1)
    fit(other, file, Y, batch_size=SIZE)

    assert_same_run(xp, one, other)


# ---------------------------------------------------------------------- evaluation and prediction


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (Stored(x), Y),
        lambda x: (batches(x),),
        lambda x: (Iterable(batches(x)),),
        lambda x: (iter(batches(x)),),
    ],
    ids=["stored", "list", "iterable", "generator"],
)
def test_evaluate(xp, make):
    model = make_model(xp, metrics=["accuracy", "auc"])
    fit(model, X, Y)

    assert model.evaluate(*make(X)) == pytest.approx(model.evaluate(X, Y), rel=1e-5)
    assert not threads()


def test_predict(xp, file):
    model = make_model(xp)
    fit(model, X, Y)
    wanted = to_numpy(model.predict(X))

    for data in (file, Stored(X), Iterable(batches()), Iterable([x for x, _ in batches()]), iter(batches())):
        np.testing.assert_allclose(to_numpy(model.predict(data)), wanted, rtol=1e-6, atol=1e-7)
    assert to_numpy(model.predict_classes(file)).tolist() == to_numpy(model.predict_classes(X)).tolist()
    assert not threads()


def test_a_number_of_batches(xp, file):
    model = make_model(xp)
    fit(model, X, Y)
    wanted = model.evaluate(X[:40], Y[:40])

    for data in ((file, Y), (X, Y)):
        assert model.evaluate(*data, batch_size=20, steps=2) == pytest.approx(wanted, rel=1e-6)
        assert model.predict(data[0], batch_size=20, steps=2).shape[0] == 40
    assert model.evaluate(endless(batches()), steps=2) == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(ValueError, match="steps must be at most 6"):
        model.evaluate(X, Y, batch_size=20, steps=7)
    with pytest.raises(SourceError, match=r"Batch 6 of the epoch"):
        model.evaluate(Iterable(batches()), steps=7)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda: Iterable(batches()), {}),
        (lambda: (Stored(X), Y), {"validation_batch_size": SIZE}),
        (lambda: endless(batches()), {"validation_steps": 6}),
        (lambda: Iterable(batches() * 2), {"validation_steps": 6}),
    ],
    ids=["iterable", "stored", "generator", "steps"],
)
def test_validation_data_may_be_read_too(xp, make, settings):
    array, streamed = make_model(xp), make_model(xp)
    fit(array, X, Y, validation_data=(X, Y))
    fit(streamed, X, Y, validation_data=make(), **settings)

    assert streamed.history.history["val_loss"] == pytest.approx(array.history.history["val_loss"], rel=1e-5)


# ---------------------------------------------------------------------- what an error leaves


def spoiled(at, spoil):
    """Return batches of which number `at` is spoiled."""
    items = batches()
    items[at] = spoil(*items[at])
    return items


def raising(x, y):
    raise OSError("the disk is gone")


SPOILED = {
    "nan": (lambda x, y: (np.where(x == x[3, 1], np.nan, x).astype(np.float32), y), "x must be finite"),
    "shape": (
        lambda x, y: (x[:, :1], y),
        r"the shape and dtype of the first, x: float32 \(n, 2\).*x: float32 \(n, 1\)",
    ),
    "dtype": (lambda x, y: (x.astype(int), y), r"the shape and dtype of the first.*x: int64"),
    "targets": (lambda x, y: (x, y.astype(float)), r"the shape and dtype of the first.*y: float64"),
    "labels": (lambda x, y: (x, y + 7), r"labels in 0 \.\. 2"),
    "length": (lambda x, y: (x, y[1:]), "one entry for each sample"),
    "weights": (lambda x, y: (x, y, np.zeros(len(x))), "At least one weight must be above 0"),
    "empty": (lambda x, y: (x[:0], y[:0]), "at least one sample"),
    "parts": (lambda x, y: (x,), r"A batch must be \(x, y\) or \(x, y, weight\). Received: 1 values"),
    "text": (lambda x, y: ("x", y), "An array of numbers"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_batch_that_does_not_fit_is_named_and_the_steps_before_it_count(xp, name):
    spoil, message = SPOILED[name]
    model, wanted = make_model(xp), make_model(xp)

    with pytest.raises(SourceError, match=f"Batch 4 of the epoch, counted from 0: .*{message}") as error:
        fit(model, Iterable(spoiled(4, spoil)))

    fit(wanted, Iterable(batches()[:4]), epochs=1)
    assert error.value.batch == 4
    assert model.step == 4
    assert_same_parameters(model, wanted, rtol=1e-6, atol=1e-7)
    assert not threads()


@pytest.mark.parametrize("name", ["nan", "labels", "length", "empty", "parts", "text"])
def test_a_first_batch_that_does_not_fit_changes_nothing(xp, name):
    """The first batch determines the shapes and dtypes of the others."""
    model = make_model(xp)

    with pytest.raises(SourceError, match=f"Batch 0 .*{SPOILED[name][1]}"):
        fit(model, Iterable(spoiled(0, SPOILED[name][0])))
    assert model.state is None


def test_a_source_that_fails_is_chained_and_can_be_pickled(xp):
    def failing():
        yield from batches()[:3]
        raising(0, 0)

    model = make_model(xp)
    with pytest.raises(SourceError, match=r"Batch 3 .*OSError: the disk is gone") as error:
        fit(model, failing(), epochs=1)

    assert isinstance(error.value.__cause__, OSError)
    assert pickle.loads(pickle.dumps(error.value)).batch == 3
    assert model.step == 3
    fit(model, X, Y)  # the model is usable
    assert not threads()


def test_a_row_that_is_not_finite_is_named(xp, tmp_path):
    x = X.copy()
    x[77, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = make_model(xp)

    with pytest.raises(SourceError, match=r"Batch \d of the epoch.*x must be finite.*the first in row 77 of the data"):
        fit(model, mapped, Y, batch_size=SIZE)
    with pytest.raises(SourceError, match=r"Batch 3 of the epoch.*the first in row 77 of the data"):
        model.predict(mapped, batch_size=SIZE)


def test_errors_in_validation_data_name_it(xp):
    model = make_model(xp)
    bad = Iterable(spoiled(2, SPOILED["nan"][0]))

    with pytest.raises(SourceError, match=r"validation_data: Batch 2 .*x must be finite"):
        fit(model, X, Y, batch_size=SIZE, validation_data=bad)
    assert model.step == 6
    with pytest.raises(SourceError, match=r"validation_data: Batch 0 .*x must be finite"):
        fit(model, X, Y, validation_data=Iterable(spoiled(0, SPOILED["nan"][0])))
    held_out = np.where(np.arange(len(X)) > 110, np.nan, X.T).T
    with pytest.raises(SourceError, match=r"validation_split: Batch 0 .*the first in row 111 of the data"):
        fit(model, Stored(held_out), Y, validation_split=0.25, batch_size=SIZE)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_begin", "on_epoch_end", "on_test_batch_end"])
def test_the_thread_ends_with_an_error_in_a_callback(xp, hook):
    def fail(*args):
        raise ZeroDivisionError

    callback = Callback()
    setattr(callback, hook, fail)
    opened = []

    class Opened(Iterable):
        def __iter__(self):
            opened.append(self)
            try:
                yield from self.items
            finally:
                opened.remove(self)

    with pytest.raises(ZeroDivisionError) as error:
        fit(make_model(xp), Opened(batches()), callbacks=[callback], validation_data=Opened(batches()))
    assert not threads()
    assert not opened
    del error


def test_what_the_thread_reads_is_closed_in_the_thread(xp):
    """It is not left to the garbage collector, because a generator in the scope of a CuPy device must end where it began."""
    pieces = (Piece({"x": X[None, i : i + SIZE]}) for i in range(0, len(X), SIZE))
    items = stream.sent(xp, pieces)
    next(items)
    items.close()

    assert pieces.gi_frame is None


def test_an_error_of_the_upload_comes_with_its_batch(xp, monkeypatch):
    """For example, the device has no memory left."""
    model, wanted = make_model(xp), make_model(xp)
    sent, send = [], model.backend.__class__.send

    def fails(backend, arrays):
        sent.append(arrays)
        if len(sent) > 3:
            raise MemoryError("no memory on the device")
        return send(backend, arrays)

    monkeypatch.setattr(model.backend.__class__, "send", fails)
    with pytest.raises(MemoryError, match="no memory on the device"):
        fit(model, Iterable(batches()))
    monkeypatch.undo()
    fit(wanted, Iterable(batches()[:3]), epochs=1)

    assert model.step == 3
    assert_same_parameters(model, wanted, rtol=1e-6, atol=1e-7)
    assert not threads()


def test_an_interrupt_ends_the_thread_and_keeps_the_finished_steps(xp):
    class Interrupt(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    model = make_model(xp)
    with pytest.raises(KeyboardInterrupt):
        fit(model, Iterable(batches()), callbacks=[Interrupt()])
    assert model.step == 3
    assert not threads()


def test_a_keyboard_interrupt_in_the_source_is_one(xp):
    def interrupted():
        yield from batches()[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_model(xp), interrupted(), epochs=1)
    assert not threads()


def test_the_source_is_read_in_another_thread_of_the_same_context(xp):
    seen = set()

    class Seen(Iterable):
        def __iter__(self):
            for item in self.items:
                seen.add(threading.current_thread() is threading.main_thread())
                yield item

    fit(make_model(xp), Seen(batches()))
    assert seen == {True, False}  # the first batch is looked at before training


def test_a_generator_may_fill_the_same_array_again(xp):
    def reusing():
        x, y = np.empty((SIZE, 2), np.float32), np.empty(SIZE, int)
        for a, b in batches():
            x[...], y[...] = a, b
            yield x, y

    array, streamed = make_model(xp), make_model(xp)
    fit(array, X, Y, batch_size=SIZE, shuffle=False, epochs=1)
    fit(streamed, reusing(), epochs=1)

    assert_same_run(xp, array, streamed)


def test_libraries_that_compile_get_few_numbers_of_steps(file, monkeypatch):
    """On the host, so no backend: 1, 8, 64, ... steps, each of which is compiled once."""
    reader = RowReader(ColumnRows([Column(file), Column(Y)], 0, len(X)), FitSettings(1, shuffle=False))
    source = stream.Stream(reader, Form(make_model(make_backend("numpy"))._intake, 2))
    source.compiles = True

    with source.epoch(0, 0, 0) as taken:
        assert [taken.take(most).steps for most in (100, 40, 7)] == [64, 8, 1]


def test_divergence_names_the_step_of_a_streamed_run(xp):
    from xpnet import SGD, DivergenceError

    model = make_model(xp, SGD(1e30), loss="mean_squared_error", layers=[Dense(1)], metrics=[])
    with pytest.raises(DivergenceError) as error:
        fit(model, Iterable(batches(X, X[:, :1])), epochs=5)
    assert model.step == error.value.step
    assert all(np.all(np.isfinite(to_numpy(p))) for p in leaves(model.parameters))
    assert not threads()


def test_a_run_from_a_position_is_the_rest_of_the_run(xp, file):
    """A file continues at the position. An iterable is read from its beginning, and batches already used are left out."""
    from contextlib import ExitStack

    from xpnet.loop import Loop
    from xpnet.progress import Progress
    from xpnet.settings import FitSettings

    class Interrupt(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.epoch == 1 and batch == 3:
                raise KeyboardInterrupt

    for data, chosen in (
        ((file, Y), {"batch_size": SIZE}),
        ((Iterable(batches()),), {"shuffle": False}),
        ((Iterable(batches()),), {"steps_per_epoch": 5}),
    ):
        whole, halves = make_model(xp), make_model(xp)
        fit(whole, *data, **chosen)
        with pytest.raises(KeyboardInterrupt):
            fit(halves, *data, **chosen, callbacks=[Interrupt()])
        state = halves.training_state
        assert (state.epoch, state.position) == (1, 4)
        with xp.scope(), ExitStack() as opened:
            x, y = (*data, None)[:2]
            plan = halves._plan(opened, x, y, None, None, None, FitSettings(**{"epochs": 2} | chosen))
            Loop(state, plan, (), Progress(0)).run()

        assert_same_run(xp, whole, halves)


def test_model_stays_a_model_of_its_input_shape(xp):
    model = make_model(xp)
    fit(model, Iterable(batches()))

    assert model.input_shape == (2,)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        model.predict(Stored(np.ones((4, 3), np.float32)))


def test_a_custom_loss_gets_checked_targets(xp):
    """One-hot rows and columns of labels keep their form."""
    one_hot = np.eye(3)[Y]
    for y in (one_hot, Y[:, None]):
        array, streamed = make_model(xp), make_model(xp)
        fit(array, X, y, batch_size=SIZE, shuffle=False)
        fit(streamed, Iterable(batches(X, y)))
        assert_same_run(xp, array, streamed)
        assert streamed.target_shape == array.target_shape


def test_networks_without_parameters_are_refused_and_the_source_is_closed(xp):
    closed = []

    class Closing(Iterable):
        def __iter__(self):
            try:
                yield from self.items
            finally:
                closed.append(True)

    with pytest.raises(ValueError, match="no parameters to train"):
        fit(
            Model([Flatten()], "softmax_cross_entropy", backend=xp), Closing(batches(np.ones((8, 3)), np.zeros(8, int)))
        )
    assert closed == [True]


def test_ctrl_c_waits_for_the_batch_that_is_being_read(xp, listening):
    """The batch that arrives is not trained on. The signal is sent while the source reads."""

    def interrupted():
        yield from batches()[:3]
        signal.raise_signal(signal.SIGINT)  # from any thread; the main thread handles it
        yield from batches()[3:]

    model = make_model(xp)
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted(), epochs=1, callbacks=[EachStep()])
    assert model.step <= 3
    assert model.training_state.position == model.step
    assert not threads()


class EachStep(Callback):
    """Makes every chunk one step long."""

    def on_train_batch_end(self, batch, logs=None):
        pass
