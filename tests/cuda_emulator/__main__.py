"""``python -m tests.cuda_emulator build`` builds the environment. ``... test`` also runs xpnet's tests in it."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.cuda_emulator.build import BuildError, build

CHECKOUT = Path(__file__).parents[2]
SUITE = ["tests", "--ignore=tests/cuda_emulator", "--ignore=tests/test_distributed.py"]  # its jobs compute on the CPU
MODELS = (
    "averages callbacks callbacks_hooks callbacks_rates devices divergence evaluation history inspection loop model "
    "settings shapes sources_stream state step"
)
ON_MODELS = [f"tests/test_{name}.py" for name in MODELS.split()]
# Tests of a backend have its name in theirs. The tests of these files use CuPy without the fixture `xp`
OWN_CUPY = "test_backend comparison devices fusion gpu_check graph_safety launches long_runs transfers"
ON_CUPY = ["-k", " or ".join(["cupy", *OWN_CUPY.split()])]
RUNS = {  # README.md says what each run shows
    "emulator": ({"XPNET_TEST_BACKENDS": "cupy"}, ["tests/cuda_emulator"]),
    "eager": ({"XPNET_TEST_BACKENDS": "cupy"}, SUITE),
    "graphs": ({"XPNET_TEST_BACKENDS": "cupy-graphs", "FAKECUDA_LAZY": "1"}, [*ON_CUPY, *SUITE]),
    "devices": ({"XPNET_TEST_BACKENDS": "cupy-second", "FAKECUDA_DEVICES": "2", "FAKECUDA_ORDER": "1"}, ON_MODELS),
}


def run_tests(environment: Path, names: list[str], arguments: list[str]) -> bool:
    """Run pytest for each of these runs. Return whether all of them pass."""
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-e", f"{CHECKOUT}[test,examples,mpi]", "mpich>=5"], check=True
    )
    defaults = {"CUPY_CACHE_DIR": str(environment / "kernels"), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    failed = []
    for name in names:
        settings, paths = RUNS[name]
        shown = [f"{key}={value}" for key, value in settings.items()]
        print(f"\n{name}: {shlex.join([*shown, 'pytest', *paths])}", flush=True)
        command = [python, "-m", "pytest", "-q", *paths, *arguments]  # the last -k counts
        if subprocess.run(command, cwd=CHECKOUT, env=defaults | os.environ | settings).returncode:
            failed.append(name)
    print(f"\nFailed: {', '.join(failed)}" if failed else "\nAll runs passed.")
    return not failed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cuda_emulator",
        usage="%(prog)s {build,test} [--environment FOLDER] [--runs RUN ...] [-- ARGUMENT OF PYTEST ...]",
        description=f"{__doc__} Arguments of pytest after -- replace -n auto.",
    )
    parser.add_argument("command", choices=["build", "test"])
    parser.add_argument(
        "--environment", type=Path, default=CHECKOUT / ".venv-cuda", help="the folder, default .venv-cuda"
    )
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="the runs of `test`; default: all")
    ours, behind = sys.argv[1:], []
    if "--" in ours:
        ours, behind = ours[: ours.index("--")], ours[ours.index("--") + 1 :]
    options = parser.parse_args(ours)
    environment = options.environment.resolve()
    try:
        build(environment)
    except BuildError as error:
        sys.exit(f"The CUDA emulator cannot be built: {error}")
    if options.command == "test" and not run_tests(environment, options.runs, behind or ["-n", "auto"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
