"""The cost of a library before it computes anything: the time to import it and the bytes to install it."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from tests.benchmarks.worker import ROOT, environment

IMPORTS = {  # the module to import for training; all libraries also import NumPy
    "xpnet": "xpnet",
    "torch": "torch",
    "jax": "jax",
    "keras": "keras",
    "scikit-learn": "sklearn.neural_network",
}
_IMPORT_TIMER = """
import time
start = time.perf_counter()
import numpy
numpy_loaded = time.perf_counter()
import {module}
print(numpy_loaded - start, time.perf_counter() - numpy_loaded)
"""


def import_seconds(module: str, threads: int = 2) -> tuple[float, float]:
    """Return the seconds to import NumPy, and then `module`, in a fresh process."""
    code = _IMPORT_TIMER.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(threads), capture_output=True, text=True, check=True
    )
    numpy, beyond = map(float, done.stdout.split())
    return numpy, beyond


def installed_bytes(name: str) -> tuple[int, int, list[str]]:
    """Return the bytes of a distribution, the bytes with all its requirements, and the names of all these distributions."""
    closure: dict[str, int] = {}
    waiting = [name]
    while waiting:
        current = _normal(waiting.pop())
        try:
            distribution = importlib.metadata.distribution(current)
        except importlib.metadata.PackageNotFoundError:
            continue  # required only on other machines
        if current not in closure:
            closure[current] = _own_bytes(distribution)
            waiting += _required(distribution)
    return closure.get(_normal(name), 0), sum(closure.values()), sorted(closure)


def _own_bytes(distribution: importlib.metadata.Distribution) -> int:
    if _normal(distribution.name) == "xpnet":  # an editable installation does not list its files
        files = (ROOT / "xpnet").rglob("*")
    else:
        files = (Path(distribution.locate_file(file)) for file in distribution.files or ())
    return sum(f.stat().st_size for f in files if f.is_file() and "__pycache__" not in f.parts)


def _required(distribution: importlib.metadata.Distribution) -> list[str]:
    """Return the names of a distribution's requirements on this machine, without extras."""
    wanted = map(Requirement, distribution.requires or ())
    return [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
