"""Run the numerical tests as on every type of processor that this one can imitate (x86-64 Linux, NumPy with OpenBLAS).

    python -m tests.core_types                           every kernel of the installed NumPy, with 1 and with 2 threads
    python -m tests.core_types --core-types Haswell --threads 1 -- -n 2 tests/test_model.py      pytest's arguments follow --

OpenBLAS chooses the kernel of its matrix products by the processor, and OPENBLAS_CORETYPE overrides the choice. NumPy chooses its
loops for exp, tanh and sums in the same way, and NPY_DISABLE_CPU_FEATURES disables the newer ones. Both round differently on
different processors, so a test that passes here may fail on another machine. Each run is a separate process, which first checks
that the requested kernel is in use. ``XPNET_TEST_BACKENDS=numpy,torch,jax python -m tests.core_types`` also restricts PyTorch
and JAX to the same instructions.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from tests.benchmarks.report import table

ROOT = Path(__file__).parent.parent
AVX2, AVX512 = {"avx", "avx2", "fma"}, {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CORE_TYPES = {  # OpenBLAS' name: the instructions it needs, as /proc/cpuinfo names them
    "Prescott": {"pni"},  # SSE3
    "Nehalem": {"pni", "sse4_2"},
    "Sandybridge": {"pni", "sse4_2", "avx"},
    "Haswell": AVX2,
    "Zen": AVX2,
    "SkylakeX": AVX2 | AVX512,
    "Cooperlake": AVX2 | AVX512 | {"avx512_bf16"},
    "SapphireRapids": AVX2 | AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"},
}
LEVELS = (  # instructions; their names in XLA and PyTorch; prefixes of the NumPy loops that need newer instructions
    (AVX512, "AVX512", "avx512", ()),
    (AVX2, "AVX2", "avx2", ("AVX512", "X86_V4")),
    ({"avx"}, "AVX", "default", ("",)),
    (set(), "SSE4_2", "default", ("",)),
)
NOT_NUMERICAL = ("architecture", "benchmarks", "checks", "datasets", "gpu_check", "inspection", "lazy", "plotting")


def kernel() -> str:
    """Return the name of the OpenBLAS kernel that NumPy uses in this process."""
    found = [library for library in threadpoolctl.threadpool_info() if library["internal_api"] == "openblas"]
    if not found:
        sys.exit("NumPy is not built with OpenBLAS here, so there is no kernel to choose. Install NumPy with pip.")
    return found[0]["architecture"]


def environment(core_type: str, threads: str = "1") -> dict[str, str]:
    """Return this process's environment, changed for a process on a processor of that type."""
    xla, torch, newer = next(rest for needs, *rest in LEVELS if needs <= CORE_TYPES[core_type])
    loops = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    own = {
        "OPENBLAS_CORETYPE": core_type,
        "OPENBLAS_NUM_THREADS": threads,
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in loops if name.startswith(newer)),
        "ATEN_CPU_CAPABILITY": torch,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={xla}".strip(),
    }
    kept = {name: value for name, value in os.environ.items() if name != "OPENBLAS_L2_SIZE"}  # kernels differ in it
    return {"XPNET_TEST_BACKENDS": "numpy", **kept, **own}


def supported() -> list[str]:
    """Return the core types whose instructions this processor has."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    return [name for name, needs in CORE_TYPES.items() if needs <= flags]


def kernels(core_types: list[str]) -> dict[str, list[str]]:
    """Return the core types that use each kernel, because no build of OpenBLAS has a kernel for every core type."""
    kernels: dict[str, list[str]] = {}
    for core_type in core_types:
        command = [sys.executable, "-m", "tests.core_types", "--show"]
        done = subprocess.run(command, cwd=ROOT, env=environment(core_type), capture_output=True, text=True, check=True)
        kernels.setdefault(done.stdout.strip(), []).append(core_type)
    return kernels


def run(wanted: str, core_type: str, threads: str, arguments: list[str]) -> tuple[int, str]:
    """Run the tests in a process of that core type. Return the exit status and pytest's last line."""
    command = [sys.executable, "-m", "tests.core_types", "--inside", wanted, "--", *arguments]
    last = ""
    env, pipe = environment(core_type, threads), subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip(" =\n") or last
    return process.returncode, last


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.core_types", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = lambda text: [name.strip() for name in text.split(",")]  # noqa: E731
    known = ", ".join(CORE_TYPES)
    parser.add_argument("--core-types", type=names, help=f"some of {known}; default: all that this CPU supports")
    parser.add_argument("--threads", type=names, default=["1", "2"], help="the numbers of BLAS threads; default: 1,2")
    parser.add_argument("--show", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument(
        "pytest", nargs="*", metavar="...", help="pytest's arguments, after --; default: the numerical tests"
    )
    args = parser.parse_args(arguments)
    if args.show:
        print(kernel())
        return 0
    if args.inside:
        if kernel() != args.inside:
            sys.exit(f"The kernel must be {args.inside}. Received: {kernel()}")
        return pytest.main(["-q", "-p", "no:cacheprovider", *args.pytest])

    possible = supported()
    if not possible:
        parser.error("/proc/cpuinfo must list the processor's instructions, as on x86-64 Linux. Received: no such list")
    if impossible := set(args.core_types or ()) - set(possible):
        parser.error(f"this CPU supports {', '.join(possible)}. Received: {', '.join(sorted(impossible))}")
    chosen = args.pytest or [f"--ignore=tests/test_{name}.py" for name in NOT_NUMERICAL]
    rows = []
    for name, core_types in kernels(args.core_types or possible).items():
        for threads in args.threads:
            print(f"===== {name}, {threads} thread(s), NumPy {np.__version__}", flush=True)
            begin = time.perf_counter()
            status, last = run(name, core_types[-1], threads, chosen)
            result = "passed" if status == 0 else f"exit status {status}"
            rows.append([name, ", ".join(core_types), threads, result, last])
            print(f"===== {time.perf_counter() - begin:.0f} s", flush=True)
    print(f"\nNumPy {np.__version__}\n\n{table(['kernel', 'core types', 'threads', 'tests', 'last line'], rows)}")
    return 0 if all(row[3] == "passed" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
