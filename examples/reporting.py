"""Shared code of the report examples: their arguments, MNIST, and the table of reported and measured figures.

args = argument_parser(__doc__).parse_args()
report = Report("A", args)                       # sets the backend
(x_train, y_train), (x_test, y_test) = mnist(args)
report.heading("A2", "softmax regression")
history, seconds = timed(model.fit, rows(x_train), y_train, verbose=2)
report.add("A2", "test accuracy", accuracy, reported=0.91, seconds=seconds)
report.save(figure, "a2_curves")                 # writes DIR/a2_curves.png with --out DIR
report.finish()                                  # prints the table, writes --json FILE
"""

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arguments import output_file

import xpnet
from xpnet import plotting
from xpnet.errors import optional_import

optional_import("matplotlib", "plot").use("agg")  # draws to files, without a screen
plt = optional_import("matplotlib.pyplot", "plot")

QUICK_TRAIN, QUICK_TEST = 3000, 500  # the number of images with --quick


def argument_parser(doc):
    """Return a parser with the arguments of every report example. Each script adds its own arguments."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy", help="numpy, cupy, torch, jax or auto (default: %(default)s)")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="MNIST's folder; default: $XPNET_DATA, the cache or a download"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="save the figures in DIR as PNG files")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write every measured and reported figure to FILE"
    )
    parser.add_argument("--quick", action="store_true", help="run a few seconds on a few images, only for testing")
    return parser


def mnist(args):
    """Return MNIST as ``(x_train, y_train), (x_test, y_test)``; with --quick only the first images."""
    (x_train, y_train), (x_test, y_test) = xpnet.datasets.mnist(args.data_dir)
    if args.quick:
        return (x_train[:QUICK_TRAIN], y_train[:QUICK_TRAIN]), (x_test[:QUICK_TEST], y_test[:QUICK_TEST])
    return (x_train, y_train), (x_test, y_test)


def rows(images):
    """Return one row of numbers from 0 to 1 for each image: float32 (n, pixels)."""
    return images.reshape(len(images), -1) / np.float32(255)


def timed(function, *arguments, **settings):
    """Return the result of ``function(...)`` and the seconds it took."""
    start = time.perf_counter()
    result = function(*arguments, **settings)
    return result, time.perf_counter() - start


class PrintEvery(xpnet.Callback):
    """Print a line after the first epoch and then after every `epochs` epochs. ``verbose=2`` would print thousands."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0 or (epoch + 1) % self.epochs == 0:
            values = ", ".join(f"{name} {format_value(value, '.4f')}" for name, value in logs.items())
            print(f"  epoch {epoch + 1:,}: {values} ({time.perf_counter() - self.start:.0f} s)", flush=True)


@dataclass
class Row:
    """One figure: the measured value, the report's value, and another program's value, where known."""

    experiment: str
    figure: str
    measured: Any
    reported: Any = None
    reference: Any = None
    seconds: float | None = None
    form: str = ".4f"

    def cells(self):
        values = [shortened(value, self.form) for value in (self.reported, self.reference, self.measured)]
        return self.experiment, self.figure, *values, format_value(self.seconds, ".1f")


class Report:
    """One run of a report example: its rows, its figures, its JSON file."""

    def __init__(self, name, args):
        self.name, self.args, self.rows = name, args, []
        self.backend = xpnet.set_backend(args.backend)
        print(f"Report {name} on {self.backend}, seed {args.seed}{', quick: only for testing' if args.quick else ''}")
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)

    def heading(self, experiment, text):
        """Print a heading for an experiment."""
        print(f"\n== {experiment}: {text}", flush=True)

    def add(self, experiment, figure, measured, reported=None, seconds=None, form=".4f", reference=None):
        """Add a row to the table and to the JSON file, and print it.

        Parameters
        ----------
        experiment, figure : str
            For example ``"A2"`` and ``"test accuracy"``.
        measured, reported : number, list of numbers, or str; reported may be None
        seconds : float, optional
            The time of the training.
        form : str, default ".4f"
            The format of the numbers, such as ``".2%"``.
        reference : as `reported`
            The result of a plain NumPy program without xpnet in the same setting, if known.
        """
        self.rows.append(Row(experiment, figure, measured, reported, reference, seconds, form))
        if self.args.json:
            self._write_json()  # after each row, so that an interrupted run keeps its results
        beside = "" if reported is None else f" (reported: {format_value(reported, form)})"
        print(f"  {figure}: {format_value(measured, form)}{beside}", flush=True)

    def save(self, figure, name):
        """Save a matplotlib figure (or the figure of axes) as DIR/name.png if --out DIR is set, and close it.

        The file is in true color, because a palette of 256 colors has too few for a color bar. The background is white, not
        transparent, so that black text is readable on a dark page.
        """
        figure = getattr(figure, "figure", None) or figure
        if self.args.out:
            figure.savefig(self.args.out / f"{name}.png", pil_kwargs={"optimize": True})
            print(f"  saved {self.args.out / name}.png", flush=True)
        plt.close(figure)

    def save_curves(self, history, name, per="epoch", metrics=("loss", "accuracy"), labels=None, smooth=1):
        """Save `plotting.learning_curves` of several metrics side by side if --out is set."""
        if self.args.out:
            figure = plt.figure(figsize=(5.2 * len(metrics), 3.4), dpi=150, layout="constrained")
            panels = figure.subplots(1, len(metrics), squeeze=False)[0]
            for ax, metric in zip(panels, metrics, strict=True):
                plotting.learning_curves(history, metric, ax, per, smooth, labels)
            for ax in panels[:-1]:
                ax.get_legend().remove()  # all panels have the same legend
            self.save(figure, name)

    def finish(self):
        """Print the table."""
        table = [("", "figure", "reported", "reference", "measured", "seconds"), *(row.cells() for row in self.rows)]
        widths = [max(len(cells[i]) for cells in table) for i in range(len(table[0]))]
        print()
        for cells in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())

    def _write_json(self):
        content = {
            "report": self.name, "backend": self.backend.name, "device": str(self.backend.device),
            "seed": self.args.seed, "quick": self.args.quick, "xpnet": xpnet.__version__, "numpy": np.__version__,
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "rows": [asdict(row) for row in self.rows],
        }  # fmt: skip
        self.args.json.write_text(json.dumps(content, indent=2, default=_plain))


def format_value(value, form):
    """Format a number or a list of numbers. Text is unchanged, and None becomes ""."""
    if value is None or isinstance(value, str):
        return value or ""
    if np.ndim(value):
        return " ".join(format_value(v, form) for v in value)
    return format(value, form) if isinstance(value, float | np.floating) else str(value)


def shortened(value, form):
    """Like `format_value`, but show only the first and last entries of a list with more than five."""
    if isinstance(value, list) and len(value) > 5:
        return f"{format_value(value[0], form)} ... {format_value(value[-1], form)}"
    return format_value(value, form)


def _plain(value):
    """Convert NumPy numbers and arrays to Python objects for JSON."""
    return np.asarray(value).tolist()
