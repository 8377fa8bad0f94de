"""`load_onnx`: files of `save_onnx` and of PyTorch, and damaged ones. Files are read on the host, so only the tests that say so
run on every backend.
"""

import tracemalloc

import numpy as np
import pytest

from tests.exchanged import built, samples
from tests.test_interchange_onnx_export import CASES, agrees
from xpnet import ConversionError, losses, to_numpy
from xpnet.interchange import load_onnx, save_onnx
from xpnet.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Conv2D,
    Dense,
    Flatten,
    MaxPooling2D,
    MultiHeadAttention,
    RandomCrop,
    Sequential,
    TimeDistributed,
)
from xpnet.layers.base import walk
from xpnet.layers.mapping import innermost

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnx_files = pytest.importorskip("tests.onnx_files")
helper = onnx.helper

ROW, IMAGE, SEQUENCE = (6,), (7, 6, 4), (5, 4)


def is_read(network):
    """Whether the operators of these layers are read: not a crop, nor two different layers of one Bidirectional."""
    kinds = [layer for _, layer in walk(Sequential(network))]
    mixed = any(
        isinstance(k, Bidirectional) and len({type(innermost(c)) for c in k.children.values()}) > 1 for k in kinds
    )
    return not (mixed or any(isinstance(layer, RandomCrop) for layer in kinds))


@pytest.mark.parametrize(
    ("shape", "network"), [case for case in CASES if is_read(case[1])], ids=lambda case: repr(case)[:80]
)
def test_every_layer(shape, network, tmp_path):
    model, path = built(network, shape), tmp_path / "model.onnx"
    save_onnx(model, path)

    same = load_onnx(path)

    for n in (1, 7):
        x = samples(model, n)
        np.testing.assert_allclose(
            to_numpy(same.predict(x)), to_numpy(model.predict(x)), rtol=1e-5, atol=1e-5
        )  # float32
    agrees(same, tmp_path / "again.onnx")


TORCH_CASES = [
    "MLP",
    "CNN",
    "UNet",
    "DenseNet",
    "TextCNN",
    "asymmetric",
    "decoder",
    "time",
    "steps",
    "LSTM",
    "GRU",
    "RNN",
    "tokens",
]


def torch_cases():
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    nn = torch.nn

    class Last(nn.Module):
        def __init__(self, module, last=True):
            super().__init__()
            self.module, self.last = module, last

        def forward(self, x):
            y = self.module(x)[0]
            return y[:, -1] if self.last else y

    class Residual(nn.Module):
        def __init__(self, branch):
            super().__init__()
            self.branch = branch

        def forward(self, x):
            return torch.relu(self.branch(x) + x)

    class View(nn.Module):
        def forward(self, x):
            return x.view(x.size(0), -1)

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(8, 3, 1)
            self.below = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, 2))

        def forward(self, x):
            x = torch.tanh(self.first(x))
            return torch.softmax(self.last(torch.cat([self.below(x), x], 1)), 1)

    class DenseNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = torch.cat([x, torch.relu(layer(x))], 1)
            return x.mean((2, 3))

    class TextCNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(7, 4), nn.Linear(6, 2)
            self.convolutions = nn.ModuleList(nn.Conv1d(4, 3, size) for size in (2, 3))

        def forward(self, x):
            x = self.embed(x).transpose(1, 2)
            return self.out(torch.cat([torch.relu(layer(x)).amax(2) for layer in self.convolutions], 1))

    rnn = {"batch_first": True}
    return {
        "MLP": ((6,), nn.Sequential(
            nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 4, bias=False), nn.SiLU(), nn.Linear(4, 3),
            nn.Softmax(-1))),
        "CNN": ((3, 9, 8), nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4))), nn.AvgPool2d(2, 1, 1), View(),
            nn.Dropout(), nn.Linear(48, 3), nn.LogSoftmax(1))),
        "asymmetric": ((2, 6, 7), nn.Sequential(
            nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(2, 3, (2, 3), (1, 2), (0, 1)), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(3, 1), nn.Sigmoid())),
        "decoder": ((4, 5, 6), nn.Sequential(
            nn.GroupNorm(2, 4), nn.ELU(), nn.Upsample(scale_factor=2), nn.InstanceNorm2d(4, affine=True),
            nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.LeakyReLU(0.2), nn.Tanh())),
        "time": ((4, 9), nn.Sequential(
            nn.Conv1d(4, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool1d(2), nn.AdaptiveMaxPool1d(1), nn.Flatten())),
        "steps": ((5, 4), nn.Sequential(
            nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU("tanh"), Last(nn.LSTM(6, 3, bidirectional=True, **rnn), last=False),
            nn.Linear(6, 2))),
        "LSTM": ((5, 4), nn.Sequential(Last(nn.LSTM(4, 3, 2, **rnn)), nn.Linear(3, 2))),
        "GRU": ((5, 4), Last(nn.GRU(4, 3, **rnn))),
        "RNN": ((5, 4), Last(nn.RNN(4, 3, **rnn), last=False)),
        "UNet": ((2, 4, 6), UNet()),
        "DenseNet": ((3, 5, 4), DenseNet()),
        "TextCNN": ((6,), TextCNN()),
        "tokens": ((5,), nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 2))),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's exporters issue warnings
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
@pytest.mark.parametrize("name", TORCH_CASES)
def test_files_of_pytorch(name, dynamo, tmp_path):
    """The dynamo exporter puts large weights into a second file."""
    if dynamo and name == "RNN":
        pytest.skip("the exporter writes every step of this loop")
    if dynamo:
        pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra dev")
    shape, module = torch_cases()[name]
    import torch

    torch.manual_seed(0)
    x = torch.randint(0, 7, (2, *shape)) if name in ("tokens", "TextCNN") else torch.randn(2, *shape)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.rand_like(value)
    axes = {"dynamic_shapes": ({0: "batch"},), "verbose": False} if dynamo else {"dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(module.eval(), (x,), tmp_path / "model.onnx", dynamo=dynamo, input_names=["x"], **axes)

    model = load_onnx(tmp_path / "model.onnx")

    expected = module(torch.cat([x, x, x])).detach().numpy()
    np.testing.assert_allclose(model.predict(torch.cat([x, x, x])), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_file_with_a_fixed_batch(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(32, 3)).eval()
    x = torch.randn(1, 1, 6, 6)
    torch.onnx.export(module, (x,), tmp_path / "model.onnx", dynamo=False)

    model = load_onnx(tmp_path / "model.onnx")

    several = torch.randn(4, 1, 6, 6)
    np.testing.assert_allclose(model.predict(several), module(several).detach(), rtol=1e-5, atol=1e-5)


def test_a_model_of_every_backend_that_trains_on(xp, tmp_path):
    network = [Conv2D(3, 3, activation="relu"), BatchNormalization(), MaxPooling2D(), Flatten(), Dense(3)]
    model = built(network, IMAGE, "softmax_cross_entropy", xp)
    save_onnx(model, tmp_path / "model.onnx")

    same = load_onnx(tmp_path / "model.onnx", "softmax_cross_entropy", "adam", ["accuracy"], backend=xp)

    x = samples(model, 5)
    np.testing.assert_allclose(to_numpy(same.predict(x)), to_numpy(model.predict(x)), rtol=1e-5, atol=1e-5)
    assert [type(layer).__name__ for layer in same.network.layers] == [
        type(layer).__name__ for layer in model.network.layers
    ]
    assert np.isfinite(same.fit(x, np.arange(5) % 3, verbose=0).history["loss"][-1])


@pytest.mark.parametrize(
    ("loss", "chosen"),
    [
        ("softmax_cross_entropy", losses.SoftmaxCrossEntropy()),
        ("binary_cross_entropy", losses.BinaryCrossEntropy()),
        ("mse", losses.MeanSquaredError()),
        (losses.PerPosition(losses.softmax_cross_entropy), losses.PerPosition(losses.softmax_cross_entropy)),
    ],
)
def test_the_loss_is_the_one_that_includes_the_last_activation(loss, chosen, tmp_path):
    steps = isinstance(loss, losses.PerPosition)
    model = built([TimeDistributed(Dense(3)) if steps else Dense(3)], SEQUENCE if steps else ROW, loss)
    save_onnx(model, tmp_path / "model.onnx")

    same = load_onnx(tmp_path / "model.onnx")

    assert same.loss == chosen
    assert len(same.network.layers) == 1
    np.testing.assert_allclose(same.predict(samples(model, 5)), model.predict(samples(model, 5)), rtol=1e-5, atol=1e-6)


def test_one_unit_keeps_the_shape_of_the_targets(tmp_path):
    model = built([Dense(1)], ROW)
    model.fit(np.ones((7, 6), np.float32), np.ones(7, np.float32), verbose=0)
    save_onnx(model, tmp_path / "model.onnx")

    assert load_onnx(tmp_path / "model.onnx").predict(samples(model, 7)).shape == (7,)


def write(path, nodes, constants, shape=("n", 4), out="y", opset=17, element=1, **changes):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info(out, 1, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    for change in changes.values():
        change(proto)
    path.write_bytes(proto.SerializeToString())


def node(operator, *inputs, out="y", **attributes):
    return helper.make_node(operator, list(inputs), [out], f"the {operator}", **attributes)


W = np.arange(8, dtype="float32").reshape(4, 2)


def test_numbers_in_a_second_file_of_the_folder(tmp_path):
    def external(location, offset=4):
        def change(proto):
            tensor = proto.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = tensor.EXTERNAL
            for key, value in {"location": location, "offset": str(offset), "length": "32"}.items():
                tensor.external_data.add(key=key, value=value)

        return change

    path = tmp_path / "model.onnx"
    (tmp_path / "data").write_bytes(b"\0" * 4 + W.tobytes())
    write(path, [node("MatMul", "x", "w")], {"w": W}, change=external("data"))

    np.testing.assert_array_equal(load_onnx(path).get_weights()[0], W)
    for location in ("../data", "/etc/passwd", str(tmp_path / "data"), "..", ""):
        write(path, [node("MatMul", "x", "w")], {"w": W}, change=external(location))
        with pytest.raises(ConversionError, match="in a file of the same folder"):
            load_onnx(path)
    write(path, [node("MatMul", "x", "w")], {"w": W}, change=external("data", 5))
    with pytest.raises(ConversionError, match="Expected 32 bytes at 5"):
        load_onnx(path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    write(path, [node("MatMul", "x", "w")], {"w": W}, change=external("link"))
    with pytest.raises(OSError, match="link"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Sin", "x")], {}, "Node the Sin, Sin: expected an operator that layers have.*Received: Sin"),
        ([node("Relu", "x", "x")], {}, "Node the Relu, Relu: expected different inputs"),
        ([node("Mul", "x", "x")], {}, "different inputs"),
        ([node("MatMul", "x", "w")], {"w": W[:3]}, r"Expected weights that fit the input: 0\.weight of shape \(4, 2\)"),
        ([node("Gemm", "x", "w", transA=1)], {"w": W}, "expected transA=0. Received: transA=1"),
        ([node("Softmax", "x", axis=2**62)], {}, "expected sizes below 2³¹ as 'axis'. Received: 46"),
        ([node("Relu", "x", slope=1.0)], {}, "expected attributes that a layer has. Received: slope"),
        ([node("Reshape", "x", "s")], {"s": np.array([2, -1])}, "a shape that keeps the batch"),
        ([node("Transpose", "x", perm=[1, 0])], {}, "an output with the batch first"),
        ([node("Mul", "x", "s")], {"s": np.ones(4, "float32")}, r"expected a number. Received: an array of shape \(4,\)"),
        ([node("Cast", "x", out="a", to=7), node("Cast", "a", to=1)], {}, "expected an embedding of tokens"),
        ([node("Relu", "x", out="r"), node("Cast", "r", out="a", to=7), node("Cast", "a", to=1)], {}, "expected floating-point"),
        ([node("Cast", "x", out="a", to=7), node("Add", "a", "x")], {}, "expected floating-point numbers"),
        ([node("Relu", "z")], {}, "inputs from nodes before it"),
        ([node("Relu", "x"), node("Relu", "x")], {}, "new outputs"),
        ([node("Relu", "x", domain="ai.custom")], {}, "expected ONNX's own operators. Received: the domain 'ai.custom'"),
        ([node("Relu", "x", out="z")], {}, "Expected an output that a node computes"),
        ([node("Identity", "w")], {"w": W}, "Expected an output that depends on the input"),
        ([node("LSTM", "x", "w", "w")], {"w": W}, r"expected \(time, batch, features\)"),
        ([node("Sub", "x", "w", out="a"), node("Mul", "x", "a")], {"w": np.float32(1)}, "Add, Sum or Concat of values"),
    ],
    ids=lambda value: value[0].op_type if isinstance(value, list) else "",
)  # fmt: skip
def test_what_no_layer_does_is_refused(nodes, constants, message, tmp_path):
    write(tmp_path / "model.onnx", nodes, constants)

    with pytest.raises(ConversionError, match=rf"model\.onnx: .*{message}"):
        load_onnx(tmp_path / "model.onnx")


def test_sizes_that_vary_are_given(tmp_path):
    write(tmp_path / "model.onnx", [node("LeakyRelu", "x")], {}, shape=("n", "t", 3))

    with pytest.raises(ConversionError, match="Pass input_shape"):
        load_onnx(tmp_path / "model.onnx")
    assert load_onnx(tmp_path / "model.onnx", input_shape=(5, 3)).input_shape == (5, 3)


def test_old_and_other_files_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    write(path, [node("Relu", "x")], {}, opset=9)
    with pytest.raises(ConversionError, match=r"opset 13 or newer\. Received: opset 9"):
        load_onnx(path)
    path.write_bytes(b"not a protocol buffer")
    with pytest.raises(ConversionError, match="Expected a complete ONNX file"):
        load_onnx(path)
    with pytest.raises(FileNotFoundError):
        load_onnx(tmp_path / "none.onnx")


def test_layers_larger_than_the_file_are_refused(tmp_path):
    write(tmp_path / "model.onnx", [node("MatMul", "x", "w")], {"w": W}, shape=("n", 10**12))

    with pytest.raises(ConversionError, match=r"0\.weight of shape \(1000000000000, 2\)"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "layer",
    [LSTM(2, mask_value=0.0), GRU(2, True, mask_value=0.0), MultiHeadAttention(2, use_causal_mask=True)],
    ids=repr,
)
def test_an_input_that_claims_billions_of_steps_takes_no_memory(layer, tmp_path):
    save_onnx(built([layer], SEQUENCE), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**31
    onnx.save(proto, tmp_path / "model.onnx")

    tracemalloc.start()
    with pytest.raises(ConversionError, match="Received: "):
        load_onnx(tmp_path / "model.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_graphs_with_many_paths_are_refused(tmp_path, monkeypatch):
    """Each node adds the last two values, so there are more paths than numbers in a float."""
    nodes = [node("Relu", "x", out="v0"), node("Relu", "v0", out="v1")]
    nodes += [node("Add", f"v{i}", f"v{i + 1}", out=f"v{i + 2}") for i in range(200)]
    write(tmp_path / "model.onnx", nodes, {}, out="v201")

    monkeypatch.setattr("xpnet.interchange.onnx_import.MOST_LAYERS", 1000)
    with pytest.raises(ConversionError, match="Expected a network of at most 1,000 layers"):
        load_onnx(tmp_path / "model.onnx")


def test_damaged_files_give_only_one_kind_of_error(tmp_path):
    """A sample of ``python -m tests.onnx_files``."""
    rng, path = np.random.default_rng(0), tmp_path / "mutated.onnx"
    contents = onnx_files.valid_files(tmp_path)
    loaded = 0
    for i in range(400):
        path.write_bytes(onnx_files.mutated(contents[i % len(contents)], rng))
        loaded += onnx_files.load(path)

    assert 0 < loaded < 200


def test_an_unknown_loss_is_not_an_error_of_the_file():
    with pytest.raises(ValueError, match="A loss must be") as raised:
        load_onnx("any.onnx", loss="no loss")
    assert not isinstance(raised.value, ConversionError)
