"""What the emulator rejects, reveals and counts. Settings that apply to a whole process are tested in a separate process."""

import os
import subprocess
import sys
import textwrap

import cupy as cp
import fakecuda
import numpy as np
import pytest

from tests.cuda_emulator.poison import PoisonFreed

runtime, driver = cp.cuda.runtime, cp.cuda.driver


def run(script, **settings):
    """Return the words that `script` prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FAKECUDA")}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.split()


def kernel(body, parameters="float* x", **settings):
    return cp.RawKernel(f'extern "C" __global__ void f({parameters}) {{ {body} }}', "f", **settings)


# ---------------------------------------------------------------------- mistakes are errors


def test_an_access_outside_of_a_block_of_memory():
    with pytest.raises(driver.CUDADriverError, match="IllegalAddress"):
        kernel("x[threadIdx.x + 1000000000] = 1;")((1,), (1,), (cp.zeros(10, "float32"),))
    np.testing.assert_array_equal((cp.zeros(3) + 1).get(), np.ones(3))


def test_a_division_by_zero():
    with pytest.raises(driver.CUDADriverError, match="LaunchFailure"):
        kernel("x[0] = 7 / n;", "float* x, int n")((1,), (1,), (cp.zeros(1, "float32"), np.int32(0)))


def test_a_host_address_given_to_a_kernel():
    with pytest.raises(driver.CUDADriverError, match="IllegalAddress"):
        kernel("x[0] = 1;")((1,), (1,), (np.zeros(1).ctypes.data,))


def test_a_copy_in_the_wrong_direction():
    host = np.zeros(8).ctypes.data
    with pytest.raises(runtime.CUDARuntimeError, match="InvalidValue"):
        runtime.memcpy(host, host, 8, runtime.memcpyHostToDevice)


@pytest.mark.parametrize(("grid", "block"), [((1,), (1025,)), ((1, 65536), (1,)), ((1,), (1, 1, 65)), ((1,), (32, 33))])
def test_a_launch_beyond_the_limits(grid, block):
    with pytest.raises(driver.CUDADriverError, match="InvalidValue"):
        kernel("")(grid, block, (cp.zeros(1, "float32"),))


def test_more_memory_than_the_device_has():
    with pytest.raises(cp.cuda.memory.OutOfMemoryError):
        cp.empty(1 << 50, "uint8")


@pytest.mark.parametrize("source", ["x[0] = y;", "x[0] = ;"])
def test_a_source_that_does_not_compile(source):
    with pytest.raises(cp.cuda.compiler.CompileException):
        kernel(source)((1,), (1,), (cp.zeros(1, "float32"),))


@pytest.mark.parametrize("header", ["vector", "cmath", "stdio.h", "iostream"])
def test_headers_of_the_host_are_not_found(header):
    with pytest.raises(cp.cuda.compiler.CompileException, match=header):
        cp.RawKernel(f'#include <{header}>\nextern "C" __global__ void f() {{}}', "f")((1,), (1,), ())


def test_new_memory_holds_no_zeros():
    pool = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc):
        assert np.isnan(cp.empty(5).get()).all()


def test_without_a_device():
    script = """
        import cupy
        try: cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error: print(error.status)
    """

    assert run(script, FAKECUDA_DEVICES="0") == ["100"]


# ---------------------------------------------------------------------- graphs and streams


def test_a_graph_does_at_each_launch_what_was_captured():
    stream, x = cp.cuda.Stream(non_blocking=True), cp.arange(4, dtype="float32")
    with stream:
        y = x * 2
        stream.begin_capture()
        x += 1
        y[...] = x * 2
        graph = stream.end_capture()
        captured = x.get()
        for _ in range(3):
            graph.launch(stream)
        stream.synchronize()

    np.testing.assert_array_equal(captured, np.arange(4))
    np.testing.assert_array_equal(x.get(), np.arange(4) + 3)
    np.testing.assert_array_equal(y.get(), (np.arange(4) + 3) * 2)


def test_cupy_refuses_a_product_in_a_capture():
    stream, w = cp.cuda.Stream(non_blocking=True), cp.ones((4, 4), dtype="float32")
    with stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError):
            w @ w
        stream.end_capture()


def test_waiting_ends_a_capture():
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(runtime.CUDARuntimeError, match="Capture"):
            stream.synchronize()
        with pytest.raises(runtime.CUDARuntimeError, match="Capture"):
            stream.end_capture()


@pytest.mark.parametrize(("lazy", "printed"), [("0", ["10", "10"]), ("1", ["0", "10"])])
def test_lazy_streams_show_a_missing_wait(lazy, printed):
    script = """
        import cupy
        one, two = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
        x = cupy.zeros(3)
        cupy.cuda.Device().synchronize()
        with one:
            x += 1
            event = one.record()
        with two:
            y = x * 10
            two.wait_event(event)
            z = x * 10
        two.synchronize()
        print(int(y[0]), int(z[0]))
    """

    assert run(script, FAKECUDA_LAZY=lazy) == printed


@pytest.mark.parametrize("lazy", ["0", "1"])
def test_freed_memory_is_poisoned_behind_the_work_that_used_it(lazy):
    script = """
        import cupy
        from tests.cuda_emulator.poison import PoisonFreed
        with PoisonFreed(), cupy.cuda.Stream(non_blocking=True) as stream:
            x = cupy.ones(3)
            y, freed = x * 2, cupy.ndarray(3, memptr=cupy.cuda.MemoryPointer(
                cupy.cuda.UnownedMemory(x.data.ptr, 24, None), 0))
            del x
            stream.synchronize()
            print(int(y[0]), float(freed[0]))
    """

    assert run(script, FAKECUDA_LAZY=lazy) == ["2", "nan"]


def test_memory_freed_in_a_capture_is_poisoned_at_each_launch():
    stream, a = cp.cuda.Stream(non_blocking=True), cp.ones(3)
    with PoisonFreed(), stream:
        x, y = a * 1, a * 1
        stream.begin_capture()
        temporary = x + 1
        address = temporary.data.ptr
        y[...] = temporary * 2
        del temporary
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
        memory = cp.cuda.UnownedMemory(address, 24, None)
        left = cp.ndarray(3, memptr=cp.cuda.MemoryPointer(memory, 0)).get()

    np.testing.assert_array_equal(y.get(), [4, 4, 4])
    assert np.isnan(left).all()


# ---------------------------------------------------------------------- kernels


def test_a_barrier_over_the_whole_grid():
    source = r"""
        #include <cooperative_groups.h>
        namespace cg = cooperative_groups;
        extern "C" __global__ void f(int* parts, int* sums) {
            cg::grid_group grid = cg::this_grid();
            parts[grid.thread_rank()] = grid.thread_rank();
            grid.sync();
            int sum = 0;
            for (int i = 0; i < grid.size(); i++) sum += parts[i];
            cg::this_thread_block().sync();
            sums[grid.thread_rank()] = sum;
        }"""
    cooperative = cp.RawKernel(source, "f", enable_cooperative_groups=True)
    parts, sums = cp.zeros(60, "int32"), cp.zeros(60, "int32")
    cooperative((3,), (20,), (parts, sums))

    assert set(sums.get().tolist()) == {sum(range(60))}


def test_a_cooperative_launch_larger_than_the_device_is_made_smaller_by_cupy():
    source = "#include <cooperative_groups.h>\n" + 'extern "C" __global__ void f(int* x) { x[blockIdx.x] = gridDim.x; }'
    x = cp.zeros(9, "int32")
    with pytest.warns(UserWarning, match="reduced from 9 to 8"):
        cp.RawKernel(source, "f", enable_cooperative_groups=True)((9,), (1024,), (x,))

    assert x.get().tolist() == [8] * 8 + [0]


@pytest.mark.parametrize(("order", "printed"), [("0", "0"), ("1", "1")])
def test_reverse_order_shows_a_missing_barrier(order, printed):
    script = r"""
        import cupy
        source = '''extern "C" __global__ void f(int* x) {
            __shared__ int last;
            __syncthreads();
            if (threadIdx.x == 0) last = 1;
            if (threadIdx.x == 31) x[0] = last != 1;  // a barrier is missing above
        }'''
        x = cupy.zeros(1, "int32")
        cupy.RawKernel(source, "f")((1,), (32,), (x,))
        print(int(x[0]))
    """

    assert run(script, FAKECUDA_ORDER=order) == [printed]


@pytest.mark.parametrize(("ftz", "printed"), [("0", ["False", "False"]), ("1", ["True", "False"])])
def test_denormals_are_flushed_on_demand(ftz, printed):
    script = """
        import cupy, numpy
        x = cupy.asarray(numpy.float32([2e-38]))
        print(float((x * numpy.float32(0.1))[0]) == 0, float(numpy.float32(2e-38) * numpy.float32(0.1)) == 0)
    """

    assert run(script, FAKECUDA_FTZ=ftz) == printed


@pytest.mark.parametrize(("fma", "printed"), [("0", ["0.0", "0.0"]), ("1", ["1.4210854715202004e-14", "0.0"])])
def test_products_and_sums_are_contracted_on_demand(fma, printed):
    script = """
        import cupy, numpy
        source = 'extern "C" __global__ void f(float* x) { x[1] = x[0] * x[0] - x[2]; }'
        for options in ((), ("--fmad=false",)):
            a = numpy.float32(1 + 2**-23)
            x = cupy.asarray(numpy.float32([a, 0, a * a]))
            cupy.RawKernel(source, "f", options=options)((1,), (1,), (x,))
            print(float(x[1]))
    """

    assert run(script, FAKECUDA_FMA=fma) == printed


# ---------------------------------------------------------------------- devices


@pytest.mark.parametrize(("peers", "printed"), [("0", ["False", "refused"]), ("1", ["True", "2.0"])])
def test_memory_of_another_device_is_for_peers(peers, printed):
    script = """
        import cupy
        runtime = cupy.cuda.runtime
        with cupy.cuda.Device(1):
            x = cupy.ones(3, "float32")
        print(bool(runtime.deviceCanAccessPeer(0, 1)))
        if runtime.deviceCanAccessPeer(0, 1):
            runtime.deviceEnablePeerAccess(1)
        try:
            cupy.RawKernel('extern "C" __global__ void f(float* x) { x[0] = 2; }', "f")((1,), (1,), (x.data.ptr,))
            print(float(x[0]))
        except cupy.cuda.driver.CUDADriverError:
            print("refused")
    """

    assert run(script, FAKECUDA_DEVICES="2", FAKECUDA_PEERS=peers) == printed


# ---------------------------------------------------------------------- counts


def counted(work):
    cp.cuda.Device().synchronize()
    before = fakecuda.counts()
    work()
    return {name: value - before[name] for name, value in fakecuda.counts().items() if value != before[name]}


def test_kernels_and_products_are_counted():
    x = cp.ones((4, 4), "float32")
    x @ x + x

    assert counted(lambda: x @ x + x) == {"launches": 1, "products": 1}


def test_copies_and_waits_are_counted():
    x, host = cp.ones(10), np.ones(10)

    assert counted(lambda: x.set(host)) == {"uploads": 1, "upload_bytes": 80}
    assert counted(lambda: x.get()) == {"downloads": 1, "download_bytes": 80, "waits": 1}
    assert counted(lambda: cp.asarray(host)) == {
        "uploads": 1,
        "upload_bytes": 80,
    }  # CuPy queries an event and continues
    assert counted(cp.cuda.get_current_stream().synchronize) == {"waits": 1}
