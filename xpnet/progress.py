"""The progress display of `fit`, `evaluate` and `predict`."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import textwrap
import time
from statistics import fmean
from typing import Any

from xpnet.groups import process

DELAY = 0.2  # seconds before the bar appears; shorter runs print only their line
FORMS = (  # the display uses the first form that fits in the terminal; the bar fills the remaining columns
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
)
SHORTEST_BAR = 4


class Progress:
    """A context manager that shows a progress bar, and then a line with the time and all values.

    Parameters
    ----------
    verbose : {"auto", 0, 1, 2}
        0 is silent, 2 prints only the line, and 1 and "auto" also draw the bar if the output is a terminal. In a notebook,
        tqdm's widget shows the values, and no line follows.
    """

    def __init__(self, verbose: str | int):
        check_verbose(verbose)
        self.verbose = 0 if process().rank else 1 if verbose == "auto" else verbose
        self.bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def start(self, title: str, steps: int | None) -> None:
        """Begin a run of this many steps, or of an unknown number."""
        if self.verbose:
            self.title, self.begin = title, time.perf_counter()
        if self.verbose == 1:
            self.rich = notebook_bar()
            if self.rich is not None:
                self.bar = self.rich(total=steps, desc=title, unit="step")
            elif _has_terminal():
                self.bar = _bar()(total=steps, desc=title, unit="step", delay=DELAY)

    def update(self, steps: int, values: dict[str, Any] | None = None) -> None:
        """Report that more steps are done, with the values so far."""
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(_formatted(values or {})), refresh=False)
            self.bar.update(steps)

    def end(self, values: dict[str, Any] | None = None) -> None:
        """Report that all steps are done, with the final values."""
        if self.bar is not None and self.rich is not None:
            self.update(0, values)
            self.bar.refresh()
        elif self.verbose:
            self._clear()
            line = self._line(_formatted(values or {}), _columns(sys.stdout))
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
        self.close()

    def close(self) -> None:
        """Stop drawing; an unfinished bar remains on the screen."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _line(self, values: list[str], columns: int) -> str:
        """The final line; if the terminal is too narrow, the validation values begin a second line."""
        first = [self.title, f"{time.perf_counter() - self.begin:.1f}s"]
        line = " ".join(first + values)
        if not columns or len(line) <= columns:
            return line
        validation = [value for value in values if value.startswith("val_")]
        parts = [first + [value for value in values if value not in validation], *([validation] if validation else [])]
        wrap = functools.partial(textwrap.wrap, width=columns - 2, break_long_words=False, break_on_hyphens=False)
        return "\n  ".join(line for part in parts for line in wrap(" ".join(part)))

    def _clear(self) -> None:
        if self.bar is not None:
            self.bar.leave = False
            self.close()


def check_verbose(verbose: Any) -> None:
    """Raise ValueError unless `verbose` is one of Keras' values."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'verbose must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')


def _formatted(values: dict[str, Any]) -> list[str]:
    """Each value as ``name=value``. A list, with a value for each network or class, shows its mean; a matrix is left out."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    means = {name: fmean(value) for name, value in lists.items() if not isinstance(value[0], list)}
    return [f"{name}={v:.4f}" if v == 0 or 1e-3 <= abs(v) < 1e5 else f"{name}={v:.3e}" for name, v in means.items()]


def _columns(stream: Any) -> int:
    """The width of a stream's terminal, or 0 if the stream is not a terminal."""
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return 0
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # the stream is None, has no file, or is closed
        return 0


def _has_terminal() -> bool:
    """Whether stderr, which shows the bar, and stdout, which shows the line, are both terminals."""
    return bool(_columns(sys.stderr) and _columns(sys.stdout))


def notebook_bar() -> Any:
    """tqdm's widget in a notebook, else None."""
    if "IPython" not in sys.modules:
        return None
    chosen = importlib.import_module("tqdm.auto").tqdm  # imports asyncio, which takes 25 ms
    return chosen if chosen.__module__ == "tqdm.auto" else None


@functools.cache
def _bar() -> Any:
    """tqdm with a line that always fits the terminal, even after a resize. Its import takes 30 ms, so it waits for a bar."""
    tqdm: Any = importlib.import_module("tqdm").tqdm

    class Bar(tqdm):
        def __str__(self) -> str:
            columns = (_columns(self.fp) or 80) - 1  # some terminals wrap when the last column is used
            settings = self.format_dict | {"ncols": columns}
            values = (settings.pop("postfix") or "").split(", ")
            fewer = [(FORMS[-1], count) for count in reversed(range(len(values)))]  # drop whole values, the last first
            for form, count in [*((form, len(values)) for form in FORMS), *fewer]:
                settings["postfix"] = ", ".join(values[:count])
                bare = self.format_meter(**settings | {"ncols": None, "bar_format": form.replace("{bar}", "")})
                if len(bare) + SHORTEST_BAR * ("{bar}" in form) <= columns:
                    return self.format_meter(**settings | {"bar_format": form})
            return self.desc[:columns]

        @staticmethod
        def status_printer(file: Any) -> Any:
            """Pad each line with blanks to the terminal's current width."""

            def write(text: str) -> None:
                file.write("\r" + text.ljust((_columns(file) or 80) - 1))
                file.flush()

            return write

    return Bar
