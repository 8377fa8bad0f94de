"""Containers: what is inside is found, whoever wrote the container; shared layers; frozen layers."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from tests.layer_checks import check_layer
from tests.test_model import writable
from xpnet import SGD, Adam, DivergenceError, Model
from xpnet.backend import to_numpy
from xpnet.layers import (
    GRU,
    LSTM,
    Add,
    BatchNormalization,
    Bidirectional,
    Concatenate,
    Container,
    Conv1D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    Frozen,
    Layer,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    TimeDistributed,
    base,
)
from xpnet.layers.mapping import map_layers
from xpnet.random import step_keys
from xpnet.tree import leaves, map_leaves, named_leaves

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = X @ np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
KEY = step_keys(0, np.arange(1))[0]


@dataclass(frozen=True)
class Gate(Container):
    """y = f(x) g(x): a custom container"""

    layer: Layer
    gate: Layer

    def output_shape(self, input_shape):
        return base.output_shape(self.layer, input_shape)

    def forward(self, params, x, *, key=None, statistics=None):
        passes = {}
        for name, layer in self.children.items():
            passes[name] = base.forward(layer, params[name], x, key, statistics and statistics[name])
        (y, layer_backward, new), (g, gate_backward, new_gate) = passes["layer"], passes["gate"]

        def backward(dy, need_dx=True):
            dx, grads = layer_backward(dy * g, need_dx)
            dx_gate, gate_grads = gate_backward(dy * y, need_dx)
            return (dx + dx_gate if need_dx else None), {"layer": grads, "gate": gate_grads}

        return y * g, backward, {"layer": new, "gate": new_gate}


def gate(**settings):
    return Gate(Dense(3, **settings), Sequential([Dense(3), Sigmoid()]))


def model(xp, layers, optimizer=None, loss="mean_squared_error", shape=(4,)):
    return Model(layers, loss, optimizer or SGD(0.1), backend=writable(xp)).build(shape)


def train(model, steps=1, x=X, y=Y):
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model


def names(tree):
    return [name for name, _ in named_leaves(tree)]


def values(tree):
    return {name: to_numpy(leaf).copy() for name, leaf in named_leaves(tree)}


# ---------------------------------------------------------------------- what is inside


def test_a_container_of_ones_own_passes_the_gradient_check(xp64, rng):
    check_layer(gate(), xp64, rng.normal(size=(5, 4)))


def test_what_a_container_needs_is_what_its_layers_need():
    """Checks only settings, so no backend."""
    noisy = Gate(Sequential([Dense(3), Dropout(0.5)]), Sequential([BatchNormalization(), Flatten()]))

    assert noisy.needs_key
    assert noisy.has_statistics
    assert noisy.needs_leading_batch
    assert not any((gate().needs_key, gate().has_statistics, gate().needs_leading_batch, gate().integer_input))


def test_the_walk_goes_into_every_container():
    """Checks only settings, so no backend."""
    network = Sequential([gate(), TimeDistributed(Sequential([Tanh()])), Bidirectional(LSTM(2)), Residual(ReLU())])

    assert [(path, type(layer).__name__) for path, layer in base.walk(network)] == [
        ("", "Sequential"), ("0", "Gate"), ("0.gate", "Sequential"), ("0.gate.0", "Dense"), ("0.gate.1", "Sigmoid"),
        ("0.layer", "Dense"), ("1", "TimeDistributed"), ("1", "Sequential"), ("1.0", "Tanh"), ("2", "Bidirectional"),
        ("2.backwards", "LSTM"), ("2.forwards", "LSTM"), ("3", "Add"), ("3.0", "ReLU"), ("3.1", "Identity"),
    ]  # fmt: skip


def test_mapped_layers_are_inside_every_container():
    """Checks only settings, so no backend."""
    network = Sequential([gate(), TimeDistributed(Tanh()), Bidirectional(LSTM(2)), Residual(Tanh())])
    mapped = map_layers(network, lambda path, layer: ReLU() if isinstance(layer, Tanh) else layer)

    kinds = [type(layer) for _, layer in base.walk(mapped)]
    assert Tanh not in kinds
    assert kinds.count(ReLU) == 2
    assert mapped.layers[0] is network.layers[0]


def test_summary_sees_through_every_container(xp, capsys):
    layers = [TimeDistributed(gate()), Bidirectional(GRU(2, return_sequences=True)), Flatten(), Dense(1)]
    model(xp, layers, shape=(5, 4)).summary()

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0", "Gate", "(3,)", "30"] in rows
    assert ["0.gate.0", "Dense", "(3,)", "15"] in rows
    assert ["1.forwards", "GRU", "(5,", "2)", "42"] in rows
    assert ["135", "parameters", "in", "all"] in rows


@pytest.mark.parametrize(
    ("layers", "place", "leaf"),
    [
        ([Gate(Dense(3), Sequential([Dense(3)])), Dense(3)], ("0", "gate", "0"), "0.gate.0 Dense output"),
        ([TimeDistributed(Sequential([Tanh(), Dense(2)])), Flatten(), Dense(3)], ("0", "1"), "0.1 Dense output"),
    ],
    ids=["own", "TimeDistributed"],
)
def test_the_divergence_guard_sees_through_every_container(xp, layers, place, leaf):
    x = X if isinstance(layers[0], Gate) else np.stack([X, X], axis=1)
    trained = model(xp, layers, shape=x.shape[1:])
    part = trained.parameters
    for key in place:
        part = part[key if isinstance(part, dict) else int(key)]
    part["weight"] = trained.backend.asarray(np.full(part["weight"].shape, 3e38, "float32"))

    with pytest.raises(DivergenceError) as caught:
        train(trained, x=1e3 * x)
    assert caught.value.layer == leaf


@pytest.mark.parametrize(
    "layers",
    [
        [Add([Sequential([Dense(3), Softmax()])])],
        [Concatenate([Sequential([Dense(1), Softmax()]), Sequential([Dense(2), Softmax(), Dropout(0.1)])])],
        [Dense(4), Frozen(Sequential([Dense(3), Softmax()]))],
    ],
    ids=["Add", "Concatenate", "Frozen"],
)
def test_the_end_of_the_network_is_found_in_every_container(layers):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match="that ends in Softmax"):
        Model(layers, "softmax_cross_entropy")


def test_a_sum_of_different_ends_is_no_activation():
    """Checks only settings, so no backend."""
    Model([Dense(3), Residual(Sequential([Dense(3), Softmax()]))], "softmax_cross_entropy")


# ---------------------------------------------------------------------- tied weights

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
    """The same layers, without sharing."""
    return [
        map_layers(layer, lambda path, one: one if isinstance(one, Container) else copy.copy(one)) for layer in layers
    ]


def data(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, *shape)).astype("float32"), rng.normal(size=(6, 3)).astype("float32")


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
    """The sum of the gradients of two equal layers moves the one."""
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
    if xp.name == "array_api_strict":
        pytest.skip("the test guard takes the place of its constructor, which pickle looks for")
    d = Dense(4)
    first = model(xp, [d, ReLU(), d, Dense(3)], Adam(0.01))
    second = copy_of(first)
    assert second.network.layers[0] is second.network.layers[2]
    train(first, 2), train(second, 2)

    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_networks_that_share_differ_from_those_that_do_not():
    """Otherwise one would run the other's compiled step. Checks only settings, so no backend."""
    d = Dense(4)

    assert Sequential([d, d]) != Sequential([Dense(4), Dense(4)])
    assert Sequential([d, d]) == Sequential([e := Dense(4), e])


def test_statistics_of_a_shared_layer_move_once_to_the_mean_of_its_places(xp):
    norm = BatchNormalization(momentum=0.0, center=False, scale=False)
    trained = model(xp, [norm, Dense(4), norm, Dense(3)])
    inner = to_numpy(X) @ to_numpy(trained.parameters[1]["weight"])  # before normalization the mean of X is taken off
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


# ---------------------------------------------------------------------- frozen layers


def test_frozen_gradient(xp64, rng):
    """Of the input alone: there is no other."""
    layer = Frozen(Sequential([Dense(3), Tanh(), BatchNormalization()]))
    params, _, statistics = base.init(layer, np.random.default_rng(0), (4,))
    params, statistics = map_leaves(xp64.asarray, params), map_leaves(xp64.asarray, statistics)
    x, dy = rng.normal(size=(3, 4)), rng.normal(size=(3, 3))
    _, backward, new = layer.forward(params, xp64.asarray(x), statistics=statistics)
    dx, grads = backward(xp64.asarray(dy))

    assert grads == {}
    assert backward(xp64.asarray(dy), need_dx=False) == (None, {})
    for a, b in zip(leaves(new), leaves(statistics), strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    h = 1e-6
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        ends = [to_numpy(layer(params, xp64.asarray(x + s), statistics=statistics)) for s in (step, -step)]
        np.testing.assert_allclose(to_numpy(dx)[i], np.sum(dy * (ends[0] - ends[1])) / (2 * h), rtol=1e-6, atol=1e-8)


OPTIMIZERS = [
    SGD(0.1, momentum=0.9, l2=0.1, weight_decay=0.1),
    Adam(0.01, l1=0.1, global_clipnorm=1.0),
    SGD(0.1, momentum=0.5, moving_average=True),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["SGD", "Adam", "average"])
@pytest.mark.parametrize(
    ("layers", "path"),
    [
        (lambda: [Frozen(Sequential([Dense(4), BatchNormalization()])), Dense(3)], "0."),
        (lambda: [Dense(4), Frozen(Dense(5, activation="tanh")), Dense(3)], "1."),
        (lambda: [Residual(Sequential([Frozen(Dense(4)), ReLU()])), Dense(3)], "0.0.0."),
        (lambda: [Frozen(d := Dense(4)), Frozen(d), Dense(3)], "0."),
        (lambda: [s := Sequential([Frozen(Dense(4)), Dense(4)]), s, Dense(3)], "0.0."),
    ],
    ids=["first", "middle", "branch", "shared", "shared container"],
)
def test_a_frozen_layer_keeps_its_parameters_and_statistics(layers, path, optimizer, xp):
    trained = model(xp, layers(), optimizer)
    before = values((trained.state["params"], trained.state["statistics"]))
    train(trained, 3)
    after = values((trained.state["params"], trained.state["statistics"]))

    kept = [name for name in before if np.array_equal(before[name], after[name])]
    assert [name for name in before if name[2:].startswith(path)] == kept
    assert not any(f".{path}" in f".{name}" for name in names(trained.state["optimizer"]))


def test_frozen_layers_leave_the_norm_of_all_gradients(xp):
    """The trained layer moves as it does where it is alone."""
    both = model(xp, [Dense(4), Dense(3)], SGD(0.1, global_clipnorm=1e-3))
    both.freeze("0")
    weights = both.get_weights()
    hidden = X @ weights[0] + weights[1]
    alone = model(xp, [Dense(3)], SGD(0.1, global_clipnorm=1e-3))
    alone.set_weights(weights[2:])
    train(both), train(alone, x=hidden)

    for a, b in zip(both.get_weights()[2:], alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_freeze_and_unfreeze_by_path(xp):
    trained = model(xp, [Dense(4), Residual(Dense(4)), Dense(3)], SGD(0.1, momentum=0.9))
    train(trained)
    trained.freeze("0", "1.0")
    assert names(trained.state["optimizer"]) == ["velocity.2.bias", "velocity.2.weight"]
    memory, before = values(trained.state["optimizer"]), trained.get_weights()
    assert np.any(memory["velocity.2.weight"])
    train(trained)
    after = trained.get_weights()
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [True] * 4 + [False] * 2

    memory = values(trained.state["optimizer"])
    trained.unfreeze("0")
    now = values(trained.state["optimizer"])
    assert set(now) == {f"velocity.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
    assert not np.any(now["velocity.0.weight"])
    np.testing.assert_array_equal(now["velocity.2.weight"], memory["velocity.2.weight"])
    train(trained)
    assert not np.array_equal(trained.get_weights()[0], after[0])
    trained.unfreeze()
    assert not trained.network.has_frozen


def test_freeze_before_build_and_on_all_places_of_a_shared_layer(xp):
    d = Dense(4)
    trained = Model([d, ReLU(), d, Dense(3)], "mean_squared_error", backend=writable(xp))
    trained.freeze("2")
    trained.build((4,))
    before = trained.get_weights()
    train(trained)

    assert [np.array_equal(a, b) for a, b in zip(before, trained.get_weights(), strict=True)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("path", "advice"), [("1.00", 'Did you mean "1.0"'), ("7", '"0", "1", "1.0"'), ("", '"0", "1"')]
)
def test_paths_that_are_none_are_named(path, advice, xp):
    trained = model(xp, [Dense(4), Residual(Dense(4)), Dense(3)])
    for method in (trained.freeze, trained.unfreeze):
        with pytest.raises(ValueError, match=advice):
            method(path)


def test_a_layer_frozen_at_one_of_its_places_is_refused():
    """Checks only settings, so no backend."""
    d = Dense(4)
    with pytest.raises(ValueError, match=r"freeze it at both places.*the same Dense at 0 and 2, frozen at 0 alone"):
        Sequential([Frozen(d), ReLU(), d])


def test_summary_counts_frozen_parameters(xp, capsys):
    trained = model(xp, [Frozen(Dense(4)), Dense(3)])
    trained.summary()

    assert "35 parameters in all, 20 of them frozen" in capsys.readouterr().out


def test_a_network_that_is_all_frozen_has_nothing_to_train(xp):
    with pytest.raises(ValueError, match="no parameters to train"):
        model(xp, [Frozen(Dense(3))]).fit(X, Y, verbose=0)


def test_frozen_dropout_drops(xp):
    """As in Keras and PyTorch, what is frozen are parameters."""
    layer = Frozen(Dropout(0.5))
    y, *_ = layer.forward({}, xp.asarray(np.ones((20, 20))), key=xp.asarray(KEY))

    assert np.any(to_numpy(y) == 0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Dense(3, activation="relu"), (2,)),
        (Conv1D(3, 1, activation="relu"), (5, 2)),
        (Conv2DTranspose(3, 1, activation="relu"), (5, 5, 2)),
    ],
    ids=["Dense", "Conv1D", "Conv2DTranspose"],
)
def test_a_layer_with_an_activation_never_computes_without_it(layer, shape, xp, rng):
    """Its forward by hand raises; inside a container both layers run."""
    network = Sequential([layer])
    params, _, _ = network.init(rng, shape)
    params, x = map_leaves(xp.asarray, params), xp.asarray(rng.normal(size=(4, *shape)))

    for compute in (layer.forward, layer):
        with pytest.raises(ValueError, match=r"stands for two layers.*put it into a Sequential"):
            compute(params[0], x)
    assert np.all(to_numpy(network(params, x)) >= 0)


# ---------------------------------------------------------------------- penalties by path


def moved(xp, layers, optimizer):
    """The parameters after a step whose gradients are 0."""
    trained = model(xp, layers, optimizer)
    before = trained.get_weights()
    train(trained, y=to_numpy(trained.predict(X)))
    return before, trained.get_weights()


@pytest.mark.parametrize("setting", ["l2", "weight_decay"])
def test_penalties_by_path(setting, xp):
    layers = [Dense(4), Residual(Sequential([Dense(4), Dense(4)])), Dense(3)]
    before, after = moved(xp, layers, SGD(0.5, **{setting: {"1": 0.5, "1.0.1": 0.25}}))

    shrunk = [1.0, 1.0, 0.75, 1.0, 0.875, 1.0, 1.0, 1.0]
    for a, b, factor in zip(before, after, shrunk, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=1e-4, atol=1e-5)  # the gradient is rounding noise


def test_the_l1_penalty_by_path(xp):
    before, after = moved(xp, [Dense(4), Dense(3)], SGD(0.5, l1={"1": 0.01}))

    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[2], before[2] - 0.005 * np.sign(before[2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("l2", "message"),
    [
        ({"00": 0.1}, "The paths of this network's layers are .* Did you mean .0."),
        ({"2": 0.1}, "The layer at 2 is the layer at 0; use that path. Received: '2'"),
        ({"0": -1.0}, r"l2\['0'\] must be a number in \[0, inf\)"),
    ],
    ids=["unknown", "shared", "negative"],
)
def test_paths_of_penalties_are_checked(l2, message):
    """Checks only settings, so no backend."""
    d = Dense(4)
    with pytest.raises(ValueError, match=message):
        Model([d, ReLU(), d, Dense(3)], "mean_squared_error", SGD(0.1, l2=l2))
