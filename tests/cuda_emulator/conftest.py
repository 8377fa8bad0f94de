"""The emulator's own tests, which need it: elsewhere they are not there."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("fakecuda") else ["test_*.py"]
