"""Recurrent layers: gradients, PyTorch's values, masks, truncation, both directions."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer_checks import build, check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.layers.dense import Dense
from xpnet.layers.recurrent import GRU, LSTM, Bidirectional, SimpleRNN
from xpnet.tree import leaves, map_leaves

KINDS = [SimpleRNN, LSTM, GRU]
BOTH_WAYS = [
    Bidirectional(LSTM(2, return_sequences=True)),
    Bidirectional(GRU(2)),
    Bidirectional(SimpleRNN(2, return_sequences=True), merge_mode="sum"),
]
LAYERS = [SimpleRNN(3), LSTM(3, return_sequences=True), GRU(3), *BOTH_WAYS]
few = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shapes = st.sampled_from([(2, 3, 2), (1, 3, 2), (2, 1, 1)])


def name(layer):
    inner = f"({name(layer.layer)})" if isinstance(layer, Bidirectional) else "-sequence" * layer.return_sequences
    return type(layer).__name__ + inner


def run(layer, xp, params, x, dy):
    """Return y, dx and gradients, all on the host."""
    y, backward, *_ = layer.forward(map_leaves(xp.asarray, params), xp.asarray(x))
    dx, grads = backward(xp.asarray(dy))
    return map_leaves(to_numpy, (y, dx, grads))


def assert_all_close(got, expected, rtol=1e-9, atol=1e-11):
    for a, b in zip(leaves(got), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_steps", [False, True])
@few
@given(shape=shapes, seed=st.integers(0, 99))
def test_gradient(kind, all_steps, xp64, shape, seed):
    check_layer(kind(2, return_sequences=all_steps), xp64, np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("layer", BOTH_WAYS, ids=name)
def test_gradient_both_ways(layer, xp64, rng):
    check_layer(layer, xp64, rng.normal(size=(2, 2, 1)))


@pytest.mark.parametrize("layer", LAYERS, ids=name)
def test_float32_agrees_with_numpy(layer, xp, rng):
    x = rng.normal(size=(2, 4, 2))

    got = check_layer(layer, xp, x, wide=False)
    expected = check_layer(layer, make_backend("numpy", dtype="float32"), x, wide=False)

    assert_all_close(map_leaves(to_numpy, got), expected, rtol=1e-4, atol=1e-5)  # sums round in another order


def to_torch(layer, params, suffix="l0"):
    """Return parameters or gradients under PyTorch's names and in its order. GRU's gates z, r, n are r, z, n in PyTorch."""

    def columns(p):
        if isinstance(layer, GRU):
            z, r, n = np.split(p, 3, axis=-1)
            p = np.concatenate([r, z, n], axis=-1)
        return p.T if p.shape[0] > 1 else p[0]

    names = {"weight": "weight_ih_", "recurrent_weight": "weight_hh_", "bias": "bias_ih_", "recurrent_bias": "bias_hh_"}
    return {names[name] + suffix: columns(p) for name, p in params.items()}


def torch_layer(layer, features, named_params, **settings):
    """Return the layer's torch module with these parameters; its other parameters are 0."""
    torch = pytest.importorskip("torch")
    kind = {SimpleRNN: torch.nn.RNN, LSTM: torch.nn.LSTM, GRU: torch.nn.GRU}[type(layer)]
    module = kind(features, layer.units, batch_first=True, dtype=torch.float64, **settings)
    module.load_state_dict(map_leaves(torch.zeros_like, dict(module.state_dict())))
    module.load_state_dict(map_leaves(torch.tensor, named_params), strict=False)
    return module


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_steps", [False, True])
def test_equals_torch(kind, all_steps, xp64, rng):
    torch = pytest.importorskip("torch")
    layer = kind(3, return_sequences=all_steps)
    x, dy = rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 5, 3))
    dy = dy if all_steps else dy[:, -1]
    params, *_ = build(layer, (5, 2))
    module, z = torch_layer(layer, 2, to_torch(layer, params)), torch.tensor(x, requires_grad=True)
    expected = module(z)[0] if all_steps else module(z)[0][:, -1]
    expected.backward(torch.tensor(dy))

    y, dx, grads = run(layer, xp64, params, x, dy)

    assert_all_close((y, dx), (expected.detach().numpy(), z.grad.numpy()))
    for name, grad in to_torch(layer, grads).items():
        assert_all_close(grad, getattr(module, name).grad.numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_equals_torch(kind, xp64, rng):
    torch = pytest.importorskip("torch")
    layer = Bidirectional(kind(3, return_sequences=True))
    x, dy = rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 5, 6))
    params, *_ = build(layer, (5, 2))
    names = to_torch(layer.layer, params["forwards"]) | to_torch(layer.layer, params["backwards"], "l0_reverse")
    module, z = torch_layer(layer.layer, 2, names, bidirectional=True), torch.tensor(x, requires_grad=True)
    expected, _ = module(z)
    expected.backward(torch.tensor(dy))

    y, dx, grads = run(layer, xp64, params, x, dy)

    assert_all_close((y, dx), (expected.detach().numpy(), z.grad.numpy()))
    for name, grad in to_torch(layer.layer, grads["backwards"], "l0_reverse").items():
        assert_all_close(grad, getattr(module, name).grad.numpy())


def test_both_ways_last_output_is_each_directions_own(xp, rng):
    """The forward layer's last output belongs to the last step, and the backward layer's to the first."""
    last, all_steps = Bidirectional(GRU(2)), Bidirectional(GRU(2, return_sequences=True))
    params, x = map_leaves(xp.asarray, build(last, (4, 2))[0]), xp.asarray(rng.normal(size=(2, 4, 2)))

    ends, steps = to_numpy(last(params, x)), to_numpy(all_steps(params, x))

    np.testing.assert_array_equal(ends, np.concatenate([steps[:, -1, :2], steps[:, 0, 2:]], axis=-1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_steps", [False, True])
def test_masked_steps_are_skipped(kind, all_steps, xp64, rng):
    """Padding at the start, in the middle or at the end does not change the output of a sample."""
    padded = np.asarray([[0, 0, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0, 0]], dtype=bool)  # 1: not padding
    x, dy = rng.normal(size=(2, 7, 2)), rng.normal(size=(2, 7, 3))
    x[~padded] = -1.0
    dy = dy if all_steps else dy[:, -1]
    layer = kind(3, return_sequences=all_steps, mask_value=-1.0)
    params, *_ = build(layer, (7, 2))

    y, dx, grads = run(layer, xp64, params, x, dy)

    short_grads, numpy64 = [], make_backend("numpy", dtype="float64")
    for i, counts in enumerate(padded):
        short_dy = dy[i : i + 1, counts] if all_steps else dy[i : i + 1]
        short = run(kind(3, return_sequences=all_steps), numpy64, params, x[i : i + 1, counts], short_dy)
        assert_all_close(y[i, counts] if all_steps else y[i], short[0][0])
        assert_all_close(dx[i, counts], short[1][0])
        short_grads.append(short[2])
    assert (dx[~padded] == 0).all()
    assert not all_steps or (y[~padded] == -1).all()
    assert_all_close(grads, map_leaves(np.add, *short_grads))


def test_a_mask_value_from_numpy_masks_float32(xp):
    layer, x = SimpleRNN(2, mask_value=np.float64(0.1), bias_initializer="ones"), xp.asarray(np.full((1, 3, 2), 0.1))
    params = map_leaves(xp.asarray, layer.init(np.random.default_rng(0), (3, 2))[0])

    np.testing.assert_array_equal(to_numpy(layer(params, x)), 0)


def test_one_feature_off_the_mask_value_is_no_mask(xp):
    layer = SimpleRNN(2, mask_value=0.0)
    params = map_leaves(xp.asarray, build(layer, (1, 2))[0])

    y = to_numpy(layer(params, xp.asarray(np.asarray([[[0.0, 0.0]], [[0.0, 0.1]]]))))

    assert (y[0] == 0).all()
    assert (y[1] != 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("all_steps", [False, True])
def test_truncation_stops_the_gradient_between_segments(kind, all_steps, xp64, rng):
    """With truncate=2, 5 steps form the segments 0, 1-2 and 3-4. PyTorch's state is detached before steps 1 and 3."""
    torch = pytest.importorskip("torch")
    layer = kind(3, return_sequences=all_steps, truncate=2)
    x, dy = rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 5, 3))
    if not all_steps:
        dy[:, :-1] = 0
    params, *_ = build(layer, (5, 2))
    module, z = torch_layer(layer, 2, to_torch(layer, params)), torch.tensor(x, requires_grad=True)
    parts, state = [], None
    for segment in (slice(0, 1), slice(1, 3), slice(3, 5)):
        y, state = module(z[:, segment], state)
        parts.append(y)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
    expected = torch.cat(parts, dim=1)
    expected.backward(torch.tensor(dy))

    y, dx, grads = run(layer, xp64, params, x, dy if all_steps else dy[:, -1])

    assert_all_close(y, expected.detach().numpy() if all_steps else expected[:, -1].detach().numpy())
    assert_all_close(dx, z.grad.numpy())
    for name, grad in to_torch(layer, grads).items():
        assert_all_close(grad, getattr(module, name).grad.numpy())


def test_truncation_longer_than_the_sequence_changes_nothing(xp, rng):
    x, dy = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 3))
    params, *_ = build(LSTM(3), (4, 2))

    assert_all_close(run(LSTM(3, truncate=4), xp, params, x, dy), run(LSTM(3), xp, params, x, dy), rtol=0, atol=0)


@pytest.mark.parametrize("layer", LAYERS, ids=name)
def test_inference_equals_training(layer, xp, rng):
    params, x = map_leaves(xp.asarray, build(layer, (4, 2))[0]), xp.asarray(rng.normal(size=(2, 4, 2)))

    np.testing.assert_array_equal(to_numpy(layer(params, x)), to_numpy(layer.forward(params, x)[0]))


def test_inference_keeps_no_activations(rng):
    """tracemalloc sees only host memory, so only on NumPy."""
    layer = LSTM(32)
    params, x = layer.init(rng, (200, 1))[0], rng.normal(size=(16, 200, 1))

    def peak(function):
        tracemalloc.start()
        kept = function(params, x)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del kept
        return size

    assert peak(layer) < 0.5 * peak(layer.forward)


@pytest.mark.parametrize("layer", [LSTM(3, mask_value=0.0, truncate=2), *BOTH_WAYS], ids=name)
def test_under_jit(layer, rng):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    params, x = build(layer, (4, 2))[0], rng.normal(size=(3, 4, 2))
    x[0, 2:] = 0

    def step(params, x):
        y, backward, *_ = layer.forward(params, x)
        return y, backward(y), layer(params, x)

    got = jax.jit(step)(*map_leaves(make_backend("jax").asarray, (params, x)))
    assert_all_close(got, step(params, x), rtol=1e-4, atol=1e-5)  # float32 against float64


def test_initial_values(rng):
    """Drawn on the host, so no backend. Rows of R are orthonormal, and the bias of the forget gate, the second block, is 1."""
    params, shape = LSTM(3).init(rng, (7, 2))
    closed, _ = LSTM(3, unit_forget_bias=False).init(rng, (7, 2))

    R = params["recurrent_weight"]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(params["bias"], np.repeat([[0.0, 1.0, 0.0, 0.0]], 3, axis=1))
    assert (closed["bias"] == 0).all()
    assert shape == (3,)
    assert LSTM(3, return_sequences=True).init(rng, (7, 2))[1] == (7, 3)
    assert Bidirectional(LSTM(3)).init(rng, (7, 2))[1] == (6,)
    assert Bidirectional(LSTM(3, mask_value=-1.0), merge_mode="sum").init(rng, (7, 2))[1] == (3,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LSTM(0), "units must be an integer of at least 1. Received: units=0"),
        (lambda: LSTM(64, 32), r"LSTM does not accept an input size.*Write LSTM\(32\). Received: return_sequences=32"),
        (lambda: GRU(3, truncate=0), "truncate must be an integer of at least 1. Received: truncate=0"),
        (
            lambda: Bidirectional(SimpleRNN(3, mask_value=-1.0, return_sequences=True), merge_mode="sum"),
            "needs mask_value=0.0",
        ),
        (
            lambda: SimpleRNN(3, mask_value=float("nan")),
            r"mask_value must be a number in \(-inf, inf\). Received: mask_value=nan",
        ),
        (lambda: LSTM(3, recurrent_initializer="ones_"), "Received: 'ones_'"),
        (
            lambda: LSTM(3).init(None, (28,)),
            r"LSTM needs sequences.*Reshape\(\(time, features\)\).*samples of shape \(28,\)",
        ),
        (lambda: Bidirectional(Dense(3)), "layer must be a SimpleRNN, LSTM or GRU. Received: Dense"),
        (
            lambda: Bidirectional(LSTM(3), merge_mode="add"),
            'merge_mode must be one of "concat", "sum". Received: merge_mode=\'add\'',
        ),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
