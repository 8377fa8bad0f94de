"""Into how many parts and pieces a run divides its batches. Only NumPy's backend divides them, so no `xp` fixture."""

from types import SimpleNamespace

import pytest

from xpnet import Model, layers
from xpnet.backend import make_backend, workers
from xpnet.losses import SoftmaxCrossEntropy
from xpnet.plan import Plan
from xpnet.settings import FitSettings

ACTIVATIONS = 100 * 4 + 4 + 3  # of a row, for 15 parameters and more activations than `workers.MANY` for each


class OwnLoss(SoftmaxCrossEntropy):
    """A loss from outside xpnet, which may mix the rows of a batch."""


def numbers(rows, *inside, **settings):
    """Return the numbers of a small convolutional network."""
    network = [layers.Conv1D(4, 1), *inside, layers.GlobalMaxPooling1D(), layers.Dense(3, use_bias=False)]
    return plan_numbers(network, (100, 1), rows, **settings)


def plan_numbers(network, shape, rows, loss="softmax_cross_entropy", threads=2, seed=0, saved=None):
    """Return the number of parts of a batch, and of pieces of a part."""
    model = Model(network, loss, backend=make_backend("numpy", threads=threads), seed=seed).build(shape)
    source = SimpleNamespace(shape=shape, batch_size=rows)
    plan = Plan(
        model.backend, model.network, model.checked, model._scores, FitSettings(rows), source, None, model.measured, id
    )
    params = model.state["params"]
    parts = plan.parts(params, saved)
    return parts, plan.pieces(params, parts)


@pytest.mark.parametrize(("threads", "expected"), [(1, (1, 5)), (2, (2, 3)), (4, (4, 2)), (8, (8, 1))])
def test_threads_divide_a_large_batch_and_compute_their_part_in_pieces(threads, expected):
    rows = 5 * workers.PIECE // ACTIVATIONS

    assert numbers(rows, threads=threads) == expected


def test_a_small_batch_is_not_divided():
    assert numbers(workers.LARGE // ACTIVATIONS) == (1, 1)


def test_a_resumed_run_has_the_parts_that_it_had():
    rows = 5 * workers.PIECE // ACTIVATIONS

    assert numbers(rows, saved=5) == (5, 1)
    assert numbers(rows, saved=1) == (1, 5)


@pytest.mark.parametrize("synchronized", [True, False])
def test_rows_that_are_normalized_together_have_no_pieces(synchronized):
    rows = 5 * workers.PIECE // ACTIVATIONS

    assert numbers(rows, layers.BatchNormalization(synchronized=synchronized)) == (2, 1)


def test_a_loss_from_outside_xpnet_gets_whole_batches():
    assert numbers(5 * workers.PIECE // ACTIVATIONS, loss=OwnLoss()) == (1, 1)


def test_networks_of_several_seeds_are_not_divided(monkeypatch):
    monkeypatch.setattr(workers, "MANY", 0)
    network, rows = layers.Dense(3), workers.PIECE  # 3 activations

    assert plan_numbers(network, (2,), rows) == (2, 2)
    assert plan_numbers(network, (2,), rows, seed=(0, 1)) == (1, 1)
