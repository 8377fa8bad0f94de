"""Runs Python programs in separate processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LEFT_OUT = (
    "XPNET_BACKEND",
    "PYTHONWARNINGS",
    "PYTHONSTARTUP",
    "MPLBACKEND",
    "DISPLAY",
    "WAYLAND_DISPLAY",
)  # users' settings


def run(*arguments, status=0, cwd=None, path=()):
    """Run Python with these arguments, and check the exit status. Return a `subprocess.CompletedProcess` with text output.

    The program can import this xpnet from any folder, even if it is not installed. The folders in `path` are searched first.
    """
    env = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), "PYTHONUTF8": "1"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
    assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-5000:]}"
    return done
