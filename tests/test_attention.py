"""Attention and the Transformer block: gradients, PyTorch's values, causality."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer_checks import build, check_layer
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import base
from xpnet.layers.attention import MultiHeadAttention, TransformerBlock
from xpnet.layers.normalization import LayerNormalization
from xpnet.random import step_keys
from xpnet.tree import leaves, map_leaves, named_leaves

KEY = step_keys(0, np.arange(1))[0]
ATTENTION = [MultiHeadAttention(2), MultiHeadAttention(1, key_dim=3, use_causal_mask=True)]
BLOCK = TransformerBlock(units=2, num_heads=1, dim_feedforward=3, dropout=0.3, use_causal_mask=True)
few = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("layer", ATTENTION, ids=repr)
@few
@given(shape=st.sampled_from([(1, 3, 2), (2, 1, 2)]), seed=st.integers(0, 99))
def test_gradient(layer, xp64, shape, seed):
    check_layer(layer, xp64, np.random.default_rng(seed).normal(size=shape))


def test_block_gradient(xp64, rng):
    check_layer(BLOCK, xp64, rng.normal(size=(1, 2, 2)), key=KEY)


@pytest.mark.parametrize("layer", [MultiHeadAttention(2), BLOCK], ids=["attention", "block"])
def test_float32_agrees_with_numpy(layer, xp, rng):
    x, key = rng.normal(size=(2, 5, 2)), KEY if layer.needs_key else None

    got = check_layer(layer, xp, x, key=key, wide=False)
    expected = check_layer(layer, make_backend("numpy", dtype="float32"), x, key=key, wide=False)

    for a, b in zip(leaves(got), leaves(expected), strict=True):
        np.testing.assert_allclose(to_numpy(a), b, rtol=1e-4, atol=1e-5)  # sums round in another order


@pytest.mark.parametrize("causal", [False, True])
def test_equals_torch(causal, xp64, rng):
    torch = pytest.importorskip("torch")
    layer = MultiHeadAttention(3, use_causal_mask=causal)
    x, dy = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 6))
    params, *_ = build(layer, (4, 6))
    module = torch.nn.MultiheadAttention(6, 3, batch_first=True, dtype=torch.float64)
    names = {
        "weight": "in_proj_weight",
        "bias": "in_proj_bias",
        "output_weight": "out_proj.weight",
        "output_bias": "out_proj.bias",
    }
    module.load_state_dict({names[k]: torch.tensor(p.T if p.shape[0] > 1 else p[0]) for k, p in params.items()})
    z = torch.tensor(x, requires_grad=True)
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1) if causal else None
    expected, _ = module(z, z, z, attn_mask=mask, need_weights=False)
    expected.backward(torch.tensor(dy))

    y, backward = layer.forward(map_leaves(xp64.asarray, params), xp64.asarray(x))
    dx, grads = backward(xp64.asarray(dy))

    np.testing.assert_allclose(to_numpy(y), expected.detach().numpy(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(to_numpy(dx), z.grad.numpy(), rtol=1e-9, atol=1e-11)
    for name, parameter in module.named_parameters():
        ours = next(k for k in names if names[k] == name)
        np.testing.assert_allclose(to_numpy(grads[ours]).T.squeeze(), parameter.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_block_equals_torch(xp64, rng):
    torch = pytest.importorskip("torch")
    layer, x = TransformerBlock(4, num_heads=2, dim_feedforward=5), rng.normal(size=(2, 3, 4))
    params, *_ = build(layer, (3, 4))
    module = torch.nn.TransformerEncoderLayer(
        4, 2, 5, dropout=0.0, activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"), batch_first=True,
        norm_first=True, layer_norm_eps=LayerNormalization().epsilon, dtype=torch.float64,
    )  # fmt: skip
    kinds = {"gamma": "weight", "beta": "bias"}
    places = {"0.0.0": "norm1", "1.0.0": "norm2", "1.0.1.0": "linear1", "1.0.1.2": "linear2"}
    attention = {
        "weight": "in_proj_weight",
        "bias": "in_proj_bias",
        "output_weight": "out_proj.weight",
        "output_bias": "out_proj.bias",
    }
    state = {}
    for path, p in named_leaves(params):
        place, kind = path.rsplit(".", 1)
        name = f"self_attn.{attention[kind]}" if place == "0.0.1" else f"{places[place]}.{kinds.get(kind, kind)}"
        state[name] = torch.tensor(p.T if p.shape[0] > 1 else p[0])
    module.load_state_dict(state)

    y = layer(map_leaves(xp64.asarray, params), xp64.asarray(x))

    np.testing.assert_allclose(to_numpy(y), module(torch.tensor(x)).detach().numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "layer",
    [MultiHeadAttention(2, use_causal_mask=True), TransformerBlock(4, 2, 3, use_causal_mask=True)],
    ids=["attention", "block"],
)
def test_causal_output_knows_nothing_of_later_steps(layer, xp, rng):
    """A is exactly 0 above the diagonal, not merely small."""
    params = map_leaves(xp.asarray, build(layer, (5, 4))[0])
    x, dy = rng.normal(size=(2, 2, 5, 4))
    other = np.concatenate([x[:, :3], rng.normal(size=(2, 2, 4))], axis=1)
    dy[:, 3:] = 0

    y, backward, *_ = layer.forward(params, xp.asarray(x))
    dx, _ = backward(xp.asarray(dy))

    np.testing.assert_array_equal(to_numpy(y)[:, :3], to_numpy(layer(params, xp.asarray(other)))[:, :3])
    assert (to_numpy(dx)[:, 3:] == 0).all()


def test_large_scores_give_finite_numbers(xp, rng):
    layer = MultiHeadAttention(2, use_causal_mask=True)
    params = map_leaves(xp.asarray, build(layer, (5, 4))[0])

    y, backward = layer.forward(params, xp.asarray(1e4 * rng.normal(size=(2, 5, 4))))
    dx, grads = backward(y)

    for array in (y, dx, *leaves(grads)):
        assert np.isfinite(to_numpy(array)).all()


@pytest.mark.parametrize("layer", [MultiHeadAttention(2, use_causal_mask=True), BLOCK], ids=["attention", "block"])
def test_under_jit(layer, rng):
    """Only JAX compiles."""
    jax = pytest.importorskip("jax")
    arguments = build(layer, (3, 2))[0], rng.normal(size=(2, 3, 2))

    def step(params, x):
        y, backward, _ = base.forward(layer, params, x, KEY, {})
        return y, backward(y), layer(params, x)

    got = jax.jit(step)(*map_leaves(make_backend("jax").asarray, arguments))
    for a, b in zip(leaves(got), leaves(step(*arguments)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # float32 against float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiHeadAttention(0), "num_heads must be an integer of at least 1. Received: num_heads=0"),
        (lambda: MultiHeadAttention(2, key_dim=0), "key_dim must be an integer of at least 1. Received: key_dim=0"),
        (lambda: MultiHeadAttention(3).init(None, (5, 4)), "multiple of num_heads=3. Set key_dim. Received: d=4"),
        (lambda: MultiHeadAttention(2).init(None, (4,)), r"needs sequences.*samples of shape \(4,\)"),
        (lambda: TransformerBlock(4, 2, 8, dropout=1.0), r"rate must be a number in \[0, 1\). Received: rate=1.0"),
    ],
)
def test_settings_and_shapes_are_checked(make, message):
    """Host-side checks, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()
