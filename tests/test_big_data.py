"""The memory that training on a large file takes, and its guide page. On NumPy, so no backend."""

import re
import sys

import pytest

from tests.scripts import run

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_does_not_grow_with_the_file():
    printed = run("-m", "tests.benchmarks.big_data", "--gigabytes", "0.1,0.5").stdout
    small, large = (float(peak) for peak in re.findall(r"GB: (\d+) MB", printed))

    assert large - small < 100
    assert large < 250
