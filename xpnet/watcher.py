"""The program that names a rank which the system has killed: ``python watcher.py SIZE HOST RANK:PROCESS ...``.

`mpiexec` kills all ranks as soon as one dies, so no rank can tell which was the first. `xpnet.distributed` therefore starts this
program once on each machine. It imports nothing of xpnet, and waits without using the processor.
"""

import os
import select
import signal
import sys
import time
from datetime import datetime

PATIENCE = 10.0  # seconds that the others have for ending too


def watch(size: str, host: str, *ranks: str) -> None:
    """Wait until a rank dies, and write its number. End the ranks that ``mpiexec`` does not end."""
    poll, alive = select.poll(), {}
    for rank, process in (text.split(":") for text in ranks):
        try:
            handle = os.pidfd_open(int(process))
        except OSError:  # an old kernel, or a process in another container
            return
        alive[handle] = rank
        poll.register(handle, select.POLLIN)
    first = " or ".join(alive.pop(handle) for handle, _ in poll.poll())
    print(
        f"xpnet: rank {first} of {size} on {host} died first, at {datetime.now():%H:%M:%S.%f}, without an error message. "
        "The system may have killed it because the memory was full.",
        file=sys.stderr,
        flush=True,
    )
    limit = time.monotonic() + PATIENCE
    for handle in alive:
        if not select.select([handle], [], [], max(limit - time.monotonic(), 0.0))[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)


if __name__ == "__main__":
    watch(*sys.argv[1:])
