"""Models and weights saved to files and loaded again: predictions and training must be the same as without the file."""

import copy
import io
import os
import pickle
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from tests.model_files import described
from xpnet import SGD, Adagrad, Adam, Callback, CheckpointError, Model, RMSprop, load_model, to_numpy
from xpnet.layers import (
    LSTM,
    BatchNormalization,
    Bidirectional,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Frozen,
    GlobalAveragePooling1D,
    Layer,
    Residual,
)
from xpnet.losses import Huber
from xpnet.schedules import CosineDecay, WarmUp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype(np.float32)
LABELS = np.arange(30) % 3
SHARED = Dense(4, "tanh")
CASES = {
    "momentum": ([Dense(5, "relu"), Dropout(0.2), Dense(3)], "softmax_cross_entropy", SGD(0.1, momentum=0.9), X, LABELS),
    "schedule": ([Dense(3)], "softmax_cross_entropy", Adam(WarmUp(4, CosineDecay(0.1, 30)), l2={"0": 1e-3}), X, LABELS),
    "shared and frozen": (
        [SHARED, BatchNormalization(), SHARED, Frozen(Dense(4, "relu")), Residual(Dense(4)), Dense(3)],
        "softmax_cross_entropy", RMSprop(momentum=0.5), X, LABELS,
    ),
    "shared alone": ([SHARED, SHARED, SHARED, Dense(3)], "softmax_cross_entropy", "sgd", X, LABELS),
    "images": ([Conv2D(2, 3), BatchNormalization(), Flatten(), Dense(1)], Huber(0.5), Adagrad(),
               RNG.normal(size=(30, 5, 5, 1)).astype(np.float32), X[:, 0]),
    "sequences": ([Embedding(7, 3), Bidirectional(LSTM(2, return_sequences=True)), GlobalAveragePooling1D(), Dense(1)],
                  "binary_cross_entropy", "adam", RNG.integers(0, 7, (30, 5)), LABELS % 2),
}  # fmt: skip


def trained(xp, case, seed=0):
    network, loss, optimizer, x, y = CASES[case]
    model = Model(network, loss, optimizer, seed=seed, backend=xp)
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    return model, x, y


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_predicts_and_trains_on_as_the_saved_one(xp, tmp_path, case):
    model, x, y = trained(xp, case)
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model", xp)

    assert repr(again) == repr(model)
    assert (again.step, again.epoch, again.target_shape) == (model.step, model.epoch, model.target_shape)
    assert (again.history, again.seed, again.optimizer) == (model.history, model.seed, model.optimizer)
    assert again.network.links == model.network.links
    assert np.array_equal(to_numpy(again.predict(x)), to_numpy(model.predict(x)))

    histories = [one.fit(x, y, epochs=2, batch_size=8, verbose=0).history for one in (model, again)]
    assert histories[0] == histories[1]
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_several_seeds_and_metrics(xp, tmp_path):
    model = Model([Dense(3)], "softmax_cross_entropy", Adam(), ["accuracy", "confusion_matrix"], (3, 1, 4), xp)
    model.fit(X, LABELS, epochs=2, verbose=0, validation_split=0.3, record_every=2)
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model", xp)

    assert again.seed == (3, 1, 4)
    assert again.metrics == model.metrics
    assert again.validates
    assert again.history == model.history
    assert again.history.iterations.keys() >= {"step", "loss", "val_loss"}
    assert np.array_equal(to_numpy(again.predict(X)), to_numpy(model.predict(X)))


def test_a_model_that_is_not_built(xp, tmp_path):
    Model([Dense(2)], "mse", SGD(0.5), seed=7, backend=xp).save(tmp_path / "model")
    again = load_model(tmp_path / "model", xp)

    assert again.state is None
    with pytest.raises(RuntimeError, match="no parameters yet"):
        again.save_weights(tmp_path / "weights")
    again.build((3,))
    expected = Model([Dense(2)], "mse", seed=7, backend=xp).build((3,)).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), expected, strict=True))


def test_a_model_whose_layers_are_all_frozen(xp, tmp_path):
    model, x, _ = trained(xp, "schedule")
    model.freeze("0")
    model.save(tmp_path / "model")

    assert np.array_equal(to_numpy(load_model(tmp_path / "model", xp).predict(x)), to_numpy(model.predict(x)))


def test_an_optimizer_set_after_training_is_saved_as_the_next_epoch_takes_it(xp, tmp_path):
    model, x, y = trained(xp, "momentum")
    model.optimizer = Adam()
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model", xp)

    assert model.state["optimizer"].keys() == {"velocity"}  # saving changes nothing
    assert again.state["optimizer"].keys() == {"m", "v", "t"}
    assert again.fit(x, y, verbose=0).history == model.fit(x, y, verbose=0).history


def test_a_callback_saves_and_another_thread_is_refused(tmp_path):
    """This concerns only the host, so no backend."""
    errors = []

    class Save(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.save(tmp_path / f"{epoch}")
            if epoch == 0:
                thread = threading.Thread(target=self.save_beside)
                thread.start()
                thread.join()

        def save_beside(self):
            try:
                self.model.save(tmp_path / "beside")
            except RuntimeError as error:
                errors.append(str(error))

    model = Model([Dense(3)], "softmax_cross_entropy", Adam())
    model.fit(X, LABELS, epochs=2, verbose=0, callbacks=[Save()])
    again = load_model(tmp_path / "0")
    again.fit(X, LABELS, verbose=0)

    assert len(errors) == 1
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))


def test_what_cannot_be_saved_leaves_the_old_file(xp, tmp_path):
    path = tmp_path / "model"
    model, *_ = trained(xp, "momentum")
    model.save(path)
    old = path.read_bytes()
    model.optimizer = SGD(lambda step: 0.1, momentum=0.9)
    with pytest.raises(CheckpointError, match=r"optimizer, SGD\.learning_rate cannot be saved"):
        model.save(path)
    model.optimizer = SGD(momentum=0.9)
    model.history.history["note"] = ["good", "bad"]
    with pytest.raises(CheckpointError, match=r"A history holds numbers. Received: history\.note"):
        model.save(path)
    del model.history.history["note"]
    first = {"weight": xp.asarray(np.full((4, 5), np.nan)), "bias": model.parameters[0]["bias"]}
    model.state = model.state | {"params": (first, *model.parameters[1:])}
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 0\.weight"):
        model.save(path)

    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model"]


@dataclass(frozen=True)
class Counter(Layer):
    has_statistics = True

    def init(self, rng, input_shape):
        return {}, input_shape, {"count": np.zeros((), np.int64)}

    def forward(self, params, x, *, statistics):
        return x, lambda dy, need_dx=True: (dy, {}), statistics

    def __call__(self, params, x, *, statistics):
        return x


def test_integer_statistics_and_a_state_of_another_form_are_not_saved(tmp_path):
    """Refused on the host, so NumPy is enough."""
    with pytest.raises(CheckpointError, match=r"floating-point parameters and statistics.*0\.count of type int64"):
        Model([Counter(), Dense(1)], "mse").build((2,)).save(tmp_path / "model")
    model = Model([Dense(1)], "mse").build((2,))
    model.state = model.state | {"params": ({"weight": np.zeros((3, 1), np.float32)},)}
    with pytest.raises(CheckpointError, match=r"the arrays of this network, '0\.weight'"):
        model.save(tmp_path / "model")
    assert not os.listdir(tmp_path)


def test_state_dict_names_arrays_and_copies_them(xp):
    model, x, _ = trained(xp, "shared and frozen")
    values = model.state_dict()

    assert list(values)[:6] == ["0.weight", "0.bias", "2.gamma", "2.beta", "2.mean", "2.variance"]
    assert list(values)[6:] == ["5.0.weight", "5.0.bias", "6.0.weight", "6.0.bias", "7.weight", "7.bias"]
    before = to_numpy(model.predict(x))
    values["0.weight"][:] = 0
    assert np.array_equal(to_numpy(model.predict(x)), before)

    model.load_state_dict(values)
    assert np.all(model.state_dict()["0.weight"] == 0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values.pop("0.weight"), r"without \['0\.weight'\], and with \[\]"),
        (lambda values: values.update(other=1), r"without \[\], and with \['other'\]"),
        (lambda values: values.update({"0.weight": np.zeros((5, 4))}), r"0\.weight, must be numbers of shape \(4, 5\)"),
        (lambda values: values.update({"0.bias": np.full((1, 5), np.inf)}), r"0\.bias, must be finite"),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(xp, change, match):
    model, *_ = trained(xp, "momentum")
    values = model.state_dict()
    change(values)

    with pytest.raises(ValueError, match=match):
        model.load_state_dict(values)
    with pytest.raises(ValueError, match="a list"):
        model.load_state_dict(list(values.values()))
    assert np.any(model.state_dict()["0.weight"])


def test_weights_go_from_model_to_model(xp, tmp_path):
    model, x, y = trained(xp, "shared and frozen")
    other, *_ = trained(xp, "shared and frozen", seed=5)
    model.save_weights(tmp_path / "weights")
    model.save(tmp_path / "model")
    for file in ("weights", "model"):
        other.build((4,)).load_weights(tmp_path / file)
        assert np.array_equal(to_numpy(other.predict(x)), to_numpy(model.predict(x)))
    other.fit(x, y, verbose=0)  # continues with the saved optimizer state

    with pytest.raises(CheckpointError, match=r"Expected the file of a model. Read weights with model\.load_weights"):
        load_model(tmp_path / "weights")


def test_weights_of_another_network_change_nothing(xp, tmp_path):
    model, x, _ = trained(xp, "momentum")
    other, *_ = trained(xp, "schedule")
    other.save_weights(tmp_path / "weights")
    before = to_numpy(model.predict(x))

    with pytest.raises(CheckpointError, match=r"weights: Expected the arrays of this network, '0\.weight'"):
        model.load_weights(tmp_path / "weights")
    assert np.array_equal(to_numpy(model.predict(x)), before)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "weights"}, {"kind": None}, {"step": -1}, {"step": 2**63}, {"epoch": 1.5}, {"position": None}, {"seed": -1},
        {"seed": [0, 1]}, {"seed": "0"}, {"dtype": "float16"}, {"dtype": ["float32"]}, {"input_shape": [5]},
        {"input_shape": [-4]}, {"input_shape": [2, 2]}, {"input_shape": None}, {"target_shape": "x"}, {"validates": 1},
        {"history": ["epoch"] * 1000}, {"history": None}, {"history": [1]}, {"history": []}, {"loss": None},
        {"loss": {"layer": 0}}, {"optimizer": None}, {"optimizer": {"class": "optimizers.Adam", "settings": {}}},
        {"optimizer": {"class": "optimizers.SGD", "settings": {"learning_rate": -1}}}, {"metrics": ["nothing"]},
        {"metrics": 5}, {"network": {"layer": 0}}, {"network": None}, {"layers": []},
    ],
    ids=repr,
)  # fmt: skip
def test_a_description_with_another_value_is_refused(tmp_path, change):
    """The description is read before any array, so NumPy is enough."""
    model, *_ = trained(None, "momentum")
    model.save(tmp_path / "model")
    content = described((tmp_path / "model").read_bytes(), lambda description: description.update(change))
    (tmp_path / "changed").write_bytes(content)

    with pytest.raises(CheckpointError, match="changed: "):
        load_model(tmp_path / "changed")


def dumped(model):
    """Write and read a model with joblib, which comes with scikit-learn."""
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    file = io.BytesIO()
    joblib.dump(model, file)
    return joblib.load(file)


@pytest.mark.parametrize("copied", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, dumped],
                         ids=["pickle", "deepcopy", "joblib"])  # fmt: skip
def test_a_copy_trains_on_as_the_model(xp, tmp_path, copied):
    model, x, y = trained(xp, "shared and frozen")
    model.save(tmp_path / "model")
    again = copied(load_model(tmp_path / "model", xp))

    assert np.array_equal(to_numpy(again.predict(x)), to_numpy(model.predict(x)))
    assert again.fit(x, y, verbose=0) == model.fit(x, y, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))
