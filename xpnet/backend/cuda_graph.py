"""A scan with CUDA graphs: a training step is captured once and replayed, with one launch for each step instead of dozens.

A graph repeats what was captured: the same kernels on the same addresses with the same numbers. This has four consequences:

- Everything that a step reads and writes has fixed addresses: the state, the table of values that vary from step to step, and the
  records. They are filled before the first launch and copied out after the last. Batches that are on the device are copied too.
- A step looks up the values that vary on the device. A counter there selects the row of the table, and the step increments it.
- Temporary arrays come from a separate pool that never releases a block. All steps run one after another on one stream, so they
  can share the pool, and no other array can ever be where a graph writes.
- CuPy does not call cuBLAS during a capture. Inside a step, arrays therefore have a special type: a CuPy array whose ``@`` calls
  `xpnet.backend.cublas`, and whose namespace returns arrays of this type.

The first two steps of each kind run normally, which compiles their kernels and fills the pool. The third step is captured.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backend.base import namespace, register_namespace
from xpnet.backend.cublas import Gemm
from xpnet.backend.cuda_kernels import CudaKernels, Keeper
from xpnet.backend.fusion import fused, register_kernels
from xpnet.backend.namespaces import Namespace
from xpnet.tree import Array, Tree, leaves, map_leaves

WARM_UP = 2  # steps before the capture
RECORDINGS = 16  # the number kept; the least recently used is dropped
TABLE_BYTES = 4 << 20  # the largest size of the table; a longer scan refills it
TABLE_ROWS = 4096
JOINED = 64  # the most arrays that one kernel joins


def make_array_type(cp: Any, xp: Any, gemm: Gemm) -> type:
    """Create a type of CuPy arrays with which a step can be captured, and register its namespace.

    CuPy preserves the type in ufuncs, operators and views. In reductions, `take` and array creation, the namespace restores it.
    """

    class CapturableArray(cp.ndarray):
        __slots__ = ()

        def __matmul__(self, other):
            return convert(gemm(self, other) if gemm.takes(self, other) else cp.ndarray.__matmul__(self, other))

        def __rmatmul__(self, other):
            return convert(gemm(other, self) if gemm.takes(other, self) else cp.ndarray.__matmul__(other, self))

    def convert(result: Any) -> Any:
        if isinstance(result, cp.ndarray):
            return result if type(result) is CapturableArray else result.view(type=CapturableArray)
        return tuple(map(convert, result)) if isinstance(result, (tuple, list)) else result

    def concat(arrays, /, *, axis=0):
        if axis is None:
            arrays, axis = [xp.reshape(x, (-1,)) for x in arrays], 0
        while len(arrays) > JOINED:
            arrays = [kernels.concat(arrays[i : i + JOINED], axis) for i in range(0, len(arrays), JOINED)]
        return kernels.concat(arrays, axis)

    def stack(arrays, /, *, axis=0):
        axis %= arrays[0].ndim + 1
        return concat([xp.expand_dims(x, axis=axis) for x in arrays], axis=axis)

    def matmul(x1, x2, /):
        return convert(x1) @ x2

    kernels = CudaKernels(cp, convert)
    register_namespace(CapturableArray, Namespace(xp, convert, concat=concat, stack=stack, matmul=matmul))
    register_kernels(CapturableArray, kernels)
    return CapturableArray


def steps_in(batches: dict[str, np.ndarray]) -> int:
    return len(next(iter(batches.values())))


class Recording:
    """One step with fixed addresses, which is first run, then captured, and then replayed.

    Parameters
    ----------
    step, state, batches
        As in `Backend.scan`. Only the shapes and types of arrays matter.
    """

    def __init__(self, cp: Any, stream: Any, array: type, step: Callable, state: Tree, batches: dict):
        self.cp, self.stream, self.step = cp, stream, step
        self.view = lambda tree: map_leaves(lambda x: x.view(type=array), tree)
        on_host = {name: values for name, values in batches.items() if isinstance(values, np.ndarray)}
        self.row: Any = np.dtype([(name, v.dtype, v.shape[1:]) for name, v in on_host.items()], align=True)
        row_bytes = sum(values[:1].nbytes for values in batches.values())
        self.rows = max(1, min(TABLE_ROWS, TABLE_BYTES // max(row_bytes, 1)))
        self.table = cp.empty((self.rows, self.row.itemsize), dtype="uint8")
        self.columns = {name: self._column(*field) for name, field in (self.row.fields or {}).items()}
        uploaded = {name: values for name, values in batches.items() if name not in on_host}
        self.columns |= {name: cp.empty((self.rows, *v.shape[1:]), v.dtype) for name, v in uploaded.items()}
        self.state = map_leaves(lambda x: cp.empty(x.shape, dtype=x.dtype), state)
        self.counter = cp.zeros(1, dtype="int64")
        self.keep = Keeper(cp, self.counter)
        self.records: Tree = None
        self.runs = 0
        self.graph: Any = None

    def load(self, state: Tree) -> None:
        """Start from this state."""
        for old, new in zip(leaves(self.state), leaves(state), strict=True):
            old[...] = new

    def run(self, batches: dict[str, np.ndarray], data: dict[str, Array], scratch: Callable) -> None:
        """Take one step for each row of the batches, which must fit into the table.

        `data` must have the same addresses as in the first run. `scratch` allocates temporary arrays.
        """
        table = np.zeros(steps_in(batches), self.row)
        for name, values in batches.items():
            to = table[name] if isinstance(values, np.ndarray) else self.columns[name][: len(table)]
            to[...] = values
        self.table[: len(table)].set(table.view("uint8").reshape(len(table), -1))
        self.counter.fill(0)
        for _ in range(len(table)):
            if self.graph is None and self.runs < WARM_UP:
                self.once(data, scratch)
                self.runs += 1
                continue
            if self.graph is None:
                self.graph = self.capture(data, scratch)
            self.graph.launch(self.stream)

    def once(self, data: dict[str, Array], scratch: Callable) -> None:
        """Take one step: look up its row, compute, store the record and the state, and count."""
        outside = self.cp.cuda.get_allocator()
        with self.cp.cuda.using_allocator(scratch):
            now, batch = self._look_up(data)
            state, record = self.step(self.view(self.state), self.view(batch))
            if self.records is None:
                with self.cp.cuda.using_allocator(outside):
                    self.records = map_leaves(lambda x: self.cp.empty((self.rows, *x.shape), dtype=x.dtype), record)
            self.keep(
                now,
                list(zip(leaves(self.records), map(self._apart, leaves(record)), strict=True)),
                self._changed(state),
            )

    def _look_up(self, data: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Return the number of this step, and its batch."""
        gathered = data if "index" in self.columns else {}
        names = [name for name in (*self.columns, *gathered) if name != "index"]

        def rule(counter, *arrays):
            take = namespace(counter).take
            named = dict(zip((*self.columns, *gathered), arrays, strict=True))
            rows = {name: take(named[name], counter, axis=0)[0] for name in self.columns}
            rows |= {name: take(named[name], rows["index"], axis=0) for name in gathered}
            return namespace(counter).astype(counter, counter.dtype), *[rows[name] for name in names]

        now, *rows = fused(rule, self.counter, *self.columns.values(), *gathered.values())
        return now, data | dict(zip(names, rows, strict=True))

    def _column(self, part: np.dtype, start: int) -> Array:
        """Return a view of one field of the table's rows."""
        strides = self.row.itemsize, *np.empty(part.shape, part.base).strides
        return self.cp.ndarray((self.rows, *part.shape), part.base, self.table.data + start, strides)

    def _apart(self, x: Array) -> Array:
        """Return `x`, or a copy if it shares memory with the state, because one kernel stores records and state in any order."""
        return x.copy() if any(self.cp.may_share_memory(x, old) for old in leaves(self.state)) else x

    def _changed(self, state: Tree) -> list[tuple[Array, Array]]:
        """Return the copies to make, as (to, from), for the leaves that were not updated in place."""
        old, changed = leaves(self.state), []
        for kept, new in zip(old, leaves(state), strict=True):
            if new.shape != kept.shape or new.dtype != kept.dtype:
                raise TypeError(
                    "A step must return a state with the same shapes and dtypes as its argument. Received: "
                    f"{new.dtype} {new.shape} for {kept.dtype} {kept.shape}"
                )
            if (new.data.ptr, new.strides) != (kept.data.ptr, kept.strides):  # otherwise it was updated in place
                changed.append((kept, self._apart(new)))  # copied, because two arrays may be swapped
        return changed

    def capture(self, data: dict[str, Array], scratch: Callable) -> Any:
        """Capture one step as a graph, without computing it."""
        enabled = gc.isenabled()
        gc.collect()
        gc.disable()  # a finalizer may call CUDA, which would end the capture
        try:
            self.stream.begin_capture()
            try:
                self.once(data, scratch)
            except BaseException as error:
                with contextlib.suppress(Exception):  # end the capture, and keep the first error
                    self.stream.end_capture()
                error.add_note(
                    "This happened while a training step was captured in a CUDA graph. Without graphs=True, the backend runs "
                    "steps one at a time and accepts more operations."
                )
                raise
            return self.stream.end_capture()
        finally:
            if enabled:
                gc.enable()


class GraphScan:
    """`Backend.scan` with graphs, on the device that is current when the object is created.

    Parameters
    ----------
    cp : module
        CuPy.
    xp : module
        Its Array API namespace.
    float_name : str
        The type of numbers such as the learning rate in a step.
    library : optional
        cuBLAS. The default is the library that CuPy uses.
    """

    def __init__(self, cp: Any, xp: Any, float_name: str, library: Any = None):
        self.cp, self.float_name = cp, float_name
        self.stream = cp.cuda.Stream(non_blocking=True)
        self.gemm = Gemm(cp, self.stream, library)
        self.array = make_array_type(cp, xp, self.gemm)
        self.blocks: list = []  # references to all blocks, so that none returns to CUDA even if memory runs out
        self.pool = cp.cuda.MemoryPool(self._new_block)
        self.recordings: OrderedDict = OrderedDict()
        self.lock = threading.Lock()

    def _new_block(self, size: int) -> Any:
        block = self.cp.cuda.MemoryPointer(self.cp.cuda.Memory(size), 0)
        self.blocks.append(block)
        return block

    def __call__(self, step: Callable, state: Tree, batches: dict[str, np.ndarray], data: dict[str, Array]) -> tuple:
        """See `Backend.scan`. The returned state is a copy, so graphs cannot change it."""
        batches = {
            name: values.astype(self.float_name, copy=False) if values.dtype.kind == "f" else values
            for name, values in batches.items()
        }
        with self.lock:
            recording = self._recording(step, state, batches, data)
            outside, parts = self.cp.cuda.get_current_stream(), []
            self.stream.wait_event(outside.record())  # transfers of state and data may still be running
            try:
                with self.stream:
                    recording.load(state)
                for start in range(0, steps_in(batches), recording.rows):
                    part = {name: values[start : start + recording.rows] for name, values in batches.items()}
                    with self.stream:
                        recording.run(part, data, self.pool.malloc)
                    n = steps_in(part)
                    parts.append(self._copied(map_leaves(lambda table, n=n: table[:n], recording.records)))
                state = self._copied(recording.state)
            finally:
                outside.wait_event(self.stream.record())
            if len(parts) == 1:
                return state, parts[0]
            return state, map_leaves(lambda *values: self.cp.concatenate(values), *parts)

    def _copied(self, tree: Tree) -> Tree:
        """Copy a tree on this object's stream, before the next scan, to memory that belongs to the caller's stream."""
        copies = map_leaves(self.cp.empty_like, tree)
        with self.stream:
            for copy, x in zip(leaves(copies), leaves(tree), strict=True):
                copy[...] = x
        return copies

    def _recording(self, step: Callable, state: Tree, batches: dict, data: dict) -> Recording:
        key = (
            step,
            tuple((x.shape, x.dtype.str) for x in leaves(state)),
            tuple((name, type(values), values.shape[1:], values.dtype.str) for name, values in sorted(batches.items())),
            tuple((name, x.data.ptr, x.shape, x.strides, x.dtype.str) for name, x in sorted(data.items())),
        )
        if key not in self.recordings:
            if len(self.recordings) >= RECORDINGS:
                self.stream.synchronize()  # a running graph and its memory must not be released
                self.recordings.popitem(last=False)
            self.recordings[key] = Recording(self.cp, self.stream, self.array, step, state, batches)
        self.recordings.move_to_end(key)
        return self.recordings[key]
