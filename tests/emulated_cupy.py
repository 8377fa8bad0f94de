"""An EMULATION of CuPy on NumPy, for checks of logic without a GPU. It says nothing about CUDA, or about speed.

What CuPy does by a kernel is done at once by NumPy or, while a stream captures, noted and done at each launch of the graph.
The rules emulated are those read in CuPy 14.2's source, and no others:

- while a stream captures, nothing is computed: new arrays hold garbage. Reading a value, uploading a host array, a boolean
  mask, a matrix product by CuPy itself, and joining more than 8 arrays raise an error;
- memory comes from the current allocator, and what Python drops is handed out again at once, though a graph may still write
  to it. A graph keeps no array alive;
- ufuncs, operators and views keep a subclass of `ndarray`; reductions, `take` and creation return the base class;
- `sign` of NaN is 0; `take` wraps indices around; nothing becomes a NumPy array unless `get` is called.

Streams run one after another, so a missing `wait_event` shows in `log` only.
"""

import contextlib
import ctypes
import functools
import itertools
import shutil
import subprocess
import sys
import tempfile
import types
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

log: list = []  # what was done to streams, in order
_state = SimpleNamespace(allocator=None, streams=[], device=0, devices=1, error=None, forbid_sync=False, kernels=0)


# ---------------------------------------------------------------------- memory


class Memory:
    """A block: freed only when nobody refers to it."""

    def __init__(self, size):
        self.bytes = np.zeros(size + 512, np.uint8)
        self.ptr = self.bytes.ctypes.data + -self.bytes.ctypes.data % 512
        self.size, self.offset = size, self.ptr - self.bytes.ctypes.data


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset


class _Lent:
    """A block lent by a pool, given back when the last array on it goes."""

    def __init__(self, pool, block):
        self.block, self.ptr, self.size = block, block.ptr, block.size
        weakref.finalize(self, pool.free.setdefault(block.size, []).append, block).atexit = False


class MemoryPool:
    def __init__(self, allocator=None):
        self.allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self.free: dict = {}
        self.requests = 0

    def malloc(self, size):
        self.requests += 1
        size = max(-(-size // 512) * 512, 512)
        free = self.free.get(size)
        return MemoryPointer(_Lent(self, free.pop() if free else self.allocator(size).mem), 0)


_default_pool = MemoryPool()


@contextlib.contextmanager
def using_allocator(allocator):
    previous, _state.allocator = _state.allocator, allocator
    try:
        yield
    finally:
        _state.allocator = previous


def get_allocator():
    return _state.allocator or _default_pool.malloc


def _garbage(host):
    host[...] = np.nan if host.dtype.kind == "f" else True if host.dtype.kind == "b" else np.iinfo(host.dtype).max // 3


def _new(shape, dtype):
    """A base-class array on memory of the current allocator, with garbage in it."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    pointer = get_allocator()(size)
    block = pointer.mem.block if isinstance(pointer.mem, _Lent) else pointer.mem
    host = block.bytes[block.offset : block.offset + size].view(dtype).reshape(shape)
    _garbage(host)
    return ndarray(host, pointer)


# ---------------------------------------------------------------------- streams and graphs


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Event:
    def __init__(self, stream):
        self.stream = stream


class Graph:
    def __init__(self, work):
        self.work = work

    def launch(self, stream=None):
        log.append(("launch", (stream or get_current_stream()).ptr))
        for kernel in self.work:
            kernel()


class Stream:
    _numbers = itertools.count(0)

    def __init__(self, null=False, non_blocking=False):
        self.ptr, self.work = next(self._numbers), None

    def __enter__(self):
        _state.streams.append(self)
        return self

    def __exit__(self, *error):
        _state.streams.pop()

    def record(self, event=None):
        log.append(("record", self.ptr))
        return Event(self)

    def wait_event(self, event):
        log.append(("wait", self.ptr, event.stream.ptr))

    def synchronize(self):
        self._refuse("synchronize")

    def _refuse(self, what):
        if self.work is not None:
            raise RuntimeError(f"the current stream is capturing: {what} is disallowed")

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        log.append(("begin", self.ptr))
        self.work = []

    def end_capture(self):
        log.append(("end", self.ptr))
        graph, self.work = Graph(self.work), None
        return graph


_null = Stream(null=True)


def get_current_stream():
    return _state.streams[-1] if _state.streams else _null


def _capturing():
    return get_current_stream().work is not None


def _upload(what):
    get_current_stream()._refuse(f"an upload ({what})")


def _sync(what):
    """A value is read on the host."""
    get_current_stream()._refuse(f"a download ({what})")
    if _state.forbid_sync:
        raise AssertionError(f"the host waited for the device: {what}")


@contextlib.contextmanager
def no_sync():
    """Fail where the host waits for a value."""
    _state.forbid_sync = True
    try:
        yield
    finally:
        _state.forbid_sync = False


def _host(x):
    """NumPy's view of arguments, however nested."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, (tuple, list)):
        return type(x)(map(_host, x))
    return {key: _host(value) for key, value in x.items()} if isinstance(x, dict) else x


def _flat(x):
    if isinstance(x, (tuple, list)):
        for item in x:
            yield from _flat(item)
    elif isinstance(x, ndarray):
        yield x


def launch(work):
    """Do `work`, a function without arguments, now or at each launch of the graph being captured."""
    _state.kernels += 1
    if _capturing():
        get_current_stream().work.append(work)
    else:
        work()


def _product(x, y):
    """A matrix product whose rounding depends on the numbers alone: that of NumPy's BLAS depends on where they lie, too."""
    result = np.asarray(np.matmul(x, y))
    if result.dtype.kind == "f":
        rows, columns = np.atleast_2d(x), y if y.ndim > 1 else y[:, None]
        sums = np.zeros(np.matmul(rows, columns).shape, result.dtype)
        for k in range(x.shape[-1]):
            sums += rows[..., :, k, None] * columns[..., None, k, :]
        result[...] = sums.reshape(result.shape)
    return result


def _compute(function, args, settings, kind=None):
    """Call a function of NumPy on device arrays: a view if it gives one, else a kernel into new memory."""
    host_args, host_settings = _host(args), _host(settings)
    with np.errstate(all="ignore"):
        result = function(*host_args, **host_settings)

    def wrap(part):
        if isinstance(part, (tuple, list)):
            return tuple(map(wrap, part))
        if not isinstance(part, (np.ndarray, np.generic)) or part.dtype.kind not in "biuf":
            return part
        for x in _flat((*args, *settings.values())):
            if isinstance(part, np.ndarray) and np.may_share_memory(part, x._host):
                return x._view(part)
        return (kind or ndarray)(*_filled(part))

    fresh: list = []

    def _filled(part):
        array = _new(part.shape, part.dtype)
        fresh.append((array._host, part))
        return array._host, array.data

    wrapped = wrap(result)
    if fresh:
        targets = [host for host, _ in fresh]

        def work(first=[value for _, value in fresh]):  # noqa: B006  (the result that is there already)
            values = first.copy()
            first.clear()
            if not values:
                with np.errstate(all="ignore"):
                    values = list(_arrays(function(*host_args, **host_settings)))
            for target, value in zip(targets, values, strict=True):
                target[...] = value

        if _capturing():
            work.__defaults__[0].clear()  # computed from garbage: only its shape counts
        launch(work)
    return wrapped


def _arrays(result):
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from _arrays(part)
    else:
        yield result


# ---------------------------------------------------------------------- arrays


class ndarray(NDArrayOperatorsMixin):
    __slots__ = ("__weakref__", "_host", "data")
    __array_priority__ = 100

    def __init__(self, host, data):
        self._host, self.data = host, data

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    strides = property(lambda self: self._host.strides)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: Device(0))
    T = property(lambda self: self._view(self._host.T))
    mT = property(lambda self: self._view(np.swapaxes(self._host, -1, -2)))

    def _view(self, host):
        return type(self)(host, _Shifted(self.data, host))

    def view(self, type=None):
        return (type or self.__class__)(self._host, self.data)

    def reshape(self, *shape):
        return _compute(np.reshape, (self, shape[0] if len(shape) == 1 else shape), {})

    def astype(self, dtype, copy=True):
        if not copy and self.dtype == dtype:
            return self
        return _base(_compute(lambda x: np.array(x, dtype), (self,), {}))

    def copy(self):
        return self.astype(self.dtype)

    def fill(self, value):
        host = self._host
        launch(lambda: host.fill(value))

    def set(self, host):
        _upload("set")
        assert host.dtype == self.dtype
        assert host.shape == self.shape
        self._host[...] = host

    def get(self):
        _sync("get")
        return self._host.copy()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __array__(self, *args, **settings):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        if any(x.dtype.kind == "b" for x in _flat((index,))):
            _sync("a boolean mask")
        if any(True for _ in _flat((index,))):
            return _base(_compute(lambda x, i: x[i], (self, index), {}))
        part = self._host[index if isinstance(index, tuple) else (index,)]
        if not isinstance(part, np.ndarray):  # NumPy gives a number where CuPy gives a view
            part = self._host[(*(index if isinstance(index, tuple) else (index,)), ...)]
        return self._view(part)

    def __setitem__(self, index, value):
        if any(x.dtype.kind == "b" for x in _flat((index,))):
            _sync("a boolean mask")
        host, host_index, host_value = self._host, _host(index), _host(value)
        launch(lambda: host.__setitem__(host_index, host_value))

    def __matmul__(self, other):
        if _capturing():
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        return _base(_compute(_product, (self, other), {}))

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **settings):
        assert method == "__call__"
        for x in inputs:
            if isinstance(x, np.ndarray):
                raise TypeError(f"Unsupported type {type(x)}")
        if out is None:
            kind = next((type(x) for x in inputs if isinstance(x, ndarray) and type(x) is not ndarray), ndarray)
            return _compute(ufunc, inputs, settings, kind)
        (target,) = out
        host, host_inputs = target._host, _host(inputs)

        def work():
            with np.errstate(all="ignore"):
                ufunc(*host_inputs, out=host, casting="same_kind")

        launch(work)
        return target


class _Shifted:
    """Where a view begins; keeps the memory lent."""

    def __init__(self, data, host):
        self.mem, self.ptr = data.mem, host.ctypes.data


def _base(x):
    return ndarray(x._host, x.data)


# ---------------------------------------------------------------------- functions


def _function(name):
    function, is_ufunc = getattr(np, name), isinstance(getattr(np, name), np.ufunc)
    if is_ufunc and function.nout == 1:

        def call(*args, out=None, **settings):
            arrays = [x for x in args if isinstance(x, ndarray)]
            if not arrays:
                return _compute(function, args, settings)
            return arrays[0].__array_ufunc__(
                function, "__call__", *args, out=None if out is None else (out,), **settings
            )

        return call
    views = {
        "reshape",
        "moveaxis",
        "swapaxes",
        "expand_dims",
        "broadcast_to",
        "transpose",
        "flip",
        "squeeze",
        "atleast_1d",
    }

    def call(*args, **settings):
        result = _compute(function, args, settings)
        return result if name in views else _deep_base(result)

    return call


def _deep_base(x):
    if isinstance(x, tuple):
        return tuple(map(_deep_base, x))
    return _base(x) if isinstance(x, ndarray) else x


def asarray(x, dtype=None, copy=None):
    if isinstance(x, ndarray):
        return x.astype(dtype or x.dtype, copy=bool(copy))
    host = np.asarray(x, dtype)
    if host.ndim:
        _upload("asarray")
    array = _new(host.shape, host.dtype)
    target = array._host
    launch(lambda: target.__setitem__(..., host))
    return array


def array(x, dtype=None, copy=True):
    return asarray(x, dtype, copy)


def empty(shape, dtype=float):
    return _new(shape, dtype)


def take(x, index, axis=None):
    return _base(
        _compute(lambda x, i: np.take(x, i % (x.size if axis is None else x.shape[axis]), axis), (x, index), {})
    )


def where(*args):
    if len(args) == 1:
        _sync("where")
    return _compute(np.where, args, {})


def sign(x):
    return _compute(lambda x: (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype), (x,), {}, type(x))


def concatenate(arrays, axis=0):
    if len(arrays) > 8:
        _upload("the addresses of more than 8 arrays")
    return _base(_compute(lambda *parts: np.concatenate(parts, axis=axis), tuple(arrays), {}))


def stack(arrays, axis=0):
    return concatenate([_compute(np.expand_dims, (x, axis), {}) for x in arrays], axis)


def ascontiguousarray(x):
    return _base(_compute(np.ascontiguousarray, (x,), {}))


def may_share_memory(x, y):
    return np.may_share_memory(x._host, y._host)


def nonzero(x):
    _sync("nonzero")


def matmul(x, y):
    return x @ y


# ---------------------------------------------------------------------- kernels

COMPILER = shutil.which("g++")
_SHIM = """
#include <cmath>
using namespace std;
struct Index { int x; };
static Index blockIdx, blockDim, threadIdx;
#define __global__
%s
extern "C" void run(int blocks, int threads, void** arguments)
{
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
            %s(%s);
}
"""


class RawKernel:
    """The kernel's own text, compiled for the CPU and run one thread after another."""

    def __init__(self, source, name, options=()):
        self.source, self.name, self.options, self.run = source, name, options, None

    def __call__(self, grid, block, arguments):
        if self.run is None:
            self.run = compile_for_cpu(self.source, self.name, self.options)
        values = [np.array(x._host.ctypes.data) if isinstance(x, ndarray) else np.array(x) for x in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        kept = [x._host for x in arguments if isinstance(x, ndarray)]  # the memory, not what keeps it lent

        def work(values=values, kept=kept):
            self.run(grid[0], block[0], addresses)

        launch(work)


@functools.cache
def compile_for_cpu(source, name, options):
    parameters = source[source.index(f"{name}(") + len(name) + 1 : source.index(")\n{")].split(",")
    types = [parameter.strip().rpartition(" ")[0] for parameter in parameters]
    call = ", ".join(f"*({kind}*)arguments[{i}]" for i, kind in enumerate(types))
    folder = Path(tempfile.mkdtemp(prefix="xpnet-kernel-"))
    (folder / "kernel.cpp").write_text(_SHIM % (source, name, call))
    flags = ["-ffp-contract=off"] if "--fmad=false" in options else ["-ffp-contract=fast", "-mfma"]
    flags += ["-O2", "-shared", "-fPIC"]
    command = [COMPILER, *flags, "-o", folder / "kernel.so", folder / "kernel.cpp"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    library = ctypes.CDLL(str(folder / "kernel.so"))
    shutil.rmtree(folder)
    return library.run


# ---------------------------------------------------------------------- cuBLAS


class FakeCublas:
    """A stand-in for libcublas: reads the memory at the addresses it is given as column-major matrices, as cuBLAS would.

    `calls` holds the name and the arguments of each product.
    """

    def __init__(self, launch=lambda work: work()):
        self.launch, self.calls = launch, []
        self.log: list = []

    def cublasCreate_v2(self, handle):
        handle._obj.value = 77
        self.log.append("create")
        return 0

    def cublasDestroy_v2(self, handle):
        self.log.append("destroy")
        return 0

    def cublasSetStream_v2(self, handle, stream):
        self.log.append(("stream", stream))
        return 0

    def cublasSetWorkspace_v2(self, handle, address, size):
        self.log.append(("workspace", size))
        return 0

    def cublasGemmEx(self, handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc,
                     compute, algorithm):  # fmt: skip
        return self.cublasGemmStridedBatchedEx(
            handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1,
            compute, algorithm,
        )  # fmt: skip

    def cublasGemmStridedBatchedEx(self, handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb,
                                   stride_b, beta, c, c_type, ldc, stride_c, count, compute, algorithm):  # fmt: skip
        assert a_type == b_type == c_type
        assert compute in ({0: (68, 77), 1: (70,)}[c_type])
        rows_a, rows_b = (k if op_a else m), (n if op_b else k)
        if (
            lda < max(1, rows_a)
            or ldb < max(1, rows_b)
            or ldc < max(1, m)
            or min(m, n, k, count) < 1
            or min(stride_a, stride_b) < 0
        ):
            return 7
        alpha, beta = alpha._obj.value, beta._obj.value
        kind = ctypes.c_double if c_type else ctypes.c_float
        self.calls.append((op_a, op_b, m, n, k, lda, stride_a, ldb, stride_b, count))

        def matrix(address, rows, columns, leading):
            """Column-major: columns of `leading` elements, of which the first `rows` count."""
            length = leading * (columns - 1) + rows
            flat = np.ctypeslib.as_array((kind * length).from_address(address))
            return np.lib.stride_tricks.as_strided(
                flat, (rows, columns), (flat.itemsize, leading * flat.itemsize), writeable=True
            )

        def work():
            size = ctypes.sizeof(kind)
            for i in range(count):
                A = matrix(a + i * stride_a * size, *((k, m) if op_a else (m, k)), lda)
                B = matrix(b + i * stride_b * size, *((n, k) if op_b else (k, n)), ldb)
                C = matrix(c + i * stride_c * size, m, n, ldc)
                with np.errstate(all="ignore"):
                    C[...] = alpha * _product(A.T if op_a else A, B.T if op_b else B) + (beta * C if beta else 0)

        self.launch(work)
        return 0


# ---------------------------------------------------------------------- the module


class Device:
    __hash__ = None  # as CuPy's

    def __init__(self, device=None):
        self.id = _state.device if device is None else int(device)
        self.before: list = []

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __repr__(self):
        return f"<EMULATED device {self.id}>"

    def __enter__(self):
        self.before.append(_state.device)
        _state.device = self.id

    def __exit__(self, *error):
        _state.device = self.before.pop()

    def use(self):
        _state.device = self.id

    def synchronize(self):
        _sync("synchronize")


def _device_count():
    if _state.error is not None:
        raise _state.error
    return _state.devices


def _as_strided(x, shape, strides):
    return ndarray(np.lib.stride_tricks.as_strided(x._host, shape, strides), x.data)


def _make_modules():
    cupy = types.ModuleType("cupy")
    own = [ndarray, asarray, array, empty, take, where, sign, concatenate, stack, ascontiguousarray, may_share_memory,
           nonzero, matmul, RawKernel]  # fmt: skip
    for name in dir(np):
        value = getattr(np, name)
        if name.startswith("_") or isinstance(value, types.ModuleType):
            continue
        is_function = callable(value) and not isinstance(value, type)
        setattr(cupy, name, _function(name) if is_function else value)
    for name in ("vecdot", "unstack", "matvec", "vecmat"):  # CuPy 14 has none
        if hasattr(cupy, name):
            delattr(cupy, name)
    for item in own:
        setattr(cupy, item.__name__, item)
    cupy.__version__ = "emulated"
    cupy.get_default_memory_pool = lambda: _default_pool
    cupy.cuda = types.ModuleType("cupy.cuda")
    for item in (Memory, MemoryPointer, MemoryPool, using_allocator, get_allocator, Stream, Event, Graph, Device,
                 get_current_stream):  # fmt: skip
        setattr(cupy.cuda, item.__name__, item)
    cupy.cuda.runtime = SimpleNamespace(getDeviceCount=_device_count, CUDARuntimeError=CUDARuntimeError)
    cupy.cuda.device = types.ModuleType("cupy.cuda.device")
    cupy.cuda.device.Device = Device
    cupy.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))
    cupy.linalg, cupy.fft = types.ModuleType("cupy.linalg"), types.ModuleType("cupy.fft")
    cupy.linalg.lstsq = None
    for name in ("fft", "ifft", "fftn", "ifftn", "rfft", "irfft", "rfftn", "irfftn", "hfft", "ihfft", "fftfreq", "rfftfreq",
                 "fftshift", "ifftshift"):  # fmt: skip
        setattr(cupy.fft, name, None)
    return {
        "cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.device": cupy.cuda.device, "cupy.linalg": cupy.linalg,
        "cupy.fft": cupy.fft,
    }  # fmt: skip


_modules = _make_modules()
_OURS = ("cupy", "array_api_compat.cupy", "xpnet.backend.cupy", "xpnet.backend.cuda_graph")


def _is_ours(name):
    return any(name == ours or name.startswith(ours + ".") for ours in _OURS)


def _put(modules):
    """`modules` in the place of those of ours that are imported, as attributes of their parents too -> the latter."""
    taken = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    sys.modules.update(modules)
    for name in _OURS:
        parent, _, child = name.rpartition(".")
        if parent and child in vars(sys.modules[parent]):
            delattr(sys.modules[parent], child)
        if parent and name in modules:
            setattr(sys.modules[parent], child, modules[name])
    return taken


@contextlib.contextmanager
def installed(devices=1):
    """The emulation in the place of the module cupy, and xpnet's backend on it."""
    saved = _put(_modules)
    before = _state.devices, _state.device, _state.error
    _state.devices, _state.device, _state.error = devices, 0, None
    log.clear()
    try:
        yield _modules["cupy"]
    finally:
        _state.devices, _state.device, _state.error = before
        _modules.update(_put(saved))
