"""The machine and the measurements, as Markdown tables."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.cases import CASES
from tests.benchmarks.worker import FLOOR, ROOT

PACKAGES = ("xpnet", "numpy", "array-api-compat", "tqdm", "torch", "jax", "jaxlib", "keras", "scikit-learn")

DENSE = ("W1", "W2", "W3", "W7", "W8")
GOALS = [  # (case, variant, the variant to compare with, the largest ratio of their times)
    ("W2", "xpnet numpy", FLOOR, 1.70),
    ("W3", "xpnet numpy", FLOOR, 1.45),
    *((case, "xpnet numpy", "torch eager", 1 / 2) for case in ("W1", "W7")),
    *((case, "xpnet numpy", "torch eager", 1 / 1.2) for case in ("W2", "W3")),
    *(
        (case, "xpnet numpy", peer, 1.0)
        for case in ("W1", "W2", "W3", "W7")
        for peer in ("torch.compile", "torch.compile whole", "Keras on JAX", "scikit-learn")
    ),
    *((case, "xpnet jax", "JAX scan", 1.10) for case in DENSE),
    ("W8", "xpnet jax", FLOOR, 1 / 1.7),
    *((case, "xpnet torch", "torch eager", 1.0) for case in DENSE),
]


def describe_machine(threads: int, data: str) -> dict:
    """Return the properties of the machine on which the figures depend."""
    import numpy as np

    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "platform": f"{platform.platform()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "compiler": _first_line([os.environ.get("CXX", "g++"), "--version"]) or "no C++ compiler",
        "commit": _first_line(["git", "rev-parse", "--short", "HEAD"])
        + (" with changes" if _first_line(["git", "status", "--porcelain", "xpnet"]) else ""),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "data": data,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str:
    try:
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return output.partition("\n")[0]


def machine_text(machine: dict) -> str:
    """Return a description of the machine."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['threads']} threads for every library (OpenBLAS, OpenMP, XLA); "
        f"load {machine['load']:.1f} at the start. {machine['platform']}, Python {machine['python']}, {versions}, "
        f"{machine['blas']}, {machine['compiler']}. Commit {machine['commit']}, {machine['date']}. Data: {machine['data']}."
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Steps:
    """The measurements of training steps, by case and variant, in rounds."""

    def __init__(self, measurements: list[dict]):
        self.of: dict = defaultdict(dict)  # (case, variant) -> {round: measurement}
        self.errors: dict = {}
        for m in measurements:
            key = m["case"], m["variant"]
            if "error" in m:
                self.errors[key] = m["error"]
            else:
                self.of[key][m["round"]] = m
        self.cases = list(dict.fromkeys(m["case"] for m in measurements))
        self.variants = list(dict.fromkeys(m["variant"] for m in measurements))

    def median(self, case: str, variant: str, field: str = "us_per_step") -> float:
        """Return the median over the rounds."""
        return statistics.median(m[field] for m in self.of[case, variant].values())

    def ratios(self, case: str, variant: str, other: str) -> list[float]:
        """Return, for each round, the time of a variant divided by the time of another one in that round."""
        a, b = self.of.get((case, variant), {}), self.of.get((case, other), {})
        return [a[i]["us_per_step"] / b[i]["us_per_step"] for i in sorted(a.keys() & b.keys())]

    def overview(self) -> str:
        """Return a table of µs per step, with the ratio to the floor in parentheses, and a row for each case."""

        def cell(case, variant):
            if (case, variant) not in self.of:
                return "-"
            text = f"{self.median(case, variant):,.0f}"
            return text if variant == FLOOR else f"{text} ({statistics.median(self.ratios(case, variant, FLOOR)):.2f}x)"

        rows = [[f"{case} {CASES[case].title}", *(cell(case, v) for v in self.variants)] for case in self.cases]
        return table(["µs per step (times the GEMM floor)", *self.variants], rows)

    def details(self) -> str:
        """Return a table of spread, start-up time, page faults, loss and accuracy, with a row for each case and variant."""
        rows = []
        for case in self.cases:
            for variant in self.variants:
                runs = self.of.get((case, variant))
                if not runs:
                    continue
                every = [s / m["steps"] * 1e6 for m in runs.values() for s in m["seconds"]]
                ratios = self.ratios(case, variant, FLOOR)
                first = next(iter(runs.values()))
                loss, accuracy = first["loss"], first["accuracy"]
                rows.append([
                    case, variant, f"{self.median(case, variant):,.0f}", f"{min(every):,.0f} - {max(every):,.0f}",
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})",
                    f"{first['startup_seconds']:.1f}", f"{self.median(case, variant, 'faults_per_step'):.1f}",
                    "" if loss is None else f"{loss:.3f}", "" if accuracy is None else f"{accuracy:.3f}",
                ])  # fmt: skip
        header = ["case", "variant", "µs per step", "all epochs", "times the floor (rounds)", "start-up, s",
                  "page faults per step", "loss", "accuracy"]  # fmt: skip
        return table(header, rows)

    def goals(self) -> str:
        """Return a table of the goals that this run can check."""
        rows = []
        for case, variant, other, limit in GOALS:
            if ratios := self.ratios(case, variant, other):
                ratio = statistics.median(ratios)
                rows.append([
                    case, variant, other, f"{ratio:.2f} ({min(ratios):.2f} - {max(ratios):.2f})", f"{limit:.2f}",
                    "yes" if ratio <= limit else "**no**",
                ])  # fmt: skip
        return table(["case", "variant", "compared with", "time ratio (rounds)", "at most", "met"], rows)

    def text(self) -> str:
        """Return the whole report."""
        epochs = ", ".join(f"{case} {CASES[case].rows:,} rows" for case in self.cases)
        one = next((m for runs in self.of.values() for m in runs.values()), None)
        parts = ["## Training"]
        if one:
            rounds = max(len(runs) for runs in self.of.values())
            parts += [
                f"Medians of {rounds} rounds. In each round, every variant runs in a fresh process, and its time is the median "
                f"of {len(one['seconds'])} epochs after a warm-up epoch. Ratios are taken within a round. SGD, float32, with "
                f"loss, accuracy and progress bar. Size of an epoch: {epochs}.",
                self.overview(),
                "Start-up is the time by which the first epoch exceeds a later one, for set-up and compilation.",
                self.details(),
            ]
            if any(self.ratios(case, a, b) for case, a, b, _ in GOALS):
                parts += ["### Goals", self.goals()]
        parts += [f"{case}, {variant} was not measured: {error}" for (case, variant), error in self.errors.items()]
        return "\n\n".join(parts)


def predict_text(measurements: list[dict]) -> str:
    """Return the throughput and latency of prediction."""
    groups = defaultdict(list)
    for m in measurements:
        groups[m["variant"]].append(m)
    rows, errors = [], []
    for variant, runs in groups.items():
        good = [m for m in runs if "error" not in m]
        errors += [f"{variant} was not measured: {m['error']}" for m in runs[:1] if "error" in m]
        if good:
            median = {f: statistics.median(m[f] for m in good) for f in ("rows_per_second", "us_one_row")}
            rows.append([variant, f"{median['rows_per_second']:,.0f}", f"{median['us_one_row']:,.0f}"])
    case = measurements[0]["case"]
    title = f"## Prediction\n\n{case}, from a NumPy array to NumPy labels, float32."
    rows_at_once = f"rows per second, {measurements[0]['rows']:,} at once"
    return "\n\n".join([title, table(["variant", rows_at_once, "µs for one row"], rows), *errors])


def memory_text(measurements: list[dict]) -> str:
    """Return the peak memory of an epoch."""
    groups = defaultdict(list)
    for m in measurements:
        groups[m["variant"]].append(m)
    rows, errors = [], []
    for variant, runs in groups.items():
        good = [m for m in runs if "error" not in m]
        errors += [f"{variant} was not measured: {m['error']}" for m in runs[:1] if "error" in m]
        if good:
            peak = statistics.median(m["peak_bytes"] for m in good)
            needed = good[0]["needed_bytes"]
            library = f"{good[0]['baseline_bytes'] / 1e6:,.0f}"
            rows.append([variant, f"{peak / 1e6:,.1f}", f"{needed / 1e6:,.1f}", f"{peak / needed:.2f}", library])
    title = (
        f"## Memory\n\nThe peak memory of one epoch of {measurements[0]['case']}, minus the memory after the imports, compared "
        "with the memory needed: the data set, the parameters and one batch of activations."
    )
    header = ["variant", "peak, MB", "needed, MB", "ratio", "after imports, MB"]
    return "\n\n".join([title, table(header, rows), *errors])


def install_text(imports: dict[str, list], sizes: dict[str, list]) -> str:
    """Return import times and sizes."""
    rows = []
    for name in sorted({*imports, *sizes}, key=[*imports, *sizes].index):
        seconds, size = imports.get(name), sizes.get(name)
        rows.append([
            name,
            f"{statistics.median(seconds):.3f} ({min(seconds):.3f} - {max(seconds):.3f})" if seconds else "-",
            f"{size[0] / 1e6:,.1f}" if size else "-", f"{size[1] / 1e6:,.1f}" if size else "-",
        ])  # fmt: skip
    header = ["library", "import beyond NumPy, s", "installed, MB", "with its requirements, MB"]
    return "\n\n".join(["## Import and installation", "Each import is timed in a fresh process.", table(header, rows)])
