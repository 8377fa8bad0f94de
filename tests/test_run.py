"""A run that is resumed from a checkpoint ends as the run that was never interrupted, bit for bit."""

import dataclasses
import json
import os
import tracemalloc

import numpy as np
import pytest

from tests.model_files import described
from tests.test_model import writable
from xpnet import SGD, Adam, Callback, CheckpointError, EarlyStopping, Model, load_model, to_numpy
from xpnet.backend import make_backend
from xpnet.callbacks import BackupAndRestore, ModelCheckpoint
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, Layer
from xpnet.losses import BinaryCrossEntropy, GaussianNLL
from xpnet.metrics import TopKAccuracy
from xpnet.schedules import CosineDecay, Schedule
from xpnet.tree import named_leaves

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 6)).astype(np.float32)
Y = np.arange(70) % 3
IMAGES = RNG.normal(size=(40, 6, 6, 1)).astype(np.float32)
WEIGHTS = np.linspace(0, 2, 70)
DATA = {"validation_split": 0.2, "batch_size": 8, "verbose": 0}


@dataclasses.dataclass(frozen=True)
class Steps(Schedule):
    """A schedule that xpnet does not have, and that begins again with each epoch."""

    restart_every_epoch = True

    def __call__(self, step):
        return 0.1 / (1 + step)


@dataclasses.dataclass(frozen=True)
class Shift(Layer):
    amount: float = 0.5

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, params, x):
        return x + self.amount, lambda dy, need_dx=True: (dy, params)


CASES = {
    "dropout and momentum": (
        [Dense(9, "relu"), Dropout(0.3), Dense(3)], SGD(0.1, momentum=0.9), X, Y, {"record_every": 3, **DATA},
    ),
    "batch normalization": (
        [Conv2D(2, 3), BatchNormalization(), Flatten(), Dense(3)], "rmsprop", IMAGES, Y[:40], {"batch_size": 8, "verbose": 0},
    ),
    "schedule": (
        [Dense(3)], Adam(CosineDecay(0.1, 40)), X, Y,
        {"sample_weight": WEIGHTS, "sample_with_replacement": True, "validation_freq": [2, 3], **DATA},
    ),
    "custom classes": ([Dense(3), Shift()], SGD(Steps()), X, Y, {"shuffle": False, "initial_epoch": 1, **DATA}),
}  # fmt: skip


def make(xp, case="dropout and momentum", **settings):
    layers, optimizer, *_ = CASES[case]
    settings = {"metrics": ["accuracy", "f1"], "seed": 5} | settings
    return Model(layers, "softmax_cross_entropy", optimizer, backend=writable(xp) if xp else None, **settings)


def fit(model, case="dropout and momentum", callbacks=(), epochs=3, **settings):
    _, _, x, y, known = CASES[case]
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **(known | settings))


def assert_same(one, other):
    assert one.history == other.history
    assert (one.step, one.epoch) == (other.step, other.epoch)
    left, right = dict(named_leaves(one.state)), dict(named_leaves(other.state))
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(to_numpy(left[name]), to_numpy(right[name])), name


def saved(folder, xp=None, case="dropout and momentum", callbacks=(), **settings):
    """Train and keep a checkpoint after every third step -> the model and the paths, the oldest first."""
    model = make(xp, case)
    fit(model, case, [ModelCheckpoint(folder / "{step:03d}-{epoch}", every_steps=3), *callbacks], **settings)
    return model, sorted(folder.iterdir())


def resumed(path, case="dropout and momentum", callbacks=(), xp=None, **settings):
    model = make(xp, case)
    fit(model, case, callbacks, resume_from=path, **settings)
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_ends_as_the_unbroken_one(xp, tmp_path, case):
    whole = make(xp, case)
    history = fit(whole, case)
    model, paths = saved(tmp_path, xp, case)
    assert_same(whole, model)

    for path in paths if xp.name == "numpy" else paths[1::4]:
        again = resumed(path, case, xp=xp)
        assert_same(whole, again)
        assert again.history == history


def test_several_networks_at_once(tmp_path):
    """The same on every backend."""
    whole = Model([Dense(3)], "softmax_cross_entropy", "adam", ["accuracy"], seed=(0, 1))
    fit(whole, callbacks=[ModelCheckpoint(tmp_path / "{step}", save_freq=5)])
    again = Model([Dense(3)], "softmax_cross_entropy", "adam", ["accuracy"], seed=(0, 1))
    fit(again, resume_from=tmp_path / "10")

    assert_same(whole, again)


def test_early_stopping_continues_its_count(xp, tmp_path):
    def stop():
        return EarlyStopping("accuracy", mode="min", patience=3, restore_best_weights=True)

    whole = make(xp)
    history = fit(whole, callbacks=[stop()], epochs=9)
    _, paths = saved(tmp_path, xp, callbacks=[stop()], epochs=9)
    assert len(history.epoch) < 9

    for path in (paths[1], paths[-1]):  # the last one is the end of the run
        assert_same(whole, resumed(path, xp=xp, callbacks=[stop()], epochs=9))


def test_more_epochs_continue_a_run_that_has_ended(tmp_path):
    whole = make(None)
    fit(whole, epochs=5)
    _, paths = saved(tmp_path)

    assert_same(whole, resumed(paths[-1], epochs=5))


class Restless(Callback):
    """Sets another learning rate inside each epoch, which the next epoch uses, and knows how often."""

    def on_train_begin(self, logs=None):
        self.count = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.count += 1

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        self.model.optimizer = (SGD, Adam)[self.count % 2](0.1 / self.count)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_the_optimizer_of_the_epoch_and_the_next_one_are_both_kept(tmp_path):
    whole, count = make(None), Restless()
    fit(whole, callbacks=[count])
    _, paths = saved(tmp_path, callbacks=[Restless()])

    for path in paths:
        callback = Restless()
        again = resumed(path, callbacks=[callback])
        assert_same(whole, again)
        assert (again.optimizer, callback.count) == (whole.optimizer, count.count)


def test_a_resumed_run_that_is_interrupted_resumes_again(tmp_path):
    whole = make(None)
    fit(whole)
    _, paths = saved(tmp_path)
    middle = resumed(paths[2], callbacks=[ModelCheckpoint(tmp_path / "again", save_freq=10)], epochs=2)
    assert middle.epoch == 2

    assert_same(whole, resumed(tmp_path / "again"))


def test_a_second_fit_is_resumed_as_such(tmp_path):
    whole = make(None)
    fit(whole, epochs=2)
    fit(whole, callbacks=[ModelCheckpoint(tmp_path / "{step}", save_freq=4)])

    assert_same(whole, resumed(tmp_path / "28"))


def test_a_folder_means_its_newest_checkpoint(tmp_path):
    whole, paths = saved(tmp_path)
    whole.save(tmp_path / "model")
    (tmp_path / "other.txt").write_text("something else")
    (tmp_path / "folder").mkdir()
    for i, path in enumerate(reversed(paths)):
        os.utime(path, (0, i))

    assert_same(whole, resumed(tmp_path))
    taken = Taken()
    resumed(tmp_path, callbacks=[taken])
    assert taken.first == 3


class Taken(Callback):
    def on_train_begin(self, logs=None):
        self.first = self.model.step


def test_a_checkpoint_is_a_model_file(xp, tmp_path):
    _, paths = saved(tmp_path, xp)
    model = load_model(paths[1], xp)
    other = make(xp).build((6,))
    other.load_weights(paths[1])

    assert (model.step, model.training_state.position) == (6, 6)
    assert np.array_equal(to_numpy(model.predict(X)), to_numpy(other.predict(X)))
    fit(model)
    assert model.step == 6 + 21


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ({}, {"batch_size": 9}, r"batch_size=8, as in the checkpoint. .*Only epochs may be larger. Received: batch_size=9"),
        ({}, {"shuffle": False}, "shuffle=True, as in the checkpoint"),
        ({}, {"validation_split": 0.3}, "validation_split=0.2, as in"),
        ({}, {"record_every": None}, "record_every=3"),
        ({}, {"epochs": 1}, "epochs of at least 2, the number in the checkpoint. Received: epochs=1"),
        ({}, {"initial_epoch": 1}, "initial_epoch=0"),
        ({}, {"sample_weight": WEIGHTS}, "training samples=56, as in the checkpoint"),
        ({}, {"class_weight": {0: 1.0, 1: 2.0}}, "training weights=False, as in the checkpoint"),
        ({"seed": 6}, {}, "seed=5, as in the checkpoint"),
        ({"metrics": ["accuracy"]}, {}, "metrics"),
        ({"loss": "mse"}, {}, "loss"),
        ({"optimizer": SGD(0.2, momentum=0.9)}, {}, r"optimizer\.settings\.learning_rate=0\.1, as in the checkpoint"),
        ({"network": [Dense(9, "relu"), Dropout(0.3), Dense(4)]}, {}, r"layers\[3\]\.settings\.units=3, as in the"),
        ({"network": [Dense(9, "relu"), Dense(3)]}, {}, "layers="),
        ({"backend": make_backend("numpy", dtype="float64")}, {}, "dtype='float32', as in the checkpoint"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_different_run_is_refused_and_changes_nothing(tmp_path, model, arguments, message):
    _, paths = saved(tmp_path, epochs=2)
    settings = {"network": CASES["dropout and momentum"][0], "loss": "softmax_cross_entropy",
                "optimizer": CASES["dropout and momentum"][1], "metrics": ["accuracy", "f1"], "seed": 5} | model  # fmt: skip
    other = Model(**settings)
    before, state = dict(vars(other)), dict(vars(other.training_state))
    y = np.eye(3, dtype=np.float32)[Y] if "loss" in model else np.where(Y == 2, 1, Y)
    arguments = {"epochs": 3, "record_every": 3} | DATA | arguments

    with pytest.raises(CheckpointError, match=f"{paths[-1].name}: Expected .*{message}"):
        other.fit(X, y, resume_from=paths[-1], **arguments)
    assert {k: v for k, v in vars(other).items() if k != "training_state"} == {
        k: v for k, v in before.items() if k != "training_state"
    }
    assert vars(other.training_state) == state


ROWS = RNG.normal(size=(30, 4)).astype(np.float32)
SCORES = {
    "classes": (3, "softmax_cross_entropy", ["accuracy", "f1", "auc", "confusion_matrix", TopKAccuracy(2)], Y[:30], {}),
    "weights": (3, "softmax_cross_entropy", ["accuracy", "precision", "confusion_matrix"], Y[:30],
                {"sample_weight": WEIGHTS[:30] + 0.1}),
    "two classes": (1, "binary_cross_entropy", ["accuracy", "recall", "auc", "average_precision"], Y[:30] % 2, {}),
    "labels": (3, BinaryCrossEntropy(), ["f1", "auc"], np.eye(3)[Y[:30]], {}),
    "values": (2, "mse", ["r2", "mae", "rmse"], ROWS[:, :2], {}),
    "variances": (2, GaussianNLL(), ["mse"], ROWS[:, 0], {}),
    "no metrics": (3, "softmax_cross_entropy", [], Y[:30], {"steps_per_epoch": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("seed", [0, (0, 1)], ids=["one", "two"])
def test_the_averages_of_an_epoch_continue(tmp_path, name, seed):
    """They are sums on the host, so NumPy is enough."""
    units, loss, metrics, y, settings = SCORES[name]
    if "average_precision" in metrics and isinstance(seed, tuple):
        metrics = metrics[:2]

    def trained(**run):
        model = Model([Dense(units)], loss, "adam", metrics, seed)
        model.fit(ROWS, y, batch_size=8, epochs=2, verbose=0, **settings, **run)
        return model

    whole = trained(callbacks=[ModelCheckpoint(tmp_path / "{step}", save_freq=1)])
    for step in (2, 3, 6):
        assert_same(whole, trained(resume_from=tmp_path / str(step)))


@pytest.mark.parametrize("terms", [{"tuple": []}, {"tuple": [{"tuple": []}]}, {"array": 1}, {"tuple": [1.0]}], ids=repr)
def test_averages_of_another_form_are_refused(tmp_path, terms):
    """They could not join those of the next steps."""
    _, paths = saved(tmp_path)

    def changed(description):
        description["run"]["averages"]["dict"]["parts"]["dict"]["accuracy"] = terms

    paths[1].write_bytes(described(paths[1].read_bytes(), changed))
    with pytest.raises(CheckpointError, match=f"{paths[1].name}: "):
        resumed(paths[1])


def test_other_data_are_refused(tmp_path):
    _, paths = saved(tmp_path)
    with pytest.raises(CheckpointError, match="training samples=56, as in the checkpoint"):
        make(None).fit(X[:60], Y[:60], epochs=3, record_every=3, resume_from=paths[0], **DATA)
    with pytest.raises(CheckpointError, match=r"training shape=\(6,\)"):
        make(None).fit(X[:, :5], Y, epochs=3, record_every=3, resume_from=paths[0], **DATA)


@pytest.mark.parametrize("name", ["nothing", "model", "weights", "empty"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name):
    model = make(None).build((6,))
    model.save(tmp_path / "model")
    model.save_weights(tmp_path / "weights")
    (tmp_path / "empty").mkdir()

    with pytest.raises(CheckpointError, match=f"{name}: Expected"):
        resumed(tmp_path / name)


class Faulty(Callback):
    def __init__(self, what):
        self.what = what

    def state_dict(self):
        return {"what": self.what}

    def load_state_dict(self, state):
        self.model.stop_training = True
        raise KeyError("else")


def test_a_state_that_a_callback_does_not_accept_changes_nothing(tmp_path):
    _, paths = saved(tmp_path, callbacks=[Faulty(1)])
    model = make(None)

    with pytest.raises(CheckpointError, match=r"a state that Faulty\.load_state_dict accepts. Received: \{'what': 1\}"):
        fit(model, callbacks=[Faulty(1)], resume_from=paths[0])
    assert model.state is None
    assert not model.stop_training
    fit(model)


def test_what_cannot_be_saved_is_refused_before_training(tmp_path):
    path = tmp_path / "file"
    model = make(None)
    with pytest.raises(CheckpointError, match=r"Received: Taken without state_dict"):
        fit(model, callbacks=[ModelCheckpoint(path), Taken()])
    model.optimizer = SGD(lambda step: 0.1)
    with pytest.raises(CheckpointError, match=r"optimizer, SGD\.learning_rate cannot be saved"):
        fit(model, callbacks=[ModelCheckpoint(path)])

    assert model.step == 0
    assert not path.exists()


class Seen(Callback):
    """Its state is a set from some method on."""

    def __init__(self, since):
        setattr(self, since, lambda *args: setattr(self, "seen", {1, 2}))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("since", ["on_train_begin", "set_model"])
def test_a_state_that_cannot_be_saved_is_refused_before_training(tmp_path, since):
    """Also if the callback comes after the one that saves."""
    for saving in (ModelCheckpoint(tmp_path / "file"), BackupAndRestore(tmp_path / "backup")):
        model = make(None)
        with pytest.raises(
            CheckpointError, match=r"and dicts of these. Received: Seen\.state_dict\(\)\['seen'\], a set"
        ):
            fit(model, callbacks=[saving, Seen(since)])
        assert model.step == 0
    assert list(tmp_path.iterdir()) == []
    fit(make(None), callbacks=[ModelCheckpoint(tmp_path / "weights", save_weights_only=True), Seen(since)])


def test_a_state_that_begins_with_an_epoch_may_come_later(tmp_path):
    class Counting(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epochs = epoch

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state):
            pass

    fit(make(None), callbacks=[ModelCheckpoint(tmp_path / "file"), Counting()])
    assert load_model(tmp_path / "file").step > 0


def test_a_state_that_cannot_be_saved_keeps_the_last_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(CheckpointError, match=r"callbacks\[1\]\['state'\]\['steps'\], a set"):
        fit(make(None), callbacks=[ModelCheckpoint(path, save_freq=3), Spoiled()])
    assert load_model(path).step == 3


class Spoiled(Callback):
    def state_dict(self):
        return {"steps": {self.model.step} if self.model.step > 3 else self.model.step}

    def load_state_dict(self, state):
        pass


def test_a_state_without_its_callback_is_noted(tmp_path):
    _, paths = saved(tmp_path, callbacks=[EarlyStopping("loss", patience=9)])
    with pytest.warns(UserWarning, match="a state of 'EarlyStopping', for which fit has received no callback"):
        resumed(paths[0])


def test_another_backend_continues_with_a_note(xp, tmp_path):
    (whole, paths), again = saved(tmp_path), make(xp)
    if again.backend == whole.backend:
        pytest.skip("the run began on this backend")
    with pytest.warns(UserWarning, match="The last bits may differ from those of the run so far: .*numpy.*, now"):
        fit(again, resume_from=paths[1])

    assert again.history.epoch == whole.history.epoch
    assert np.allclose(to_numpy(again.predict(X)), whole.predict(X), atol=1e-5)


def test_other_threads_are_noted(tmp_path):
    def threaded(threads):
        model = make(None)
        model.to(make_backend("numpy", threads=threads))
        return model

    fit(threaded(1), callbacks=[ModelCheckpoint(tmp_path / "file")])
    with pytest.warns(UserWarning, match="threads=1.*now .*threads=2"):
        fit(threaded(2), callbacks=[ModelCheckpoint(tmp_path / "file")], resume_from=tmp_path / "file", epochs=4)


@pytest.mark.parametrize(
    "change",
    [
        {"run": None}, {"run": {}}, {"run": 5}, {"first_optimizer": None}, {"next_optimizer": {"layer": 0}}, {"position": 99},
        {"step": -1}, {"input_shape": None}, {"kind": "weights"},
        {"run.settings": 1}, {"run.settings": {"dict": {}}}, {"run.sizes": {"dict": {}}}, {"run.callbacks": {"dict": {}}},
        {"run.callbacks": [{"dict": {"class": "EarlyStopping"}}]},
        {"run.callbacks": [{"dict": {"class": 1, "state": {"array": 99}}}]},
        {"run.stop_training": 3}, {"run.averages": None}, {"run.averages": {"dict": {}}}, {"run.averages": {"array": 0}},
        {"run.averages": {"dict": {"parts": {"dict": {}}, "weight": {"array": 0}}}},
        {"run.averages": {"dict": {"parts": {"dict": {"loss": 1, "accuracy": 2, "f1": 3}}, "weight": {"array": 0}}}},
        {"run.environment": []},
    ],
    ids=repr,
)  # fmt: skip
def test_a_checkpoint_with_another_description_is_refused(tmp_path, change):
    _, paths = saved(tmp_path)

    def changed(description):
        for key, value in change.items():
            inner = description["run"] if key.startswith("run.") else description
            inner[key.removeprefix("run.")] = json.loads(json.dumps(value))

    paths[1].write_bytes(described(paths[1].read_bytes(), changed))
    with pytest.raises(CheckpointError, match=f"{paths[1].name}: "):
        resumed(paths[1])


def test_refusing_takes_less_memory_than_twice_the_file(tmp_path):
    """The file holds the optimizer's state and the state of the best epoch, and is refused after its arrays were read."""
    wide = np.zeros((8, 500), np.float32)

    def run(path=None, callbacks=()):
        model = Model([Dense(500, "relu"), Dense(3)], "softmax_cross_entropy", "adam").build((500,))
        stop = EarlyStopping("loss", patience=9, restore_best_weights=True)
        tracemalloc.reset_peak()
        model.fit(wide, Y[:8], 4, 2, 0, [*callbacks, stop], resume_from=path)

    run(callbacks=[ModelCheckpoint(tmp_path / "{step}", save_freq=1)])
    content = (tmp_path / "3").read_bytes()
    path = tmp_path / "changed"
    path.write_bytes(described(content, lambda description: description.update(next_optimizer=None)))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with pytest.raises(CheckpointError, match="Expected optimizers"):
        run(path)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()

    assert peak < 2 * len(content)


def test_a_resumed_run_does_not_keep_the_arrays_of_the_file(tmp_path):
    class Look(Faulty):
        def on_epoch_end(self, epoch, logs=None):
            self.kept = vars(self.model.workshop.run)

        def load_state_dict(self, state):
            pass

    _, paths = saved(tmp_path)
    look = Look(1)
    resumed(paths[0], callbacks=[look])

    assert not {"state", "states", "before"} & look.kept.keys()


class Batches:
    """Batches by number, of which xpnet knows no number of samples."""

    def __len__(self):
        return 9

    def __getitem__(self, i):
        return X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]


def batches():
    while True:
        yield from (Batches()[i] for i in range(9))


class Once:
    """An iterable without a length, whose epochs end where they end."""

    def __iter__(self):
        return (Batches()[i] for i in range(9))


def on_disk(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r"), Y


STREAMS = {
    "a file": (on_disk, {"batch_size": 8}),
    "batches by number": (lambda folder: (Batches(),), {}),
    "an iterable": (lambda folder: (Once(),), {}),
    "a generator": (lambda folder: (batches(),), {"steps_per_epoch": 7}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_run_of_data_that_are_read_resumes_too(tmp_path, name):
    """The batches that were used are not used again. tests/test_sources_stream.py tests the sources on every backend."""
    data, settings = STREAMS[name]
    (tmp_path / "checkpoints").mkdir()

    def trained(callbacks=(), resume_from=None):
        model = make(None)
        model.fit(*data(tmp_path), epochs=3, verbose=0, callbacks=list(callbacks), resume_from=resume_from, **settings)
        return model

    whole = trained([ModelCheckpoint(tmp_path / "checkpoints" / "{step:02d}", every_steps=3)])
    paths = sorted((tmp_path / "checkpoints").iterdir())
    assert len(paths) >= 8
    for path in paths:
        assert_same(whole, trained(resume_from=path))
