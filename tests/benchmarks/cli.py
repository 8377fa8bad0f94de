"""The arguments of the benchmark programs."""

from __future__ import annotations

import argparse
import re
import textwrap

from tests.benchmarks.cases import CASES
from xpnet.checks import number


class Paragraphs(argparse.HelpFormatter):
    """Shows a docstring in the width of the terminal. Indented lines are commands and stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(map(self._block, text.strip().split("\n\n")))

    def _block(self, text: str) -> str:
        if text.startswith(" "):
            return text
        items = [" ".join(item.split()) for item in re.split(r"\n(?=- )", text)]
        width = self._width - self._current_indent
        return "\n".join(textwrap.fill(item, width, subsequent_indent="  " * item.startswith("- ")) for item in items)


def parser(program: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser for ``python -m program`` that shows its docstring."""
    return argparse.ArgumentParser(prog=f"python -m {program}", description=doc, formatter_class=Paragraphs)


def names(text: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def count(text: str) -> int:
    """Read an integer of at least 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1. Received: {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Read a number above 0."""
    try:
        return number("value", float(text), "(0, inf)")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number above 0. Received: {text!r}") from error


def case(text: str) -> str:
    """Check the name of a case that may have a batch size behind a slash."""
    name, slash, batch = text.partition("/")
    if name not in CASES or (slash and not (batch.isdecimal() and int(batch))):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(CASES)}, perhaps with /BATCH. Received: {text!r}")
    return text


def sizes(text: str) -> tuple[float, ...]:
    """Read numbers above 0 that are separated by commas."""
    return tuple(map(positive, names(text)))
