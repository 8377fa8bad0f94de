"""The results of `gpu_check`, as Markdown."""

from __future__ import annotations

from tests.benchmarks.cases import CASES
from tests.benchmarks.gpu_probes import PRODUCTS_ALONE
from tests.benchmarks.report import table


def markdown(results: dict) -> str:
    """Return all results as a readable report."""
    head = "# GPU check\n\n"
    if results["dry run"]:
        head += "**This was a dry run on the CPU, which tests only the program. The figures have no meaning.**\n\n"
    parts = [head + _machine_text(results.get("machine", {}), results["precision"])]
    stages = [[name, found["status"], str(found.get("seconds", ""))] for name, found in results.items()
              if isinstance(found, dict) and "status" in found]  # fmt: skip
    parts.append(table(["stage", "status", "s"], stages))
    for name in ("gpu tests", "suite", "suite with graphs"):
        if "counts" in (found := results.get(name, {})):
            counts = ", ".join(f"{count} {kind}" for kind, count in found["counts"].items())
            failed = "".join(f"\n- {test}: {' '.join(message)}" for test, message in found["failures"].items())
            cut = f" The run was stopped {found['cut short']}." if "cut short" in found else ""
            parts.append(
                f"## {name[0].upper()}{name[1:]}\n\n{counts} (exit status {found['exit status']}).{cut}{failed}"
            )
    if "benchmark" in results:
        parts.append("## µs per training step\n\n" + _benchmark_text(results))
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
    missing += "" if found.get("MNIST", True) else " **MNIST is not in $XPNET_DATA.**"
    return (
        f"{found.get('device', 'No CUDA device')} ({found.get('nvidia-smi') or 'no output from nvidia-smi'}), driver CUDA "
        f"{found.get('driver CUDA')}, runtime CUDA {found.get('runtime CUDA')}; {found.get('cpus')} CPUs, Python "
        f"{found.get('python')}; {versions}. Commit {found.get('commit')}{changes}, {found.get('date')}. All libraries in "
        f"{precision}.{missing}"
    )


def _benchmark_text(results: dict) -> str:
    found = results["benchmark"]
    measured = {name: value for name, value in found.items() if isinstance(value, dict)}
    cases = [name for name in CASES if any(name in value for value in measured.values())]
    rows = []
    for variant, value in measured.items():
        cells = [value.get(case, {}) for case in cases]
        rows.append([variant, *(f"{c['us_per_step']:,.1f}" if "us_per_step" in c else _short(c.get("error", "")) for c in cells),
                     _short(value.get("error", ""))])  # fmt: skip
    text = f"Data: {found.get('data')}. Medians of the epochs after the first, through each library's public API.\n\n"
    text += table(["", *(f"{case} {CASES[case].title}" for case in cases), ""], rows)
    starts = [[variant, *(f"{value.get(case, {}).get('startup_seconds', float('nan')):.1f}" for case in cases)]
              for variant, value in measured.items()]  # fmt: skip
    text += "\n\nSeconds by which the first epoch exceeds the median of the others (compilation, capture, upload):\n\n"
    return text + table(["", *cases], starts) + "\n\n" + _goals_text(results)


def _goals_text(results: dict) -> str:
    """Return a table of the goals for these figures."""
    us = {
        (case, variant): measured["us_per_step"]
        for variant, value in results["benchmark"].items() if isinstance(value, dict)
        for case, measured in value.items() if isinstance(measured, dict) and "us_per_step" in measured
    }  # fmt: skip
    precision = "TF32" if results["precision"] == "TF32" else "fp32"
    if alone := results.get("first run", {}).get(PRODUCTS_ALONE, {}).get(f"W8 {precision}"):
        us["W8", "its products alone"] = alone
    goals = [
        *((case, "xpnet cupy", "PyTorch eager", 1.0) for case in ("W1", "W2", "W3", "W7", "W8")),
        ("W2", "xpnet cupy graphs", "torch.compile", 1.0),
        ("W2", "xpnet cupy graphs", "JAX scan", 1.0),
        ("W8", "xpnet cupy", "its products alone", 1.1),
    ]
    rows = []
    for case, ours, other, limit in goals:
        if (case, ours) in us and (case, other) in us:
            ratio = us[case, ours] / us[case, other]
            rows.append([case, ours, other, f"{ratio:.2f}", f"{limit:.2f}", "yes" if ratio <= limit else "NO"])
    return table(["case", "", "compared with", "ratio", "at most", "met"], rows) if rows else ""


def _agreement_text(found: dict) -> str:
    runs = {name: value for name, value in found.items() if isinstance(value, dict)}
    fields = list(dict.fromkeys(field for value in runs.values() for field in value))
    rows = [[name, *(_number(value.get(field)) for field in fields)] for name, value in runs.items()]
    return f"{found.get('steps')} steps; the goal is at most 1e-4, relative.\n\n" + table(["", *fields], rows)


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
