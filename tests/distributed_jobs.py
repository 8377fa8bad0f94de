"""What the ranks of tests/test_distributed.py run: ``mpiexec -n 3 python -m tests.distributed_jobs JOB FOLDER``."""

import importlib.util
import os
import signal
import sys
import zlib
from pathlib import Path

import numpy as np

import xpnet
from xpnet import SGD, Adam, Model, callbacks, groups, layers
from xpnet.backend import make_backend, to_numpy
from xpnet.sources import rows
from xpnet.tree import leaves

ROWS = 83  # with batches of 16, the last has 3 rows, fewer than 4 ranks
RNG = np.random.default_rng(0)
ROWS_X = RNG.normal(size=(ROWS, 20)).astype(np.float32)
IMAGES = RNG.normal(size=(ROWS, 8, 8, 2)).astype(np.float32)
TEXTS = RNG.normal(size=(ROWS, 5, 4)).astype(np.float32)
Y = RNG.integers(0, 3, ROWS)
WEIGHT = np.where(np.arange(ROWS) % 4 == 0, 0.0, RNG.random(ROWS))


def cases(folder):
    """The arguments of `Model` and of `fit`, by name."""
    dense = [layers.Dense(100, activation="tanh"), layers.Dense(80, activation="relu"), layers.Dense(3)]
    dropout = [layers.GaussianNoise(0.2), layers.Dense(30, activation="tanh"), layers.Dropout(0.4), layers.Dense(3)]
    normalized = [layers.Dense(30), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)]
    cnn = [
        layers.RandomFlip(),
        layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.SpatialDropout2D(0.2),
        layers.Flatten(),
        layers.Dense(3),
    ]
    momentum = SGD(0.05, momentum=0.9)
    return {
        "dense": (dense, momentum, {"x": ROWS_X}),
        "dropout": (dropout, Adam(0.01), {"x": ROWS_X}),
        "batch normalization": (normalized, momentum, {"x": ROWS_X}),
        "weights": (normalized, momentum, {"x": ROWS_X, "sample_weight": WEIGHT}),
        "clipping": (dense, SGD(0.1, global_clipnorm=0.1), {"x": ROWS_X}),
        "one batch": (dense, momentum, {"x": ROWS_X, "batch_size": ROWS}),
        "steps": (dropout, momentum, {"x": ROWS_X, "steps_per_epoch": 4}),
        "micro-batches": (dropout, momentum, {"x": ROWS_X, "micro_batch_size": 3, "sample_weight": WEIGHT}),
        "CNN": (cnn, momentum, {"x": IMAGES}),
        "LSTM": ([layers.LSTM(12), layers.Dense(3)], Adam(0.01), {"x": TEXTS}),
        "memory-mapped": (normalized, momentum, {"x": mapped(folder)}),
        "memory-mapped, weights": (dropout, momentum, {"x": mapped(folder), "sample_weight": WEIGHT}),
        "batches": (dropout, momentum, {"x": Batches(), "y": None, "batch_size": None}),
        "own layer": ([layers.Dense(8), Own(), layers.Dense(3)], momentum, {"x": ROWS_X}),
    }


def mapped(folder):
    return np.lib.format.open_memmap(Path(folder, "x.npy"), mode="r")


class Batches:
    def __iter__(self):
        return ((ROWS_X[i : i + 10], Y[i : i + 10]) for i in range(0, ROWS, 10))


class Own(layers.Layer):
    def forward(self, params, x):
        return x * 2.0, lambda dy, need_dx=True: (dy * 2.0, {})


def train(case, folder, **options):
    """Return the model and the history after two epochs."""
    network, optimizer, data = cases(folder)[case]
    model = Model(network, "softmax_cross_entropy", optimizer, ["accuracy", "auc", "f1"], seed=3, **options)
    arguments = {"y": Y, "batch_size": 16, "epochs": 2, "verbose": 0} | data
    validation = {"validation_data": (data["x"], Y), "validation_batch_size": 20} if case != "batches" else {}
    return model, model.fit(**arguments, **validation)


def equality(ranks, folder):
    """Train every case. Rank 0 writes the parameters and the history of each."""
    results = {}
    for case in cases(folder):
        model, history = train(case, folder)
        arrays = leaves(model.state)
        checksum = zlib.crc32(b"".join(to_numpy(array).tobytes() for array in arrays))
        assert len(set(ranks.exchange.gather_objects(checksum))) == 1, f"{case}: the ranks have different parameters"
        results |= {f"{case}/{i}": array for i, array in enumerate(arrays)}
        results |= {f"{case}/{name}": values for name, values in history.history.items()}
        results[f"{case}/parts"] = model.training_state.parts
        results[f"{case}/evaluate"] = model.evaluate(ROWS_X, Y, batch_size=10) if model.input_shape == (20,) else ()
        results[f"{case}/batch"] = (
            model.train_on_batch(ROWS_X[:5], Y[:5]) if case in ("dense", "dropout", "batch normalization") else ()
        )
    if ranks.rank == 0:
        np.savez(Path(folder, f"{ranks.size}.npz"), **results)


def backends(ranks, folder):
    for name in ("array_api_strict", *(["torch"] if importlib.util.find_spec("torch") else [])):
        model, _ = train("CNN", folder, backend=make_backend(name))
        if ranks.rank == 0:
            np.savez(Path(folder, f"{name}.npz"), *[to_numpy(array) for array in leaves(model.state)])


def sums(ranks, folder):
    """Check that every rank gets the sum in the order of the ranks of arrays that are shorter and longer than a block."""
    xpnet.distributed.BLOCK = 1000
    for length in (1, 2, 999, 1000, 1001, 2503, 3000):
        values = np.random.default_rng(length).normal(size=(ranks.size, length)).astype(np.float32)
        mine = values[ranks.rank].copy()
        np.testing.assert_array_equal(ranks.exchange.sum(mine), sum(values[1:], start=values[0]))
        np.testing.assert_array_equal(mine, values[ranks.rank])


def explained(ranks, folder):
    """Explain a step in rank 1 only, and train on in all ranks."""
    model, _ = train("dense", folder)
    if ranks.rank == 1:
        explanation = xpnet.explain(model, ROWS_X, Y)
        np.savez(
            Path(folder, "explained.npz"), **{name: explanation[name] for name in ("x", "loss", "0.dW", "0.W_new")}
        )
    model.fit(ROWS_X, Y, batch_size=16, verbose=0)
    assert model.training_state.parts == ranks.size


def reads(ranks, folder):
    """Print how many rows of the memory-mapped file each rank has read: in training, and in validation and before it."""
    read = {"take": 0, "cut": 0}

    def counted(name, count):
        original = getattr(rows.Column, name)

        def method(self, *arguments):
            read[name] += count(*arguments) * isinstance(self.values, np.memmap)
            return original(self, *arguments)

        setattr(rows.Column, name, method)

    counted("take", len)
    counted("cut", lambda start, stop: stop - start)
    train("memory-mapped", folder)
    found = ranks.gather((read["take"], read["cut"]))
    if ranks.rank == 0:
        print(*found, sep="\n")


class Kill(xpnet.Callback):
    """Do something in rank 1 after some steps."""

    def __init__(self, action, step):
        self.action, self.step = action, step

    def on_train_batch_end(self, batch, logs=None):
        if groups.process().rank == 1 and self.model.step == self.step:
            self.action()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def checkpointed(ranks, folder, action, step, resumes=False):
    model = Model(cases(folder)["dropout"][0], "softmax_cross_entropy", Adam(0.01), ["accuracy"], seed=3)
    path = Path(folder, "run.safetensors")
    saving = callbacks.ModelCheckpoint(path, save_freq=4)
    log = callbacks.CSVLogger(Path(folder, "log.csv"))
    model.fit(
        ROWS_X, Y, 16, 4, callbacks=[saving, log, Kill(action, step)], verbose=2, resume_from=path if resumes else None
    )
    if ranks.rank == 0:
        np.savez(Path(folder, "end.npz"), *[to_numpy(array) for array in leaves(model.state)])


def whole(ranks, folder):
    checkpointed(ranks, folder, print, -1)


def resume(ranks, folder):
    checkpointed(ranks, folder, print, -1, resumes=True)


def kill(ranks, folder):
    def action():
        Path(folder, "failed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    checkpointed(ranks, folder, action, 9)


def fail(ranks, folder):
    def action():
        Path(folder, "failed").touch()
        raise ZeroDivisionError("only rank 1")

    checkpointed(ranks, folder, action, 9)


def leave(ranks, folder):
    def action():
        Path(folder, "failed").touch()
        sys.exit(3)

    checkpointed(ranks, folder, action, 9)


def mismatch(ranks, folder):
    """Rank 0 evaluates, and the others end."""
    model, _ = train("dense", folder)
    if ranks.rank == 0:
        model.evaluate(ROWS_X, Y)


def different_data(ranks, folder):
    model = Model([layers.Dense(3)], "softmax_cross_entropy")
    model.fit(ROWS_X[ranks.rank :], Y[ranks.rank :], verbose=0)


def different_metrics(ranks, folder):
    model = Model([layers.Dense(3)], "softmax_cross_entropy", metrics=["accuracy", "auc"][: 1 + ranks.rank])
    model.fit(ROWS_X, Y, verbose=0)


def outside(ranks, folder):
    """Rank 1 fails between two calls."""
    model, _ = train("dense", folder)
    if ranks.rank == 1:
        raise ZeroDivisionError("only rank 1")
    model.evaluate(ROWS_X, Y)


def same_error(ranks, folder):
    """An error of all ranks can be caught, and if it is not, it is reported once."""
    model = Model([layers.Dense(3)], "softmax_cross_entropy", SGD(1e30))
    for epochs in (-1, 3):
        try:
            model.fit(ROWS_X * 1e30, Y, 16, epochs, verbose=0)
        except (ValueError, xpnet.DivergenceError) as error:
            if ranks.rank == 0:
                print("caught", type(error).__name__)
    model.fit(ROWS_X, Y[:-1])


def wait(ranks, folder):
    """Train until Ctrl-C."""
    model = Model([layers.Dense(3)], "softmax_cross_entropy")
    if ranks.rank == 0:
        print("ready", flush=True)
    try:
        model.fit(ROWS_X, Y, 16, 10**7, verbose=0)
    except KeyboardInterrupt:
        steps = ranks.exchange.gather_objects(model.step)
        assert len(set(steps)) == 1, steps
        if ranks.rank == 0:
            print("stopped together")


if __name__ == "__main__":
    job, folder = sys.argv[1:]
    globals()[job](xpnet.distributed.init(), folder)
