"""Frozen layers: parameters that do not train."""

import numpy as np
import pytest

from tests.containers import X, Y, model, names, train
from tests.test_model import writable
from xpnet import SGD, Adam, Model
from xpnet.backend import to_numpy
from xpnet.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Frozen,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    TimeDistributed,
    base,
)
from xpnet.random import step_keys
from xpnet.tree import leaves, map_leaves, named_leaves

KEY = step_keys(0, np.arange(1))[0]


def values(tree):
    return {name: to_numpy(leaf).copy() for name, leaf in named_leaves(tree)}


def test_frozen_gradient(xp64, rng):
    """A frozen layer has only the gradient of its input."""
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
    """The trained layer moves as it would alone."""
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


def test_frozen_layers_inside_frozen_layers():
    """Checks only settings, so no backend."""
    inner = Sequential([Frozen(Dense(4)), ReLU(), TimeDistributed(Frozen(Dense(3)))])
    network = Model([Frozen(inner), Dense(3)], "mean_squared_error")
    network.unfreeze("0.2")
    assert [path for path, layer in base.walk(network.network) if isinstance(layer, Frozen)] == ["0", "0.0"]
    network.unfreeze()
    assert not network.network.has_frozen

    network.freeze("0")
    network.freeze("0")
    network.unfreeze("0")
    assert not network.network.has_frozen


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
    with pytest.raises(
        ValueError, match=r"frozen at both places or at neither.*the same Dense at 0 and 2, frozen only at 0"
    ):
        Sequential([Frozen(d), ReLU(), d])


def test_a_network_that_is_all_frozen_has_nothing_to_train(xp):
    with pytest.raises(ValueError, match="no parameters to train"):
        model(xp, [Frozen(Dense(3))]).fit(X, Y, verbose=0)


def test_frozen_dropout_drops(xp):
    """As in Keras and PyTorch, only parameters are frozen."""
    layer = Frozen(Dropout(0.5))
    y, *_ = layer.forward({}, xp.asarray(np.ones((20, 20))), key=xp.asarray(KEY))

    assert np.any(to_numpy(y) == 0)
