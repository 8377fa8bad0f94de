"""Weights to and from PyTorch's modules, compared by the predictions of both. PyTorch computes on the host and layouts do not
depend on the backend, so only the tests that say so run on every backend.
"""

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.exchanged import built
from xpnet import ConversionError, Model, Sequential, to_numpy
from xpnet.interchange import load_torch_state_dict, to_torch_state_dict
from xpnet.interchange.torch_weights import FORMS
from xpnet.layers import (
    GELU,
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Concatenate,
    Conv1D,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Frozen,
    GlobalMaxPooling2D,
    GroupNormalization,
    LayerNormalization,
    LeakyReLU,
    MaxPooling1D,
    MaxPooling2D,
    MultiHeadAttention,
    Permute,
    PositionEmbedding,
    ReLU,
    Reshape,
    Residual,
    RMSNormalization,
    SimpleRNN,
    Tanh,
    TimeDistributed,
)
from xpnet.layers.base import walk

torch = pytest.importorskip("torch", reason="needs the extra torch")
nn = torch.nn

ROW, IMAGE, SEQUENCE = (6,), (7, 6, 4), (5, 4)


class First(nn.Module):
    """Returns the output of a module that also returns its state or its weights; if `last`, the last step's output"""

    def __init__(self, module, last=False):
        super().__init__()
        self.module, self.last = module, last

    def forward(self, *x):
        y = self.module(*x)[0]
        return y[:, -1] if self.last else y


class Attention(First):
    def forward(self, x):
        return super().forward(x, x, x)


class Positions(nn.Embedding):
    def forward(self, x):
        return x + self.weight[: x.shape[1]]


class Sum(nn.Module):
    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return self.branch(x) + x


class Joined(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], -1)


RNN = {"batch_first": True}
CASES = {  # shape of a sample, layers, modules
    "dense": (ROW, [Dense(5), ReLU(), Dropout(0.1), Dense(3, use_bias=False)], lambda: nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 3, bias=False))),
    "convolutions": (IMAGE, [Conv2D(6, 3, 2, 1, groups=2), BatchNormalization(epsilon=1e-5), GroupNormalization(3, 1e-5),
                             Conv2DTranspose(4, (3, 2), 2, 1, groups=2), MaxPooling2D(), Flatten(), Dense(3)],
                     lambda: nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, groups=2), nn.BatchNorm2d(6), nn.GroupNorm(3, 6),
                                           nn.ConvTranspose2d(6, 4, (3, 2), 2, 1, groups=2), nn.MaxPool2d(2), nn.Flatten(),
                                           nn.Linear(24, 3))),
    "normalization of flattened images": (
        IMAGE, [Conv2D(3, 2), Flatten(), BatchNormalization(epsilon=1e-5), Tanh(), Frozen(LayerNormalization(1e-5)),
                RMSNormalization(), Dense(4), RMSNormalization(), Dense(2)],
        lambda: nn.Sequential(nn.Conv2d(4, 3, 2), nn.Flatten(), nn.BatchNorm1d(90), nn.Tanh(), nn.LayerNorm(90),
                              nn.RMSNorm(90, 1e-6), nn.Linear(90, 4), nn.RMSNorm(4, 1e-6), nn.Linear(4, 2))),
    "flattened images": (IMAGE, [Flatten(), Dense(3)], lambda: nn.Sequential(nn.Flatten(), nn.Linear(168, 3))),
    "permuted": (IMAGE, [Conv2D(3, 2), Permute((3, 1, 2)), Flatten(), Dense(3)], lambda: nn.Sequential(
        nn.Conv2d(4, 3, 2), nn.Identity(), nn.Flatten(), nn.Linear(90, 3))),
    "flattened branches": (IMAGE, [Concatenate([Sequential([MaxPooling2D(), Flatten(), Dense(2)]), Flatten(),
                                                GlobalMaxPooling2D(), Reshape((168,))]), Dense(3)],
                           lambda: nn.Sequential(Joined(
                               nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)), nn.Flatten(),
                               nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), nn.Flatten()), nn.Linear(342, 3))),
    "convolution in time": ((4, 5), [Conv1D(3, 2), MaxPooling1D(), Flatten(), Dense(2)],
                            lambda: nn.Sequential(nn.Conv1d(5, 3, 2), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(3, 2))),
    "steps": (SEQUENCE, [TimeDistributed(Dense(3, "relu")), Residual(TimeDistributed(Dense(3))), Flatten(), Dense(2)],
              lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), Sum(nn.Linear(3, 3)), nn.Flatten(), nn.Linear(15, 2))),
    "lstm": (SEQUENCE, [LSTM(3, True), LSTM(2)], lambda: nn.Sequential(
        First(nn.LSTM(4, 3, **RNN)), First(nn.LSTM(3, 2, **RNN), last=True))),
    "gru": (SEQUENCE, [GRU(3, True), Flatten(), Dense(2)], lambda: nn.Sequential(
        First(nn.GRU(4, 3, **RNN)), nn.Flatten(), nn.Linear(15, 2))),
    "rnn": (SEQUENCE, [SimpleRNN(3)], lambda: First(nn.RNN(4, 3, **RNN), last=True)),
    "stacked": (SEQUENCE, [LSTM(3, True), LSTM(3, True)], lambda: First(nn.LSTM(4, 3, 2, **RNN))),
    "both ways": (SEQUENCE, [Bidirectional(GRU(3, True)), Bidirectional(LSTM(2, True))], lambda: nn.Sequential(
        First(nn.GRU(4, 3, bidirectional=True, **RNN)), First(nn.LSTM(6, 2, bidirectional=True, **RNN)))),
    "tokens": ((5,), [Embedding(7, 4), PositionEmbedding(6), LayerNormalization(1e-5), MultiHeadAttention(2)],
               lambda: nn.Sequential(nn.Embedding(7, 4), Positions(6, 4), nn.LayerNorm(4), Attention(
                   nn.MultiheadAttention(4, 2, batch_first=True)))),
}  # fmt: skip

NAMES = {  # for modules inside other modules
    "flattened branches": {"0.0.2": "0.branches.0.2"},
    "steps": {"0.0": "0", "1.0": "2.branch", "3": "4"},
    "lstm": {"0": "0.module", "1": "1.module"},
    "gru": {"0": "0.module"},
    "rnn": {"0": "module"},
    "both ways": {"0": "0.module", "1": "1.module"},
    "tokens": {"3": "3.module"},
}


def module_for(make):
    """Return a module in evaluation mode, with random weights everywhere."""
    torch.manual_seed(0)
    module = make().eval()
    for value in module.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.rand_like(value)
    return module


def torch_predict(module, x):
    channels_first = x.ndim == 4 or any(isinstance(inner, nn.Conv1d) for inner in module.modules())
    with torch.no_grad():
        return module(torch.from_numpy(np.moveaxis(x, -1, 1) if channels_first else x)).numpy()


def samples(model, n=5):
    rng = np.random.default_rng(0)
    tokens = model.network.integer_input
    return (
        rng.integers(0, 7, (n, *model.input_shape))
        if tokens
        else rng.normal(size=(n, *model.input_shape)).astype("float32")
    )


def same_predictions(model, module):
    x = samples(model)
    expected = torch_predict(module, x)
    np.testing.assert_allclose(to_numpy(model.predict(x)), expected, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("name", CASES)
def test_a_model_predicts_as_the_module_whose_weights_it_loads(name):
    shape, network, make = CASES[name]
    model, module = built(network, shape), module_for(make)

    load_torch_state_dict(model, module.state_dict())

    same_predictions(model, module)


@pytest.mark.parametrize("name", [name for name in CASES if name != "stacked"])
def test_a_module_predicts_as_the_model_whose_weights_it_loads(name):
    shape, network, make = CASES[name]
    model, module = built(network, shape), module_for(make)

    module.load_state_dict(to_torch_state_dict(model, NAMES.get(name)))

    same_predictions(model, module)


def test_every_layer_with_a_form_is_compared():
    assert {type(layer) for _, network, _ in CASES.values() for _, layer in walk(Sequential(network))} >= FORMS.keys()


def test_a_sequential_of_the_same_layers_has_the_same_names(xp):
    network = [Conv2D(3, 3), BatchNormalization(epsilon=1e-5), LeakyReLU(), Flatten(), Dense(2)]
    module = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(60, 2)).eval()
    model, other = built(network, IMAGE, backend=xp), Model(network, "mse", backend=xp).build(IMAGE)

    module.load_state_dict(to_torch_state_dict(model))
    load_torch_state_dict(other, module.state_dict())

    same_predictions(model, module)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)


def test_names_choose_the_modules():
    module = nn.ModuleDict(
        {"out": nn.Linear(3, 2), "rnn": nn.LSTM(4, 3, bidirectional=True), "unused": nn.ReLU(), "in": nn.Linear(6, 3)}
    )
    model = built([Bidirectional(LSTM(3)), Dense(3), Dense(2)], SEQUENCE)
    names = {"0": "rnn", "1": "in", "2": "out"}

    load_torch_state_dict(model, module.state_dict(), names)

    np.testing.assert_array_equal(model.state_dict()["1.weight"], module["in"].weight.detach().numpy().T)
    back = to_torch_state_dict(model, names)
    assert back.keys() == module.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in module.state_dict().items() if "bias_" not in name)


def test_shared_layers_are_at_every_place():
    shared = Dense(6)
    model = built([shared, Tanh(), shared], ROW)
    tied = to_torch_state_dict(model)

    assert set(tied) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    load_torch_state_dict(model, tied)
    with pytest.raises(
        ConversionError, match=r"Layers 0 and 2 are one layer object.*Received: 'weight' with other values"
    ):
        load_torch_state_dict(model, tied | {"2.weight": tied["2.weight"] + 1})


def test_a_safetensors_file_has_names_but_no_order(tmp_path):
    model = built([Dense(5), GELU(), Dense(3)], ROW)
    arrays = {f"net.{name}": np.ascontiguousarray(value) for name, value in to_torch_state_dict(model).items()}
    save_file(arrays, tmp_path / "net.safetensors")
    other = Model([Dense(5), GELU(), Dense(3)], "mse", seed=1).build(ROW)

    load_torch_state_dict(other, tmp_path / "net.safetensors", {"0": "net.0", "2": "net.2"})

    np.testing.assert_array_equal(other.predict(samples(model)), model.predict(samples(model)))
    with pytest.raises(
        ConversionError, match=r"Pass names=.*0\.\* for Layer 0, Dense.*Received: net\.0\.\*, net\.2\.\*"
    ):
        load_torch_state_dict(other, tmp_path / "net.safetensors")


GOOD = {"0.weight": np.ones((3, 6), "float32"), "0.bias": np.ones(3, "float32")}


@pytest.mark.parametrize(
    ("state_dict", "names", "message"),
    [
        ({}, None, r"Expected 0\.\* for Layer 0, Dense. Received: no arrays"),
        (GOOD | {"1.weight": np.ones(3)}, None, r"Received: 0\.\*, 1\.\*"),
        (
            {"0.weight": GOOD["0.weight"]},
            None,
            "Layer 0, Dense: its module, 0, must hold bias, weight. Received: weight",
        ),
        (GOOD | {"0.weight": np.ones((6, 3))}, None, r"0\.weight must have shape \(3, 6\).*Received: shape \(6, 3\)"),
        (GOOD | {"0.bias": np.array(["a"] * 3)}, None, r"0\.bias: Arrays must hold real numbers"),
        (GOOD | {"0.bias": None}, None, r"0\.bias: An array of numbers is needed"),
        (GOOD | {"0.bias": np.full(3, np.nan)}, None, "must be finite"),
        (GOOD, {"0": "fc"}, r"Expected fc\.\* for Layer 0, Dense"),
        (GOOD, {"1": "fc"}, "names must map paths of layers with weights, 0, to names of modules. Received: 1"),
        (3, None, "must be a mapping of names to arrays.*Received: a int"),
        ("weights.pt", None, r"a pickle, which can run code.*torch\.load\(path, weights_only=True\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(state_dict, names, message):
    model = built([Dense(3)], ROW)
    before = model.get_weights()

    with pytest.raises(ConversionError, match=message):
        load_torch_state_dict(model, state_dict, names)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_damaged_files_are_refused(tmp_path):
    model = built([Dense(3)], ROW)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)

    with pytest.raises(ConversionError, match="Expected a complete safetensors file"):
        load_torch_state_dict(model, tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError):
        load_torch_state_dict(model, tmp_path / "none.safetensors")


def test_layers_without_a_form_are_refused():
    with pytest.raises(
        ConversionError, match=r"Layer 0, MultiHeadAttention: PyTorch's attention has key_dim = d / num_heads"
    ):
        to_torch_state_dict(built([MultiHeadAttention(2, key_dim=3)], SEQUENCE))
    with pytest.raises(ConversionError, match=r"hold one network"):
        to_torch_state_dict(Model([Dense(3)], "mse", seed=(0, 1)).build(ROW))


def test_half_precision_is_accepted():
    model = built([Dense(3)], ROW)

    load_torch_state_dict(model, {"0.weight": torch.ones(3, 6).half(), "0.bias": torch.ones(3).bfloat16()})

    assert all(np.all(w == 1) for w in model.get_weights())
