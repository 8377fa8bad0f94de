"""Ctrl-C and SIGTERM during training, in separate processes. On the host, so only on NumPy."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.test_model import X, Y, make_model
from xpnet import SGD, Callback, DivergenceError, EarlyStopping, schedules
from xpnet.backend import to_numpy
from xpnet.layers import Dense

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process on Windows")

PROGRAM = """
import os, signal, sys, threading
import numpy as np
from xpnet import Callback, EarlyStopping, Model
from xpnet.layers import Dense

signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
sent = [getattr(signal, name) for name in sys.argv[2:]]

class Send(Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.step == 26:
            for number in sent:
                signal.raise_signal(number)

    def on_train_interrupt(self, error):
        print("interrupted at", self.model.step, flush=True)

def handler(number, frame):
    print("own handler", flush=True)

if sys.argv[1] == "own":
    signal.signal(signal.SIGTERM, handler)
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
x = np.random.default_rng(0).normal(size=(100, 3))
model = Model([Dense(1)], "mean_squared_error", backend="numpy")

def train():
    try:
        model.fit(x, x[:, 0], batch_size=10, epochs=4, verbose=0, callbacks=[Send()])
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)

if sys.argv[1] == "thread":
    sent = []
    thread = threading.Thread(target=train); thread.start(); thread.join()
else:
    train()
print("end at", model.step, signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN, handler), flush=True)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (["default", "SIGINT"], 0, ["interrupted at 26", "KeyboardInterrupt", "end at 26 True"]),
        (["default", "SIGINT", "SIGINT"], 0, ["interrupted at 26", "KeyboardInterrupt", "end at 26 True"]),
        (["default", "SIGTERM"], -signal.SIGTERM, ["interrupted at 26"]),
        (["default", "SIGTERM", "SIGTERM"], -signal.SIGTERM, []),
        (["default", "SIGINT", "SIGTERM"], -signal.SIGTERM, []),
        (["own", "SIGTERM"], 0, ["own handler", "end at 40 True"]),
        (["ignored", "SIGTERM"], 0, ["end at 40 True"]),
        (["thread"], 0, ["end at 40 True"]),
    ],
    ids=str,
)
def test_signals(arguments, code, lines):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300)

    assert (done.returncode, done.stdout.splitlines()) == (code, lines), done.stderr


class Interrupt(Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.weights = getattr(self, "weights", [*self.model.get_weights()])
        if epoch == 3:
            raise KeyboardInterrupt


def test_the_best_weights_are_kept_after_ctrl_c(xp):
    """The loss falls, so with mode="max" the first epoch is the best."""
    model, interrupt = make_model(xp, SGD(0.01), [Dense(3)]), Interrupt()
    best = EarlyStopping("val_loss", mode="max", patience=9, restore_best_weights=True)
    with pytest.raises(KeyboardInterrupt) as caught:
        model.fit(X, Y, 20, 9, verbose=0, validation_data=(X, Y), callbacks=[interrupt, best])

    assert "state of the best epoch" in caught.value.__notes__[0]
    for now, then in zip(model.get_weights(), interrupt.weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_best_weights_are_kept_after_a_divergence(xp):
    model, interrupt = make_model(xp, SGD(schedules.PiecewiseConstantDecay([6], [0.01, 1e38])), [Dense(3)]), Interrupt()
    best = EarlyStopping("loss", restore_best_weights=True, patience=5)
    with pytest.raises(DivergenceError):
        model.fit(X * 100, Y, 20, 9, verbose=0, callbacks=[interrupt, best])

    for now, then in zip(model.get_weights(), interrupt.weights, strict=True):
        np.testing.assert_array_equal(now, to_numpy(then))
