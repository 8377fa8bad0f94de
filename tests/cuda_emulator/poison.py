"""Overwrites memory that is freed into CuPy's pool with NaN and -1, so that reading it afterward always gives wrong results."""

import cupy
from cupy.cuda import runtime


class PoisonFreed(cupy.cuda.MemoryHook):
    """Applies to the current thread, inside a ``with`` block.

    A pool reuses a block only on the stream on which it was allocated. The block is overwritten on this stream, after the work
    that used it and before the work that will use it. During a capture of this stream, the graph overwrites it at each launch.
    """

    name = "PoisonFreed"

    def __init__(self):
        self.streams: dict[int, int] = {}

    def malloc_postprocess(self, *, pmem_id, **_):
        self.streams[pmem_id] = cupy.cuda.get_current_stream().ptr

    def free_preprocess(self, *, device_id, mem_size, mem_ptr, pmem_id):
        stream = self.streams.pop(pmem_id, None)
        if stream is None:
            return
        try:
            with cupy.cuda.Device(device_id):
                runtime.memsetAsync(mem_ptr, 0xFF, mem_size, stream)
        except runtime.CUDARuntimeError:  # the stream was destroyed, or its capture failed
            pass
