"""`save_onnx`, checked by running the files with ONNX Runtime. The graph does not depend on the backend of the model, so only
the tests that say so run on every backend.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.containers import Gate
from tests.exchanged import built, samples
from xpnet import ConversionError, Model, Sequential, layers, losses, to_numpy
from xpnet.interchange import load_onnx, save_onnx
from xpnet.layers import (
    ELU,
    GELU,
    GRU,
    LSTM,
    SELU,
    Add,
    AveragePooling1D,
    AveragePooling2D,
    BatchNormalization,
    Bidirectional,
    ChannelsLast,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Frozen,
    GaussianNoise,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GroupNormalization,
    Identity,
    Layer,
    LayerNormalization,
    LeakyReLU,
    LogSoftmax,
    MaxPooling1D,
    MaxPooling2D,
    MultiHeadAttention,
    Permute,
    PositionEmbedding,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    ReLU,
    Rescaling,
    Reshape,
    Residual,
    RMSNormalization,
    Sigmoid,
    SiLU,
    SimpleRNN,
    Softmax,
    Softplus,
    SpatialDropout1D,
    SpatialDropout2D,
    Tanh,
    TimeDistributed,
    TransformerBlock,
    UpSampling2D,
    ZeroPadding2D,
)  # fmt: skip
from xpnet.layers.base import walk

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra dev")

ROW, IMAGE, SEQUENCE = (6,), (7, 6, 4), (5, 4)
SHARED = Dense(6, "tanh")
CASES = [
    *((ROW, [layer]) for layer in (
        ELU(0.7), GELU(), GELU("tanh"), SELU(), LeakyReLU(0.2), LogSoftmax(), ReLU(), Sigmoid(), SiLU(), Softmax(), Softplus(),
        Tanh(), Dense(3), Dense(3, use_bias=False), Dropout(0.5), GaussianNoise(1.0), Identity(), Rescaling(0.5, 0.1),
        BatchNormalization(), LayerNormalization(), GroupNormalization(3), RMSNormalization(), Reshape((2, 3)), Frozen(Dense(3)),
        Sequential([Dense(4), Frozen(BatchNormalization())]), Residual(Dense(6)), Add([Dense(4), Dense(4), Dense(4)]),
        Concatenate([Dense(2), Sequential([Dense(3), Tanh()]), Identity()]),
    )),
    (ROW, [SHARED, ReLU(), Residual(Sequential([SHARED, BatchNormalization()]))]),
    *((IMAGE, [layer]) for layer in (
        Conv2D(3, 2), Conv2D(6, (3, 2), (2, 3), "same", groups=2), Conv2D(3, 2, 1, 1, (2, 1), use_bias=False),
        Conv2D(3, 3, 2, "same"),
        Conv2DTranspose(3, 2), Conv2DTranspose(6, 3, 2, "same", groups=2), Conv2DTranspose(3, (2, 3), (3, 2)),
        Conv2DTranspose(3, 3, 2, 1, 2), Conv2DTranspose(3, 2, 3, "same", use_bias=False), Conv2DTranspose(2, 4, 2, "same"),
        MaxPooling2D(), MaxPooling2D(3, 2, "same"), AveragePooling2D(2, 3), AveragePooling2D((3, 2), 2, "same"),
        GlobalAveragePooling2D(), GlobalMaxPooling2D(), ChannelsLast(), Permute((3, 1, 2)), Flatten(), UpSampling2D((2, 3)),
        ZeroPadding2D(((0, 1), (2, 3))), RandomCrop(3, 5), RandomFlip(), RandomRotation(10), RandomTranslation(1, 1),
        SpatialDropout2D(0.5), BatchNormalization(center=False), BatchNormalization(scale=False), GroupNormalization(2),
        LayerNormalization(), RMSNormalization(), Concatenate([Conv2D(3, 3), Conv2D(3, 3)], axis=1),
        TimeDistributed(Conv1D(3, 2)),
    )),
    *((SEQUENCE, [layer]) for layer in (
        Conv1D(3, 2), Conv1D(4, 3, 2, "same", groups=2), MaxPooling1D(), MaxPooling1D(3, 1, "same"),
        AveragePooling1D(3, 2, "same"), GlobalAveragePooling1D(), GlobalMaxPooling1D(),
        SpatialDropout1D(0.5), BatchNormalization(), MultiHeadAttention(2),
        MultiHeadAttention(3, key_dim=2, use_causal_mask=True), PositionEmbedding(8), TransformerBlock(4, 2, 8, 0.1),
        TimeDistributed(Dense(3, "relu")),
        *(kind(3, **settings) for kind in (SimpleRNN, LSTM, GRU) for settings in (
            {}, {"return_sequences": True}, {"mask_value": 0.0}, {"mask_value": 0.5, "return_sequences": True}
        )),
        *(Bidirectional(layer, mode) for layer in (LSTM(3), GRU(3, return_sequences=True)) for mode in ("concat", "sum")),
        Bidirectional(LSTM(3, return_sequences=True, mask_value=0.0)),
        Bidirectional(LSTM(3, True), backward_layer=Frozen(SimpleRNN(3, True))),
        Bidirectional(LSTM(3, mask_value=0.0), "sum", backward_layer=GRU(3)),
    )),
    *(((5,), [layer]) for layer in (Embedding(7, 3), Embedding(7, 3, padding_idx=2))),
    ((5,), [Embedding(7, 3, padding_idx=0), LSTM(3, True, mask_value=0.0), GRU(2, mask_value=0.0)]),
]  # fmt: skip
NOT_IN_ONNX = {
    "Activation": "a function that returns a layer",
    "Container": "a base class",
    "Layer": "a base class",
    "Parallel": "several outputs, which a Model does not have",
    "Residual": "a function that returns an Add",
    "TransformerBlock": "a function that returns a Sequential",
}


def run(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    (answer,) = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]).run(None, {"input": x})
    return answer


def agrees(model, path, expected=None, **settings):
    save_onnx(model, path, **settings)
    for n in (1, 7):
        x = samples(model, n)
        want = to_numpy((expected or model.predict)(x))
        got = run(path, x)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize(("shape", "network"), CASES, ids=lambda case: repr(case)[:80])
def test_every_layer(shape, network, tmp_path):
    agrees(built(network, shape), tmp_path / "model.onnx")


def test_every_public_layer_is_exported_or_known_not_to_be():
    exported = {type(layer).__name__ for _, network in CASES for _, layer in walk(Sequential(network))}

    assert exported | NOT_IN_ONNX.keys() == {*layers.__all__}
    assert not exported & NOT_IN_ONNX.keys()


def test_a_model_of_every_backend(xp, tmp_path):
    network = [Conv2D(3, 3, activation="relu"), BatchNormalization(), Flatten(), Dense(3)]

    agrees(built(network, IMAGE, "softmax_cross_entropy", xp), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "loss",
    [
        *("softmax_cross_entropy", "binary_cross_entropy", "poisson", "gaussian_nll", "huber", "quantile"),
        *(losses.Poisson(log_input=False), losses.SoftmaxCrossEntropy(label_smoothing=0.1)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("logits", [False, True])
def test_the_output_is_that_of_predict_or_the_logits(loss, logits, tmp_path):
    model = built([Dense(4)], ROW, loss)

    agrees(model, tmp_path / "model.onnx", model.predict_logits if logits else None, logits=logits)


@pytest.mark.parametrize(
    ("loss", "end"),
    [("categorical_cross_entropy", Softmax()), (losses.BinaryCrossEntropy(from_logits=False), Sigmoid())],
)
def test_losses_of_probabilities_add_nothing(loss, end, tmp_path):
    agrees(built([Dense(4), end], ROW, loss), tmp_path / "model.onnx")


def test_a_loss_at_every_position(tmp_path):
    network = [LSTM(3, return_sequences=True), TimeDistributed(Dense(2))]

    agrees(built(network, SEQUENCE, losses.PerPosition(losses.softmax_cross_entropy)), tmp_path / "model.onnx")


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_one_unit_has_the_shape_of_the_targets(shape, tmp_path):
    model = built([Dense(1)], ROW)
    model.fit(np.ones((7, 6), np.float32), np.ones(shape, np.float32), verbose=0)

    agrees(model, tmp_path / "model.onnx")
    assert run(tmp_path / "model.onnx", samples(model, 7)).shape == shape


def test_shared_weights_are_stored_once(tmp_path):
    shared = Dense(6, use_bias=False)
    save_onnx(built([shared, Tanh(), shared], ROW), tmp_path / "model.onnx")

    assert [list(w.dims) for w in onnx.load(tmp_path / "model.onnx").graph.initializer] == [[6, 6]]


def test_the_file_says_what_it_needs(tmp_path):
    save_onnx(built([Dense(2)], ROW), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")

    assert (proto.producer_name, proto.ir_version) == ("xpnet", 8)
    assert [(s.domain, s.version) for s in proto.opset_import] == [("", 17)]
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["batch", 6]
    assert [d.dim_param or d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim] == ["batch", 2]


@dataclass(frozen=True)
class Softsign(Layer):
    """y = x / (1 + |x|): a custom layer"""

    def forward(self, params, x):
        return x / (1 + abs(x)), lambda dy, need_dx=True: (dy / (1 + abs(x)) ** 2, {})


def test_custom_layers_need_a_converter(tmp_path):
    model, path = built([Dense(3), Residual(Sequential([Dense(3), Softsign()]))], ROW), tmp_path / "model.onnx"

    with pytest.raises(
        ConversionError, match=r"Layer 1\.0\.1, Softsign: save_onnx needs a converter.*Received: Softsign\(\)"
    ):
        save_onnx(model, path)
    assert not list(tmp_path.iterdir())
    agrees(model, path, converters={Softsign: lambda op, x, at: op.Softsign(x)})


def test_custom_containers_call_their_children(tmp_path):
    def gate(op, x, at):
        y, g = (child(x) for child in at.children)
        return op.Mul(y, g)

    network = [Gate(Dense(3), Sequential([Dense(3), Sigmoid()]))]

    agrees(built(network, ROW), tmp_path / "model.onnx", converters={Gate: gate})


@pytest.mark.parametrize(
    ("converter", "message"),
    [
        (lambda op, x, at: None, "Layer 1, Softsign: a converter must return the name of its output. Received: None"),
        (lambda op, x, at: op.Softsine(x), r"must return a valid graph of opset 17.*Softsine"),
        (lambda op, x, at: op.Softsign(x, x), r"must return a valid graph of opset 17.*Softsign"),
    ],
)
def test_wrong_converters_are_refused(converter, message, tmp_path):
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        save_onnx(built([Dense(3), Softsign()], ROW), tmp_path / "model.onnx", converters={Softsign: converter})
    assert not list(tmp_path.iterdir())


def test_what_a_file_cannot_hold_is_refused(tmp_path, monkeypatch):
    class Strange(losses.MeanSquaredError):
        def activation(self, z):
            return z * z

    with pytest.raises(RuntimeError, match="no parameters yet"):
        save_onnx(Model([Dense(3)], "mse"), tmp_path / "model.onnx")
    with pytest.raises(ConversionError, match=r"hold one network.*Received: seed=\(0, 1\)"):
        save_onnx(Model([Dense(3)], "mse", seed=(0, 1)).build(ROW), tmp_path / "model.onnx")
    with pytest.raises(ConversionError, match=r"Pass logits=True\. Received: .*Strange"):
        save_onnx(built([Dense(3)], ROW, Strange()), tmp_path / "model.onnx")
    monkeypatch.setattr("xpnet.interchange.onnx_export.LARGEST", 80)
    with pytest.raises(ConversionError, match=r"at most 2 GB\. .*Received: weights of 84 bytes"):
        save_onnx(built([Dense(3)], ROW), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        [Flatten(), Dense(64, "relu"), Dropout(0.2), Dense(10)],
        [RandomTranslation(2, 2), Conv2D(8, 3, activation="relu"), BatchNormalization(0.9), MaxPooling2D(), Conv2D(16, 3),
         ReLU(), MaxPooling2D(), Flatten(), Dense(10)],
    ],
    ids=["MLP", "CNN"],
)  # fmt: skip
def test_real_digits(real_mnist, network, tmp_path):
    """Trained on NumPy: the file is the same for other backends."""
    (x, y), (x_test, y_test) = real_mnist
    x, x_test = (np.float32(images[..., None]) / 255 for images in (x[:2000], x_test[:1000]))
    model = Model(network, "softmax_cross_entropy", "adam", metrics=["accuracy"])
    model.fit(x, y[:2000], epochs=3, verbose=0)

    save_onnx(model, tmp_path / "model.onnx")

    answer = run(tmp_path / "model.onnx", x_test)
    np.testing.assert_allclose(answer, model.predict(x_test), atol=1e-5)
    np.testing.assert_allclose(answer, load_onnx(tmp_path / "model.onnx").predict(x_test), atol=1e-5)
    assert np.mean(answer.argmax(-1) == y_test[:1000]) > 0.8
