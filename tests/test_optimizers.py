"""Optimizers: each formula by hand and against PyTorch, on every backend."""

import numpy as np
import pytest

from xpnet.backend import make_backend, to_numpy
from xpnet.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop, get
from xpnet.tree import leaves, map_leaves

ALL = [
    SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9, nesterov=True), SGD(0.1, momentum=0.9, moving_average=True),
    Adam(0.1), AdamW(0.1), RMSprop(0.1), RMSprop(0.1, momentum=0.9), Adagrad(0.1),
    SGD(0.1, l2=0.1), SGD(0.1, l1=0.1), SGD(0.1, weight_decay=0.1), Adam(0.1, clipvalue=0.5), SGD(0.1, clipnorm=0.5),
    SGD(0.1, momentum=0.5, global_clipnorm=0.5), Adam(0.1, epsilon=0.1), RMSprop(0.1, epsilon=0.1),
    Adagrad(0.1, epsilon=0.1, initial_accumulator_value=0.5),
]  # fmt: skip


def run(optimizer, xp, steps=4, seed=0):
    """Take some steps on a tree of two parameters, with fixed gradients. Return the host parameters."""
    rng = np.random.default_rng(seed)
    params = {"weight": rng.normal(size=(3, 2)), "bias": rng.normal(size=(1, 2))}
    params = xp.copy(map_leaves(xp.asarray, params))
    writable = xp.__class__.__name__ != "ReadOnlyNumpy"
    if not writable:  # an optimizer may write into these trees
        params = map_leaves(np.array, params)
    state = optimizer.init(params)
    for _ in range(steps):
        grads = {"weight": rng.normal(size=(3, 2)), "bias": rng.normal(size=(1, 2))}
        grads = map_leaves(lambda g: xp.asarray(g) if writable else np.array(xp.asarray(g)), grads)
        params, state = optimizer.update(params, grads, state, 0.1)
    return params


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_every_backend_gives_numpys_result(optimizer, xp):
    expected = run(optimizer, make_backend("numpy"))
    params = run(optimizer, xp)

    assert all(xp.owns(p) and p.dtype == xp.dtype for p in leaves(params))
    for p, q in zip(leaves(params), leaves(expected), strict=True):
        np.testing.assert_allclose(to_numpy(p), q, rtol=1e-5, atol=1e-6)  # a few float32 roundings per step


def torch_optimizer(optimizer, parameters, torch):
    common = {"lr": 0.1, "weight_decay": optimizer.l2}
    match optimizer:
        case AdamW():
            return torch.optim.AdamW(parameters, lr=0.1, eps=optimizer.epsilon, weight_decay=optimizer.weight_decay)
        case Adam():
            return torch.optim.Adam(parameters, **common, eps=optimizer.epsilon)
        case RMSprop():
            return torch.optim.RMSprop(
                parameters, **common, alpha=0.9, eps=optimizer.epsilon, momentum=optimizer.momentum
            )
        case Adagrad():
            start = optimizer.initial_accumulator_value
            return torch.optim.Adagrad(parameters, **common, initial_accumulator_value=start, eps=optimizer.epsilon)
        case _:
            return torch.optim.SGD(parameters, **common, momentum=optimizer.momentum, nesterov=optimizer.nesterov)


@pytest.mark.parametrize("optimizer", [o for o in ALL if not (o.l1 or getattr(o, "moving_average", 0))], ids=repr)
def test_equals_torch(optimizer, xp64):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weight, bias = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((3, 2), (1, 2)))
    reference = torch_optimizer(optimizer, [{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}], torch)
    for _ in range(4):
        weight.grad, bias.grad = (torch.tensor(rng.normal(size=shape)) for shape in ((3, 2), (1, 2)))
        if optimizer.clipvalue:
            torch.nn.utils.clip_grad_value_([weight, bias], optimizer.clipvalue)
        if optimizer.clipnorm:
            for p in (weight, bias):
                torch.nn.utils.clip_grad_norm_([p], optimizer.clipnorm)
        if optimizer.global_clipnorm:
            torch.nn.utils.clip_grad_norm_([weight, bias], optimizer.global_clipnorm)
        if optimizer.weight_decay and not isinstance(optimizer, AdamW):
            with torch.no_grad():
                weight *= 1 - 0.1 * optimizer.weight_decay
        reference.step()

    params = run(optimizer, xp64)

    # torch adds 1e-6 to the norm
    np.testing.assert_allclose(to_numpy(params["weight"]), weight.detach().numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(to_numpy(params["bias"]), bias.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_moving_average_is_momentum_with_a_smaller_rate(xp64):
    """v = m v + (1-m) g, p -= lr v is heavy-ball momentum with learning rate (1-m) lr."""

    def path(optimizer, rate):
        params = {"weight": xp64.asarray(np.ones((2, 2))) * 1.0}  # new memory, to be overwritten
        state = optimizer.init(params)
        for step in range(5):
            grads = {"weight": xp64.asarray(np.full((2, 2), step + 1.0)) * 1.0}
            params, state = optimizer.update(params, grads, state, rate)
        return to_numpy(params["weight"])

    average = path(SGD(0.1, momentum=0.9, moving_average=True), 1.0)

    np.testing.assert_allclose(average, path(SGD(0.1, momentum=0.9), 0.1), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "penalty"),
    [
        ({"l2": 0.5}, lambda W: 0.5 * W),
        ({"l1": 0.5}, lambda W: 0.5 * np.sign(W)),
        ({"l1": 0.5, "l2": 0.3}, lambda W: 0.5 * np.sign(W) + 0.3 * W),
        ({"weight_decay": 0.5}, lambda W: 0.5 * W),
    ],
)
def test_penalties_by_hand_spare_biases(settings, penalty, xp):
    W = np.random.default_rng(0).normal(size=(3, 2))  # the same as in `run`
    penalized, plain = run(SGD(0.1, **settings), xp, steps=1), run(SGD(0.1), xp, steps=1)

    np.testing.assert_array_equal(to_numpy(penalized["bias"]), to_numpy(plain["bias"]))
    np.testing.assert_allclose(
        to_numpy(penalized["weight"]), to_numpy(plain["weight"]) - 0.1 * penalty(W), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("limit", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_gradients_below_the_limit_stay_as_they_are(limit, xp):
    clipped, plain = run(SGD(0.1, **{limit: 1e3}), xp), run(SGD(0.1), xp)

    for p, q in zip(leaves(clipped), leaves(plain), strict=True):
        np.testing.assert_array_equal(to_numpy(p), to_numpy(q))


def test_optimizers_by_name():
    """Checks only settings, so no backend."""
    assert get("adam") == Adam()
    assert get("sgd") == SGD(0.01)
    assert get(Adagrad()) == Adagrad()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), "-0.1"),
        (lambda: SGD(0.1, momentum=1.1), r"momentum must be a number in \[0, 1\]. Received: momentum=1.1"),
        (lambda: SGD(0.1, nesterov=True), "Set momentum > 0"),
        (lambda: SGD(0.1, momentum=0.9, nesterov=True, moving_average=True), "at most one of them"),
        (lambda: Adam(0.1, epsilon=0), r"epsilon must be a number in \(0, inf\)"),
        (lambda: Adam(0.1, weight_decay=-1), r"weight_decay must be a number in \[0, inf\)"),
        (lambda: SGD(0.1, clipnorm=0), r"clipnorm must be a number in \(0, inf\)"),
        (lambda: SGD(0.1, clipnorm=1, clipvalue=1), "at most one of .*Received: clipvalue, clipnorm"),
        (lambda: Adagrad(0.1, initial_accumulator_value=-1), "accumulator_value must be a number"),
        (lambda: SGD(0.1, momentum=0.9, nesterov="no"), "nesterov must be True or False"),
        (lambda: get(["adam"]), r"Received: \['adam'\]"),
        (lambda: get("adamax"), '"rmsprop", "adagrad". Write "adam". Received: .adamax'),
    ],
)
def test_settings_are_checked(make, message):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("limit", ["clipnorm", "global_clipnorm"])
@pytest.mark.parametrize("size", [1e30, 1e-30, 3e38, 2e-38])
def test_norms_neither_overflow_nor_vanish(limit, size, xp):
    """In float32, squares and norms above 3e38 overflow, and squares below 1e-45 vanish."""
    unit = np.random.default_rng(1).uniform(0.5, 1, size=(3, 2)).astype("float32")
    optimizer = SGD(1.0, **{limit: 1e-6 * size})
    zero = xp.asarray(np.zeros((3, 2))) * 1.0
    params, _ = optimizer.update({"weight": zero}, {"weight": xp.asarray(unit * np.float32(size)) * 1.0}, {}, 1.0)

    step = to_numpy(params["weight"]).astype(float)
    expected = -1e-6 * size * unit / np.linalg.norm(unit)
    if 1e-6 * size > 1e-37:  # below 1e-37, float32 has fewer digits, and some libraries flush numbers to 0
        np.testing.assert_allclose(step, expected, rtol=1e-5)
    else:
        np.testing.assert_allclose(step, expected, atol=1e-37)


def test_a_global_norm_is_of_gradients_of_any_sizes(xp):
    grads = {"bias": np.full((1, 2), 3e-30), "weight": np.full((1, 2), 4e30), "zero": np.zeros((1, 2))}
    params = {name: xp.asarray(np.zeros((1, 2))) * 1.0 for name in grads}
    optimizer = SGD(1.0, global_clipnorm=1e-10)
    params, _ = optimizer.update(params, {name: xp.asarray(g) * 1.0 for name, g in grads.items()}, {}, 1.0)

    np.testing.assert_allclose(to_numpy(params["weight"]), -1e-10 / 2**0.5, rtol=1e-5)
    assert not np.any(to_numpy(params["zero"]))


@pytest.mark.parametrize("limit", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_clipping_zeros_changes_nothing_and_hides_no_nan(limit, xp):
    optimizer = SGD(1.0, **{limit: 1.0})

    def step(g):
        zero = xp.asarray(np.zeros((1, 2))) * 1.0
        params, _ = optimizer.update({"weight": zero}, {"weight": xp.asarray(np.array([[g, 0.0]])) * 1.0}, {}, 1.0)
        return to_numpy(params["weight"])[0, 0]

    assert step(0.0) == 0
    with np.errstate(invalid="ignore"):
        assert np.isnan(step(np.nan))
        assert limit == "clipvalue" or not np.isfinite(step(np.inf))


DEFAULTS = [Adam(0.01), AdamW(0.01), RMSprop(0.01), RMSprop(0.01, momentum=0.5), Adagrad(0.01)]


def path(optimizer, xp, gradients):
    """Return the path of a parameter that starts at 1, as float64 on the host."""
    params = {"weight": xp.asarray(np.ones((1, 2))) * 1.0}
    state = optimizer.init(params)
    for g in gradients:
        params, state = optimizer.update(params, {"weight": xp.asarray(g) * 1.0}, state, 0.01)
    return to_numpy(params["weight"])


@pytest.mark.parametrize("size", [1e-4, 1e-7, 1e-9])
@pytest.mark.parametrize("optimizer", DEFAULTS, ids=repr)
def test_twenty_steps_with_small_gradients_are_pytorchs(optimizer, size, xp64):
    """With the defaults of both libraries. Here, the place and the size of epsilon matter."""
    torch = pytest.importorskip("torch")
    gradients = np.random.default_rng(0).normal(size=(20, 1, 2)) * size
    weight = torch.tensor(np.ones((1, 2)), requires_grad=True)
    kind = getattr(torch.optim, type(optimizer).__name__)
    settings = {
        name: getattr(optimizer, ours)
        for name, ours in {"initial_accumulator_value": "initial_accumulator_value", "momentum": "momentum",
                           "alpha": "rho"}.items() if hasattr(optimizer, ours)
    }  # fmt: skip
    reference = kind([weight], lr=0.01, weight_decay=optimizer.weight_decay, **settings)
    for g in gradients:
        weight.grad = torch.tensor(g)
        reference.step()

    np.testing.assert_allclose(path(optimizer, xp64, gradients), weight.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("g", [1e-3, 1e-8, 1e-12])
def test_steps_of_a_constant_gradient_in_closed_form(g, xp64):
    """Adam: lr g/(g + ε); RMSprop: s = (1 - ρᵗ) g²; Adagrad from 0: s = t g²."""
    t = np.arange(1, 21)
    roots = {
        Adam(0.01): (1e-8, g * np.ones(20)),
        AdamW(0.01, weight_decay=0.0): (1e-8, g * np.ones(20)),
        RMSprop(0.01): (1e-8, g * np.sqrt(1 - 0.9**t)),
        Adagrad(0.01, initial_accumulator_value=0.0): (1e-10, g * np.sqrt(t)),
    }

    for optimizer, (epsilon, root) in roots.items():
        moved = 1 - path(optimizer, xp64, np.full((20, 1, 2), g))
        np.testing.assert_allclose(moved, np.sum(0.01 * g / (root + epsilon)), rtol=1e-9)  # 1 - p cancels
