"""What `summary` prints."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tests.containers import X, Y, gate, model
from tests.test_model import make_model, writable
from xpnet import Model, Sequential
from xpnet.backend import make_backend
from xpnet.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Dense,
    Embedding,
    Flatten,
    Frozen,
    ReLU,
    Residual,
    TimeDistributed,
)  # fmt: skip
from xpnet.losses import Loss


def test_summary_sees_through_every_container(xp, capsys):
    layers = [TimeDistributed(gate()), Bidirectional(GRU(2, return_sequences=True)), Flatten(), Dense(1)]
    model(xp, layers, shape=(5, 4)).summary()

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0", "Gate", "(3,)", "30", "240"] in rows
    assert ["0.gate.0", "Dense", "(3,)", "15", "120"] in rows
    assert ["1.forwards", "GRU", "(5,", "2)", "42", "300"] in rows
    assert ["135", "parameters", "in", "all"] in rows


def test_summary_draws_nothing_and_takes_no_memory(capsys):
    """The network has 10¹² parameters, more than a machine can hold. Checks only shapes, so no backend."""
    layers = [Embedding(10**9, 1000), Bidirectional(LSTM(10000)), BatchNormalization(), Dense(10**6)]
    Model(layers, "mean_squared_error").summary((7,))

    assert "1,020,881,120,000 parameters in all" in capsys.readouterr().out


def test_summary_counts_frozen_parameters(xp, capsys):
    trained = model(xp, [Frozen(Dense(4)), Dense(3)])
    trained.summary()

    assert "35 parameters in all, 20 of them frozen" in capsys.readouterr().out


def test_summary(capsys):
    """Only on NumPy, because shapes are the same everywhere."""
    layers = [Flatten(), Dense(4, activation="relu"), Dense(3)]
    returned = make_model(make_backend("numpy"), layers=layers).summary((2, 3))

    assert capsys.readouterr().out == f"{returned}\n"
    assert returned == (
        "   layer    output shape  parameters  FLOPs\n"
        "-------------------------------------------\n"
        "   input    (2, 3)\n"
        "0  Flatten  (6,)                   0      0\n"
        "1  Dense    (4,)                  28     48\n"
        "2  ReLU     (4,)                   0      0\n"
        "3  Dense    (3,)                  15     24\n"
        "43 parameters in all\n"
        "172 bytes of parameters, 68 bytes of activations and 72 FLOPs per sample"
    )
    assert repr(returned) == "<Summary of 7 lines>"


def test_summary_of_branches():
    """The paths are the names that parameters and DivergenceError use. Only on NumPy, because shapes are the same everywhere."""
    branch = Sequential([Dense(8), ReLU(), Dense(3)])
    network = make_model(make_backend("numpy", dtype="float64"), layers=[Residual(branch), Dense(2)])

    assert network.summary((3,)) == (
        "       layer       output shape  parameters  FLOPs\n"
        "--------------------------------------------------\n"
        "       input       (3,)\n"
        "0      Add         (3,)                  59     96\n"
        "0.0    Sequential  (3,)                  59     96\n"
        "0.0.0  Dense       (8,)                  32     48\n"
        "0.0.1  ReLU        (8,)                   0      0\n"
        "0.0.2  Dense       (3,)                  27     48\n"
        "0.1    Identity    (3,)                   0      0\n"
        "1      Dense       (2,)                   8     12\n"
        "67 parameters in all\n"
        "536 bytes of parameters, 192 bytes of activations and 108 FLOPs per sample"
    )
    assert network.summary((3,), expand_nested=False, line_length=60).splitlines()[3:5] == [
        "0  Add    (3,)                                     59     96",
        "1  Dense  (2,)                                      8     12",
    ]


def test_summary_has_the_options_of_keras(xp):
    """Keras' names: keras.src.utils.summary_utils.print_summary."""
    printed = []
    network = model(xp, [Dense(4), ReLU(), Frozen(Dense(4)), Dense(3)])
    shown = network.summary(print_fn=printed.append, show_trainable=True, layer_range=["1", "2"], expand_nested=False)

    assert printed == [shown]
    rows = [line.split() for line in shown.splitlines()]
    assert rows[0][-1] == "trains"
    assert rows[3:5] == [["1", "ReLU", "(4,)", "0", "0"], ["2", "Frozen", "(4,)", "20", "32", "no"]]
    with pytest.raises(ValueError, match="layer_range must be the paths"):
        network.summary(layer_range=["1", "7"])


def test_a_summary_for_other_samples_needs_the_same_parameters(xp):
    built = model(xp, [Dense(4)], shape=(3,))
    with pytest.raises(ValueError, match=r"same parameters.*Received: samples of shape \(5,\)"):
        built.summary((5,))


def test_in_a_notebook_the_summary_is_html(monkeypatch, capsys):
    """The value of a cell is displayed, so it is not printed too. Only on NumPy, because text is the same everywhere."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    shown = model(make_backend("numpy"), [Dense(4)]).summary()

    assert capsys.readouterr().out == ""
    assert shown._repr_html_().startswith("<table>")


@dataclass(frozen=True)
class Marked(Loss):
    """l = (z - y)²,   dz = 2 (z - y)"""

    text: str

    def elements(self, y, z):
        return (z - y) ** 2, 2 * (z - y)


def test_the_html_of_a_model_and_a_history_is_escaped(xp):
    trained = Model([Dense(4), Dense(3)], Marked("<script>"), backend=writable(xp))
    assert "<script>" not in trained._repr_html_()
    history = trained.fit(X, Y, epochs=20, verbose=0)
    history.history["<b>"] = [1.0] * 20

    assert "<script>" not in trained._repr_html_()
    assert "&lt;script&gt;" in trained._repr_html_()
    html = history._repr_html_()
    assert "<b>" not in html
    assert html.count("<tr>") == 14  # the header, 4 epochs, a gap and 8 epochs
