"""All that a machine with a CUDA device can tell about xpnet, in one command, without a network, in at most 8 minutes.

    python -m tests.benchmarks.gpu_check --out results     NumPy, CuPy, PyTorch and JAX are installed, $XPNET_DATA holds MNIST
    python -m tests.benchmarks.gpu_check --dry-run         the plumbing alone, on NumPy and tiny sizes: its figures mean nothing

Each stage is a process with a time limit of its own, so that one failure does not lose the rest. After each, gpu_check.json
and gpu_check.md are written anew; gpu_check.log is what all stages printed. Nothing is timed while something else runs.

All peers compute in the same precision: float32 ("highest" in JAX, whose default on Hopper is TF32; PyTorch's and CuPy's
default), or with --tf32 all of them in TF32. Data lie on the device, rows are gathered and epochs shuffled by all, and all record
loss and accuracy. Compilation is outside the figures, and reported.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.util
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tests.benchmarks import ours, peers
from tests.benchmarks.cases import CASES, LEARNING_RATE, Case, products, read_data, write_data
from tests.benchmarks.report import PACKAGES, table
from tests.benchmarks.worker import ROOT, time_epochs

MINUTES = 8
TIMED = ("W2", "W8", "W1", "W3", "W7", "CNN", "LSTM")  # in this order, in case time runs out
ROWS = {"W8": 117 * 512, "CNN": 200 * 128, "LSTM": 60 * 128}  # an epoch long enough that its ends do not count
EPOCHS = 5
IMPORTED = ("array_api_compat", "array_api_strict", "cupy", "hypothesis", "jax", "matplotlib", "pytest", "sklearn", "torch",
            "tqdm")  # fmt: skip


# ---------------------------------------------------------------------- stages: name -> (what it does, seconds)


@dataclass
class Job:
    """What a stage is told, and where it leaves what it found: `put` writes at once, for the stage may be stopped."""

    file: Path
    dry: bool
    tf32: bool
    cases: tuple[str, ...]
    folder: Path
    limit: float = math.inf  # seconds

    def __post_init__(self):
        self.results: dict = {}
        self.begin = time.monotonic()

    @property
    def seconds_left(self) -> float:
        return self.limit - (time.monotonic() - self.begin)

    def put(self, name: str, value) -> None:
        self.results[name] = value
        self.file.write_text(json.dumps(self.results, indent=1))

    def attempt(self, name: str, function: Callable, *args) -> None:
        """Put the function's result, or why there is none."""
        try:
            self.put(name, function(*args))
        except Exception as error:
            traceback.print_exc()
            self.put(name, {"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def machine(job: Job) -> None:
    """The device, the driver, the versions, the commit."""
    job.put("date", datetime.datetime.now().astimezone().isoformat(timespec="minutes"))
    job.put("python", f"{platform.python_version()}, {platform.platform()}")
    job.put("cpus", os.cpu_count())
    job.put("commit", os.environ.get("XPNET_COMMIT") or _command("git", "rev-parse", "--short", "HEAD") or "unknown")
    job.put("changes", _command("git", "status", "--porcelain", "xpnet").splitlines())
    job.put(
        "versions",
        {name: version for name in (*PACKAGES, "cupy-cuda13x", "cupy-cuda12x") if (version := _version(name))},
    )
    job.put("missing", [name for name in IMPORTED if importlib.util.find_spec(name) is None])
    job.put("MNIST", has_mnist())
    job.put("nvidia-smi", _command("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm",
                                   "--format=csv,noheader"))  # fmt: skip
    if job.dry:
        return
    import cupy

    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    job.put("device", properties["name"].decode())
    job.put("multiprocessors", properties["multiProcessorCount"])
    job.put("compute capability", device.compute_capability)
    job.put("driver CUDA", runtime.driverGetVersion())
    job.put("runtime CUDA", cupy.cuda.get_local_runtime_version())


def has_mnist() -> bool:
    from xpnet import DatasetError, datasets

    try:
        datasets.mnist(download=False)
    except (DatasetError, ImportError):
        return False
    return True


def gpu_tests(job: Job) -> None:
    """The tests written for a GPU, and the lints."""
    chosen = ["-k", "status or sizes_must_fit"] if job.dry else []
    run_pytest(job, "numpy" if job.dry else "cupy", "tests/test_cupy_backend.py", "tests/test_graph_safety.py", *chosen)


def suite(job: Job) -> None:
    """The whole suite on CuPy, but for what `gpu_tests` has run and what tests this file."""
    others = ("benchmarks", "gpu_check", "cupy_backend", "graph_safety")
    whole = ["tests", *(f"--ignore=tests/test_{name}.py" for name in others)]
    run_pytest(job, "numpy" if job.dry else "cupy", *(["tests/test_metrics.py"] if job.dry else whole))


def suite_with_graphs(job: Job) -> None:
    """The tests that train, with graphs=True."""
    trains = ["tests/test_model.py", "tests/test_divergence.py", "tests/test_backend.py"]
    run_pytest(job, "numpy" if job.dry else "cupy-graphs", *(trains[2:] if job.dry else trains))


def run_pytest(job: Job, backend: str, *arguments: str) -> None:
    """Run tests on one backend -> counts, and the names and first lines of what failed, also if time runs out."""
    report = job.folder / "junit.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *arguments,
    ]
    if not job.dry and _version("pytest-xdist"):
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    own = {"XPNET_TEST_BACKENDS": backend, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | own)
    try:
        process.wait(None if job.limit == math.inf else max(job.seconds_left - 12, 1))
    except subprocess.TimeoutExpired:
        job.put("cut short", f"after {time.monotonic() - job.begin:.0f} s: what is counted below is not all")
        process.send_signal(signal.SIGINT)  # pytest then writes what it has
        process.wait(10)
    job.put("exit status", process.returncode)
    if not report.exists():
        return job.put("error", "pytest did not start: see gpu_check.log")
    failures, counts = {}, dict.fromkeys(("passed", "failed", "skipped"), 0)
    for case in ElementTree.parse(report).iterfind(".//testcase[@name]"):  # one that was interrupted has no name
        bad = next((part for part in case if part.tag in ("failure", "error")), None)
        kind = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
        counts[kind] += 1
        if bad is not None:
            failures[f"{case.get('classname')}::{case.get('name')}"] = (bad.get("message") or "").splitlines()[:1]
    job.put("counts", counts)
    job.put("failures", dict(list(failures.items())[:100]))


def agreement(job: Job) -> None:
    """1,000 steps on NumPy and on CuPy, eager and by graphs, from the same weights in the same order."""
    steps = 20 if job.dry else 1000
    case = CASES["tiny" if job.dry else "W2"]
    write_data(job.folder, 50_000)
    x, y = read_data(job.folder, replace(case, rows=min(50_000, steps * case.batch)))
    epochs = steps * case.batch // len(x)

    def train(backend):
        from xpnet import to_numpy
        from xpnet.tree import leaves

        model = ours.model(case, backend)
        history = model.fit(x, y, batch_size=case.batch, epochs=epochs, verbose=0, record_every=1)
        parameters = np.concatenate([to_numpy(p).ravel().astype(float) for p in leaves(model.parameters)])
        return np.array(history.iterations["loss"]), parameters, model.evaluate(x, y)

    losses, parameters, (loss, accuracy) = train("numpy")
    job.put("steps", len(losses))
    job.put("NumPy", {"loss": loss, "accuracy": accuracy})

    def compare(name):
        others, other_parameters, (other_loss, other_accuracy) = train(backend_of(name))
        return {
            "loss": other_loss,
            "accuracy": other_accuracy,
            "largest relative difference of a mini-batch loss": float(np.max(np.abs(others - losses) / np.abs(losses))),
            "relative difference of the final loss": abs(other_loss - loss) / loss,
            "relative difference of the parameters": float(
                np.linalg.norm(other_parameters - parameters) / np.linalg.norm(parameters)
            ),
        }

    for name in ("numpy",) if job.dry else ("cupy", "cupy graphs"):
        job.attempt(name, compare, name)


def backend_of(name: str):
    """``"cupy graphs"`` is CuPy with graphs=True."""
    from xpnet.backend import make_backend

    library, *options = name.split()
    return make_backend(library, **dict.fromkeys(options, True))


def examples(job: Job) -> None:
    """The example scripts on the MNIST of $XPNET_DATA."""
    backend = ["--backend", "numpy" if job.dry else "cupy"]
    commands = {"mnist.py": ["--dataset", "digits" if job.dry else "mnist", "--epochs", "1" if job.dry else "5"]}
    if not job.dry:
        commands |= {"mnist_cnn.py": ["--epochs", "1"], "row_lstm.py": ["--quick"], "char_rnn.py": ["--quick"]}
        commands |= {path.name: ["--quick"] for path in sorted((ROOT / "examples").glob("report_*.py"))}
    for script, arguments in commands.items():
        if (ROOT / "examples" / script).exists():
            job.attempt(script, _run_example, script, [*backend, *arguments])


def _run_example(script: str, arguments: list[str]) -> dict:
    begin = time.perf_counter()
    command = [sys.executable, ROOT / "examples" / script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    print(f"--- {script} {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    result = {"seconds": round(time.perf_counter() - begin, 1), "last line": lines[-1] if lines else ""}
    return result if not done.returncode else result | {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}


# ---------------------------------------------------------------------- timings beside the peers


def case_of(name: str) -> Case:
    """The case, with an epoch long enough for a GPU."""
    return replace(CASES[name], rows=ROWS.get(name, CASES[name].rows))


def train_xpnet(case, x, y, epochs, on_epoch, backend):
    """`Model.fit` with loss, metric and progress bar."""
    ours.fit(case, x, y, epochs, on_epoch, backend=backend_of(backend))


def train_torch_graph(case, x, y, epochs, on_epoch):
    """PyTorch with the whole step, gather to update, captured by hand in one CUDA graph; the host only launches it.

    A counter on the device picks the row of the epoch's order; loss and accuracy are summed on the device.
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    model = peers.torch_network(case).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    x, y = peers.torch_data(case, x, y, "cuda")
    order = torch.zeros((case.steps, case.batch), dtype=torch.long, device="cuda")
    counter = torch.zeros(1, dtype=torch.long, device="cuda")
    sums = torch.zeros(2, device="cuda")

    def step():
        index = order.index_select(0, counter)[0]
        z = model(x[index])
        loss = F.cross_entropy(z, y[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        sums.add_(torch.stack([loss.detach(), (z.detach().argmax(1) == y[index]).float().mean()]))
        counter.add_(1)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
            counter.zero_()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(epochs):
        order.copy_(torch.randperm(len(x), device="cuda")[: order.numel()].reshape(order.shape))
        counter.zero_(), sums.zero_()
        for _ in range(case.steps):
            graph.replay()
        loss, accuracy = (sums / case.steps).tolist()
        on_epoch(loss, accuracy)


def set_precision(variant: str, tf32: bool) -> str:
    """The variant's library to float32, or to TF32 -> what was set; before it computes. No other library is loaded."""
    if variant.startswith("xpnet"):
        os.environ["CUPY_TF32"] = "1" if tf32 else "0"  # CuPy's own products and ours
        return f"CUPY_TF32={os.environ['CUPY_TF32']}"
    if variant.startswith("JAX"):
        import jax

        precision = "tensorfloat32" if tf32 else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
        return f"jax_default_matmul_precision={precision}"
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return f"allow_tf32={tf32}, for products and convolutions"


def variants(dry: bool) -> dict[str, Callable]:
    """All ways to train."""
    if dry:
        return {"xpnet numpy": partial(train_xpnet, backend="numpy"), "torch eager": peers.torch_eager}
    compiled = partial(peers.torch_compile_whole, device="cuda", mode="reduce-overhead")
    return {
        "xpnet cupy": partial(train_xpnet, backend="cupy"),
        "xpnet cupy graphs": partial(train_xpnet, backend="cupy graphs"),
        "PyTorch eager": partial(peers.torch_eager, device="cuda"),
        "PyTorch CUDA graph": train_torch_graph,
        "JAX scan": jax_on_gpu,
        "torch.compile": compiled,
    }


def jax_on_gpu(case, x, y, epochs, on_epoch):
    import jax

    peers.jax_scan(case, x, y, epochs, on_epoch, device=jax.devices("gpu")[0])


def benchmark(job: Job) -> None:
    """Each variant in a process of its own, with a limit of its own: all cases, one after the other."""
    job.put("data", write_data(job.folder, 60_000))
    for variant in variants(job.dry):
        file = job.folder / "variant.json"
        file.unlink(missing_ok=True)
        limit = min(60 if variant == "torch.compile" else 40, job.seconds_left - 3)
        if limit < 5:
            job.put(variant, {"error": "not begun: the stage's time is over"})
            continue
        status = run_process(["--variant", variant], replace(job, file=file), limit)
        found = read(file)
        job.put(variant, found if status == "done" else found | {"error": status})


def one_variant(job: Job, variant: str) -> None:
    """µs per step of each case: the median of the epochs after the first."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    job.put("precision", set_precision(variant, job.tf32))
    for name in ("tiny",) if job.dry else job.cases:
        case = case_of(name)
        x, y = read_data(job.folder, case)
        job.attempt(name, time_epochs, variants(job.dry)[variant], case, x, y, 1 if job.dry else EPOCHS)
        gc.collect()
    if variant == "torch.compile":
        from torch._dynamo.utils import counters

        job.put("CUDA graphs that were skipped", counters["inductor"]["cudagraph_skips"])


# ---------------------------------------------------------------------- what is to be known of the card


def first_run(job: Job) -> None:
    """The list "First GPU run" of the design notes: what a launch, a node and a product cost, and what captures."""
    if job.dry:
        return job.put("not run", "no CUDA device is used in a dry run")
    import cupy

    set_precision("xpnet", job.tf32)
    for name, probe in PROBES.items():
        job.attempt(name, probe, cupy)


POOLS: list = []  # where graphs write, kept for as long as there may be graphs


def capture(cupy, work: Callable):
    """`work` as a graph, with memory of its own, and its stream."""
    cupy.cuda.Device().synchronize()  # what `work` reads was made on another stream
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
    """µs on the device and µs of the host for each launch; the device's is the median of five runs."""
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
    """1. Our cuBLAS inside a capture: is it right?"""
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
    """2. and 4. µs of empty and small kernels in a graph, of launches, and of many steps in one graph."""
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
    """3. and 6. µs of a barrier over the whole grid, and whether such a launch can be captured."""
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
    """5. Does CuPy's generator go on from launch to launch?"""
    rng, kept = cupy.random.default_rng(0), []
    graph, stream = capture(cupy, lambda: kept.append(rng.random(4, dtype="float32")))
    values = []
    for _ in range(2):
        graph.launch(stream)
        stream.synchronize()
        values.append(kept[-1].get().tolist())
    return {"new numbers at each launch": values[0] != values[1]}


def probe_products(cupy) -> dict:
    """7. µs of all matrix products of a step, alone in a graph: below this no implementation with cuBLAS gets."""
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
    """xpnet's own step by graph: nodes, µs on the device, µs of the host; and the eager step's host time."""
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


PROBES = {
    "1 our product in a capture, largest difference": probe_product_in_capture,
    "2, 4 nodes and launches, µs": probe_nodes,
    "3, 6 grid-wide barrier, µs": probe_grid_sync,
    "5 random numbers in a graph": probe_random,
    "7 a step's products alone, µs": probe_products,
    "xpnet's step, µs": probe_step,
}


# ---------------------------------------------------------------------- the parent


STAGES: dict[str, tuple[Callable[[Job], None], int]] = {  # the most telling first
    "machine": (machine, 30),
    "gpu tests": (gpu_tests, 75),
    "agreement": (agreement, 50),
    "benchmark": (benchmark, 200),
    "suite": (suite, 120),
    "first run": (first_run, 60),
    "examples": (examples, 75),
    "suite with graphs": (suite_with_graphs, 60),
}


def read(file: Path) -> dict:
    """What a stage has left; nothing if it left nothing, or was stopped in the middle of a word."""
    try:
        return json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def run_process(task: list[str], job: Job, limit: float, log=None) -> str:
    """Do a task in a process of its own -> "done", or what happened instead. Whatever it started ends with it."""
    settings = {"dry": job.dry, "tf32": job.tf32, "cases": job.cases, "folder": str(job.folder), "file": str(job.file),
                "limit": limit}  # fmt: skip
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # xpnet need not be installed
    command = [sys.executable, "-m", "tests.benchmarks.gpu_check", *task, "--job", json.dumps(settings)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT if log else None, start_new_session=log is not None,
    )  # fmt: skip
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        if log is not None:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        return f"stopped after {limit:.0f} s"
    return "done" if code == 0 else f"exit status {code}: see gpu_check.log"


def _command(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments=None) -> dict:
    args = parse_arguments(arguments)
    if args.job:
        return work(args)
    out, begin = args.out, time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    results: dict = {"dry run": args.dry_run, "precision": "TF32" if args.tf32 else "float32"}
    with open(out / "gpu_check.log", "w", encoding="utf-8") as log, tempfile.TemporaryDirectory() as folder:
        for name in args.stages:
            limit = min(STAGES[name][1], 60 * args.minutes - (time.monotonic() - begin))
            if limit < 5:
                results[name] = {"status": f"not begun: the {args.minutes:g} minutes are over"}
                continue
            print(f"{name} (at most {limit:.0f} s) ...", flush=True)
            print(f"\n===== {name}", file=log, flush=True)
            file, started = Path(folder) / "stage.json", time.monotonic()
            file.unlink(missing_ok=True)
            job = Job(file, args.dry_run, args.tf32, args.cases, Path(folder))
            status = run_process(["--stage", name], job, limit, log)
            found = read(file)
            results[name] = {"status": status, "seconds": round(time.monotonic() - started, 1), **found}
            print(f"    {status}", flush=True)
            (out / "gpu_check.json").write_text(json.dumps(results, indent=1))
            (out / "gpu_check.md").write_text(markdown(results))
    return results


def work(args) -> dict:
    """One stage, or one variant of the benchmark, in this process."""
    settings = json.loads(args.job)
    job = Job(
        Path(settings["file"]), settings["dry"], settings["tf32"], tuple(settings["cases"]), Path(settings["folder"]),
        settings["limit"],
    )  # fmt: skip
    if args.variant:
        one_variant(job, args.variant)
    else:
        STAGES[args.stage][0](job)
    return job.results


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = lambda text: tuple(name.strip() for name in text.split(",") if name.strip())  # noqa: E731
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "gpu_check")), help="a folder for what is found"
    )
    parser.add_argument("--stages", type=names, default=tuple(STAGES), help=f"default: {','.join(STAGES)}")
    parser.add_argument("--cases", type=names, default=TIMED, help=f"default: {','.join(TIMED)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything; default: %(default)s")
    parser.add_argument("--tf32", action="store_true", help="all libraries in TF32, not in float32")
    parser.add_argument("--dry-run", action="store_true", help="the plumbing alone, on NumPy and tiny sizes")
    for hidden in ("--stage", "--variant", "--job"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    for given, known in ((args.stages, tuple(STAGES)), (args.cases, tuple(CASES))):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return args


# ---------------------------------------------------------------------- the report


def markdown(results: dict) -> str:
    """All that was found, for people."""
    head = "# GPU check\n\n"
    if results["dry run"]:
        head += "**A dry run on the CPU: it tests the plumbing. No figure here means anything.**\n\n"
    parts = [head + _machine_text(results.get("machine", {}), results["precision"])]
    stages = [[name, str(found.get("status")), str(found.get("seconds", ""))] for name, found in results.items()
              if name in STAGES]  # fmt: skip
    parts.append(table(["stage", "status", "s"], stages))
    for name in ("gpu tests", "suite", "suite with graphs"):
        if "counts" in (found := results.get(name, {})):
            counts = ", ".join(f"{count} {kind}" for kind, count in found["counts"].items())
            failed = "".join(f"\n- {test}: {' '.join(message)}" for test, message in found["failures"].items())
            cut = f" Cut short {found['cut short']}." if "cut short" in found else ""
            parts.append(
                f"## {name[0].upper()}{name[1:]}\n\n{counts} (exit status {found['exit status']}).{cut}{failed}"
            )
    if "benchmark" in results:
        parts.append("## µs per training step\n\n" + _benchmark_text(results["benchmark"]))
    if "agreement" in results:
        parts.append("## Agreement with NumPy\n\n" + _agreement_text(results["agreement"]))
    for name in ("first run", "examples"):
        found = {key: value for key, value in results.get(name, {}).items() if key not in ("status", "seconds")}
        if found:
            parts.append(f"## {name[0].upper()}{name[1:]}\n\n" + _nested_text(found))
    return "\n\n".join(parts) + "\n"


def _machine_text(found: dict, precision: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items())
    changes = f" with {len(found['changes'])} changed files" if found.get("changes") else ""
    missing = f" **Missing packages: {', '.join(found['missing'])}.**" if found.get("missing") else ""
    missing += "" if found.get("MNIST", True) else " **$XPNET_DATA holds no MNIST.**"
    return (
        f"{found.get('device', 'No CUDA device')} ({found.get('nvidia-smi') or 'nvidia-smi says nothing'}), driver CUDA "
        f"{found.get('driver CUDA')}, runtime CUDA {found.get('runtime CUDA')}; {found.get('cpus')} CPUs, Python "
        f"{found.get('python')}; {versions}. Commit {found.get('commit')}{changes}, {found.get('date')}. All libraries in "
        f"{precision}.{missing}"
    )


def _benchmark_text(found: dict) -> str:
    measured = {name: value for name, value in found.items() if isinstance(value, dict)}
    cases = [name for name in CASES if any(name in value for value in measured.values())]
    rows = []
    for variant, value in measured.items():
        cells = [value.get(case, {}) for case in cases]
        rows.append([variant, *(f"{c['us_per_step']:,.1f}" if "us_per_step" in c else _short(c.get("error", "")) for c in cells),
                     _short(value.get("error", ""))])  # fmt: skip
    text = f"Data: {found.get('data')}. Median of the epochs after the first, through each library's public way.\n\n"
    text += table(["", *(f"{case} {CASES[case].title}" for case in cases), ""], rows)
    starts = [[variant, *(f"{value.get(case, {}).get('startup_seconds', float('nan')):.1f}" for case in cases)]
              for variant, value in measured.items()]  # fmt: skip
    text += "\n\nSeconds of the first epoch beyond the others (compilation, capture, upload):\n\n"
    return text + table(["", *cases], starts) + "\n\n" + _targets_text(measured)


def _targets_text(measured: dict) -> str:
    """The goals that were set for these figures."""

    def us(variant, case="W2"):
        return measured.get(variant, {}).get(case, {}).get("us_per_step")

    goals = [
        *((case, "xpnet cupy", "PyTorch eager", 1.0) for case in ("W1", "W2", "W3", "W7", "W8")),
        ("W2", "xpnet cupy graphs", "torch.compile", 1.0),
        ("W2", "xpnet cupy graphs", "JAX scan", 1.0),
    ]
    rows = []
    for case, ours_, other, limit in goals:
        if (a := us(ours_, case)) and (b := us(other, case)):
            rows.append([case, ours_, other, f"{a / b:.2f}", f"{limit:.2f}", "yes" if a <= limit * b else "NO"])
    return table(["case", "", "beside", "ratio", "at most", "reached"], rows) if rows else ""


def _agreement_text(found: dict) -> str:
    runs = {name: value for name, value in found.items() if isinstance(value, dict)}
    fields = list(dict.fromkeys(field for value in runs.values() for field in value))
    rows = [[name, *(_number(value.get(field)) for field in fields)] for name, value in runs.items()]
    return f"{found.get('steps')} steps; the goal is 1e-4 relative.\n\n" + table(["", *fields], rows)


def _nested_text(found: dict) -> str:
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines.append(f"- **{name}**: " + "; ".join(f"{key}: {_number(part)}" for key, part in value.items()))
        else:
            lines.append(f"- **{name}**: {_number(value)}")
    return "\n".join(lines)


def _number(value) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_number(part)}" for key, part in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else _short(str(value))


def _short(text: str) -> str:
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) < 160 else text[:157] + "..."


if __name__ == "__main__":
    main()
