"""The parameters of layers that appear at several places of a network."""

import copy
import pickle

import numpy as np
import pytest

from tests.containers import Gate, X, model, names, train
from tests.layer_checks import check_layer
from tests.test_model import writable
from xpnet import SGD, Adam, DivergenceError, Model
from xpnet.backend import to_numpy
from xpnet.layers import (
    GRU,
    Add,
    BatchNormalization,
    Bidirectional,
    Container,
    Dense,
    Flatten,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    TimeDistributed,
)
from xpnet.layers.mapping import map_layers

TIED = {  # name: shape of a sample, layers with one object at two places, the paths of both
    "beside": ((4,), lambda d: [Dense(4), d, ReLU(), d, Dense(3)], Dense(4), "1", "3"),
    "activation": ((4,), lambda d: [d, d, Dense(3)], Dense(4, activation="tanh"), "0", "2"),
    "across": ((4,), lambda d: [d, Sequential([ReLU(), Residual(d)]), Dense(3)], Dense(4), "0", "1.1.0"),
    "branches": ((4,), lambda d: [Add([d, Sequential([Tanh(), d])]), Dense(3)], Dense(4), "0.0", "0.1.1"),
    "own": ((4,), lambda d: [Gate(d, Sequential([d, Sigmoid()])), Dense(3)], Dense(4), "0.gate.0", "0.layer"),
    "container": ((4,), lambda s: [s, Tanh(), s, Dense(3)], Sequential([Dense(4), Tanh(), Dense(4)]), "0", "2"),
    "time": ((2, 4), lambda d: [TimeDistributed(d), TimeDistributed(Sequential([d])), Flatten(), Dense(3)], Dense(4), "0", "1.0"),
    "direction": (
        (2, 4), lambda r: [Bidirectional(r, "sum"), r, Flatten(), Dense(3)], GRU(4, return_sequences=True), "0.forwards", "1",
    ),
}  # fmt: skip


def tied(name, copied=False):
    shape, make, layer, first, later = TIED[name]
    layers = make(layer)
    return shape, copy_each(layers) if copied else layers, first, later


def copy_each(layers):
    """Return the same layers, without sharing."""
    return [
        map_layers(layer, lambda path, one: one if isinstance(one, Container) else copy.copy(one)) for layer in layers
    ]


@pytest.mark.parametrize("name", TIED)
def test_one_layer_object_at_two_places_has_one_set_of_parameters(name, xp):
    shape, layers, first, later = tied(name)
    trained = model(xp, layers, shape=shape)

    assert any(n.startswith(f"{first}.") for n in names(trained.parameters))
    assert not any(n.startswith(f"{later}.") for n in names(trained.parameters))


@pytest.mark.parametrize("name", TIED)
def test_gradients_of_all_places_are_added(name, xp64, rng):
    shape, layers, *_ = tied(name)

    check_layer(Sequential(layers), xp64, rng.normal(size=(3, *shape)))


def test_a_shared_layer_trains_as_two_that_start_alike_and_move_together(xp):
    """The shared layer moves by the sum of the gradients of two equal layers."""
    d = Dense(4)
    shared, apart = model(xp, [d, Tanh(), d, Dense(3)]), model(xp, [Dense(4), Tanh(), Dense(4), Dense(3)])
    start = shared.get_weights()
    apart.set_weights([*start[:2], *start[:2], *start[2:]])
    train(shared), train(apart)
    moved = [new - old for new, old in zip(apart.get_weights(), [*start[:2], *start[:2], *start[2:]], strict=True)]

    got = [new - old for new, old in zip(shared.get_weights(), start, strict=True)]
    for a, b in zip(got, [moved[0] + moved[2], moved[1] + moved[3], *moved[4:]], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # differences of float32 numbers near 1


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_copies_share_too(copy_of, xp):
    d = Dense(4)
    first = model(xp, [d, ReLU(), d, Dense(3)], Adam(0.01))
    second = copy_of(first)
    assert second.network.layers[0] is second.network.layers[2]
    train(first, 2), train(second, 2)

    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_networks_that_share_differ_from_those_that_do_not():
    """Otherwise one network would run the other's compiled step. Checks only settings, so no backend."""
    d = Dense(4)

    assert Sequential([d, d]) != Sequential([Dense(4), Dense(4)])
    assert Sequential([d, d]) == Sequential([e := Dense(4), e])


def test_statistics_of_a_shared_layer_move_once_to_the_mean_of_its_places(xp):
    norm = BatchNormalization(momentum=0.0, center=False, scale=False)
    trained = model(xp, [norm, Dense(4), norm, Dense(3)])
    inner = to_numpy(X) @ to_numpy(trained.parameters[1]["weight"])  # normalization subtracts the mean of X first
    scale = np.sqrt(X.var(axis=0) + 1e-3)
    inner = ((X - X.mean(axis=0)) / scale) @ to_numpy(trained.parameters[1]["weight"])
    train(trained)

    assert names(trained.state["statistics"]) == ["0.mean", "0.variance"]
    expected = (X.mean(axis=0) + inner.mean(axis=0)) / 2
    np.testing.assert_allclose(to_numpy(trained.state["statistics"][0]["mean"])[0], expected, rtol=1e-4, atol=1e-5)


def test_places_that_need_other_shapes_are_named(xp):
    d = Dense(3)
    with pytest.raises(ValueError, match=r"Layers 0 and 2 are one layer object.*\(4, 3\).*\(3, 3\)"):
        model(xp, [d, ReLU(), d])


def test_shared_layers_in_summary_weights_and_inference(xp, capsys):
    d = Dense(4)
    trained = train(model(xp, [d, ReLU(), Residual(d), Dense(3)]), 2)
    trained.summary()
    output = capsys.readouterr().out
    W, b, V, c = trained.get_weights()

    assert "shared with 0" in output
    assert "35 parameters in all" in output
    h = np.maximum(X @ W + b, 0)
    np.testing.assert_allclose(to_numpy(trained.predict(X)), (h @ W + b + h) @ V + c, rtol=1e-4, atol=1e-5)
    trained.set_weights([0 * W, b, V, c])
    assert np.all(to_numpy(trained.parameters[0]["weight"]) == 0)


def test_several_seeds_share_too(xp):
    d = Dense(4)
    trained = Model([d, ReLU(), d, Dense(3)], "mean_squared_error", SGD(0.1), seed=[0, 1], backend=writable(xp)).build(
        (4,)
    )
    one = model(xp, [d, ReLU(), d, Dense(3)])
    train(trained), train(one)

    for several, single in zip(trained.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(several[0], single, rtol=1e-4, atol=1e-5)  # sums round in another order


def test_a_shared_layer_that_diverges_is_named(xp):
    d = Dense(4)
    trained = model(xp, [d, ReLU(), d, Dense(3)])
    trained.parameters[0]["weight"] = trained.backend.asarray(np.full((4, 4), 1e30, "float32"))

    with pytest.raises(DivergenceError, match="2 Dense output"):
        train(trained)
