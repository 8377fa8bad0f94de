"""Training by several processes that MPI starts, on one machine or many: ``mpiexec -n 4 python script.py``.

    import xpnet
    ranks = xpnet.distributed.init()

From then on, `fit`, `train_on_batch` and `evaluate` of every model are calls that all processes make together. Each computes
its rows of every batch; see docs/scaling.md. An error that not all processes have ends the job.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import Any

import numpy as np

from xpnet import groups, watcher
from xpnet.backend import Backend, device, namespace, to_numpy
from xpnet.errors import optional_import
from xpnet.ranks import BLOCK, Ranks
from xpnet.tree import Array
from xpnet.watcher import PATIENCE

__all__ = ["Ranks", "init"]

LAUNCHED = (
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
)  # variables in which mpiexec of MPICH and Open MPI gives the number of ranks


def init() -> Ranks:
    """Make this process one of those that ``mpiexec`` has started. Call it before anything else of xpnet.

    Models then train together: `fit`, `train_on_batch` and `evaluate` must be called by all processes, with the same data and
    arguments. Only rank 0 shows progress and runs callbacks that write files. A second call returns the same group. Without
    ``mpiexec``, the group has one process, and nothing changes.

    Returns
    -------
    Ranks
        Its `rank` is the number of this process, and its `size` the number of processes. `local_rank` is the number of this
        process among those of its machine: ``set_backend("cupy", device=ranks.local_rank)`` gives each its own GPU.

    Raises
    ------
    ImportError
        mpi4py, or the MPI library that it needs, is missing.
    RuntimeError
        The program ``mpiexec`` belongs to another MPI than the one that mpi4py uses.
    """
    known = groups.process()
    if isinstance(known, Ranks):
        return known
    mpi = optional_import("mpi4py.MPI", "mpi")
    world, here = mpi.COMM_WORLD, mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
    exchange = MpiExchange(mpi, world)
    ranks = Ranks(world.rank, world.size, exchange, here.rank)
    started = max(int(os.environ.get(name, 1)) for name in LAUNCHED)
    if ranks.size == 1 and started > 1:
        raise RuntimeError(
            "mpiexec must belong to the MPI library that mpi4py uses. Start the program with the mpiexec of that library. "
            f"Received: {started} processes, each of which is alone in {mpi.Get_library_version().splitlines()[0]}"
        )
    if ranks.size > 1:
        exchange.watch(here)
        sys.excepthook = lambda kind, error, trace: exchange.end(error)
        atexit.register(_leave, ranks, exchange)
        groups.enter(ranks)
    return ranks


def _leave(ranks: Ranks, exchange: MpiExchange) -> None:
    """Wait for the others at the end of the program, so that they do not wait for this process elsewhere."""
    try:
        ranks.require_same({"call": "the end of the program"})
    except Exception as error:
        exchange.end(error)
    exchange.leave()


class MpiExchange:
    """Exchanges host arrays over MPI, and adds arrays on GPUs over NCCL if it can; see `xpnet.ranks.Exchange`."""

    def __init__(self, mpi: Any, world: Any):
        self.world, self.host = world, mpi.Get_processor_name()
        self.comm, self.spare = world.Dup(), world.Dup()
        self.connected: dict[tuple[bytes, ...], Any] = {}  # by the GPUs of all ranks: a `Sum`, or None if NCCL failed
        self.gpus: Any = None  # the `Sum` of the current model
        self.watcher_process: int | None = None

    def watch(self, here: Any) -> None:
        """Start the watcher of the ranks on this machine, which the communicator `here` joins, if the system allows it."""
        if not hasattr(os, "pidfd_open"):
            return
        processes = here.gather((f"{self.world.rank}:{os.getpid()}", os.stat("/proc/self/ns/pid").st_ino))
        if processes and len({namespace for _, namespace in processes}) == 1:  # containers number their processes anew
            arguments = [str(self.world.size), self.host, *[process for process, _ in processes]]
            # a session of its own outlives the ranks
            command = [sys.executable, "-IS", watcher.__file__, *arguments]
            number = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            ).stdout
            self.watcher_process = int(number) if number else None
        self.watcher_process = here.bcast(self.watcher_process)

    def prepare(self, backend: Backend) -> None:
        if backend.name != "cupy":
            return
        nccl = importlib.import_module("xpnet.backend.nccl")
        gpus = tuple(self.gather_objects(nccl.gpu(backend)))
        if gpus not in self.connected:
            self.connected[gpus] = nccl.connect(backend, gpus, self.comm.rank, self.gather_objects)
        self.gpus = self.connected[gpus]

    def gather(self, values: np.ndarray) -> np.ndarray:
        gathered = np.empty((self.comm.size, *values.shape), values.dtype)
        self.comm.Allgather(values, gathered)
        return gathered

    def gather_objects(self, value: Any) -> list[Any]:
        return self.comm.allgather(value)

    def sum(self, values: Array) -> Array:
        """Return the sum: each rank adds one slice of all values, always in the order of the ranks, and sends it to the others.

        `MPI.Allreduce` may add in another order in each run. This moves as many bytes, 2 (n - 1) / n of the values. The blocks
        fit into the cache, so a large sum takes less time.
        """
        if self.gpus is not None and self.gpus.owns(values):
            return self.gpus(values)
        host, size = to_numpy(values), self.comm.size
        total, blocks = np.empty_like(host), -(-len(host) // BLOCK)
        whole = np.empty((size, -(-len(host) // (size * blocks))), host.dtype)
        slices, flat = np.empty_like(whole), whole.reshape(-1)
        for begin in range(0, len(host), len(flat)):
            block = host[begin : begin + len(flat)]
            flat[: len(block)], flat[len(block) :] = block, 0.0
            self.comm.Alltoall(whole, slices)
            for one in slices[1:]:
                slices[0] += one
            self.comm.Allgather(slices[0], whole)
            total[begin : begin + len(flat)] = flat[: len(block)]
        return namespace(values).asarray(total, device=device(values))

    def failed(self, error: BaseException) -> None:
        every = np.empty(self.spare.size, np.uint8)
        request = self.spare.Iallgather(np.ones(1, np.uint8), every)
        limit = time.monotonic() + PATIENCE
        while not request.Test():
            if time.monotonic() > limit:
                self.end(error)
            time.sleep(0.01)

    def leave(self) -> None:
        """End the watcher, because this process is about to end."""
        if self.watcher_process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.watcher_process, signal.SIGTERM)

    def end(self, error: BaseException, text: str = "") -> None:
        rank, size = self.world.rank, self.world.size
        if rank:
            time.sleep(1.0)
        self.leave()
        text = text or "".join(traceback.format_exception(error)).rstrip()
        place = f"xpnet: rank {rank} of {size} on {self.host} ended the job"
        print(f"{text}\n{place}", file=sys.stderr, flush=True)
        time.sleep(0.5)  # mpiexec must read the text before it ends
        self.world.Abort(1)
        time.sleep(PATIENCE)  # mpiexec ends this process, perhaps only after Abort has returned
