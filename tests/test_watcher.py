"""The program that names a rank which the system has killed. Needs no arrays."""

import os
import subprocess
import sys

import pytest

from xpnet import watcher

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system cannot wait for other processes")


@pytest.fixture
def ranks():
    """Three processes that wait, as the arguments of the watcher."""
    program = [sys.executable, "-IS", "-c", "input()"]
    started = [subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(3)]
    yield started
    for process in started:
        process.kill(), process.communicate()


def start(ranks, patience=watcher.PATIENCE):
    program = f"import watcher; watcher.PATIENCE = {patience}; watcher.watch('5', 'host', *{named(ranks)})"
    folder = os.path.dirname(watcher.__file__)
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder, stderr=subprocess.PIPE, text=True)


def named(ranks):
    return [f"{rank}:{process.pid}" for rank, process in enumerate(ranks, 2)]


def test_names_the_rank_that_died_first(ranks):
    program = start(ranks)
    ranks[1].kill()
    text = program.stderr.readline()
    for process in ranks:
        process.kill()

    assert text.startswith("xpnet: rank 3 of 5 on host died first, at ")
    assert program.communicate(timeout=watcher.PATIENCE) == (None, "")


def test_names_all_that_died_before_it_looked(ranks):
    for process in (ranks[0], ranks[2]):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    program = start(ranks, patience=0.0)

    assert "xpnet: rank 2 or 4 of 5 on host died first" in program.communicate()[1]


def test_ends_the_ranks_that_nobody_ends(ranks):
    program = start(ranks, patience=0.1)
    ranks[0].kill()
    program.communicate()

    assert [process.wait() for process in ranks] == [-9, -9, -9]


def test_imports_nothing_but_the_standard_library(ranks):
    arguments = [sys.executable, "-IS", watcher.__file__, "5", "host", *named(ranks)]
    program = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    for process in ranks:
        process.kill()

    assert program.communicate()[1].count("\n") == 1


def test_leaves_processes_that_it_cannot_see(ranks):
    """Ranks in different containers have process numbers of their own."""
    ranks[0].kill(), ranks[0].wait()

    assert start(ranks).communicate() == (None, "")
    assert ranks[1].poll() is None
