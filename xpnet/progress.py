"""What `fit`, `evaluate` and `predict` show while they run."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import textwrap
import time
from statistics import fmean
from typing import Any

DELAY = 0.2  # seconds: what is done sooner shows its line alone
FORMS = (  # the first that fits in the terminal is shown; the bar takes what the rest leaves
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
)
SHORTEST_BAR = 4


class Progress:
    """A bar while it runs and then a line with the time and every value; usable in a ``with`` statement.

    Parameters
    ----------
    verbose : {"auto", 0, 1, 2}
        0 is silent, 2 writes the line alone, 1 and "auto" draw the bar too, where a terminal shows it. In a notebook the values
        stand in the bar, as tqdm draws it there, and there is no line.
    """

    def __init__(self, verbose: str | int):
        check_verbose(verbose)
        self.verbose = 1 if verbose == "auto" else verbose
        self.bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def start(self, title: str, steps: int) -> None:
        """So many steps begin."""
        if self.verbose:
            self.title, self.begin = title, time.perf_counter()
        if self.verbose == 1:
            self.rich = _notebook_bar()
            if self.rich is not None:
                self.bar = self.rich(total=steps, desc=title, unit="step")
            elif _has_terminal():
                self.bar = _bar()(total=steps, desc=title, unit="step", delay=DELAY)

    def update(self, steps: int, values: dict[str, Any] | None = None) -> None:
        """Some steps are done, with these values so far."""
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(_formatted(values or {})), refresh=False)
            self.bar.update(steps)

    def end(self, values: dict[str, Any] | None = None) -> None:
        """All steps are done, with these values."""
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
        """Leave an unfinished bar as it stands."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _line(self, values: list[str], columns: int) -> str:
        """One line; in a terminal of fewer columns the validation values begin another."""
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
    """Raise an error unless it is one of Keras' values."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'verbose must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')


def _formatted(values: dict[str, Any]) -> list[str]:
    """``name=value`` each; of a list (of several networks, of classes) the mean, of a matrix nothing."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    means = {name: fmean(value) for name, value in lists.items() if not isinstance(value[0], list)}
    return [f"{name}={v:.4f}" if v == 0 or 1e-3 <= abs(v) < 1e5 else f"{name}={v:.3e}" for name, v in means.items()]


def _columns(stream: Any) -> int:
    """The width of the terminal behind a stream; 0 if there is none."""
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return 0
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # no stream, no file behind it, or a closed one
        return 0


def _has_terminal() -> bool:
    """The bar goes to stderr and the line to stdout, so both must be one."""
    return bool(_columns(sys.stderr) and _columns(sys.stdout))


def _notebook_bar() -> Any:
    """tqdm's widget, inside a notebook."""
    if "IPython" not in sys.modules:
        return None
    chosen = importlib.import_module("tqdm.auto").tqdm  # it brings asyncio, 25 ms
    return chosen if chosen.__module__ == "tqdm.auto" else None


@functools.cache
def _bar() -> Any:
    """tqdm, whose line fits into the terminal however that is resized; imported when first shown, for it takes 30 ms."""
    tqdm: Any = importlib.import_module("tqdm").tqdm

    class Bar(tqdm):
        def __str__(self) -> str:
            columns = (_columns(self.fp) or 80) - 1  # in the last one some terminals begin a new line
            settings = self.format_dict | {"ncols": columns}
            values = (settings.pop("postfix") or "").split(", ")
            fewer = [(FORMS[-1], count) for count in reversed(range(len(values)))]  # whole values go, from the last
            for form, count in [*((form, len(values)) for form in FORMS), *fewer]:
                settings["postfix"] = ", ".join(values[:count])
                bare = self.format_meter(**settings | {"ncols": None, "bar_format": form.replace("{bar}", "")})
                if len(bare) + SHORTEST_BAR * ("{bar}" in form) <= columns:
                    return self.format_meter(**settings | {"bar_format": form})
            return self.desc[:columns]

        @staticmethod
        def status_printer(file: Any) -> Any:
            """Fill the line with blanks, as far as it goes today."""

            def write(text: str) -> None:
                file.write("\r" + text.ljust((_columns(file) or 80) - 1))
                file.flush()

            return write

    return Bar
