"""The work of a training step on a CUDA device, counted on the emulated device."""

import importlib.util

import pytest

from tests.benchmarks import launches
from tests.benchmarks.cases import CASES

if importlib.util.find_spec("fakecuda") is None:
    pytest.skip("counts need the emulator", allow_module_level=True)


def test_all_that_a_step_launches_is_counted():
    """Two dense layers, of 16 and 10 units, need five products and no uploads."""
    found = launches.count_step(CASES["tiny"], "SGD", graphs=False)

    assert found["products"] == 5
    assert found["nodes"] == found["kernels"] + 5
    assert found["temporaries"] > found["kernels"] / 2


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize(
    ("case", "eager", "graph"),
    [("W1", 9, 11), ("W2", 23, 25), ("W3", 16, 18), ("W7", 23, 25), ("CNN", 38, 40), ("LSTM", 129, 131)],
    ids=lambda value: str(value),
)
def test_a_step_launches_no_more_than_it_did(case, eager, graph, graphs):
    """Matrix products and copies count like kernels. Adam needs one more kernel, for its bias corrections."""
    limit = graph if graphs else eager

    assert launches.count_step(CASES[case], "SGD", graphs)["nodes"] <= limit
    assert launches.count_step(CASES[case], "Adam", graphs)["nodes"] <= limit + 1
