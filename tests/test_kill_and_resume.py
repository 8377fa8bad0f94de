"""A small sample of ``python -m tests.kill_and_resume``, which chooses its own backend: NumPy."""

import pytest

from tests.kill_and_resume import NETWORKS, campaign

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("network", NETWORKS)
def test_killed_runs_end_as_the_unbroken_one(tmp_path, network):
    killed, _, read, runs = campaign(tmp_path, network, "numpy", kills=3)

    assert killed == 3
    assert runs >= 1
    assert read >= 1
