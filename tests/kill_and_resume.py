"""Kills a real training process again and again, resumes it each time, and compares the end with a run that was never killed.

    python -m tests.kill_and_resume                                  60 kills on NumPy
    python -m tests.kill_and_resume --kills 20 --backend torch

The process gets SIGKILL at random moments, many of them while it writes a checkpoint. After each kill, every checkpoint on disk
must be readable. The next process resumes from the newest. At the end, the saved models must be equal byte for byte, which
includes the parameters, the running statistics, the optimizer's state and the history.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from xpnet import SGD, Adam, Callback, EarlyStopping, Model, load_model
from xpnet.callbacks import BackupAndRestore, ModelCheckpoint, ReduceLROnPlateau
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from xpnet.schedules import CosineDecay, WarmUp

LOSS = "softmax_cross_entropy"
EVERY = 7  # steps from checkpoint to checkpoint


class Tell(Callback):
    """Prints a line before each checkpoint."""

    def next_pause(self, step):
        return step + EVERY - step % EVERY

    def on_pause(self, logs):
        print(self.model.step, flush=True)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def perceptron():
    model = Model([Dense(40, "relu"), Dropout(0.3), Dense(3)], LOSS, SGD(0.05, momentum=0.9), ["accuracy", "f1"])
    return model, (20,), [EarlyStopping(patience=3, restore_best_weights=True), ReduceLROnPlateau("loss", patience=1)]


def convolution():
    layers = [Conv2D(6, 3), BatchNormalization(), MaxPooling2D(2), Flatten(), Dense(3)]
    return Model(layers, LOSS, SGD(0.02, momentum=0.9, nesterov=True), ["accuracy"]), (8, 8, 1), []


def adam():
    model = Model([Dense(30, "tanh"), Dense(3)], LOSS, Adam(WarmUp(20, CosineDecay(0.02, 200))), ["accuracy"])
    return model, (20,), []


NETWORKS = {"perceptron": perceptron, "convolution": convolution, "adam": adam}


def train(network, backend, folder):
    """Train a network, from its newest checkpoint if `folder` has one, and save it as ``result``."""
    model, shape, callbacks = NETWORKS[network]()
    model.to(backend)
    rng = np.random.default_rng(0)
    labels = np.arange(330) % 3
    x = rng.normal(size=(330, *shape)).astype(np.float32) + 0.3 * labels.reshape(-1, *(1 for _ in shape))
    settings = {"epochs": 8, "batch_size": 16, "verbose": 0, "record_every": 5, "validation_split": 0.2}
    checkpoints = folder / "checkpoints"
    if network == "convolution":  # the callback finds its backup
        callbacks += [Tell(), BackupAndRestore(checkpoints, every_steps=EVERY, delete_checkpoint=False)]
    else:
        callbacks += [Tell(), ModelCheckpoint(checkpoints / "{epoch}-{step}", every_steps=EVERY, keep=3)]
        if any(path.suffix != ".part" for path in checkpoints.glob("*")):
            settings["resume_from"] = checkpoints
    model.fit(x, labels, callbacks=callbacks, **settings)
    model.save(folder / "result")


def process(network, backend, folder):
    command = [
        sys.executable,
        "-m",
        "tests.kill_and_resume",
        "--train",
        network,
        "--backend",
        backend,
        "--folder",
        folder,
    ]
    return subprocess.Popen(
        [str(part) for part in command], cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True
    )


def kill(running, after, pause):
    """Kill a process a moment after it has printed this many lines. Return whether it was still running."""
    for _, _ in zip(range(after), running.stdout, strict=False):
        pass
    time.sleep(pause)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode in (0, -signal.SIGKILL), f"the training process failed: {running.returncode}"
    return running.returncode != 0


def unbroken(network, backend, folder):
    """The file and the number of lines of a run that is not killed, and has no checkpoint to resume from."""
    running = process(network, backend, folder)
    lines = running.communicate()[0].splitlines()
    assert running.returncode == 0
    return (folder / "result").read_bytes(), len(lines)


def campaign(folder, network, backend, kills, seed=0):
    """Kill this many processes, and compare the end of each run.

    Returns the number of kills, of kills while a file was written, of checkpoints that were read, and of runs.
    """
    rng = random.Random(f"{seed} {network} {backend}")
    expected, lines = unbroken(network, backend, folder / "unbroken")
    killed = writing = read = runs = 0
    while killed < kills:
        run, parts = folder / f"run {runs}", set()
        while not (run / "result").exists():
            after = 1 + rng.randrange(lines // 4) if killed < kills else 2 * lines  # the last run may end
            killed += kill(process(network, backend, run), after, rng.choice([0.003, 0.03]) * rng.random())
            files = {*(run / "checkpoints").glob("*")}
            left = {path for path in files if path.suffix == ".part"}
            writing, parts = writing + bool(left - parts), left
            for path in files - left:
                load_model(path, "numpy")
                read += 1
        assert (run / "result").read_bytes() == expected, f"{network} on {backend}: the resumed run ended differently"
        runs += 1
    return killed, writing, read, runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="for all networks together")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.train:
        train(chosen.train, chosen.backend, chosen.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name in NETWORKS:
                each = -(-chosen.kills // len(NETWORKS))
                killed, writing, read, runs = campaign(Path(folder) / name, name, chosen.backend, each, chosen.seed)
                print(
                    f"{name} on {chosen.backend}: {killed} kills, {writing} of them while a file was written. All {read} "
                    f"checkpoints could be read. All {runs} runs ended as the unbroken one, byte for byte.",
                    flush=True,
                )
