"""The command line: ``python -m xpnet`` and the script ``xpnet``."""

from xpnet.cli.main import main

__all__ = ["main"]
