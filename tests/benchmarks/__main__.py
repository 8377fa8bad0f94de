"""Measure xpnet (with --peers, also other libraries), and print Markdown tables.

    python -m tests.benchmarks --peers --json results.json
    python -m tests.benchmarks --backends numpy --cases W2 --tables steps
    python -m tests.benchmarks --backends numpy --peers --tables busy

The first command measures everything, in about half an hour on two cores. Measurements run one at a time, each in a separate
process. Each round measures every variant once, so that a noisy moment affects all variants alike. Run it on a machine that is
otherwise idle.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import busy, cli, install, ours, peers, report
from tests.benchmarks.cases import CASES, STANDARD, write_data
from tests.benchmarks.inference import PREDICTORS
from tests.benchmarks.worker import FLOOR, measure

TABLES = ("steps", "busy", "predict", "memory", "install")


def parse_arguments(arguments=None):
    parser = cli.parser("tests.benchmarks", __doc__)
    parser.add_argument("--backends", type=cli.names, default=ours.BACKENDS, help="default: numpy,torch,jax")
    parser.add_argument("--cases", type=cli.names, default=STANDARD, help=f"default: {','.join(STANDARD)}")
    parser.add_argument("--peers", action="store_true", help="also measure the other libraries")
    parser.add_argument("--tables", type=cli.names, default=TABLES, help=f"default: {','.join(TABLES)}")
    parser.add_argument("--repeats", type=cli.count, default=5, help="the number of rounds; default: %(default)s")
    parser.add_argument(
        "--epochs", type=cli.count, default=5, help="epochs timed in each process; default: %(default)s"
    )
    parser.add_argument(
        "--threads", type=cli.count, default=2, help="the threads of every library; default: %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    args = parser.parse_args(arguments)
    for given, known in ((args.backends, ours.BACKENDS), (args.cases, tuple(CASES)), (args.tables, TABLES)):
        if unknown := set(given) - set(known):
            parser.error(f"choose from {', '.join(known)}. Received: {', '.join(sorted(unknown))}")
    return args


def rounds(groups: list[list[dict]], repeats: int, threads: int) -> list[dict]:
    """Measure all specs once in each round. Each round starts with a different spec of each group.

    A measurement that fails is not tried again.
    """
    results: list[dict] = []
    failed = set()
    for i in range(repeats):
        for group in groups:
            shift = i % len(group)
            for spec in [*group[shift:], *group[:shift]]:
                if (spec["case"], spec["variant"]) in failed:
                    continue
                with busy.other_work(spec.get("busy", 0)):
                    result = measure({**spec, "round": i}, threads)
                results.append(result)
                if "error" in result:
                    failed.add((spec["case"], spec["variant"]))
                print(f"round {i + 1}/{repeats} {_brief(result)}", file=sys.stderr, flush=True)
    return results


def _brief(result: dict) -> str:
    figures = {"us_per_step": "µs per step", "rows_per_second": "rows per second", "peak_bytes": "bytes"}
    text = ", ".join(f"{result[key]:,.0f} {unit}" for key, unit in figures.items() if key in result)
    return f"{result['case']} {result['variant']}: {text or result['error']}"


def measure_installations(args) -> tuple[dict, dict]:
    """Measure the import time and the installed bytes of xpnet and, with --peers, of the other installed libraries."""
    names = [n for n in install.IMPORTS if n == "xpnet" or (args.peers and install.installed_bytes(n)[0])]
    imports: dict[str, list] = {name: [] for name in names}
    for i in range(args.repeats + 1):
        for name in names:
            _, seconds = install.import_seconds(install.IMPORTS[name], args.threads)
            if i:  # the first import may compile modules and read from the disk
                imports[name].append(seconds)
    sizes = {name: install.installed_bytes(name) for name in (*names, *(["jaxlib"] if "jax" in names else []))}
    return imports, sizes


def main(arguments=None) -> dict:
    args = parse_arguments(arguments)
    variants = [f"xpnet {backend}" for backend in args.backends] + (list(peers.TRAIN) if args.peers else [])
    results: dict = {}

    def keep(name, value, text):
        results[name] = value
        print(text, end="\n\n", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))

    cases = {"steps": args.cases, "busy": busy.CASES, "predict": ("W2",), "memory": ("W3",), "install": ()}
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder), max((CASES[c].rows for t in args.tables for c in cases[t]), default=1))
        machine = report.describe_machine(args.threads, data)
        keep("environment", machine, f"# Benchmarks\n\n{report.machine_text(machine)}")

        def groups(task, variants, table=None, **more):
            common = {"task": task, "data": folder, **more}
            return [
                [{**common, "case": case, "variant": variant} for variant in variants] for case in cases[table or task]
            ]

        if "steps" in args.tables:
            specs = groups("steps", [FLOOR, *variants], epochs=args.epochs)
            steps = rounds(specs, args.repeats, args.threads)
            keep("steps", steps, report.Steps(steps).text())
        if "busy" in args.tables:
            chosen = [v for v in variants if v in ("xpnet numpy", *busy.PEERS)]
            specs = groups("steps", chosen, table="busy", epochs=args.epochs)
            specs = [[spec | {"busy": n} for spec in group for n in (0, args.threads)] for group in specs]
            measured = rounds(specs, args.repeats, args.threads)
            keep("busy", measured, busy.text(measured))
        if "predict" in args.tables:
            specs = groups("predict", [v for v in variants if v in PREDICTORS], rows=10_000)
            predict = rounds(specs, args.repeats, args.threads)
            keep("predict", predict, report.predict_text(predict))
        if "memory" in args.tables:
            specs = groups("memory", [v for v in variants if "compile" not in v])
            memory = rounds(specs, min(args.repeats, 3), args.threads)
            keep("memory", memory, report.memory_text(memory))
        if "install" in args.tables:
            imports, sizes = measure_installations(args)
            keep("install", {"imports": imports, "sizes": sizes}, report.install_text(imports, sizes))
    return results


if __name__ == "__main__":
    main()
