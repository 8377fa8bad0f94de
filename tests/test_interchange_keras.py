"""Keras' weight files, written by Keras and compared with its predictions. Files are read on the host, so only the tests that
say so run on every backend.
"""

import io
import zipfile

import numpy as np
import pytest

from tests.exchanged import built
from xpnet import ConversionError, Model, to_numpy
from xpnet.interchange import load_keras_weights
from xpnet.interchange.keras_weights import BASES
from xpnet.layers import (
    GRU,
    LSTM,
    Add,
    BatchNormalization,
    Bidirectional,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Frozen,
    GlobalAveragePooling1D,
    GroupNormalization,
    LayerNormalization,
    MaxPooling2D,
    MultiHeadAttention,
    PositionEmbedding,
    Residual,
    RMSNormalization,
    Sequential,
    SimpleRNN,
    TimeDistributed,
)
from xpnet.layers.base import walk

h5py = pytest.importorskip("h5py", reason="needs the extra keras")
keras = pytest.importorskip("keras", reason="needs Keras, of the extra dev")
K = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on PyTorch

ROW, IMAGE, SEQUENCE = (6,), (7, 6, 4), (5, 4)


def attention(x):
    return K.MultiHeadAttention(2, 3)(x, x)


def shared(x):
    layer = K.Dense(6, "tanh")
    return layer(layer(x))


def residual(x):
    x = K.Dense(6)(x)
    return x + K.Dense(6)(K.Dense(5, "relu")(x))


TIED = Dense(6, "tanh")
CASES = {  # shape of a sample, layers, Keras' layers or functions
    "dense": (ROW, [Dense(5, "relu"), Dropout(0.1), Dense(4, use_bias=False), Dense(3)],
              [K.Dense(5, "relu"), K.Dropout(0.1), K.Dense(4, use_bias=False), K.Dense(3)]),
    "more than ten": (ROW, [Dense(n, "tanh") for n in range(1, 14)], [K.Dense(n, "tanh") for n in range(1, 14)]),
    "images": (IMAGE, [Conv2D(6, 3, padding="same", groups=2), BatchNormalization(), MaxPooling2D(), GroupNormalization(3),
                       Conv2DTranspose(3, 3, 2, "same"), BatchNormalization(scale=False), Flatten(), Dense(2)],
               [K.Conv2D(6, 3, padding="same", groups=2), K.BatchNormalization(), K.MaxPooling2D(), K.GroupNormalization(3),
                K.Conv2DTranspose(3, 3, 2, "same"), K.BatchNormalization(scale=False), K.Flatten(), K.Dense(2)]),
    "normalization": (ROW, [LayerNormalization(), RMSNormalization()],
                      [K.LayerNormalization(), K.RMSNormalization(epsilon=1e-6)]),
    "recurrent": (SEQUENCE, [SimpleRNN(3, True), LSTM(4, True), Bidirectional(LSTM(2, True)), GRU(3)],
                  [K.SimpleRNN(3, return_sequences=True), K.LSTM(4, return_sequences=True),
                   K.Bidirectional(K.LSTM(2, return_sequences=True)), K.GRU(3)]),
    "steps": (SEQUENCE, [Conv1D(4, 2), TimeDistributed(Dense(3, "relu")), TimeDistributed(Sequential([Dense(3), Dense(4)]))],
              [K.Conv1D(4, 2), K.TimeDistributed(K.Dense(3, "relu")),
               K.TimeDistributed(keras.Sequential([K.Dense(3), K.Dense(4)]))]),
    "tokens": ((5,), [Embedding(7, 4), MultiHeadAttention(2, 3), GlobalAveragePooling1D()],
               [K.Embedding(7, 4), attention, K.GlobalAveragePooling1D()]),
    "nested": (ROW, [Dense(5), Sequential([Dense(4), Sequential([Dense(3)])]), Frozen(Dense(2))],
               [K.Dense(5), keras.Sequential([K.Dense(4), keras.Sequential([K.Dense(3)])]), K.Dense(2)]),
    "branches": (ROW, [Dense(6), Residual(Sequential([Dense(5, "relu"), Dense(6)]))], [residual]),
    "shared": (ROW, [TIED, TIED, Dense(2)], [shared, K.Dense(2)]),
}  # fmt: skip


def keras_model(shape, parts):
    """A functional model or a Sequential whose weights are all random."""
    tokens = isinstance(parts[0], K.Embedding)
    if all(isinstance(part, keras.Layer) for part in parts):
        model = keras.Sequential([keras.Input(shape), *parts])
    else:
        x = start = keras.Input(shape, dtype="int32" if tokens else "float32")
        for part in parts:
            x = part(x)
        model = keras.Model(start, x)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.random(w.shape, "float32") for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def models():
    return {name: keras_model(shape, parts) for name, (shape, _, parts) in CASES.items()}


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("name", CASES)
def test_a_model_predicts_as_keras_does(name, suffix, models, tmp_path):
    shape, network, _ = CASES[name]
    model, path = built(network, shape), tmp_path / f"model{suffix}"
    (models[name].save_weights if suffix == ".weights.h5" else models[name].save)(path)

    load_keras_weights(model, path)

    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, (5, 5)) if name == "tokens" else rng.normal(size=(5, *shape)).astype("float32")
    np.testing.assert_allclose(model.predict(x), models[name].predict(x, verbose=0), rtol=1e-5, atol=1e-5)  # float32


def test_every_layer_with_a_name_is_compared():
    assert {type(layer) for _, network, _ in CASES.values() for _, layer in walk(Sequential(network))} >= BASES.keys()


def test_layers_may_be_nested_on_one_side_only(models, tmp_path):
    models["dense"].save_weights(tmp_path / "flat.weights.h5")
    model = built([Sequential([Dense(5), Dense(4, use_bias=False)]), Dense(3)], ROW)

    load_keras_weights(model, tmp_path / "flat.weights.h5")

    np.testing.assert_array_equal(model.get_weights()[2], models["dense"].get_weights()[2])


def test_the_file_of_a_trained_model(xp, tmp_path):
    """It holds the state of the optimizer too."""
    theirs = keras.Sequential([keras.Input(ROW), K.Dense(3), K.Dropout(0.5), K.Dense(1)])
    theirs.compile("adam", "mse")
    theirs.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    theirs.save(tmp_path / "model.keras")
    model = built([Dense(3), Dense(1)], ROW, backend=xp)

    load_keras_weights(model, tmp_path / "model.keras")

    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    np.testing.assert_allclose(to_numpy(model.predict(x)), theirs.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


def test_names_choose_layers(tmp_path):
    x = keras.Input(ROW)
    left, right = K.Dense(3, name="left")(x), K.Dense(3, name="right")(x)
    theirs = keras.Model(x, K.Add()([left, right]))
    theirs.save_weights(tmp_path / "model.weights.h5")
    model = built([Add([Dense(3), Dense(3)])], ROW)

    load_keras_weights(model, tmp_path / "model.weights.h5", {"0.0": "layers/dense_1", "0.1": "layers/dense"})

    np.testing.assert_array_equal(model.state_dict()["0.0.weight"], theirs.get_layer("right").get_weights()[0])


def written(path, change):
    """The file of a Dense(3), changed."""
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = np.ones((6, 3), "float32"), np.ones(3, "float32")
        change(file)


def replaced(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def linked(link):
    def change(file):
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = link(file)

    return change


def external(file):
    del file["layers/dense/vars/0"]
    file.create_dataset("layers/dense/vars/0", (6, 3), "float32", external=[("/etc/passwd", 0, 72)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.create_group("layers/lstm/vars").create_dataset("0", data=1.0), r"Received: layers/lstm$"),
        (lambda file: file.move("layers/dense", "layers/conv2d"), r"Expected: layers/dense\. Received: layers/conv2d"),
        (replaced("layers/dense/vars/0", np.ones((3, 6))), r"Layer 0, Dense: layers/dense/vars/0 must have shape \(6, 3\)"),
        (replaced("layers/dense/vars/1", np.array([b"a"] * 3)), "Expected numbers in the file at layers/dense/vars/1"),
        (replaced("layers/dense/vars/1", np.full(3, np.nan)), "must be finite"),
        (lambda file: file.__delitem__("layers/dense/vars/1"), r"hold 2 arrays of shapes \(6, 3\), \(3,\)\. Received: 1 arrays"),
        (lambda file: file.move("layers/dense/vars/1", "layers/dense/vars/7"), "Expected an array at layers/dense/vars/1"),
        (linked(lambda file: h5py.SoftLink("/layers/dense/vars/1")), "Expected an array at layers/dense/vars/0"),
        (linked(lambda file: h5py.ExternalLink("/etc/passwd", "/")), "Expected an array at layers/dense/vars/0"),
        (lambda file: file.__setitem__("layers/x", h5py.ExternalLink("a.h5", "/")), "without links to other places"),
        (lambda file: file["layers/dense"].__setitem__("again", file["layers"]), "Expected at most"),
        (external, "Expected numbers in the file"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(change, message, tmp_path):
    model = built([Dense(3)], ROW)
    before = model.get_weights()
    written(tmp_path / "model.weights.h5", change)

    with pytest.raises(ConversionError, match=f"model.weights.h5: .*{message}|{message}"):
        load_keras_weights(model, tmp_path / "model.weights.h5")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_large_array_is_not_read(tmp_path):
    def huge(file):
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (10**9, 10**4), "float32", chunks=(1000, 1000))

    written(tmp_path / "model.weights.h5", huge)
    with pytest.raises(ConversionError, match=r"must have shape \(6, 3\)"):
        load_keras_weights(built([Dense(3)], ROW), tmp_path / "model.weights.h5")


def test_other_files_are_refused(tmp_path):
    model = built([Dense(3)], ROW)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    (tmp_path / "text.h5").write_text("no weights")

    for name in ("other.keras", "text.h5"):
        with pytest.raises(
            ConversionError, match=rf"{name}: Expected a complete \.weights\.h5 or \.keras file of Keras 3"
        ):
            load_keras_weights(model, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_keras_weights(model, tmp_path / "none.h5")
    written(tmp_path / "model.weights.h5", lambda file: None)
    with pytest.raises(ConversionError, match="Layer 0, PositionEmbedding: only these layers share"):
        load_keras_weights(built([PositionEmbedding(5)], SEQUENCE), tmp_path / "model.weights.h5")
    with pytest.raises(ConversionError, match=r"names must map paths of layers with weights, 0, to .*Received: 5"):
        load_keras_weights(model, tmp_path / "model.weights.h5", {"5": "dense"})


def test_damaged_files_give_only_one_kind_of_error(tmp_path):
    model, rng = Model([Dense(3)], "mse").build(ROW), np.random.default_rng(0)
    buffer = io.BytesIO()
    written(buffer, lambda file: None)
    content, path, refused = bytearray(buffer.getvalue()), tmp_path / "damaged.h5", 0
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(0, len(content))] if rng.random() < 0.3 else damaged)
        try:
            load_keras_weights(model, path)
        except ConversionError:
            refused += 1

    assert refused > 20
