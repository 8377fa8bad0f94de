"""Compares the real CuPy on the emulated device with NumPy. CuPy must be correct before xpnet can be tested on it."""

import cupy as cp
import numpy as np
import pytest

rng = np.random.default_rng(0)


def same(got, want, tolerance=1e-5):
    assert isinstance(got, cp.ndarray)
    want = np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if want.dtype.kind in "fc":
        np.testing.assert_allclose(got.get(), want, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(got.get(), want)


DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool", "float16", "complex64"]


def make(dtype, shape=(3, 4, 5)):
    x = rng.normal(size=shape) * 3
    if dtype == "complex64":
        x = x + 1j * rng.normal(size=shape)
    return np.abs(x).astype(dtype) if dtype == "uint8" else (x > 0 if dtype == "bool" else x.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "less", "equal", "true_divide"])
def test_binary(name, dtype):
    a, b = make(dtype), make(dtype, (4, 1))
    if name == "true_divide":
        b = np.where(b == 0, 1, b).astype(dtype)
    same(getattr(cp, name)(cp.asarray(a), cp.asarray(b)), getattr(np, name)(a, b), 1e-2 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name",
    ["exp", "log", "sqrt", "tanh", "sin", "cos", "abs", "sign", "floor", "ceil", "rint", "isnan", "isfinite", "negative",
     "square", "expm1", "log1p", "arctan", "sinh", "reciprocal"],
)  # fmt: skip
def test_unary(name, dtype):
    a = np.abs(make(dtype)) + np.float32(0.1)
    same(getattr(cp, name)(cp.asarray(a)), getattr(np, name)(a))


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, (0, 2), (1, 2)])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "std", "any", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_reductions(name, axis, dtype):
    a = make(dtype)
    a = a / 3 if dtype[0] == "f" else a
    for keepdims in (False, True):
        same(
            getattr(cp, name)(cp.asarray(a), axis=axis, keepdims=keepdims),
            getattr(np, name)(a, axis=axis, keepdims=keepdims),
            1e-4,
        )


@pytest.mark.parametrize("shape", [(1,), (7,), (1000,), (3, 1000), (1000, 3), (70, 70, 2)])
def test_large_reductions(shape):
    a = rng.normal(size=shape).astype("float32")
    for axis in (None, 0, -1):
        same(cp.sum(cp.asarray(a), axis=axis), a.sum(axis=axis), 1e-4)
        same(cp.argmax(cp.asarray(a), axis=axis), a.argmax(axis=axis))
        same(cp.argmin(cp.asarray(a), axis=axis), a.argmin(axis=axis))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16", "int64"])
@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (4, 5)),
        ((4,), (4,)),
        ((4,), (4, 3)),
        ((2, 3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((1, 1), (1, 1)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ],
)
def test_matmul(shapes, dtype):
    a, b = make(dtype, shapes[0]), make(dtype, shapes[1])
    tolerance = 2e-2 if dtype == "float16" else 1e-4
    same(cp.matmul(cp.asarray(a), cp.asarray(b)), np.matmul(a, b), tolerance)
    if a.ndim > 1 and b.ndim > 1:
        ta, tb = cp.asarray(a).swapaxes(-1, -2), cp.asarray(b).swapaxes(-1, -2)
        same(tb @ ta, b.swapaxes(-1, -2) @ a.swapaxes(-1, -2), tolerance)


def test_dot_and_einsum():
    a, b = make("float32", (3, 4)), make("float32", (4, 5))
    same(cp.tensordot(cp.asarray(a), cp.asarray(b), 1), np.tensordot(a, b, 1))
    same(cp.einsum("ij,jk->ik", cp.asarray(a), cp.asarray(b)), np.einsum("ij,jk->ik", a, b))
    same(cp.einsum("ij,ij->j", cp.asarray(a), cp.asarray(a)), np.einsum("ij,ij->j", a, a))
    same(cp.outer(cp.asarray(a[0]), cp.asarray(b[0])), np.outer(a[0], b[0]))


def test_indexing():
    a, i = make("float32", (6, 5)), np.array([4, 0, 0, 2])
    x = cp.asarray(a)
    same(cp.take(x, cp.asarray(i), axis=0), a.take(i, axis=0))
    same(x[cp.asarray(i)], a[i])
    same(x[x > 0], a[a > 0])
    k = np.argsort(a, axis=1)
    same(cp.take_along_axis(x, cp.asarray(k), axis=1), np.take_along_axis(a, k, axis=1))
    same(x[::-2, 1:4].T, a[::-2, 1:4].T)
    y, b = x.copy(), a.copy()
    y[cp.asarray(i), 1], b[i, 1] = 7, 7
    same(y, b)
    cp.add.at(y, cp.asarray(i), 1.0)
    np.add.at(b, i, 1.0)
    same(y, b)
    for got, want in zip(cp.nonzero(x > 0), np.nonzero(a > 0), strict=True):
        same(got, want)


def test_manipulation():
    a, b = make("float32"), make("float32")
    x, y = cp.asarray(a), cp.asarray(b)
    for axis in (0, 1, 2):
        same(cp.concatenate([x, y], axis=axis), np.concatenate([a, b], axis=axis))
        same(cp.stack([x, y], axis=axis), np.stack([a, b], axis=axis))
        same(cp.flip(x, axis=axis), np.flip(a, axis=axis))
        same(cp.roll(x, 2, axis=axis), np.roll(a, 2, axis=axis))
    same(cp.concatenate([x[:, :1]] * 20, axis=1), np.concatenate([a[:, :1]] * 20, axis=1))
    same(cp.where(x > y, x, y), np.where(a > b, a, b))
    same(cp.where(x > 0, x, 0), np.where(a > 0, a, 0))
    same(cp.clip(x, -1, 1), np.clip(a, -1, 1))
    same(cp.pad(x, ((1, 1), (0, 2), (0, 0))), np.pad(a, ((1, 1), (0, 2), (0, 0))))
    same(cp.broadcast_to(x[:1], (3, 4, 5)).copy(), np.broadcast_to(a[:1], (3, 4, 5)))
    same(cp.repeat(x, 2, axis=1), np.repeat(a, 2, axis=1))
    same(cp.tile(x, (2, 1, 1)), np.tile(a, (2, 1, 1)))
    same(x.transpose(2, 0, 1).reshape(5, -1), a.transpose(2, 0, 1).reshape(5, -1))
    same(cp.tril(x), np.tril(a))
    same(cp.eye(4, dtype="float32"), np.eye(4, dtype="float32"))
    same(cp.linspace(0, 1, 7), np.linspace(0, 1, 7))


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("source", DTYPES[:-1])  # NumPy warns when complex numbers become real
def test_astype(source, to):
    a = np.abs(make(source))
    same(cp.asarray(a).astype(to), a.astype(to))


def test_scans_and_sorts():
    a = make("float32", (5, 600))
    x = cp.asarray(a)
    same(cp.cumsum(x, axis=1), a.cumsum(axis=1), 1e-3)
    same(cp.cumsum(x), a.cumsum(), 1e-3)
    same(cp.sort(x, axis=1), np.sort(a, axis=1))
    same(cp.sort(x, axis=0), np.sort(a, axis=0))
    same(cp.argsort(x, axis=1), np.argsort(a, axis=1, kind="stable"))
    same(cp.unique(cp.asarray([3, 1, 3, 2])), np.unique([3, 1, 3, 2]))
    same(cp.bincount(cp.asarray([3, 1, 3, 2])), np.bincount([3, 1, 3, 2]))
    same(cp.searchsorted(cp.asarray([1.0, 2, 3]), cp.asarray([0.5, 2.5])), np.searchsorted([1.0, 2, 3], [0.5, 2.5]))


def test_fuse():
    @cp.fuse()
    def f(x, y):
        return cp.where(x > 0, x * y + 1, cp.exp(x)) - y

    a, b = make("float32"), make("float32")
    same(f(cp.asarray(a), cp.asarray(b)), np.where(a > 0, a * b + 1, np.exp(a)) - b)

    @cp.fuse()
    def g(x, y):
        return cp.sum(x * y, axis=1)

    same(g(cp.asarray(a), cp.asarray(b)), (a * b).sum(axis=1))


def test_user_kernels():
    a = make("float32", (700,))
    x = cp.asarray(a)
    same(cp.ElementwiseKernel("T x, T k", "T y", "y = x * x + k", "square_plus")(x, np.float32(2)), a * a + 2)
    norm = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "norm")
    same(norm(x), np.sqrt((a * a).sum()).astype("float32"), 1e-4)
    same(norm(x.reshape(7, 100), axis=1), np.sqrt((a.reshape(7, 100) ** 2).sum(1)), 1e-4)
    reverse = cp.RawKernel(
        r"""extern "C" __global__ void reverse(const float* x, float* y, int n) {
            __shared__ float block[256];  // "static __shared__"
            extern __shared__ float more[];
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            block[threadIdx.x] = i < n ? x[i] : 0;
            more[threadIdx.x] = 1;
            __syncthreads();
            int j = blockDim.x - 1 - threadIdx.x;
            float s = 0;
            for (int k = 0; k < blockDim.x; k++) s += more[k];
            __syncthreads();
            if (i < n) y[i] = block[j] + s;
        }""",
        "reverse",
    )
    y = cp.zeros(512, "float32")
    reverse((2,), (256,), (x[:512], y, np.int32(512)), shared_mem=1024)
    same(y, a[:512].reshape(2, 256)[:, ::-1].ravel() + 256)
    module = cp.RawModule(
        code=r"""template<class T> __global__ void twice(T* x) { x[threadIdx.x] *= 2; }
        extern "C" __global__ void warp(int* y) {
            int v = threadIdx.x;
            for (int d = 16; d; d /= 2) v += __shfl_down_sync(0xffffffff, v, d);
            if (threadIdx.x % 32 == 0) atomicAdd(y, v);
        }""",
        name_expressions=["twice<float>", "twice<double>"],
    )
    z = cp.asarray(a[:64].copy())
    module.get_function("twice<float>")((1,), (64,), (z,))
    same(z, a[:64] * 2)
    total = cp.zeros(1, "int32")
    module.get_function("warp")((2,), (96,), (total,))
    same(total, np.array([2 * sum(range(96))], "int32"))


def test_random():
    state = cp.random.RandomState(3)
    u = state.random_sample((1000,), dtype="float32")
    assert 0.4 < float(u.mean()) < 0.6
    n = state.standard_normal((1001,), dtype="float64")
    assert abs(float(n.mean())) < 0.2
    assert 0.8 < float(n.std()) < 1.2
    k = state.randint(0, 5, size=1000)
    assert set(k.get().tolist()) == {0, 1, 2, 3, 4}
    assert sorted(cp.random.permutation(10).get().tolist()) == list(range(10))


def test_pool_streams_and_events():
    pool = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc):
        x = cp.arange(1000)
        assert pool.used_bytes() == 8192
        del x
        assert pool.used_bytes() == 0
    stream, start, stop = cp.cuda.Stream(non_blocking=True), cp.cuda.Event(), cp.cuda.Event()
    with stream:
        start.record()
        x = cp.arange(5) * 2
        stop.record()
    stream.synchronize()
    assert cp.cuda.get_elapsed_time(start, stop) >= 0
    same(x, np.arange(5) * 2)


def test_generator():
    generator = cp.random.default_rng(0)
    u = generator.random(1000, dtype="float32")
    assert 0.4 < float(u.mean()) < 0.6
    assert 0.9 < float(generator.standard_normal(2001).std()) < 1.1
    assert set(generator.integers(0, 3, 100).get().tolist()) == {0, 1, 2}


def test_a_captured_sort():
    stream, a = cp.cuda.Stream(non_blocking=True), rng.normal(size=9)
    with stream:
        x = cp.asarray(a)
        cp.argsort(x)
        stream.begin_capture()
        order = cp.argsort(x)
        graph = stream.end_capture()
        x *= -1
        graph.launch(stream)
        same(order, np.argsort(-a))


def test_array_api_compat():
    xp = pytest.importorskip("array_api_compat.cupy")
    a = make("float32")
    x = xp.asarray(a)
    same(xp.mean(xp.permute_dims(x, (2, 0, 1)), axis=0), a.mean(axis=2))
    same(xp.concat([x, x], axis=0), np.concatenate([a, a]))
    same(xp.argsort(x, axis=-1, stable=True), np.argsort(a, axis=-1, kind="stable"))
    same(xp.unique_values(xp.asarray([3, 1, 3])), np.array([1, 3]))
    same(xp.cumulative_sum(x, axis=1), a.cumsum(1), 1e-4)
