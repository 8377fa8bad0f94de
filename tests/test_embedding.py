"""Embedding and PositionEmbedding, and the scatter-add that Embedding uses."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gradients import check_gradient
from tests.layer_checks import build, check_layer
from xpnet import Model
from xpnet.backend import make_backend, to_numpy
from xpnet.layers.activations import ReLU
from xpnet.layers.composition import Concatenate
from xpnet.layers.dense import Dense
from xpnet.layers.embedding import Embedding, PositionEmbedding, sum_by_token
from xpnet.layers.recurrent import GRU, LSTM, Bidirectional
from xpnet.layers.reshaping import Flatten
from xpnet.layers.sequential import Sequential
from xpnet.tree import map_leaves

few = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 1, 2)])
def test_gradient(shape, xp64, rng):
    layer = Embedding(4, 2)
    x, dy = rng.integers(4, size=shape), rng.normal(size=(*shape, 2))
    W = layer.init(rng, shape[1:])[0]["weight"]

    def loss(W):
        return float(np.sum(dy * to_numpy(layer.forward({"weight": xp64.asarray(W)}, xp64.asarray(x))[0])))

    _, backward = layer.forward({"weight": xp64.asarray(W)}, xp64.asarray(x))
    dx, grads = backward(xp64.asarray(dy))

    assert dx is None
    check_gradient(loss, W, to_numpy(grads["weight"]))


@few
@given(n=st.sampled_from([1, 2, 7, 8]), count=st.sampled_from([1, 20]), seed=st.integers(0, 99))
def test_sum_by_token_is_a_scatter_add(xp, n, count, seed):
    rng = np.random.default_rng(seed)
    tokens, rows = rng.integers(count, size=n).astype(np.int32), rng.normal(size=(n, 2))
    expected = np.zeros((count, 2))
    np.add.at(expected, tokens, rows)

    y = sum_by_token(xp.asarray(tokens), xp.asarray(rows), count)

    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-5, atol=1e-5)
    assert y.dtype == xp.dtype
    assert y.device == xp.asarray(tokens).device
    assert (to_numpy(y)[np.bincount(tokens, minlength=count) == 0] == 0).all()


def test_every_run_of_tokens_is_summed(rng):
    """All ways to divide 8 sorted rows into runs. Only on one backend, because the cases concern positions."""
    rows = rng.normal(size=(8, 1))
    for cuts in range(2**7):
        tokens = np.cumsum([0, *((cuts >> i) & 1 for i in range(7))]).astype(np.int32)
        expected = np.zeros((9, 1))
        np.add.at(expected, tokens, rows)

        np.testing.assert_allclose(sum_by_token(tokens, rows, 9), expected, rtol=1e-12)


def test_sums_of_many_rows_stay_precise(rng):
    """A difference of running sums would lose 3 more digits of rows with one sign. Only on one backend; all sum in this order."""
    tokens, rows = rng.integers(50, size=4096).astype(np.int32), rng.uniform(1, 2, size=(4096, 3)).astype(np.float32)
    expected = np.zeros((50, 3))
    np.add.at(expected, tokens, rows.astype(np.float64))

    np.testing.assert_allclose(sum_by_token(tokens, rows, 50), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [6, 300])  # with a one-hot product, with sum_by_token
def test_equals_torch(count, xp64, rng):
    torch = pytest.importorskip("torch")
    x, dy, W = rng.integers(count, size=(3, 5)), rng.normal(size=(3, 5, 2)), rng.normal(size=(count, 2))
    tensor = torch.tensor(W, requires_grad=True)
    expected = torch.nn.functional.embedding(torch.tensor(x), tensor)
    expected.backward(torch.tensor(dy))

    y, backward = Embedding(count, 2).forward({"weight": xp64.asarray(W)}, xp64.asarray(x))

    np.testing.assert_array_equal(to_numpy(y), expected.detach().numpy())
    np.testing.assert_allclose(to_numpy(backward(xp64.asarray(dy))[1]["weight"]), tensor.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("count", [6, 300])
def test_padding_equals_torch(count, xp64, rng):
    torch = pytest.importorskip("torch")
    x, dy, W = rng.integers(4, size=(3, 5)), rng.normal(size=(3, 5, 2)), rng.normal(size=(count, 2))
    W[0] = 0.0  # as in torch
    tensor = torch.tensor(W, requires_grad=True)
    expected = torch.nn.functional.embedding(torch.tensor(x), tensor, padding_idx=0)
    expected.backward(torch.tensor(dy))

    y, backward = Embedding(count, 2, padding_idx=0).forward({"weight": xp64.asarray(W + 1.0)}, xp64.asarray(x))

    np.testing.assert_allclose(to_numpy(y), np.where(x[..., None] == 0, 0.0, expected.detach().numpy() + 1.0))
    np.testing.assert_allclose(to_numpy(backward(xp64.asarray(dy))[1]["weight"]), tensor.grad.numpy(), rtol=1e-12)


def test_a_token_beyond_32_bits_is_out_of_range_too():
    """On NumPy, because JAX refuses such tokens when they are converted."""
    model = Model([Embedding(5, 2), Flatten(), Dense(1)], "mean_squared_error", backend="numpy").build((3,))

    with pytest.raises(ValueError, match=r"integer tokens in 0 \.\. 4.*Received: tokens from 4294967297"):
        model.predict(np.full((2, 3), 2**32 + 1))


def test_padding_is_skipped_by_a_recurrent_layer(xp, rng):
    between = Bidirectional(GRU(3, mask_value=0.0, return_sequences=True))
    network = Sequential([Embedding(5, 3, padding_idx=0), between, ReLU(), LSTM(4, mask_value=0.0)])
    params = map_leaves(xp.asarray, network.init(rng, (6,))[0])
    short, *_ = network.forward(params, xp.asarray(np.array([[1, 2, 3]])))

    for tokens in ([1, 2, 3, 0, 0, 0], [0, 1, 2, 0, 3]):
        y, *_ = network.forward(params, xp.asarray(np.array([tokens])))
        np.testing.assert_allclose(to_numpy(y), to_numpy(short), rtol=1e-5)
        np.testing.assert_allclose(
            to_numpy(network(params, xp.asarray(np.array([tokens])))), to_numpy(short), rtol=1e-5
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_tokens_of_any_integer_type_in_a_network(dtype, xp, rng):
    """In a Sequential, the Embedding comes first, where no dx is needed."""
    network = Sequential([Embedding(5, 3), Flatten(), Dense(2)])
    params, shape, _ = network.init(rng, (4,))
    x = xp.asarray(np.asarray([[0, 1, 1, 4], [4, 4, 2, 0]], dtype=np.int32).astype(dtype))

    y, backward, _ = network.forward(map_leaves(xp.asarray, params), x)
    dx, grads = backward(y, need_dx=False)

    assert network.integer_input
    assert tuple(y.shape) == (2, *shape)
    assert y.dtype == grads[0]["weight"].dtype == xp.dtype
    assert dx is None
    assert (to_numpy(grads[0]["weight"])[3] == 0).all()


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0, 4]], r"integer tokens in 0 \.\. 3.*increase input_dim.*Received: tokens from 0 to 4"),
        ([[-1, 0]], "Received: tokens from -1 to 0"),
        ([[0.0, 1.5]], r"x\.astype\(int\).*Received: tokens of dtype .*float32"),
    ],
)
@pytest.mark.parametrize(
    "network",
    [[Embedding(4, 2), Flatten(), Dense(2)], [Concatenate([Sequential([Embedding(4, 2)])]), Flatten(), Dense(2)]],
    ids=["first", "in a branch"],
)
def test_a_model_takes_integer_tokens_in_range(network, tokens, message, xp):
    model = Model(network, "softmax_cross_entropy", backend=xp)

    with pytest.raises(ValueError, match=message):
        model.fit(np.array(tokens), [1], batch_size=1, verbose=0)

    assert model.state is None


@pytest.mark.parametrize("max_length", [3, 5])
def test_position_embedding_gradient(max_length, xp64, rng):
    """Rows of positions beyond the sequence get no gradient."""
    x = rng.normal(size=(2, 3, 2))

    _, _, grads = check_layer(PositionEmbedding(max_length), xp64, x)

    assert (to_numpy(grads["weight"])[3:] == 0).all()


def test_positions_are_added_from_the_first(xp, rng):
    layer = PositionEmbedding(5)
    params, x = build(layer, (5, 2))[0], rng.normal(size=(2, 3, 2))

    y = layer(map_leaves(xp.asarray, params), xp.asarray(x))

    np.testing.assert_allclose(to_numpy(y), x + params["weight"][:3], rtol=1e-6, atol=1e-6)


def test_under_jit(rng):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    network = Sequential([Embedding(300, 3), PositionEmbedding(4)])
    params, x = build(network, (4,))[0], rng.integers(300, size=(2, 4)).astype(np.int32)

    def step(params, x):
        y, backward, _ = network.forward(params, x)
        return y, backward(y, need_dx=False)[1]

    y, grads = jax.jit(step)(*map_leaves(make_backend("jax").asarray, (params, x)))
    expected_y, expected = step(params, x)
    np.testing.assert_allclose(y, expected_y, rtol=1e-5)  # float32 against float64
    np.testing.assert_allclose(grads[0]["weight"], expected[0]["weight"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Embedding(0, 3), "input_dim must be an integer of at least 1. Received: input_dim=0"),
        (lambda: Embedding(3, 2.5), "output_dim must be an integer of at least 1. Received: output_dim=2.5"),
        (
            lambda: Sequential([Flatten(), Embedding(4, 2)]).init(np.random.default_rng(0), (5,)),
            "Layer 1, Embedding: Only the first layer can receive integers.* Received: place 1",
        ),
        (lambda: Embedding(3, 2, padding_idx=3), r"padding_idx must be in 0 \.\. 2. Received: padding_idx=3"),
        (lambda: PositionEmbedding(0), "max_length must be an integer of at least 1. Received: max_length=0"),
        (lambda: PositionEmbedding(4).init(None, (5, 2)), r"time <= max_length=4.*samples of shape \(5, 2\)"),
        (lambda: PositionEmbedding(4).init(None, (4,)), r"Put Embedding before it.*samples of shape \(4,\)"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
