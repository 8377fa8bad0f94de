"""One measurement in a separate process: ``python -m tests.benchmarks.worker '{"task": "steps", ...}'``.

`measure` starts the process. Its output goes to a pseudo-terminal, so that progress bars draw as on a screen, and is discarded.
Its result goes to a file.
"""

from __future__ import annotations

import json
import os
import pty
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOOR = "GEMM floor"


# ---------------------------------------------------------------------- the parent's side


def environment(threads: int) -> dict[str, str]:
    """Return the environment of all measurements: CPU only, a fixed number of threads, and cached bytecode."""
    names = ("OPENBLAS", "OMP", "MKL", "NUMEXPR")
    own = {f"{name}_NUM_THREADS": str(threads) for name in names}
    own |= {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    left_out = ("XPNET_BACKEND", "XLA_FLAGS", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | own


def measure(spec: dict, threads: int = 2, timeout: float = 1800) -> dict:
    """Run one measurement in a fresh process. Return its result, with ``"error"`` if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.benchmarks.worker", json.dumps({**spec, "threads": threads})]
        screen, terminal = pty.openpty()
        tail = bytearray()
        reader = threading.Thread(target=_drain, args=(screen, tail), daemon=True)
        reader.start()
        try:
            process = subprocess.run(
                [*command, str(result)], cwd=ROOT, env=environment(threads) | _cache(spec), stdin=subprocess.DEVNULL,
                stdout=terminal, stderr=terminal, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {**spec, "error": f"stopped after {timeout:g} s"}
        finally:
            os.close(terminal)
            reader.join()
            os.close(screen)
        if process.returncode or not result.exists():
            lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
            return {**spec, "error": lines[-1] if lines else f"exit status {process.returncode}"}
        return {**spec, **json.loads(result.read_text())}


def _cache(spec: dict) -> dict[str, str]:
    """Return a separate cache for torch.compile, which is empty at first, so that only the first round compiles."""
    return {"TORCHINDUCTOR_CACHE_DIR": f"{spec['data']}/inductor"} if "data" in spec else {}


def _drain(screen: int, tail: bytearray) -> None:
    """Read the output to the terminal, and keep its end."""
    try:
        while block := os.read(screen, 1 << 16):
            tail += block
            del tail[:-8000]
    except OSError:  # the last writer has closed the terminal
        pass


# ---------------------------------------------------------------------- the worker's side


def variant_functions() -> dict:
    """Return all variants of training by name."""
    from tests.benchmarks import ours, peers

    return ours.TRAIN | peers.TRAIN


def time_epochs(train, case, x, y, epochs: int) -> dict:
    """Time each epoch after the first. The excess of the first epoch is the time for set-up and compilation."""
    stamps, faults, records = [time.perf_counter()], [], []

    def on_epoch(loss, accuracy):
        stamps.append(time.perf_counter())
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        records.append((loss, accuracy))

    train(case, x, y, epochs + 1, on_epoch)
    first, *seconds = (b - a for a, b in pairwise(stamps))
    return {
        "seconds": seconds,
        "startup_seconds": first - statistics.median(seconds),
        "steps": case.steps,
        "us_per_step": statistics.median(seconds) / case.steps * 1e6,
        "faults_per_step": (faults[-1] - faults[0]) / epochs / case.steps,
        "loss": records[-1][0],
        "accuracy": records[-1][1],
    }


def floor(case, x, y, epochs, on_epoch):
    """Compute only the step's matrix products, in the form of the functions in `peers.TRAIN`."""
    from tests.benchmarks.cases import floor_step

    step = floor_step(case)
    for _ in range(epochs):
        for _ in range(case.steps):
            step()
        on_epoch(None, None)


def steps_task(spec: dict) -> dict:
    """Measure the µs per training step."""
    from tests.benchmarks.cases import CASES, read_data

    case = CASES[spec["case"]]
    if spec["variant"] == FLOOR:
        return time_epochs(floor, case, None, None, spec["epochs"])
    x, y = read_data(Path(spec["data"]), case)
    return time_epochs(variant_functions()[spec["variant"]], case, x, y, spec["epochs"])


def predict_task(spec: dict) -> dict:
    """Measure rows per second and the latency of one row, from a NumPy array to NumPy labels."""
    from tests.benchmarks.cases import CASES, read_data
    from tests.benchmarks.inference import PREDICTORS

    case = CASES[spec["case"]]
    x, y = read_data(Path(spec["data"]), case)
    x, y = x[: spec["rows"]], y[: spec["rows"]]
    predict = PREDICTORS[spec["variant"]](case, x, y)

    def seconds(rows, repeats):
        predict(rows), predict(rows)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            predict(rows)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return {"rows_per_second": len(x) / seconds(x, 9), "us_one_row": seconds(x[:1], 200) * 1e6}


def memory_task(spec: dict) -> dict:
    """Measure the peak memory of one epoch beyond the memory of the loaded library, and compute the memory that it needs."""
    from tests.benchmarks.cases import CASES, read_data

    case = CASES[spec["case"]]
    load_library(spec["variant"])
    train = variant_functions()[spec["variant"]]
    baseline = _memory("VmRSS")
    x, y = read_data(Path(spec["data"]), case)
    train(case, x, y, 1, lambda loss, accuracy: None)
    widths = case.widths
    parameters = sum((n + 1) * m for n, m in pairwise(widths)) * 4
    needed = x.nbytes + y.nbytes + parameters + case.batch * sum(widths) * 4
    return {"peak_bytes": _memory("VmHWM") - baseline, "baseline_bytes": baseline, "needed_bytes": needed}


def load_library(variant: str) -> None:
    """Import and start the variant's library, so that its memory belongs to the baseline."""
    if variant.startswith("xpnet"):
        from xpnet.backend import make_backend

        make_backend(variant.split()[1])
    elif variant.startswith("torch"):
        import torch  # noqa: F401
    elif variant.startswith(("JAX", "Keras")):
        import jax

        jax.devices()
        if variant.startswith("Keras"):
            import keras  # noqa: F401
    else:
        import sklearn.neural_network  # noqa: F401


def _memory(field: str) -> int:
    """Return a field of Linux's /proc/self/status in bytes: VmRSS is the current memory, VmHWM the peak so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def sklearn_task(spec: dict) -> dict:
    """Measure the same work with xpnet.sklearn and scikit-learn by turns."""
    from tests.benchmarks import sklearn_speed

    return sklearn_speed.task(spec)


def parts_task(spec: dict) -> dict:
    """Measure a step of the whole batch, or in parts."""
    from tests.benchmarks import parts

    return parts.task(spec)


TASKS = {
    "steps": steps_task,
    "predict": predict_task,
    "memory": memory_task,
    "sklearn": sklearn_task,
    "parts": parts_task,
}


def main(spec: dict, result: Path) -> None:
    if hasattr(os, "sched_setaffinity"):  # XLA uses as many threads as CPUs are available to it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["threads"]])
    result.write_text(json.dumps(TASKS[spec["task"]](spec)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
