"""What a training step asks of a CUDA device, counted on the emulated one."""

import importlib.util

import pytest

from tests.benchmarks import launches
from tests.benchmarks.cases import CASES

if importlib.util.find_spec("fakecuda") is None:
    pytest.skip("counts need the emulator", allow_module_level=True)


def test_all_that_a_step_launches_is_counted():
    """A dense layer of 10 behind one of 16: five products, and no uploads."""
    found = launches.count_step(CASES["tiny"], "SGD", graphs=False)

    assert found["products"] == 5
    assert found["nodes"] == found["kernels"] + 5
    assert found["temporaries"] > found["kernels"] / 2
