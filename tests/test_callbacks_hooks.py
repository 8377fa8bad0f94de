"""The methods that `fit`, `evaluate` and `predict` call: their order, arguments and cost, compared with Keras."""

import numpy as np
import pytest

from tests.keras_reference import keras, quiet_keras
from tests.test_model import writable
from xpnet import SGD, Callback, Model, callbacks
from xpnet.backend import to_numpy
from xpnet.layers import Dense

OURS = {"on_train_interrupt", "on_pause"}  # Keras has no such methods
HOOKS = [name for name in dir(Callback) if name.startswith("on_") and name not in OURS]
ALIASES = ["on_batch_begin", "on_batch_end"]
X = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
Y = X @ np.float32([[1.0], [-2.0], [0.5]])
WEIGHTS = [np.float32([[0.1], [0.2], [0.3]]), np.float32([0.0])]
FIT = {
    "batch_size": 3,
    "validation_batch_size": 3,
    "epochs": 2,
    "shuffle": False,
    "verbose": 0,
    "validation_data": (X[:5], Y[:5]),
}


def recorder(base, names, calls):
    """Return a callback of this class that records its calls as (name, number of the epoch or batch, logs)."""

    def note(name):
        return lambda self, *args: calls.append((name, *args[:-1], dict(args[-1])))

    def note_batch(name):
        return lambda self, batch, logs=None: calls.append((name, batch, dict(logs)))

    return type("Recorder", (base,), {n: note_batch(n) if "batch" in n else note(n) for n in names})()


def model(xp):
    made = Model([Dense(1)], "mean_squared_error", SGD(0.1), ["mae"], backend=writable(xp)).build((3,))
    made.set_weights([WEIGHTS[0], WEIGHTS[1][None]])
    return made


def keras_model():
    made = keras().Sequential([keras().Input((3,)), keras().layers.Dense(1)])
    made.compile(keras().optimizers.SGD(0.1), "mse", metrics=["mae"])
    made.set_weights(WEIGHTS)
    return made


def use(run, model, callback):
    if run == "fit":
        model.fit(X, Y, callbacks=[callback], **FIT)
    elif run == "evaluate":
        model.evaluate(X, Y, 4, 0, callbacks=[callback])
    else:
        model.predict(X, 4, 0, callbacks=[callback])


def flat(calls):
    """Return the calls without their values, and the values."""
    outline = [(*call[:-1], sorted(call[-1])) for call in calls]
    return outline, [np.asarray(to_numpy(value)) for *_, logs in calls for _, value in sorted(logs.items())]


@quiet_keras
@pytest.mark.parametrize("run", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("aliases", [False, True])
def test_the_calls_are_those_of_keras(run, aliases, xp):
    """Order, numbers and names of the logs are equal, and their values are equal to rounding."""
    names = [n for n in HOOKS if n not in (ALIASES if not aliases else ["on_train_batch_begin", "on_train_batch_end"])]
    ours, theirs = [], []
    own, peer = recorder(Callback, names, ours), recorder(keras().callbacks.Callback, names, theirs)
    use(run, model(xp), own)
    use(run, keras_model(), peer)

    (outline, values), (expected, numbers) = flat(ours), flat(theirs)
    assert outline == expected
    assert own.params == peer.params
    for value, number in zip(values, numbers, strict=True):
        np.testing.assert_allclose(value, number, rtol=1e-5, atol=1e-6)  # float32


@quiet_keras
@pytest.mark.parametrize("stop_at", [("on_train_batch_end", 1), ("on_epoch_begin", 1), ("on_epoch_end", 0)])
def test_stop_training_ends_the_run_where_keras_ends_it(stop_at, xp):
    seen = []
    for base, made in ((Callback, model(xp)), (keras().callbacks.Callback, keras_model())):
        calls = []
        callback = recorder(base, HOOKS, calls)
        name, number = stop_at

        def stop(i, logs=None, callback=callback, number=number, name=name, calls=calls):
            calls.append((name, i, dict(logs)))
            if i == number:
                callback.model.stop_training = True

        setattr(callback, name, stop)
        use("fit", made, callback)
        seen.append(flat(calls)[0])

    assert seen[0] == seen[1]


# ---------------------------------------------------------------------- custom callbacks


def test_logs_of_batches_are_means_over_the_epoch_so_far(xp):
    calls = []
    history = model(xp).fit(X, Y, callbacks=[recorder(Callback, ["on_train_batch_end"], calls)], **FIT)

    assert [batch for _, batch, _ in calls] == [0, 1, 2, 0, 1, 2]
    assert [logs["loss"] for _, batch, logs in calls if batch == 2] == history.history["loss"]


def test_batches_that_are_read_are_called_as_those_of_arrays(xp):
    def batches():
        while True:
            yield from ((X[start : start + 3], Y[start : start + 3]) for start in (0, 3, 6))

    arrays, read = [], []
    model(xp).fit(X, Y, callbacks=[recorder(Callback, HOOKS, arrays)], **FIT)
    settings = {name: value for name, value in FIT.items() if name not in ("batch_size", "shuffle")}
    own = recorder(Callback, HOOKS, read)
    model(xp).fit(batches(), steps_per_epoch=3, callbacks=[own], **settings)

    assert read == arrays
    assert own.params == {"verbose": 0, "epochs": 2, "steps": 3}


def test_validation_inside_fit_calls_the_hooks_of_evaluate(xp):
    calls, made = [], model(xp)
    made.fit(X, Y, record_every=2, callbacks=[recorder(Callback, ["on_test_begin", "on_test_end"], calls)], **FIT)

    assert [name for name, _ in calls] == ["on_test_begin", "on_test_end"] * 5  # three records and two epochs
    assert calls[-1][1] == pytest.approx({n: made.history.history[f"val_{n}"][-1] for n in ("loss", "mae")})


def test_outputs_of_a_prediction_are_parts_of_its_answer(xp):
    made, calls = model(xp), []
    made.target_shape = ()
    answer = made.predict(X, 4, callbacks=[recorder(Callback, ["on_predict_batch_end"], calls)])

    parts = [to_numpy(logs["outputs"]) for *_, logs in calls]
    assert [part.shape for part in parts] == [(4,), (3,)]
    np.testing.assert_allclose(np.concatenate(parts), to_numpy(answer), rtol=1e-6)


def test_an_exact_metric_of_batches_uses_the_rows_so_far(xp):
    """The area under the curve is not a mean over batches."""
    made, calls = Model([Dense(1)], "binary_cross_entropy", metrics=["auc"], backend=writable(xp)).build((3,)), []
    y = (Y > 0).astype("float32")
    whole = made.evaluate(X, y, 4, callbacks=[recorder(Callback, ["on_test_batch_end"], calls)])

    assert calls[0][-1]["auc"] == pytest.approx(made.evaluate(X[:4], y[:4]).auc)
    assert calls[1][-1] == pytest.approx(whole._asdict())


class Counted(Callback):
    """Overrides no method that is called for each batch."""

    def on_epoch_end(self, epoch, logs=None):
        pass


def test_only_hooks_of_batches_make_chunks_of_one_step():
    """No arrays."""
    watching = callbacks.base.watching
    for kind in ("train", "test", "predict"):
        assert watching([Counted(), Callback()], kind) == []
        for name in [f"on_{kind}_batch_begin", f"on_{kind}_batch_end"] + (ALIASES if kind == "train" else []):
            watcher = recorder(Callback, [name], [])
            assert watching([Counted(), watcher], kind) == [watcher], name


def test_a_watched_evaluation_returns_what_an_unwatched_one_does(xp):
    made = model(xp)
    watched = made.evaluate(X, Y, 2, callbacks=[recorder(Callback, ["on_test_batch_end"], [])])

    assert watched == made.evaluate(X, Y, 2)


def test_evaluate_and_predict_check_their_callbacks(xp):
    for method, data in ((model(xp).evaluate, (X, Y)), (model(xp).predict, (X,))):
        with pytest.raises(TypeError, match="callbacks must be a list"):
            method(*data, callbacks=[print])
