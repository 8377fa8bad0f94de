"""What the ranks of test_nccl.py run: ``mpiexec -n 2 python -m tests.cuda_emulator.nccl_jobs JOB FOLDER``."""

import sys
from pathlib import Path

import cupy
import numpy as np

import xpnet
from tests.distributed_jobs import ROWS_X, Kill, Y, train
from xpnet import Model, layers
from xpnet.backend import make_backend, to_numpy
from xpnet.tree import leaves


def own_gpu(ranks):
    return make_backend("cupy", device=ranks.local_rank)


def sums(ranks, folder):
    """Check that NCCL's sums are those of MPI, which are in the order of the ranks, for lengths around a block of MPI's."""
    xpnet.distributed.BLOCK = 1000
    backend = own_gpu(ranks)
    ranks.exchange.prepare(backend)
    nccl = ranks.exchange.gpus
    for length in (1, 2, 3, 4, 999, 1000, 1001, 2503, 3000):
        for dtype in ("float32", "float64"):
            every = np.random.default_rng(length).normal(size=(ranks.size, length)).astype(dtype)
            mine = backend.asarray(every[ranks.rank], dtype)
            with backend.scope():
                assert nccl.owns(mine)
                total, strided = ranks.exchange.sum(mine), ranks.exchange.sum(mine[::2])
            assert isinstance(total, cupy.ndarray)
            assert total.device == backend.device
            np.testing.assert_array_equal(to_numpy(total), ranks.exchange.sum(every[ranks.rank]))
            np.testing.assert_array_equal(to_numpy(total), sum(every[1:], start=every[0]))
            np.testing.assert_array_equal(to_numpy(strided), to_numpy(total)[::2])
            np.testing.assert_array_equal(to_numpy(mine), every[ranks.rank])


def training(ranks, folder):
    """Train with a GPU for each rank, and then with one for all. Rank 0 writes the parameters."""
    sums(ranks, folder)
    xpnet.ranks.SMALL = 100  # the gradients of the CNN are not small either
    results = {}
    for place, backend in (("own", own_gpu(ranks)), ("shared", make_backend("cupy", device=0))):
        for case in ("dense", "CNN"):
            model, _ = train(case, folder, backend=backend)
            assert (ranks.exchange.gpus is None) == (place == "shared")
            results |= {f"{place}/{case}/{i}": to_numpy(array) for i, array in enumerate(leaves(model.state))}
    if ranks.rank == 0:
        np.savez(Path(folder, "nccl.npz"), **results)


def one_fails(ranks, folder):
    """The communicator of rank 1 fails, and training goes on."""
    model, _ = train("dense", folder, backend=own_gpu(ranks))
    assert ranks.exchange.gpus is None
    if ranks.rank == 0:
        np.savez(Path(folder, "one_fails.npz"), *[to_numpy(array) for array in leaves(model.state)])


def error(ranks, folder):
    """Rank 1 raises an error, and rank 0 waits for it on its device."""
    xpnet.distributed.PATIENCE = 1.0

    def action():
        raise ZeroDivisionError("only rank 1")

    model = Model([layers.Dense(300), layers.Dense(3)], "softmax_cross_entropy", backend=own_gpu(ranks))
    model.fit(ROWS_X, Y, 16, 4, callbacks=[Kill(action, 9)], verbose=0)


if __name__ == "__main__":
    job, folder = sys.argv[1:]
    globals()[job](xpnet.distributed.init(), folder)
