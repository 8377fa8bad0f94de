"""The program that names a rank which ends without a word. Needs no arrays."""

import os
import subprocess
import sys
from pathlib import Path

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


@pytest.fixture
def start(ranks):
    """A function that starts the watcher of these ranks, and returns the process that has started it."""
    programs = []

    def start(patience=watcher.PATIENCE):
        program = f"""
import sys
sys.path.append({os.path.dirname(watcher.__file__)!r})
import watcher
watcher.PATIENCE = {patience}
watcher.watch('5', 'host', *{named(ranks)})
"""
        pipe = subprocess.PIPE
        programs.append(subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True))
        programs[-1].number = programs[-1].stdout.read()
        programs[-1].wait()
        return programs[-1]

    yield start
    for program in programs:
        program.stdout.close(), program.stderr.close()


def named(ranks):
    return [f"{rank}:{process.pid}" for rank, process in enumerate(ranks, 2)]


def test_names_the_rank_that_died_first(start, ranks):
    program = start()
    ranks[1].kill()
    text = program.stderr.readline()
    for process in ranks:
        process.kill()

    assert text.startswith("xpnet: rank 3 of 5 on host ended first, at ")
    assert program.stderr.read() == ""


def test_names_all_that_died_before_it_looked(start, ranks):
    for process in (ranks[0], ranks[2]):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    program = start(patience=0.0)

    assert "xpnet: rank 2 or 4 of 5 on host ended first" in program.stderr.read()


def test_ends_the_ranks_that_nobody_ends(start, ranks):
    program = start(patience=0.1)
    program.stderr.close()  # although nobody reads its text
    ranks[0].kill()

    assert [process.wait() for process in ranks] == [-9, -9, -9]


def test_imports_nothing_but_the_standard_library(ranks):
    arguments = [sys.executable, "-IS", watcher.__file__, "5", "host", *named(ranks)]
    program = subprocess.run(arguments, stdout=subprocess.PIPE, text=True)
    os.kill(int(program.stdout), 9)


def test_has_no_parent(start):
    """A rank that waits for its own child processes does not wait for the watcher."""
    program = start()
    status = Path(f"/proc/{int(program.number)}/stat").read_text()
    os.kill(int(program.number), 9)

    assert int(status.rpartition(")")[2].split()[1]) not in (program.pid, os.getpid())


def test_processes_that_cannot_be_watched(start, ranks):
    ranks[0].kill(), ranks[0].wait()
    program = start()

    assert program.number == program.stderr.read() == ""
    assert ranks[1].poll() is None
