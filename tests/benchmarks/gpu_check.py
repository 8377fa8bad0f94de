"""All checks of xpnet on a machine with a CUDA device: one command that needs no network connection and at most 8 minutes.

    python -m tests.benchmarks.gpu_check --out results
    python -m tests.benchmarks.gpu_check --dry-run

The first command needs NumPy, CuPy, PyTorch and JAX, and MNIST in $XPNET_DATA. The second tests only the program, on NumPy with
tiny sizes; ignore its figures.

Each stage is a separate process with a time limit, so that a failure does not affect the other stages. After each stage,
gpu_check.json and gpu_check.md are rewritten. gpu_check.log holds the output of all stages. The stages run one at a time, so
nothing disturbs the timings.

All libraries compute in the same precision: float32, or TF32 with --tf32. float32 is the default of PyTorch and CuPy; in JAX,
whose default on Hopper is TF32, it is the setting "highest". For all libraries, the data are on the device, epochs are shuffled,
rows are gathered, and loss and accuracy are recorded. The times do not include compilation, which is reported separately.
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
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tests.benchmarks import cli, ours
from tests.benchmarks.cases import CASES, read_data, write_data
from tests.benchmarks.gpu_probes import PROBES
from tests.benchmarks.gpu_report import markdown
from tests.benchmarks.gpu_variants import backend_of, case_of, set_precision, variants
from tests.benchmarks.report import PACKAGES
from tests.benchmarks.worker import ROOT, time_epochs

MINUTES = 8
GRACE = 12  # seconds before the end of a stage, when pytest must write its results so far
TIMED = ("W2", "W8", "W1", "W3", "W7", "CNN", "LSTM")  # the most important first, in case time runs out
EPOCHS = 5
IMPORTED = ("array_api_compat", "array_api_strict", "cupy", "hypothesis", "jax", "matplotlib", "pytest", "sklearn", "torch",
            "tqdm")  # fmt: skip


# ---------------------------------------------------------------------- stages


@dataclass
class Job:
    """A stage's settings and results. `put` writes a result immediately, because the stage may be stopped."""

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
        """Put the function's result, or its error."""
        try:
            self.put(name, function(*args))
        except Exception as error:
            traceback.print_exc()
            self.put(name, {"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def machine(job: Job) -> None:
    """Put the device, the driver, the versions and the commit."""
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
    except DatasetError:
        return False
    return True


def gpu_tests(job: Job) -> None:
    """Run the tests written for a GPU, and the lints."""
    chosen = ["-k", "sizes_must_fit or several_outputs"] if job.dry else []
    run_pytest(job, "numpy" if job.dry else "cupy", "tests/test_backend_cupy.py", "tests/test_graph_safety.py", *chosen)


def suite(job: Job) -> None:
    """Run the whole suite on CuPy, except the tests in `gpu_tests` and the tests of this file."""
    others = ("benchmarks", "gpu_check", "backend_cupy", "graph_safety")
    whole = ["tests", *(f"--ignore=tests/test_{name}.py" for name in others)]
    run_pytest(job, "numpy" if job.dry else "cupy", *(["tests/test_metrics.py"] if job.dry else whole))


def suite_with_graphs(job: Job) -> None:
    """Run the tests that train, with graphs=True."""
    trains = [f"tests/test_{name}.py" for name in ("loop", "model", "divergence", "backend")]
    run_pytest(job, "numpy" if job.dry else "cupy-graphs", *(trains[-1:] if job.dry else trains))


# A background program may ignore SIGINT, and the programs that it starts inherit this
INTERRUPTIBLE = (
    "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(pytest.main())"
)


def run_pytest(job: Job, backend: str, *arguments: str) -> None:
    """Run tests on one backend. Put the counts, and the name and first line of each failure, even if time runs out."""
    report = job.folder / "junit.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-c",
        INTERRUPTIBLE,
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
        process.wait(None if job.limit == math.inf else max(job.seconds_left - GRACE, 1))
    except subprocess.TimeoutExpired:
        job.put("cut short", f"after {time.monotonic() - job.begin:.0f} s, so the counts are incomplete")
        process.send_signal(signal.SIGINT)  # pytest then writes its results so far
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        process.kill()  # no effect if it has ended
        process.wait()
    job.put("exit status", process.returncode)
    if not report.exists():
        return job.put("error", "pytest did not start; see gpu_check.log")
    failures, counts = {}, dict.fromkeys(("passed", "failed", "skipped"), 0)
    for case in ElementTree.parse(report).iterfind(".//testcase[@name]"):  # an interrupted test has no name
        bad = next((part for part in case if part.tag in ("failure", "error")), None)
        kind = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
        counts[kind] += 1
        if bad is not None:
            failures[f"{case.get('classname')}::{case.get('name')}"] = (bad.get("message") or "").splitlines()[:1]
    job.put("counts", counts)
    job.put("failures", dict(list(failures.items())[:100]))


def agreement(job: Job) -> None:
    """Compare 1,000 steps on NumPy and on CuPy, eager and with graphs, from the same weights and in the same order."""
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


def examples(job: Job) -> None:
    """Run the example scripts on the MNIST files in $XPNET_DATA."""
    backend = ["--backend", "numpy" if job.dry else "cupy"]
    commands = {"mnist_cli.py": ["--dataset", "digits" if job.dry else "mnist", "--epochs", "1" if job.dry else "5"]}
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


# ---------------------------------------------------------------------- timings of all libraries


def benchmark(job: Job) -> None:
    """Run all cases of each variant in a separate process with a time limit."""
    job.put("data", write_data(job.folder, 60_000))
    for variant in variants(job.dry):
        file = job.folder / "variant.json"
        file.unlink(missing_ok=True)
        limit = min(60 if variant == "torch.compile" else 40, job.seconds_left - 3)
        if limit < 5:
            job.put(variant, {"error": "not started, because the stage's time is over"})
            continue
        status = run_process(["--variant", variant], replace(job, file=file), limit)
        found = read(file)
        job.put(variant, found if status == "done" else found | {"error": status})


def one_variant(job: Job, variant: str) -> None:
    """Put the µs per step of each case, the median of the epochs after the first."""
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


# ---------------------------------------------------------------------- properties of the card


def first_run(job: Job) -> None:
    """Put the costs of a launch, a graph node and a matrix product, and what can be captured."""
    if job.dry:
        return job.put("not run", "no CUDA device is used in a dry run")
    import cupy

    set_precision("xpnet", job.tf32)
    for name, probe in PROBES.items():
        job.attempt(name, probe, cupy)


# ---------------------------------------------------------------------- the parent


STAGES: dict[str, tuple[Callable[[Job], None], int]] = {  # the most informative first
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
    """Return the results of a stage, or nothing if it wrote none or was stopped while writing."""
    try:
        return json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def run_process(task: list[str], job: Job, limit: float, log=None) -> str:
    """Run a task in a separate process. Return "done" or what happened instead. Its child processes end with it."""
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
        return f"stopped after {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(process.pid, signal.SIGKILL) if log is not None else process.kill()
        process.wait()
    return "done" if code == 0 else f"exit status {code}; see gpu_check.log"


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
                results[name] = {"status": f"not started, because the {args.minutes:g} minutes are over"}
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
    """Run one stage, or one variant of the benchmark, in this process."""
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
    parser = cli.parser("tests.benchmarks.gpu_check", __doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "gpu_check")), help="the folder for the results"
    )
    parser.add_argument("--stages", type=cli.names, default=tuple(STAGES), help=f"default: {','.join(STAGES)}")
    parser.add_argument("--cases", type=cli.names, default=TIMED, help=f"default: {','.join(TIMED)}")
    parser.add_argument(
        "--minutes",
        type=cli.positive,
        default=MINUTES,
        help="the time limit for all stages; default: %(default)s",
    )
    parser.add_argument("--tf32", action="store_true", help="compute in TF32 instead of float32")
    parser.add_argument("--dry-run", action="store_true", help="test only the program, on NumPy with tiny sizes")
    for hidden in ("--stage", "--variant", "--job"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    for given, known in ((args.stages, tuple(STAGES)), (args.cases, tuple(CASES))):
        if unknown := set(given) - set(known):
            parser.error(f"choose from {', '.join(known)}. Received: {', '.join(sorted(unknown))}")
    return args


if __name__ == "__main__":
    main()
