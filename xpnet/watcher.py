"""The program that names a rank which ends without a word: ``python watcher.py SIZE HOST RANK:PROCESS ...``.

`mpiexec` kills all ranks as soon as the system kills one, so no rank can tell which was the first. `xpnet.distributed` therefore
starts this program once on each machine. It imports nothing of xpnet, and waits without using the processor.
"""

import contextlib
import os
import select
import signal
import sys
import time
from datetime import datetime

PATIENCE = 10.0  # seconds that the others have for ending too


def watch(size: str, host: str, *ranks: str) -> None:
    """Print the number of a process that waits until one of these ranks ends, names it, and kills the others if need be.

    That process has no parent, so that no rank waits for it. Print nothing if the ranks cannot be watched.
    """
    poll, running = select.poll(), {}
    for rank, process in (text.split(":") for text in ranks):
        try:
            handle = os.pidfd_open(int(process))
        except OSError:  # the kernel is too old
            return
        running[handle] = rank
        poll.register(handle, select.POLLIN)
    if watching := os.fork():
        print(watching)
        return
    os.close(sys.stdout.fileno())  # the rank that started this program waits for the end of its output
    first = " or ".join(running.pop(handle) for handle, _ in poll.poll())
    with contextlib.suppress(OSError):  # nobody reads it
        print(
            f"xpnet: rank {first} of {size} on {host} ended first, at {datetime.now():%H:%M:%S.%f}, without leaving the job. It "
            "was killed, perhaps because the memory was full, or it crashed, or it called os._exit.",
            file=sys.stderr,
            flush=True,
        )
    limit = time.monotonic() + PATIENCE
    for handle in running:
        if not select.select([handle], [], [], max(limit - time.monotonic(), 0.0))[0]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)


if __name__ == "__main__":
    watch(*sys.argv[1:])
