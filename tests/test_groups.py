"""A batch whose parts several members of a group compute equals the whole batch, up to rounding."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from xpnet import SGD, Adam, Model, layers, random
from xpnet.backend import make_backend, to_numpy
from xpnet.groups import ALONE, RowsKey, Threads, divide, group_of
from xpnet.losses import PerPosition, SoftmaxCrossEntropy
from xpnet.step import Inference, training_step
from xpnet.tree import named_leaves

ROWS = 23  # in a data set; batches of 7 do not divide by 2 or 3

STILL = layers.Frozen(layers.Sequential([layers.Dense(5), layers.BatchNormalization()]))
NORM = layers.BatchNormalization()
SHARED = layers.Sequential([layers.BatchNormalization(), layers.Dense(5)])
NETWORKS = {
    "dense": ((5,), [layers.Dense(6, activation="tanh"), layers.Dense(3)]),
    "random": ((5,), [layers.GaussianNoise(0.3), layers.Dense(7, activation="tanh"), layers.Dropout(0.4), layers.Dense(3)]),
    "batch normalization": (
        (5,),
        [
            layers.Dense(6),
            layers.BatchNormalization(0.8),
            layers.Tanh(),
            layers.BatchNormalization(center=False),
            layers.Dense(3),
        ],
    ),
    "images": (
        (6, 6, 2),
        [
            layers.RandomTranslation(1, 1),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.BatchNormalization(),
            layers.SpatialDropout2D(0.3),
            layers.AveragePooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ],
    ),
    "LSTM": ((4, 3), [layers.LSTM(5), layers.Dense(3)]),
    "shared and frozen": (
        (5,),
        [STILL, SHARED, layers.Tanh(), SHARED, layers.Dense(3)],
    ),
    "shared normalization": ((5,), [NORM, layers.Dense(5), NORM, layers.Dense(3)]),
    "inside time": (
        (4, 3),
        [
            layers.TimeDistributed(layers.Sequential([layers.Dense(5), layers.Dropout(0.4), layers.BatchNormalization()])),
            layers.Residual(layers.SpatialDropout1D(0.4)),
            layers.GRU(4),
            layers.Dense(3),
        ],
    ),
}  # fmt: skip


ON_JAX = ("random", "images")  # JAX compiles every operation of an eager step for every size of a part


def trained(
    xp,
    shape,
    network,
    group,
    weighted=False,
    loss="softmax_cross_entropy",
    optimizer=None,
    batch=7,
    target=(),
    pieces=1,
):
    """Return the state and records after three steps."""
    if xp.name == "jax" and not any(network is NETWORKS[name][1] for name in ON_JAX):
        pytest.skip("JAX takes 20 s for each network")
    rng = np.random.default_rng(1)
    model = Model(network, loss, optimizer or SGD(0.1, momentum=0.9), ["accuracy", "f1"], seed=2, backend=xp)
    model.build(shape)
    y = rng.integers(0, 3, (ROWS, *target))
    weight = np.where(np.arange(ROWS) % 4 == 0, 0.0, rng.random(ROWS))
    data = model.prepare(rng.normal(size=(ROWS, *shape)), y, weight if weighted else None)
    scores = model._scores
    step = training_step(Inference(model.network, xp.dtype, group, pieces), scores, model.optimizer)
    batches = {
        "learning_rate": np.full(3, 0.1),
        "index": np.arange(3 * batch).reshape(3, batch) % ROWS,
        "key": random.step_keys(3, np.arange(3)),
    }
    state, records = xp.scan_eagerly(step, xp.copy(model.state), batches, data)
    return {name: to_numpy(leaf) for name, leaf in named_leaves({"state": state, "records": records})}


def assert_same(one, other, exactly=False):
    assert one.keys() == other.keys()
    for name, values in one.items():
        if exactly and name.startswith("state"):
            np.testing.assert_array_equal(values, other[name], err_msg=name)
        else:  # three steps in float32, from values near 1
            np.testing.assert_allclose(values, other[name], rtol=1e-4, atol=3e-6, err_msg=name)


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_equal_the_whole_batch(name, xp):
    assert_same(trained(xp, *NETWORKS[name], Threads(2)), trained(xp, *NETWORKS[name], ALONE))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_parts_changes_only_rounding(name):
    """Only on NumPy, because nothing depends on the library."""
    xp = make_backend("numpy")

    assert_same(trained(xp, *NETWORKS[name], Threads(3)), trained(xp, *NETWORKS[name], ALONE))


@pytest.mark.parametrize("name", ["dense", "random", "LSTM"])
@pytest.mark.parametrize("group", [ALONE, Threads(2)], ids=repr)
def test_pieces_of_a_part_equal_the_whole_batch(name, group, xp):
    def run(group, pieces):
        return trained(xp, *NETWORKS[name], group, weighted=True, pieces=pieces)

    assert_same(run(group, 3), run(ALONE, 1))


@pytest.mark.parametrize("name", ["dense", "batch normalization"])
def test_weights_count_over_the_whole_batch(name, xp):
    shape, network = NETWORKS[name]

    assert_same(
        trained(xp, shape, network, Threads(2), weighted=True), trained(xp, shape, network, ALONE, weighted=True)
    )


def test_a_part_may_have_weight_zero(xp):
    def run(group):
        return trained(xp, *NETWORKS["dense"], group, weighted=True, batch=2)

    assert_same(run(Threads(2)), run(ALONE))  # row 0 has weight 0


def test_positions_have_a_loss(xp):
    shape, network = (4, 3), [layers.GRU(5, return_sequences=True), layers.TimeDistributed(layers.Dense(3))]

    def run(group, weighted):
        return trained(xp, shape, network, group, weighted, PerPosition(SoftmaxCrossEntropy()), target=(4,))

    assert_same(run(Threads(2), False), run(ALONE, False))
    assert_same(run(Threads(2), True), run(ALONE, True))


@pytest.mark.parametrize("optimizer", [SGD(0.1, global_clipnorm=0.1), Adam(0.01, clipvalue=0.01, l2=0.1)], ids=repr)
def test_clipping_comes_after_the_sum(optimizer, xp):
    def run(group):
        return trained(xp, *NETWORKS["dense"], group, optimizer=optimizer)

    assert_same(run(Threads(2)), run(ALONE))


@pytest.mark.parametrize("name", ["images", "inside time"])
def test_a_run_repeats_bit_for_bit(name, xp):
    first, second = (trained(xp, *NETWORKS[name], Threads(2)) for _ in range(2))

    assert_same(first, second, exactly=True)


def test_a_batch_with_fewer_rows_than_members_is_computed_whole(xp):
    def run(group):
        return trained(xp, *NETWORKS["batch normalization"], group, batch=2)

    assert_same(run(Threads(3)), run(ALONE), exactly=True)


def test_outputs_are_those_of_all_rows(xp):
    shape, network = NETWORKS["images"]
    model = Model(network, "softmax_cross_entropy", backend=xp).build(shape)
    x = xp.asarray(np.random.default_rng(0).normal(size=(9, *shape)))
    whole, *divided = (
        to_numpy(Inference(model.network, xp.dtype, group, pieces)(model.state, {"x": x}))
        for group, pieces in ((ALONE, 1), (Threads(2), 1), (ALONE, 4), (Threads(2), 2))
    )

    for outputs in divided:
        np.testing.assert_allclose(outputs, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", [random.bernoulli, random.normal])
@pytest.mark.parametrize("row", [(), (3,), (2, 5)])
def test_rows_draw_what_they_draw_in_the_batch(draw, row, xp):
    key, like = xp.asarray(random.step_keys(0, np.arange(1))[0]), xp.asarray(np.zeros((7, *row), np.float32))
    arguments = (0.4,) if draw is random.bernoulli else ()
    whole = to_numpy(draw(key, *arguments, like=like))
    edges = [0, 2, 3, 7]
    parts = [to_numpy(draw(RowsKey(key, a, b - a, 7), *arguments, like=like[a:b, ...])) for a, b in pairwise(edges)]

    # Libraries may compute log and cos of some elements by other instructions than those of the rest
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6 if draw is random.normal else 0)


def test_divide_gives_parts_of_nearly_equal_size(xp):
    batch = {"x": xp.asarray(np.arange(7)), "y": xp.asarray(np.arange(7)), "learning_rate": 0.5}
    parts = divide(batch, 3)

    assert [to_numpy(part["x"]).tolist() for part in parts] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [part["share"] for part in parts] == [2 / 7, 2 / 7, 3 / 7]
    assert divide(batch, 8) == [batch]


def test_parts_of_a_part_know_their_place_in_the_batch(xp):
    batch = {"x": xp.asarray(np.arange(8)), "key": "key", "weight": xp.asarray(np.arange(8.0))}
    quarters = [quarter for half in divide(batch, 2) for quarter in divide(half, 2)]

    assert [to_numpy(part["x"]).tolist() for part in quarters] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [part["key"] for part in quarters] == [RowsKey("key", first, 2, 8) for first in (0, 2, 4, 6)]
    np.testing.assert_allclose([float(part["share"]) for part in quarters], np.array([1, 5, 9, 13]) / 28, rtol=1e-6)


def test_one_member_is_alone():
    assert group_of(1) is ALONE
    assert group_of(2) == Threads(2)
    assert pickle.loads(pickle.dumps(Threads(2))) == Threads(2)
