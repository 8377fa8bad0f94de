"""What is freed into CuPy's memory pool is overwritten by NaN and -1: reading it afterwards shows, every time."""

import cupy
from cupy.cuda import runtime


class PoisonFreed(cupy.cuda.MemoryHook):
    """For the current thread, inside a ``with`` block.

    A pool hands a block out again on the stream that it was allocated on alone, so that is where it is overwritten: after
    the work that used it, before the work that will. While that stream captures, the graph overwrites it at each launch.
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
        except runtime.CUDARuntimeError:  # the stream is gone, or its capture failed
            pass
