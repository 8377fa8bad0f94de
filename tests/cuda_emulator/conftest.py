"""Collects the emulator's own tests only in its environment."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("fakecuda") else ["test_*.py"]
