"""Measures the costs that matter before code is optimized for a card: a launch, a graph node, a barrier, a matrix product."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from tests.benchmarks import ours
from tests.benchmarks.cases import CASES, products

POOLS: list = []  # the memory that graphs write to, which must exist as long as the graphs


def capture(cupy, work: Callable):
    """Capture `work` as a graph with separate memory. Return the graph and its stream."""
    cupy.cuda.Device().synchronize()  # another stream created the arrays that `work` reads
    POOLS.append(cupy.cuda.MemoryPool())
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(POOLS[-1].malloc):
        work()
        stream.synchronize()
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
    return graph, stream


def launch_time(cupy, graph, stream, launches: int = 300) -> tuple[float, float]:
    """Return the µs of the device and of the host for each launch, as medians of five runs."""
    host, device = [], []
    for _ in range(6):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        stream.synchronize()
        start.record(stream)
        begin = time.perf_counter()
        for _ in range(launches):
            graph.launch(stream)
        host.append((time.perf_counter() - begin) / launches * 1e6)
        end.record(stream)
        end.synchronize()
        device.append(cupy.cuda.get_elapsed_time(start, end) / launches * 1e3)
    return statistics.median(device[1:]), statistics.median(host[1:])


def probe_product_in_capture(cupy) -> dict:
    """1. Does xpnet's cuBLAS compute correct products in a capture?"""
    from xpnet.backend.cublas import Gemm

    differences = {}
    for dtype in ("float32", "float64"):
        a, b = (cupy.random.default_rng(i).standard_normal((128, 128)).astype(dtype) for i in range(2))
        cupy.cuda.Device().synchronize()
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            gemm, out = Gemm(cupy, stream), []
            gemm(a, b.T)
            stream.begin_capture()
            try:
                out.append(gemm(a, b.T))
            finally:
                graph = stream.end_capture()
            graph.launch(stream)
            stream.synchronize()
            differences[dtype] = float(abs(out[0] - a @ b.T).max())
    return differences


EMPTY = 'extern "C" __global__ void empty() {}'


def probe_nodes(cupy) -> dict:
    """2 and 4. µs of empty and small kernels in a graph, of launches, and of many steps in one graph."""
    empty = cupy.RawKernel(EMPTY, "empty")
    x = cupy.zeros(1000, dtype="float32")
    results = {}
    for nodes in (1, 3, 18, 36, 59, 200):
        device, host = launch_time(
            cupy, *capture(cupy, lambda nodes=nodes: [empty((1,), (32,), ()) for _ in range(nodes)])
        )
        results[f"{nodes} empty kernels"] = {"device": device, "host": host}

    def chain(nodes):
        y = x
        for _ in range(nodes):
            y = y + 1.0

    for unrolled in (1, 10, 50):
        device, host = launch_time(
            cupy, *capture(cupy, partial(chain, 59 * unrolled)), launches=max(300 // unrolled, 6)
        )
        results[f"59 additions of 1,000 numbers, {unrolled} times in one graph, each"] = {
            "device": device / unrolled, "host": host / unrolled,
        }  # fmt: skip
    return results


COOPERATIVE = r"""
#include <cooperative_groups.h>
extern "C" __global__ void barriers(int n)
{
    cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    for (int i = 0; i < n; i++) grid.sync();
}
"""


def probe_grid_sync(cupy) -> dict:
    """3 and 6. µs of a barrier for the whole grid, and whether such a launch can be captured."""
    kernel = cupy.RawKernel(COOPERATIVE, "barriers", enable_cooperative_groups=True)
    stream, results = cupy.cuda.Stream(non_blocking=True), {}
    with stream:
        for blocks in (16, 132):
            times = []
            for n in (0, 1000):
                kernel((blocks,), (128,), (np.int32(n),))
                start, end = cupy.cuda.Event(), cupy.cuda.Event()
                start.record(stream)
                kernel((blocks,), (128,), (np.int32(n),))
                end.record(stream)
                end.synchronize()
                times.append(cupy.cuda.get_elapsed_time(start, end) * 1e3)
            results[f"{blocks} blocks"] = (times[1] - times[0]) / 1000
    capture(cupy, lambda: kernel((16,), (128,), (np.int32(1),)))
    return results | {"captured": True}


def probe_random(cupy) -> dict:
    """5. Does CuPy's generator give new numbers at each launch of a graph?"""
    rng, kept = cupy.random.default_rng(0), []
    graph, stream = capture(cupy, lambda: kept.append(rng.random(4, dtype="float32")))
    values = []
    for _ in range(2):
        graph.launch(stream)
        stream.synchronize()
        values.append(kept[-1].get().tolist())
    return {"new numbers at each launch": values[0] != values[1]}


def probe_products(cupy) -> dict:
    """7. µs of a step's matrix products alone, in a graph: the lower limit for every implementation with cuBLAS."""
    from xpnet.backend.cublas import Gemm

    results = {}
    for name in ("W1", "W2", "W3", "W7", "W8", "CNN"):
        for label, tf32 in (("fp32", False), ("TF32", True)):
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                gemm, pairs = Gemm(cupy, stream, tf32=tf32), []
                for p in products(CASES[name]):
                    x, W, dy = (
                        cupy.ones(shape, dtype="float32")
                        for shape in ((p.rows, p.inputs), (p.inputs, p.outputs), (p.rows, p.outputs))
                    )
                    operands = {"y": (x, W), "dW": (x.T, dy), "dx": (dy, W.T)}
                    pairs += [operands[part] for part in p.parts] * p.times
                results_kept = [gemm(a, b) for a, b in pairs]
                stream.synchronize()
                stream.begin_capture()
                try:
                    results_kept += [gemm(a, b) for a, b in pairs]
                finally:
                    graph = stream.end_capture()
            results[f"{name} {label}"] = launch_time(cupy, graph, stream, 100)[0]
    return results


def probe_step(cupy) -> dict:
    """Measure xpnet's step as a graph (nodes, µs of the device, µs of the host) and the time of an eager step."""
    from xpnet.backend import make_backend

    results = {}
    rng = np.random.default_rng(0)
    for name in ("W1", "W2", "W3", "W7", "W8"):
        case = CASES[name]
        backend = make_backend("cupy", graphs=True)
        model = ours.model(case, backend).build(case.input_shape)
        data = {
            "x": backend.asarray(rng.random((5000, *case.input_shape), dtype=np.float32)),
            "y": backend.asarray(rng.integers(0, 10, 5000)),
        }
        steps = 1000  # launch_time launches 600
        batches = {"index": rng.integers(0, 5000, (steps, case.batch)), "learning_rate": np.full(steps, 0.1)}
        step, state = model.training_step, model.state
        backend.scan(step, state, batches, data)
        from xpnet.backend.cupy import graph_scan

        scan = graph_scan(backend.device.id, "float32")
        recording = next(reversed(scan.recordings.values()))
        with scan.stream:
            recording.counter.fill(0)
        dot = recording.graph.debug_dot_str() if hasattr(recording.graph, "debug_dot_str") else ""
        device, host = launch_time(cupy, recording.graph, scan.stream, 100)
        eager = make_backend("cupy")
        times = []
        for _ in range(4):
            state = eager.copy(state)
            begin = time.perf_counter()
            state, records = eager.scan(step, state, batches, data)
            records["loss"].get()
            times.append((time.perf_counter() - begin) / steps * 1e6)
        results[name] = {
            "nodes": len(re.findall(r'"graph_\d+_node_\d+"\s*\[', dot)) or None,
            "graph, device": device, "graph, host": host, "eager": min(times),
        }  # fmt: skip
    return results


PRODUCTS_ALONE = "7 a step's products alone, µs"
PROBES = {
    "1 our product in a capture, largest difference": probe_product_in_capture,
    "2, 4 nodes and launches, µs": probe_nodes,
    "3, 6 grid-wide barrier, µs": probe_grid_sync,
    "5 random numbers in a graph": probe_random,
    PRODUCTS_ALONE: probe_products,
    "xpnet's step, µs": probe_step,
}
