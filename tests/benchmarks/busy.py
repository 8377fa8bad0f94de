"""Training while other processes keep the cores busy, compared with the same training on an idle machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks.report import table

CASES = ("W2", "W7")
PEERS = ("torch eager", "scikit-learn")
FAIR = 1.5  # when three processes share two cores, each one gets two thirds of a core


@contextmanager
def other_work(processes: int) -> Iterator[None]:
    """A ``with`` block during which this number of processes run without pause."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def text(measurements: list[dict]) -> str:
    """Return a table with a row for each case and variant: µs per step, quiet and busy, and the ratio within a round."""
    runs = {(m["case"], m["variant"], bool(m["busy"]), m["round"]): m for m in measurements}
    rows = []
    for case, variant in dict.fromkeys((m["case"], m["variant"]) for m in measurements):
        pairs = [
            (quiet["us_per_step"], runs[c, v, True, i]["us_per_step"])
            for (c, v, busy, i), quiet in runs.items()
            if (c, v, busy) == (case, variant, False)
            and "error" not in quiet | runs.get((c, v, True, i), {"error": ""})
        ]
        if not pairs:
            rows.append([case, variant, "-", "-", "not measured"])
            continue
        quiet, busy = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [b / q for q, b in pairs]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        rows.append([case, variant, f"{quiet:,.0f}", f"{busy:,.0f}", spread])
    title = (
        "## On a busy machine\n\nThe same training, while as many other processes as threads run without pause. With a fair "
        f"share of two cores among three processes, a step takes {FAIR} times as long."
    )
    return "\n\n".join([title, table(["case", "variant", "quiet, µs", "busy, µs", "ratio (rounds)"], rows)])
