"""Threads that wait for work. They know no backend, so no `xp` fixture."""

import os
import threading
import warnings

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from xpnet.backend import blas
from xpnet.backend.workers import cores, pay, quota, workers


def test_results_come_in_the_order_of_the_ranks():
    assert workers(3).run(lambda rank: rank**2) == [0, 1, 4]


def test_each_rank_has_its_own_thread_and_keeps_it():
    first, second = (workers(3).run(lambda rank: threading.get_ident()) for _ in range(2))

    assert first == second
    assert len(set(first)) == 3
    assert first[0] == threading.get_ident()


def test_reduce_adds_in_the_order_of_the_ranks():
    values = [1e8, 1.0, -1e8]

    def run(rank):
        sums = [workers(3).reduce(rank, {"a": np.float32(values[rank]), "n": (1,)}) for _ in range(50)]
        return sums[0]["a"], sums[-1]["a"], sums[0]["n"]

    expected = (np.float32(1e8) + np.float32(1.0)) - np.float32(1e8)
    assert workers(3).run(run) == [(expected, expected, (3,))] * 3


@pytest.mark.parametrize(("failing", "error"), [(0, ZeroDivisionError), (1, ZeroDivisionError), (2, SystemExit)])
def test_an_error_is_raised_and_ends_the_waiting_of_the_others(failing, error):
    def run(rank):
        workers(3).reduce(rank, 1)
        if rank == failing:
            raise error(f"in {rank}")
        return workers(3).reduce(rank, 1)

    with pytest.raises(error, match=f"in {failing}"):
        workers(3).run(run)
    assert workers(3).run(lambda rank: workers(3).reduce(rank, rank)) == [3, 3, 3]


def test_an_interrupt_leaves_working_workers():
    pool, busy = workers(2), threading.Event()

    def run(rank):
        if rank == 0:
            raise KeyboardInterrupt
        busy.wait(10)

    with pytest.raises(KeyboardInterrupt):
        pool.run(run)
    busy.set()

    assert workers(2) is not pool
    assert workers(2).run(lambda rank: rank) == [0, 1]


def test_workers_compute_without_warnings_about_infinity():
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("error")

        assert workers(2).run(lambda rank: np.ones(1) / np.zeros(1))[1] == np.inf


def test_several_threads_may_use_the_workers():
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(workers(2).run(lambda rank: (n, rank)))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [[(n, 0), (n, 1)] for n in range(8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_workers_survive_a_fork():
    workers(2).run(lambda rank: rank)
    child = os.fork()
    if not child:
        os._exit(0 if workers(2).run(lambda rank: rank) == [0, 1] else 1)

    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("activations", "parameters", "expected"),
    [
        (4_730_000, 12_800, True),
        (1_180_000, 12_800, False),
        (1_840_000, 81_700, False),
        (300_000, 80_000, False),
        (40_000, 10, False),
    ],
    ids=["CNN", "CNN of few rows", "LSTM of few rows", "dense", "small"],
)
def test_workers_pay_where_activations_are_many(activations, parameters, expected):
    assert pay(activations, parameters) is expected


@pytest.mark.skipif(not blas.process.libraries, reason="threadpoolctl does not know this NumPy's BLAS")
def test_the_limit_of_blas_threads_counts_also_during_a_run():
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        assert cores() == 1
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        outside = cores()
        with blas.limited(1, None):
            assert cores() == outside


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_affinity_counts():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_counts(files, expected, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")

    assert quota(str(tmp_path)) == expected
