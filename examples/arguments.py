"""Argument types that check output files before anything is computed: ``parser.add_argument("--json", type=output_file)``."""

from argparse import ArgumentTypeError
from pathlib import Path

from xpnet.errors import optional_import


def output_file(text):
    """Return the path if it can be written, and create its folder."""
    path = Path(text)
    new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise ArgumentTypeError(f"the file must be writable. Choose another path. Received: {error}") from error
    if new:
        path.unlink()
    return path


def picture_file(text):
    """Like `output_file`, and check that matplotlib is installed and supports the file type."""
    try:
        kinds = optional_import("matplotlib.figure", "plot").Figure().canvas.get_supported_filetypes()
    except ImportError as error:
        raise ArgumentTypeError(error) from error
    kind = Path(text).suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise ArgumentTypeError(
            f"the name must end in one of matplotlib's file types, {', '.join(f'.{kind}' for kind in kinds)}. Received: {text}"
        )
    return output_file(text)
