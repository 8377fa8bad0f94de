"""What `summary` prints."""

from tests.containers import gate, model
from tests.test_model import make_model
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


def test_summary_sees_through_every_container(xp, capsys):
    layers = [TimeDistributed(gate()), Bidirectional(GRU(2, return_sequences=True)), Flatten(), Dense(1)]
    model(xp, layers, shape=(5, 4)).summary()

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0", "Gate", "(3,)", "30"] in rows
    assert ["0.gate.0", "Dense", "(3,)", "15"] in rows
    assert ["1.forwards", "GRU", "(5,", "2)", "42"] in rows
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
    make_model(make_backend("numpy"), layers=[Flatten(), Dense(4, activation="relu"), Dense(3)]).summary((2, 3))

    assert capsys.readouterr().out == (
        "   layer    output shape  parameters\n"
        "------------------------------------\n"
        "   input    (2, 3)\n"
        "0  Flatten  (6,)                   0\n"
        "1  Dense    (4,)                  28\n"
        "2  ReLU     (4,)                   0\n"
        "3  Dense    (3,)                  15\n"
        "43 parameters in all\n"
    )


def test_summary_of_branches(capsys):
    """The paths are the names that parameters and DivergenceError use. Only on NumPy, because shapes are the same everywhere."""
    branch = Sequential([Dense(8), ReLU(), Dense(3)])
    make_model(make_backend("numpy"), layers=[Residual(branch), Dense(2)]).summary((3,))

    assert capsys.readouterr().out == (
        "       layer       output shape  parameters\n"
        "-------------------------------------------\n"
        "       input       (3,)\n"
        "0      Add         (3,)                  59\n"
        "0.0    Sequential  (3,)                  59\n"
        "0.0.0  Dense       (8,)                  32\n"
        "0.0.1  ReLU        (8,)                   0\n"
        "0.0.2  Dense       (3,)                  27\n"
        "0.1    Identity    (3,)                   0\n"
        "1      Dense       (2,)                   8\n"
        "67 parameters in all\n"
    )
