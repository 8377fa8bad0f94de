"""Branches side by side, and one layer at many positions."""

import numpy as np
import pytest

from tests.layer_checks import build, check_layer
from xpnet import Model
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import BatchNormalization, base
from xpnet.layers.activations import Tanh
from xpnet.layers.composition import Add, Concatenate, Parallel, Residual, TimeDistributed
from xpnet.layers.dense import Dense
from xpnet.layers.dropout import Dropout
from xpnet.layers.embedding import Embedding
from xpnet.layers.reshaping import Flatten, Identity, Reshape
from xpnet.layers.sequential import Sequential
from xpnet.random import fold_in, step_keys
from xpnet.tree import leaves, map_leaves, named_leaves

KEY = step_keys(0, np.arange(1))[0]
NOISY = Sequential([Dense(3), Dropout(0.4), BatchNormalization()])
LAYERS = [
    Add([Dense(2), Identity(), Dense(2, activation="tanh")]),
    Residual(Sequential([Dense(4, activation="tanh"), Dense(2)])),
    Residual(Dense(3), shortcut=Dense(3, use_bias=False)),
    Residual(NOISY, shortcut=Dense(3)),
    Concatenate([Dense(3), Identity(), Dropout(0.5)]),
    Concatenate([NOISY, Concatenate([Tanh(), NOISY])]),
]


def kind(layer):
    return type(layer).__name__


def needs_key(layer):
    return KEY if layer.needs_key else None


@pytest.mark.parametrize("layer", LAYERS, ids=kind)
def test_gradient(layer, xp64, rng):
    check_layer(layer, xp64, rng.normal(size=(3, 2)), key=needs_key(layer))


@pytest.mark.parametrize("axis", [1, 2, -1, -2])
def test_concatenate_gradient_along_each_axis(axis, xp64, rng):
    check_layer(Concatenate([Tanh(), Identity(), Tanh()], axis=axis), xp64, rng.normal(size=(2, 2, 3)))


@pytest.mark.parametrize(
    "layer", [Dense(3, activation="tanh"), Flatten(), NOISY, Add([Dense(2), Identity()])], ids=repr
)
def test_time_distributed_gradient(layer, xp64, rng):
    check_layer(TimeDistributed(layer), xp64, rng.normal(size=(2, 3, 2)), key=needs_key(layer))


@pytest.mark.parametrize("layer", [*LAYERS, Sequential([Reshape((2, 1)), TimeDistributed(NOISY)])], ids=kind)
def test_float32_agrees_with_numpy(layer, xp, rng):
    x = rng.normal(size=(5, 2))

    expected = check_layer(layer, make_backend("numpy", dtype="float32"), x, key=needs_key(layer), wide=False)
    got = check_layer(layer, xp, x, key=needs_key(layer), wide=False)

    for a, b in zip(leaves(expected), leaves(got), strict=True):
        np.testing.assert_allclose(to_numpy(b), a, rtol=1e-4, atol=1e-5)  # sums round in another order


def test_values(xp, rng):
    x = rng.normal(size=(2, 3, 4)).astype("float32")

    def apply(layer):
        return to_numpy(layer(map_leaves(xp.asarray, build(layer, x.shape[1:])[0]), xp.asarray(x)))

    np.testing.assert_array_equal(apply(Residual(Identity())), 2 * x)
    np.testing.assert_array_equal(apply(Add([Identity()] * 3)), x + x + x)
    np.testing.assert_array_equal(apply(Concatenate([Identity()] * 2)), np.concatenate([x, x], -1))
    np.testing.assert_array_equal(apply(Concatenate([Identity()] * 2, axis=1)), np.concatenate([x, x], 1))
    np.testing.assert_array_equal(apply(TimeDistributed(Reshape((2, 2)))), x.reshape(2, 3, 2, 2))


def test_parallel_gives_a_tuple(xp, rng):
    layer = Parallel([Dense(2), Tanh()])
    params, shape, _ = build(layer, (3,))
    params, x = map_leaves(xp.asarray, params), xp.asarray(rng.normal(size=(4, 3)))
    (a, b), backward, _ = layer.forward(params, x)
    dx, grads = backward((a, b))

    assert shape == ((2,), (3,))
    dense_dx, dense_grads = Dense(2).forward(params[0], x)[1](a)
    np.testing.assert_array_equal(to_numpy(dx), to_numpy(dense_dx + Tanh().forward({}, x)[1](b)[0]))
    np.testing.assert_array_equal(to_numpy(grads[0]["weight"]), to_numpy(dense_grads["weight"]))
    assert grads[1] == {}


def test_names_are_positions():
    """Checks only trees, so no backend."""
    params, *_ = build(
        Sequential([Residual(Sequential([Tanh(), Dense(3)])), Concatenate([Identity(), Dense(2)])]), (3,)
    )

    assert {name for name, _ in named_leaves(params)} == {"0.0.1.weight", "0.0.1.bias", "1.1.weight", "1.1.bias"}


def test_time_distributed_shares_the_layer_s_parameters():
    """Checks only trees, so no backend."""
    params, shape, _ = build(TimeDistributed(Dense(3)), (5, 2))

    assert {name for name, _ in named_leaves(params)} == {"weight", "bias"}
    assert shape == (5, 3)


def test_branches_draw_for_themselves(xp):
    x, key = xp.asarray(np.ones((20, 20))), xp.asarray(KEY)

    y, *_ = Concatenate([Dropout(0.5), Dropout(0.5)]).forward(({}, {}), x, key=key)

    first, second = (Dropout(0.5).forward({}, x, key=fold_in(key, i))[0] for i in range(2))
    np.testing.assert_array_equal(to_numpy(y), np.concatenate([to_numpy(first), to_numpy(second)], axis=1))
    assert np.any(to_numpy(first) != to_numpy(second))


@pytest.mark.parametrize("wrap", [lambda layer: Add([Dense(3), layer]), TimeDistributed])
def test_statistics_pass_through(wrap, xp, rng):
    layer = wrap(BatchNormalization(momentum=0))
    x = xp.asarray(rng.normal(2, 3, size=(6, 5, 3) if wrap is TimeDistributed else (6, 3)))
    params, statistics = map_leaves(xp.asarray, build(layer, x.shape[1:])[::2])
    y, _, new = layer.forward(params, x, statistics=statistics)

    np.testing.assert_allclose(to_numpy(layer(params, x, statistics=new)), to_numpy(y), rtol=1e-4, atol=1e-4)
    assert [name for name, _ in named_leaves(new)] == [name for name, _ in named_leaves(statistics)]


def test_integer_input_is_the_branches():
    """Checks only settings, so no backend."""

    class Tokens(Identity):
        integer_input = True

    assert Add([Tokens(), Tokens()]).integer_input
    assert TimeDistributed(Tokens()).integer_input
    assert not Add([Identity()]).integer_input


def test_without_dx(xp, rng):
    """In a first layer, no branch computes dx."""
    layer = Residual(Dense(3), shortcut=Dense(3))
    params, x = map_leaves(xp.asarray, build(layer, (2,))[0]), xp.asarray(rng.normal(size=(4, 2)))
    y, backward, _ = layer.forward(params, x)

    assert backward(y, need_dx=False)[0] is None
    identity = Residual(Sequential([Tanh()]))
    assert identity.forward((({},), {}), x)[1](x, need_dx=False)[0] is None


def test_no_dx_below_the_first_parameters(xp, rng):
    """Even if the layer below is a container."""
    asked = []

    class Asking(Dense):
        def forward(self, params, x):
            y, backward = super().forward(params, x)
            return y, lambda dy, need_dx=True: (asked.append(need_dx), backward(dy, need_dx))[1]

    network = Sequential([Sequential([Flatten()]), Residual(Identity()), Asking(3), Tanh(), Asking(2)])
    params, x = map_leaves(xp.asarray, network.init(rng, (4,))[0]), xp.asarray(rng.normal(size=(2, 4)))
    y, backward, _ = network.forward(params, x)
    backward(y, need_dx=False)

    assert asked == [True, False]


@pytest.mark.parametrize(
    "layer", [Concatenate([Embedding(3, 4), Embedding(3, 2)]), TimeDistributed(Embedding(3, 2))], ids=kind
)
def test_tokens_have_no_gradient(layer, xp):
    tokens = xp.asarray(np.array([[[0, 2, 1], [1, 1, 0]]]))
    y, backward, _ = layer.forward(map_leaves(xp.asarray, build(layer, tokens.shape[1:])[0]), tokens)

    assert layer.integer_input
    assert backward(y)[0] is None


@pytest.mark.parametrize("layer", [LAYERS[-1], Sequential([Reshape((2, 1)), TimeDistributed(NOISY)])], ids=kind)
def test_under_jit(layer, rng):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    arguments = *build(layer, (2,))[::2], rng.normal(size=(3, 2)), KEY

    def step(params, statistics, x, key):
        y, backward, statistics = base.forward(layer, params, x, key, statistics)
        return y, statistics, backward(y)

    got = jax.jit(step)(*map_leaves(make_backend("jax").asarray, arguments))
    for a, b in zip(leaves(got), leaves(step(*arguments)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # float32 against float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Add([]), r"Add needs at least one branch. Received: branches=\(\)"),
        (lambda: Concatenate([Identity()], axis=0), "axis must be an integer other than 0.* Received: axis=0"),
        (lambda: Concatenate([Identity()], axis="1"), "Received: axis='1'"),
        (
            lambda: init(Concatenate([Identity(), Sequential([Flatten(), Dense(5)])]), (5, 3)),
            r"the same size along all other axes.*\[\(5, 3\), \(5,\)\]",
        ),
        (
            lambda: init(Residual(Sequential([Embedding(5, 3), Flatten()])), (3,)),
            "Either all branches or no branch must take integers.*Received: Sequential, Identity",
        ),
        (
            lambda: init(Add([Parallel([Tanh()]), Parallel([Tanh()])]), (4,)),
            "A layer, loss or prediction needs one output",
        ),
        (
            lambda: init(Sequential([Parallel([Tanh()]), Flatten()]), (4,)),
            "Layer 1, Flatten: A layer, loss or prediction needs one output",
        ),
        (lambda: init(TimeDistributed(Parallel([Tanh()])), (4, 2)), "Parallel returns several"),
        (lambda: Model([Parallel([Dense(2)])], "mean_squared_error").build((4,)), "Parallel returns several"),
        (
            lambda: init(Add([Dense(2), Dense(3)]), (4,)),
            r"Add needs branches whose outputs have the same shape. .*\[\(2,\), \(3,\)\]",
        ),
        (lambda: init(Add([Identity(), Dense(3)]), (4, 4)), "Branch 1, Dense: "),
        (
            lambda: init(Concatenate([Identity()], axis=2), (4,)),
            r"axis must be an axis of.* Received: axis=2 for samples of shapes \[\(4,\)\]",
        ),
        (lambda: init(Concatenate([Identity()], axis=-2), (4,)), "axis 0 is the batch. Received: axis=-2"),
        (
            lambda: init(Concatenate([Identity(), Flatten()]), (2, 3)),
            "along axis -1 needs branches whose outputs have the same size",
        ),
        (lambda: init(TimeDistributed(Dense(3)), (4,)), r"at least two axes.*Received: samples of shape \(4,\)"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()


def init(layer, input_shape):
    return layer.init(np.random.default_rng(0), input_shape)


@pytest.mark.parametrize(
    "make", [Residual, TimeDistributed, lambda branch: Add([branch])], ids=["Residual", "Time", "Add"]
)
@pytest.mark.parametrize("branch", ["relu", Dense, [Dense(3), Dense(4)]], ids=["name", "class", "list"])
def test_a_branch_is_one_layer(make, branch):
    """Checks only settings, so no backend."""
    with pytest.raises(TypeError, match=r"A branch must be a single layer. Put several into Sequential"):
        make(branch)


@pytest.mark.parametrize("branches", [Dense(2), 5, "relu"], ids=repr)
def test_branches_are_a_list(branches):
    """Checks only settings, so no backend."""
    with pytest.raises(TypeError, match="Concatenate needs a list of branches"):
        Concatenate(branches)


def test_a_forgotten_key_and_forgotten_statistics_are_named(xp, rng):
    x = xp.asarray(np.ones((2, 3)))
    for network in (Sequential([Dense(4), Dropout(0.5)]), Residual(Dropout(0.5))):
        params = map_leaves(xp.asarray, network.init(rng, (3,))[0])
        with pytest.raises(TypeError, match=r"needs a key. Pass key="):
            network.forward(params, x)

    network = Sequential([BatchNormalization()])
    params = map_leaves(xp.asarray, network.init(rng, (3,))[0])
    for use in (network.forward, network):
        with pytest.raises(TypeError, match=r"BatchNormalization needs its running statistics. Pass statistics="):
            use(params, x)
