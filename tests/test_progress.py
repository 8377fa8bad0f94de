"""The progress display. It does not depend on the backend, so only on NumPy."""

import io
import os
import re
import signal
import struct
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from tests.scripts import ROOT
from xpnet import Model
from xpnet.backend import make_backend
from xpnet.layers import Dense
from xpnet.progress import Progress

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
EPOCH = r"Epoch {0}/2 \d+\.\ds loss=0\.\d{{4}} accuracy=0\.\d{{4}} val_loss=0\.\d{{4}} val_accuracy=0\.\d{{4}}"
NUMBERS = {"loss": 0.34567, "accuracy": 0.89, "val_loss": 0.3, "val_accuracy": 0.91}


def model(**settings):
    return Model([Dense(2)], "softmax_cross_entropy", metrics=["accuracy"], backend=make_backend("numpy"), **settings)


# ---------------------------------------------------------------------- no terminal


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_without_a_terminal_an_epoch_is_one_line(verbose, capfd):
    model().fit(X, Y, epochs=2, verbose=verbose, validation_split=0.5)

    out, err = capfd.readouterr()
    assert err == ""
    assert "\r" not in out
    for line, epoch in zip(out.splitlines(), (1, 2), strict=True):
        assert re.fullmatch(EPOCH.format(epoch), line)


def test_verbose_0_is_silent(capfd):
    model().fit(X, Y, epochs=2, verbose=0)
    model().build((4,)).predict(X)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_evaluate_and_predict_are_a_line_each(verbose, capfd):
    trained = model().build((4,))
    trained.evaluate(X, Y, verbose=verbose)
    trained.predict(X, verbose=verbose)

    out, err = capfd.readouterr()
    assert err == ""
    assert re.fullmatch(r"Evaluation \d+\.\ds loss=\d\.\d{4} accuracy=0\.\d{4}\nInference \d+\.\ds\n", out)


def test_evaluate_refuses_another_verbose():
    with pytest.raises(ValueError, match=r'verbose must be "auto", 0, 1 or 2\. Received: verbose=3'):
        model().build((4,)).evaluate(X, Y, verbose=3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (0.12345, "0.1235"),
        (1.5e-7, "1.500e-07"),
        (-2.5, "-2.5000"),
        (123456.0, "1.235e+05"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ([0.25, 0.75], "0.5000"),
    ],
)
def test_values_keep_four_digits_and_lists_their_mean(value, shown, capsys):
    progress = Progress(2)
    progress.start("Epoch 1/1", 1)
    progress.end({"loss": value})

    assert capsys.readouterr().out.split("s ")[1] == f"loss={shown}\n"


def test_a_matrix_is_not_shown(capsys):
    progress = Progress(2)
    progress.start("Epoch 1/1", 1)
    progress.end({"loss": 1.0, "confusion_matrix": [[3, 1], [0, 4]]})

    assert capsys.readouterr().out.endswith("s loss=1.0000\n")


def test_a_name_that_the_stream_cannot_write_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    progress = Progress(2)
    progress.start("Epoch 1/1", 1)
    progress.end({"R²": 0.5})

    stream.seek(0)
    assert stream.read().endswith("R\\xb2=0.5000\n")


def test_a_program_without_output_streams_trains(monkeypatch):
    """As with pythonw on Windows."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    assert model().fit(X, Y).epoch == [0]


# ---------------------------------------------------------------------- a terminal

PREAMBLE = """
import sys, time
from xpnet.progress import Progress
VALUES = {"loss": 0.34567, "accuracy": 0.89, "f1": 0.5, "precision": 0.25}
"""
TRAINING = """
for epoch in range(2):
    with Progress("auto") as progress:
        progress.start(f"Epoch {epoch + 1}/2", 469)
        for _ in range(3):
            time.sleep(0.15)
            progress.update(100, VALUES)
        progress.end(VALUES | {f"val_{name}": value for name, value in VALUES.items()})
"""


class Terminal:
    """A child process on a pseudo-terminal with this number of columns, and its final screen."""

    def __init__(self, code, columns, **environment):
        pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
        self.fd, child = pty.openpty()
        self.resize(columns)
        environment = os.environ | {"TERM": "xterm", "PYTHONPATH": str(ROOT)} | environment
        command = [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(code)]
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)

    def resize(self, columns):
        fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self):
        """Return everything that it writes until it ends."""
        written = b""
        try:
            while chunk := os.read(self.fd, 65536):
                written += chunk
        except OSError:  # on Linux, the other side is closed
            pass
        os.close(self.fd)
        self.process.wait()
        return written.decode()

    def frames(self):
        """Return the lines that remain on the screen, and every state of the bar."""
        written = self.read().replace("\r\n", "\n")
        states = [state for line in written.split("\n") for state in line.split("\r")[:-1] if state.strip()]
        return [line.split("\r")[-1] for line in written.split("\n")][:-1], states


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_on_a_terminal_nothing_is_cut(columns):
    lines, states = Terminal(TRAINING, columns).frames()

    assert len(states) >= 2
    assert {len(state) for state in states} == {columns - 1}
    assert all(re.fullmatch(r"\w+=\d\.\d{4}", value) for s in states for value in re.findall(r"\w+=[^],\s]*", s))
    text = " ".join(" ".join(lines).split())
    values = "loss={0}.3457 accuracy={0}.8900 f1={0}.5000 precision={0}.2500".format("0")
    values += " " + re.sub(r"(\w+)=", r"val_\1=", values)
    assert re.fullmatch(rf"Epoch 1/2 \d+\.\ds {values} Epoch 2/2 \d+\.\ds {values}", text)
    assert columns < 40 or max(map(len, lines)) <= columns


def test_the_bar_shrinks_before_a_value_goes():
    _, wide = Terminal(TRAINING, 200).frames()
    _, narrow = Terminal(TRAINING, 100).frames()

    assert all("precision=0.2500]" in state for state in wide[1:] + narrow[1:])
    assert max(len(re.search(r"\|(.*)\|", state)[1]) for state in wide) > 60


def test_a_line_of_an_epoch_fits_into_80_columns():
    code = f"VALUES = {NUMBERS}" + TRAINING.replace(' | {f"val_{name}": value for name, value in VALUES.items()}', "")
    lines, _ = Terminal(code, 80).frames()

    assert len(lines) == 2
    assert lines[1].endswith("loss=0.3457 accuracy=0.8900 val_loss=0.3000 val_accuracy=0.9100")


def test_where_the_line_is_too_long_validation_has_its_own():
    code = f"VALUES = {NUMBERS}" + TRAINING.replace(' | {f"val_{name}": value for name, value in VALUES.items()}', "")
    lines, _ = Terminal(code, 60).frames()

    assert lines[0].endswith("s loss=0.3457 accuracy=0.8900")
    assert lines[1] == "  val_loss=0.3000 val_accuracy=0.9100"


def test_a_terminal_that_is_resized_keeps_its_lines():
    terminal = Terminal(TRAINING, 120)
    os.read(terminal.fd, 1)  # the first bar is drawn
    terminal.resize(50)
    lines, states = terminal.frames()

    assert len(states[-1]) == 49
    assert max(map(len, lines)) <= 50


@pytest.mark.parametrize(
    "environment", [{"TERM": "dumb"}, {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}], ids=lambda e: e["TERM"]
)
def test_other_terminals(environment):
    written = Terminal(TRAINING, 80, **environment).read()

    assert ("\r" in written.replace("\r\n", "")) == (environment["TERM"] != "dumb")
    assert written.isascii()
    assert written.count("val_precision=0.2500") == 2


def test_a_terminal_of_unknown_size_is_taken_for_80_columns():
    _, states = Terminal(TRAINING, 0).frames()

    assert {len(state) for state in states} == {79}


def test_output_into_a_file_has_no_carriage_returns_beside_a_terminal(tmp_path):
    code = f"sys.stdout = log = open({str(tmp_path / 'log')!r}, 'w')" + TRAINING + "log.close()"
    written = Terminal(code, 80).read()

    assert written == ""
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_quick_epochs_draw_no_bar():
    code = """
    for epoch in range(3):
        with Progress(1) as progress:
            progress.start(f"Epoch {epoch + 1}/3", 10)
            progress.update(10, VALUES)
            progress.end(VALUES)
    """
    lines, states = Terminal(code, 80).frames()

    assert len(lines) == 3
    assert not states


def test_an_interrupt_leaves_the_bar_and_begins_a_new_line():
    code = """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    try:
        with Progress(1) as progress:
            progress.start("Epoch 1/2", 469)
            for _ in range(400):
                time.sleep(0.05)
                progress.update(1, VALUES)
    except KeyboardInterrupt:
        print("stopped")
    """
    terminal = Terminal(code, 80)
    os.read(terminal.fd, 1)
    time.sleep(0.2)
    os.killpg(terminal.process.pid, signal.SIGINT)
    lines, _ = terminal.frames()

    assert re.match(r"Epoch 1/2: \d+/469 \[00:\d\d<", lines[0])
    assert lines[1] == "stopped"


# ---------------------------------------------------------------------- notebooks


def test_in_a_notebook_the_values_stay_in_the_bar(monkeypatch, capsys):
    """tqdm.auto chooses the widget, which a stand-in replaces here."""
    shown = []

    class Widget:
        def __init__(self, **settings):
            shown.append(settings)

        def set_postfix_str(self, text, refresh):
            shown.append(text)

        def update(self, steps):
            shown.append(steps)

        def refresh(self):
            shown.append("refreshed")

        def close(self):
            shown.append("closed")

    monkeypatch.setattr("xpnet.progress.notebook_bar", lambda: Widget)
    with Progress("auto") as progress:
        progress.start("Epoch 1/1", 5)
        progress.update(5, {"loss": 1.0})
        progress.end({"loss": 1.0, "val_loss": 2.0})

    assert shown == [
        {"total": 5, "desc": "Epoch 1/1", "unit": "step"}, "loss=1.0000", 5,
        "loss=1.0000, val_loss=2.0000", 0, "refreshed", "closed",
    ]  # fmt: skip
    assert capsys.readouterr().out == ""
