"""Runs the command line: ``python -m xpnet``."""

import sys

from xpnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
