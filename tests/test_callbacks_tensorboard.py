"""Event files, read back by TensorBoard itself, and their tags and steps beside those of Keras."""

import contextlib
import sys
import types

import numpy as np
import pytest

from tests.keras_reference import keras, quiet_keras
from tests.test_callbacks_resumed import InterruptAt
from tests.test_model import X, Y, fit, make_model
from xpnet import SGD, Model, schedules
from xpnet.callbacks import LambdaCallback, LearningRateScheduler, ModelCheckpoint, TensorBoard
from xpnet.callbacks.base import watching
from xpnet.layers import Dense


@pytest.fixture
def accumulator():
    """TensorBoard's reader of the event files in a folder."""
    package = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason='TensorBoard comes with the extra "tensorboard"',
    )
    util = sys.modules["tensorboard.util.tensor_util"]

    def read(folder):
        """The values of each tag by step."""
        events = package.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
        return {
            tag: [(event.step, util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
            for tag in events.Tags()["tensors"]
        }

    return read


def scalars(events):
    """The events that hold a number, approximately, because TensorBoard stores float32."""
    numbers = {tag: values for tag, values in events.items() if values[0][1].ndim == 0}
    return {tag: [(step, pytest.approx(float(value))) for step, value in values] for tag, values in numbers.items()}


def test_values_of_epochs(xp, accumulator, tmp_path):
    rates = LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1))
    history = fit(make_model(xp), 3, validation_data=(X, Y), callbacks=[rates, TensorBoard(tmp_path)]).history
    train, validation = scalars(accumulator(tmp_path / "train")), scalars(accumulator(tmp_path / "validation"))

    assert len(list(tmp_path.glob("*/*"))) == 2  # one file in each folder
    assert train == {
        "epoch_loss": list(enumerate(history["loss"])),
        "epoch_accuracy": list(enumerate(history["accuracy"])),
        "epoch_learning_rate": list(enumerate([0.5, 0.25, 0.5 / 3])),
    }
    assert validation == {
        "epoch_loss": list(enumerate(history["val_loss"])),
        "epoch_accuracy": list(enumerate(history["val_accuracy"])),
        "evaluation_loss_vs_iterations": list(zip([6, 12, 18], history["val_loss"], strict=True)),
        "evaluation_accuracy_vs_iterations": list(zip([6, 12, 18], history["val_accuracy"], strict=True)),
    }


def test_values_of_steps_need_no_chunks_of_one_step(xp, accumulator, tmp_path):
    """They are means over the epoch so far."""
    seen, model = [], make_model(xp)
    watch = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    board = TensorBoard(tmp_path, update_freq=4)
    fit(model, 2, callbacks=[board])
    fit(make_model(xp), 2, callbacks=[watch])

    found = scalars(accumulator(tmp_path / "train"))["batch_loss"]
    assert found == [(n, pytest.approx(seen[n - 1], rel=1e-5)) for n in (4, 8, 12)]
    assert watching([board], "train") == []


def test_histograms_of_weights(xp, accumulator, tmp_path):
    model = make_model(xp)
    fit(model, 3, callbacks=[TensorBoard(tmp_path, histogram_freq=2)])
    events = accumulator(tmp_path / "train")
    names = {f"{name.replace('.', '/')}/histogram": array.size for name, array in model.state_dict().items()}

    assert {tag for tag in events if "histogram" in tag} == names.keys()
    for name, size in names.items():
        assert [step for step, _ in events[name]] == [0, 2]
        assert events[name][0][1][:, 2].sum() == size  # rows of (left, right, count)


@pytest.mark.parametrize(("restarts", "rates"), [(False, [0.3, 0.3]), (True, [0.1, 0.1])])
def test_the_learning_rate_of_a_schedule_is_that_of_the_last_step(restarts, rates, accumulator, tmp_path):
    """On the host, so no backend. Epochs have 6 steps."""
    schedule = schedules.PiecewiseConstantDecay([6], [0.1, 0.3], restart_every_epoch=restarts)
    model = make_model("numpy", SGD(schedule))
    fit(model, 1)
    fit(model, 2, callbacks=[TensorBoard(tmp_path)])

    found = scalars(accumulator(tmp_path / "train"))["epoch_learning_rate"]
    assert found == list(enumerate(rates))


def test_several_networks_have_a_tag_each(accumulator, tmp_path):
    """NumPy is enough."""
    model = Model([Dense(1)], "mse", seed=(0, 1), backend="numpy")
    history = model.fit(X, Y, verbose=0, callbacks=[TensorBoard(tmp_path)]).history
    found = scalars(accumulator(tmp_path / "train"))

    assert [found[f"epoch_loss/{i}"] for i in (0, 1)] == [[(0, loss)] for loss in history["loss"][0]]


def test_evaluate_writes_its_values(xp, accumulator, tmp_path):
    model = make_model(xp)
    fit(model)
    loss, _ = model.evaluate(X, Y, callbacks=[TensorBoard(tmp_path)])

    assert scalars(accumulator(tmp_path / "validation"))["evaluation_loss_vs_iterations"] == [(6, loss)]


def test_a_resumed_run_draws_no_point_twice(accumulator, tmp_path):
    """The broken run wrote two epochs after its checkpoint; a first attempt to resume it wrote another file. NumPy is enough."""
    model = make_model("numpy")
    model.build((2,))

    def run(board, epochs):
        for epoch in epochs:
            board.on_epoch_begin(epoch, {})
            board.on_epoch_end(epoch, {"loss": 1.0 * epoch, "val_loss": 2.0})

    def begun(state=None):
        board = TensorBoard(tmp_path)
        board.set_model(model)
        board.on_train_begin({})
        if state is not None:
            board.load_state_dict(state)
        return board

    other, first = begun(), begun()
    run(other, [7])  # another run in the same folder
    run(first, [0, 1])
    state = first.state_dict()
    run(first, [2, 3])
    again = begun(state)
    run(again, [2])
    last = begun(state)
    run(last, [2, 3, 4])
    for board in (other, first, again, last):
        board.on_train_end({})

    assert sorted(step for step, _ in accumulator(tmp_path / "train")["epoch_loss"]) == [0, 1, 2, 3, 4, 7]
    assert sorted(step for step, _ in accumulator(tmp_path / "validation")["epoch_loss"]) == [0, 1, 2, 3, 4, 7]


@pytest.mark.parametrize("interrupt", [11, 15, 18])
def test_a_run_resumed_from_a_checkpoint_draws_the_points_of_the_whole_run(interrupt, accumulator, tmp_path):
    """With checkpoints at steps 10 and 12, in epochs of 6 steps. NumPy is enough."""

    def run(folder, interrupt=None, **settings):
        saving = ModelCheckpoint(folder / "checkpoint", every_steps=10)
        board = TensorBoard(folder, histogram_freq=1, update_freq=2)
        model = make_model("numpy")
        fit(model, 4, validation_data=(X, Y), callbacks=[saving, board, InterruptAt(interrupt)], **settings)

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(halves, interrupt)
    run(halves, resume_from=halves / "checkpoint")

    for folder in ("train", "validation"):
        expected, found = accumulator(whole / folder), accumulator(halves / folder)
        assert found.keys() == expected.keys()
        for tag, values in expected.items():
            assert [step for step, _ in found[tag]] == [step for step, _ in values], tag
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found[tag], values, strict=True)), tag


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    with pytest.raises(ImportError, match=r"tensorboard is not installed. Run: .*\[tensorboard\]"):
        TensorBoard()


@pytest.mark.parametrize("settings", [{"histogram_freq": -1}, {"update_freq": 0}, {"update_freq": "step"}])
def test_settings_are_checked(settings):
    name = next(iter(settings))
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        TensorBoard(**settings)


class Summary(types.SimpleNamespace):
    """In place of `tensorflow.summary`, which Keras uses: notes (folder, tag, step)."""

    def __init__(self):
        super().__init__(noted=set(), open=[], recording=[])

    def create_file_writer(self, folder):
        @contextlib.contextmanager
        def as_default(step=None):
            self.open.append(folder)
            yield
            self.open.pop()

        return types.SimpleNamespace(as_default=as_default, close=lambda: None, flush=lambda: None)

    @contextlib.contextmanager
    def record_if(self, condition):
        self.recording.append(condition)
        yield
        self.recording.pop()

    def scalar(self, tag, value, step):
        if not self.recording or tag.startswith(("epoch", "evaluation")) or self.recording[-1]():
            self.noted.add((self.open[-1].split("/")[-1], tag, int(step)))


@quiet_keras
@pytest.mark.parametrize("update_freq", ["batch", 3])
def test_tags_and_steps_are_those_of_keras(update_freq, accumulator, tmp_path):
    """NumPy is enough."""
    x = np.float32(X[:40])
    settings = {"batch_size": 10, "epochs": 2, "verbose": 0, "validation_data": (x, x)}
    ours = Model([Dense(x.shape[1])], "mse", SGD(0.01), ["mae"], backend="numpy")
    ours.fit(x, x, callbacks=[TensorBoard(tmp_path, update_freq=update_freq)], **settings)
    found = {
        (folder, tag, step)
        for folder in ("train", "validation")
        for tag, values in accumulator(tmp_path / folder).items()
        for step, _ in values
    }
    theirs = keras().Sequential([keras().Input(x.shape[1:]), keras().layers.Dense(x.shape[1])])
    theirs.compile(keras().optimizers.SGD(0.01), "mse", metrics=["mae"])
    peer = keras().callbacks.TensorBoard(str(tmp_path), write_graph=False, update_freq=update_freq)
    peer._summary_module = Summary()
    theirs.fit(x, x, callbacks=[peer], **settings)

    assert found == peer._summary_module.noted
