"""Ranks equal the whole batch on every backend. Threads stand for the processes, which tests/test_distributed.py starts."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.test_groups import NETWORKS, assert_same, trained
from xpnet import SGD, Adam, Model, groups, layers
from xpnet.backend import make_backend, to_numpy
from xpnet.groups import ALONE, Threads
from xpnet.losses import SoftmaxCrossEntropy
from xpnet.ranks import Ranks
from xpnet.sources import Batches, Chunk
from xpnet.sources.shares import SharedBatches
from xpnet.step import Inference


class Meeting:
    """An exchange between threads of this process, each with its own `rank`."""

    def __init__(self, size):
        self.values, self.barrier = [None] * size, threading.Barrier(size)

    def of(self, rank):
        return Exchange(self, rank)


class Exchange:
    def __init__(self, meeting, rank):
        self.meeting, self.rank = meeting, rank

    def gather_objects(self, value):
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait(20)
        found = list(self.meeting.values)
        self.meeting.barrier.wait(20)
        return found

    def gather(self, values):
        return np.stack(self.gather_objects(values))

    def sum(self, values):
        total, *others = self.gather_objects(values)
        for other in others:
            total = total + other
        return total

    def prepare(self, backend):
        """Arrays stay where they are."""

    def failed(self, error):
        """All ranks fail in these tests."""


def run(size, function):
    """Return ``function(ranks)`` of each rank."""
    meeting, results = Meeting(size), [None] * size

    def one(rank):
        try:
            results[rank] = function(Ranks(rank, size, meeting.of(rank)))
        except BaseException as error:
            results[rank] = error
            meeting.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
            raise result
    return results


class Own:
    """A group that gives a rank its rows, as `SharedBatches` does for whole chunks."""

    def __init__(self, ranks):
        self.ranks, self.members = ranks, ranks.members

    def gradients(self, step, state, batch):
        total = batch["x"].shape[0]
        begin, end = self.ranks.bounds(total)
        own = {name: batch[name][begin:end, ...] for name in ("x", "y", "weight") if name in batch}
        return self.ranks.gradients(step, state, batch | own | {"rows": total})


def in_ranks(xp, size, *arguments, **options):
    results = run(size, lambda ranks: trained(xp, *arguments, Own(ranks), **options))
    for other in results[1:]:
        assert_same(results[0], other, exactly=True)
    return results[0]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "LSTM"])
def test_ranks_equal_the_whole_batch(name, xp):
    assert_same(in_ranks(xp, 2, *NETWORKS[name]), trained(xp, *NETWORKS[name], ALONE))


@pytest.mark.parametrize("weighted", [False, True])
def test_three_ranks_compute_the_bits_of_three_threads(weighted):
    """Only on NumPy, because nothing depends on the library. Weights are summed in another order."""
    xp, network = make_backend("numpy"), NETWORKS["images"]
    ranks = in_ranks(xp, 3, *network, weighted=weighted)

    assert_same(ranks, trained(xp, *network, Threads(3), weighted=weighted), exactly=not weighted)


@pytest.mark.parametrize("name", ["dense", "random"])
def test_two_ranks_compute_their_rows_in_pieces_as_two_threads_do(name):
    """Exactly, but for noise: NumPy may compute the logarithms of the same numbers by other instructions."""
    xp, network = make_backend("numpy"), NETWORKS[name]
    ranks = in_ranks(xp, 2, *network, pieces=2)

    assert_same(ranks, trained(xp, *network, Threads(2), pieces=2), exactly=name == "dense")
    assert_same(ranks, trained(xp, *network, ALONE))


@pytest.mark.parametrize("optimizer", [SGD(0.1, global_clipnorm=0.1), Adam(0.01, clipvalue=0.01, l2=0.1)], ids=repr)
def test_clipping_comes_after_the_sum(optimizer):
    xp, network = make_backend("numpy"), NETWORKS["dense"]

    assert_same(in_ranks(xp, 2, *network, optimizer=optimizer), trained(xp, *network, ALONE, optimizer=optimizer))


def test_every_rank_computes_a_batch_with_fewer_rows_than_ranks():
    xp, network = make_backend("numpy"), NETWORKS["batch normalization"]

    assert_same(in_ranks(xp, 3, *network, batch=2), trained(xp, *network, ALONE, batch=2), exactly=True)


def test_statistics_of_parts_are_those_of_rank_0():
    """So that all ranks keep the same state."""
    xp = make_backend("numpy")
    in_ranks(xp, 3, (5,), [layers.Dense(6), layers.BatchNormalization(synchronized=False), layers.Dense(3)])


@pytest.mark.parametrize("numbers", [3, 5000])
def test_small_and_large_trees_are_added_in_the_order_of_the_ranks(numbers, xp):
    values = [np.random.default_rng(rank).normal(size=(2, numbers)).astype(np.float32) for rank in range(3)]

    def total(ranks):
        tree = ranks.reduce({"a": xp.asarray(values[ranks.rank]), "n": (xp.asarray(np.float32(ranks.rank)),)})
        return to_numpy(tree["a"]), float(tree["n"][0])

    for a, n in run(3, total):
        np.testing.assert_array_equal(a, (values[0] + values[1]) + values[2])
        assert n == 3.0


def test_large_arrays_of_a_tree_are_not_joined(monkeypatch, xp):
    monkeypatch.setattr("xpnet.ranks.BLOCK", 3000)
    summed = []

    def total(ranks):
        sizes = (2000, 3000, 10, 5000)  # the first and the third are joined
        tree = [xp.asarray(np.full(size, i + 10 * ranks.rank, np.float32)) for i, size in enumerate(sizes)]
        if ranks.rank == 0:
            exchanged = ranks.exchange.sum
            ranks.exchange.sum = lambda values: summed.append(values.shape[0]) or exchanged(values)
        return [(x.shape, set(to_numpy(x).tolist())) for x in ranks.reduce(tree)]

    for found in run(2, total):
        assert found == [((2000,), {10}), ((3000,), {12}), ((10,), {14}), ((5000,), {16})]
    assert summed == [2010, 3000, 5000]


def test_gather_keeps_types_shapes_and_numbers():
    def found(ranks):
        return ranks.gather({"rows": 10**12 + ranks.rank, "x": np.full((2, 1), ranks.rank, np.int16), "none": {}})

    for trees in run(2, found):
        assert [tree["rows"] for tree in trees] == [10**12, 10**12 + 1]
        assert [tree["x"].tolist() for tree in trees] == [[[0], [0]], [[1], [1]]]
        assert trees[1]["x"].dtype == np.int16
        assert trees[1]["none"] == {}
    assert run(2, lambda ranks: ranks.gather({})) == [({}, {})] * 2


def test_items_are_joined_in_turn():
    items = [[0, 3, 6], [1, 4], [2, 5]]

    assert run(3, lambda ranks: ranks.in_turn(items[ranks.rank])) == [list(range(7))] * 3


def test_a_difference_is_named():
    def differ(ranks):
        ranks.require_same({"epochs": 3, "seed": ranks.rank // 2})

    with pytest.raises(RuntimeError, match=r"Received: seed=0 in rank 0, 1 in rank 2$"):
        run(3, differ)


class Steps(Batches):
    """Batches of 5 rows that are ready in the given numbers."""

    alike = None

    def __init__(self, ready):
        self.ready, self.position = list(ready), 0

    def take(self, most):
        if not self.ready:
            return None
        steps = min(self.ready.pop(0), most)
        index = np.arange(self.position, self.position + steps)[:, None] * 5 + np.arange(5)
        self.position += steps
        return Chunk(steps, 5, {"index": index}, {})


def test_all_ranks_take_the_same_steps_and_their_own_rows():
    ready = [[3, 1, 2], [1, 5]]

    def take_all(ranks):
        batches, chunks = SharedBatches(Steps(ready[ranks.rank]), ranks), []
        while (chunk := batches.take(4 + ranks.rank)) is not None:
            chunks.append(
                (chunk.steps, chunk.rows, chunk.columns["rows"].tolist(), chunk.columns["index"][:, 0].tolist())
            )
        return chunks

    first, second = run(2, take_all)
    assert [chunk[:3] for chunk in first] == [chunk[:3] for chunk in second]
    assert [row for chunk in first for row in chunk[3]] == [0, 5, 10, 15, 20, 25]
    assert [row for chunk in second for row in chunk[3]] == [2, 7, 12, 17, 22, 27]


def test_data_that_end_in_one_rank_are_an_error():
    def take_all(ranks):
        batches = SharedBatches(Steps([1] * (2 + ranks.rank)), ranks)
        while batches.take(1) is not None:
            pass

    with pytest.raises(ValueError, match="ended in rank 0 only"):
        run(2, take_all)


def test_compiled_steps_cannot_wait_for_other_processes():
    backend = make_backend("numpy")
    Ranks(0, 2, Meeting(2).of(0)).require(backend, True)
    with pytest.warns(UserWarning, match="Every rank computes whole batches"):
        Ranks(0, 2, None).require(backend, False)
    pytest.importorskip("jax")
    jax = make_backend("jax")

    with pytest.raises(ValueError, match=r'"torch", or "cupy" without graphs\. Received: <xpnet backend jax'):
        Ranks(0, 2, None).require(jax, True)


def test_ranks_on_different_backends_are_an_error():
    models = [small_model(backend=make_backend(name)) for name in ("numpy", "array_api_strict")]

    with pytest.raises(RuntimeError, match=r"backend='numpy' in rank 0, 'array_api_strict' in rank 1"):
        call("fit", models)


def test_ranks_with_different_float_types_are_an_error(xp):
    models = [small_model(backend=xp.computing_in(name)) for name in ("float32", "float64")]

    with pytest.raises(RuntimeError, match=r"float type='float32' in rank 0, 'float64' in rank 1"):
        call("fit", models)


def small_model(units=4, **options):
    network = [layers.Dense(8, activation="tanh"), layers.Dense(units)]
    return Model(network, **{"loss": "softmax_cross_entropy", "backend": "numpy"} | options)


def call(method, models):
    """Let each rank call a method of its model."""

    def one(ranks):
        with ranks.together(method, models[ranks.rank]):
            pass

    run(len(models), one)


@pytest.mark.parametrize("method", ["fit", "train_on_batch", "evaluate"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": SGD(0.2)}, r"optimizer=.*0\.01.* in rank 0, .*0\.2.* in rank 1"),
        (
            {"optimizer": SGD(clipvalue=1.0)},
            r"optimizer=\.\.\..*clipvalue=None.* in rank 0, .*clipvalue=1\.0.* in rank 1",
        ),
        ({"loss": SoftmaxCrossEntropy(label_smoothing=0.1)}, r"loss=.*smoothing=0\.0.* in rank 0, .*smoothing=0\.1"),
        ({"metrics": ["accuracy"]}, r"metrics=.* in rank 0, .*Accuracy.* in rank 1"),
        ({"units": 5}, r"network=\.\.\..*units=4.* in rank 0, .*units=5.* in rank 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_ranks_with_different_models_are_an_error(method, options, message):
    """Only on NumPy, because texts of settings do not depend on the library."""
    with pytest.raises(RuntimeError, match=message):
        call(method, [small_model(), small_model(**options)])


class Twice(layers.Layer):
    """Its `repr` contains its address."""

    def forward(self, params, x):
        return x * 2.0, lambda dy, need_dx=True: (dy * 2.0, {})


def test_equal_models_may_have_other_addresses():
    def model():
        return Model([Twice(), layers.Dense(3)], "softmax_cross_entropy", SGD(lambda step: 0.1), backend="numpy")

    models = [model(), model()]
    for part in ("network", "optimizer"):
        assert repr(getattr(models[0], part)) != repr(getattr(models[1], part))
    call("fit", models)


def test_evaluate_with_different_parameters_is_an_error(xp):
    models = [small_model(seed=seed, backend=xp).build((3,)) for seed in (0, 1)]

    call("evaluate", models[:1] * 2)
    with pytest.raises(RuntimeError, match=r"checksum of the parameters=\d+ in rank 0, \d+ in rank 1"):
        call("evaluate", models)
    with pytest.raises(RuntimeError, match=r"checksum of the parameters=\d+ in rank 0, 0 in rank 1"):
        call("evaluate", [models[0], small_model(backend=xp)])


def test_outputs_are_those_of_one_process():
    model = Model([layers.Dense(3)], "softmax_cross_entropy").build((4,))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    ranks, alone = (Inference(model.network, np.float32, group) for group in (Ranks(1, 3, None), ALONE))

    np.testing.assert_array_equal(ranks(model.state, {"x": x}), alone(model.state, {"x": x}))


def test_a_thread_by_itself_leaves_the_group_of_others_as_it_is(monkeypatch):
    ranks = Ranks(0, 2, None)
    monkeypatch.setattr(groups, "_process", ranks)
    with groups.by_itself():
        assert groups.process() is ALONE
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(groups.process).result() is ranks
    assert groups.process() is ranks
