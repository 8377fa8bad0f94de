"""Damaged and hostile model files. ``python -m tests.model_files 200000`` loads 200,000 mutations of valid files.

Each must either load as a model that predicts or raise CheckpointError. Anything else ends the run and shows the file's content.
"""

import json
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from xpnet import SGD, Adam, CheckpointError, DivergenceError, EarlyStopping, Model, load_model
from xpnet.callbacks import ModelCheckpoint
from xpnet.layers import LSTM, BatchNormalization, Conv2D, Dense, Dropout, Embedding, Flatten, Frozen, Residual
from xpnet.schedules import CosineDecay, WarmUp

WORDS = [b"null", b"-1", b"0", b"1e999", b"[", b"]", b"{", b"}", b'"', b",", b'\\"', b"true", b"18446744073709551616",
         b"../../etc/passwd", b"F16", b"F64", b"os.system", b"layers.Dense", b"layers.LSTM", b'{\\"layer\\": 0}',
         b"1000000000000", b"\0", b"\xff"]  # fmt: skip


def header_of(content):
    """Return the header, parsed from JSON, and the bytes after it."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def file_of(header, data=b""):
    """Return the content of a file with this header, which is data for JSON or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(content, change):
    """Return the file with its description, a dict, changed by `change`."""
    header, data = header_of(content)
    description = json.loads(header["__metadata__"]["xpnet"])
    change(description)
    header["__metadata__"]["xpnet"] = json.dumps(description)
    return file_of(header, data)


def valid_files(folder):
    """Return the contents of a few files, which cover all kinds of layers and settings."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(12, 4)).astype("float32"), np.arange(12) % 3
    shared = Dense(4, "tanh")
    schedule = WarmUp(2, CosineDecay(0.01, 20))
    models = [
        (Model([shared, BatchNormalization(), shared, Dropout(0.1), Frozen(Dense(3))], "softmax_cross_entropy",
               Adam(schedule, l2={"0": 1e-4}), metrics=["accuracy"]), rows, labels),
        (Model([Conv2D(2, 3), Flatten(), Dense(1)], "mse"), rng.normal(size=(12, 4, 4, 1)).astype("float32"), labels * 1.0),
        (Model([Embedding(5, 3), LSTM(3), Residual(Dense(3))], "softmax_cross_entropy", "rmsprop"),
         rng.integers(0, 5, (12, 4)), labels),
        (Model([Dense(2, "relu"), Dense(1)], "mae", seed=(0, 1)), rows, labels * 1.0),
    ]  # fmt: skip
    contents = []
    for model, x, y in models:
        model.fit(x, y, epochs=2, verbose=0)
        model.save(folder / "valid")
        contents.append(((folder / "valid").read_bytes(), None))
    for run in range(2):
        resume(rows, labels, run, callbacks=[ModelCheckpoint(folder / "{step}", save_freq=1, keep=3)])
        contents += [((folder / name).read_bytes(), partial(resume, rows, labels, run)) for name in ("10", "12")]
    return contents


def resume(rows, labels, run, path=None, callbacks=()):
    """Train one of two networks, or resume its run."""
    model = [
        Model([Dense(3, "relu"), BatchNormalization(), Dense(3)], "softmax_cross_entropy", "adam", ["accuracy", "f1"]),
        Model([Dense(3)], "softmax_cross_entropy", SGD(0.1, momentum=0.5), seed=(0, 1)),
    ][run]
    stop = [EarlyStopping("loss", patience=5, restore_best_weights=True)] * (run == 0)
    model.fit(
        rows, labels, batch_size=4, epochs=4, verbose=0, resume_from=path, record_every=2, callbacks=[*callbacks, *stop]
    )


VALUES = [None, True, 0, -1, 1, 2.5, 1e300, 10**12, 10**40, "", "relu", "../../etc/passwd", [], {}, [1], {"layer": 0},
          {"tuple": [1, 2]}, {"float": "inf"}, {"class": "layers.Dense", "settings": {}}, "float64"]  # fmt: skip


def changed(content, rng):
    """Return a copy with another value at a random place in its description: one of `VALUES`, or a value from elsewhere in it."""

    def change(description):
        places, nodes = [], []

        def visit(node):
            for key in node if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                nodes.append(json.dumps(node[key]))
                if isinstance(node[key], (dict, list)):
                    visit(node[key])

        visit(description)
        for _ in range(rng.integers(1, 3)):
            node, key = places[rng.integers(len(places))]
            others = [json.dumps(value) for value in VALUES] if rng.random() < 0.7 else nodes
            if isinstance(node, dict) and rng.random() < 0.2:
                node.pop(key, None)
            else:
                node[key] = json.loads(others[rng.integers(len(others))])

    return described(content, change)


def mutated(content, rng):
    """Return a damaged copy. Most of the damage is in the header, and the header's length is often corrected afterward."""
    if rng.random() < 0.5:
        return changed(content, rng)
    damaged = bytearray(content)
    length = int.from_bytes(content[:8], "little")
    for _ in range(rng.integers(1, 4)):
        end = max(len(damaged), 9) if rng.random() < 0.1 else 8 + length
        at, size = int(rng.integers(0 if rng.random() < 0.1 else 8, end)), int(rng.integers(1, 9))
        kind = rng.integers(6)
        if kind == 0:
            damaged[at : at + size] = rng.bytes(len(damaged[at : at + size]))
        elif kind == 1:
            del damaged[at : at + size]
        elif kind == 2:
            damaged[at:at] = damaged[at : at + 10 * size]
        elif kind == 3:
            damaged[at:at] = WORDS[rng.integers(len(WORDS))]
        elif kind == 4:
            word = WORDS[rng.integers(len(WORDS))]
            damaged[at : at + len(word)] = word
        elif rng.random() < 0.1:
            del damaged[at + 1 :]
        else:  # another digit
            digits = [i for i in range(at, min(at + 200, len(damaged))) if 48 <= damaged[i] < 58]
            if digits:
                damaged[digits[0]] = 48 + int(rng.integers(10))
    if rng.random() < 0.8:
        damaged[:8] = max(0, length + len(damaged) - len(content)).to_bytes(8, "little")
    return bytes(damaged)


def load(path, resume=None):
    """Return whether the file holds a model. Otherwise, `load_model` must raise CheckpointError.

    If the file is a training checkpoint, `resume` then resumes its run, which must end or be refused in the same way.
    """
    try:
        model = load_model(path)
        model.get_weights()
        if resume is not None:
            resume(path)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017
        return False
    except DivergenceError:  # of values that are finite but very large
        assert resume is not None
    return True


def campaign(folder, count, seed=0):
    """Load this many mutations. Return the number of models, and the longest time for one file."""
    rng, contents, models, longest = np.random.default_rng(seed), valid_files(folder), 0, 0.0
    path = folder / "mutated"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a different environment is only noted
        for i in range(count):
            content, resume = contents[i % len(contents)]
            path.write_bytes(mutated(content, rng))
            begin = time.perf_counter()
            models += load(path, resume)
            longest = max(longest, time.perf_counter() - begin)
    return models, longest


if __name__ == "__main__":
    import resource

    with tempfile.TemporaryDirectory() as folder:
        wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
        models, longest = campaign(Path(folder), wanted, seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{wanted:,} files: {models:,} were models, and the others were refused; at most {longest:.2f} s and {peak:.0f} MB"
        )
