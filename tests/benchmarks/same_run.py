"""Checks whether a change keeps NumPy's results, bit for bit.

    python -m tests.benchmarks.same_run > before.json
    python -m tests.benchmarks.same_run --compare before.json

The first command runs at the commit before the change, and the second one after it, on the same machine. Each run trains a
small network for a few epochs from a fixed seed. Its parameters, running statistics, optimizer state, history and predictions
become one hash each. The hashes depend on the machine and on the versions of NumPy and BLAS, so they are not kept in the
repository.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks import cli
from xpnet import SGD, Adam, Model, layers
from xpnet.backend import make_backend
from xpnet.tree import named_leaves

LOSS = "softmax_cross_entropy"


def dense(activation):
    return [layers.Dense(20, activation=activation), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(3)]


RUNS = {
    "dense, SGD with momentum": ((12,), dense("relu"), SGD(0.1, momentum=0.9, l2=1e-3, global_clipnorm=1.0)),
    "dense, Adam": ((12,), dense("tanh"), Adam(0.01, weight_decay=1e-2)),
    "CNN": (
        (8, 8, 2),
        [
            layers.RandomTranslation(1, 1),
            layers.Conv2D(5, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 3, groups=1),
            layers.SpatialDropout2D(0.2),
            layers.Flatten(),
            layers.Dense(3),
        ],
        SGD(0.05, momentum=0.9, nesterov=True),
    ),
    "LSTM": (
        (6, 4),
        [
            layers.LSTM(7, return_sequences=True),
            layers.TimeDistributed(layers.Dense(6, activation="relu")),
            layers.Bidirectional(layers.GRU(5)),
            layers.Dense(3),
        ],
        Adam(0.01),
    ),
    "branches": (
        (12,),
        [
            layers.Dense(8),
            layers.Residual(layers.Sequential([layers.Dense(8, activation="gelu"), layers.Dropout(0.2), layers.Dense(8)])),
            layers.Concatenate([layers.Dense(4), layers.Sequential([layers.BatchNormalization(), layers.ReLU()])]),
            layers.Add([layers.Dense(5), layers.Sequential([layers.LayerNormalization(), layers.Dense(5)])]),
            layers.Dense(3),
        ],
        SGD(0.1, momentum=0.5, moving_average=True),
    ),
    "transformer": (
        (5, 8),
        [layers.PositionEmbedding(5), layers.TransformerBlock(8, 2, 16, 0.1), layers.Flatten(), layers.Dense(3)],
        Adam(0.01),
    ),
}  # fmt: skip


def digest(*arrays) -> str:
    total = hashlib.sha256()
    for x in arrays:
        x = np.ascontiguousarray(x)
        total.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return total.hexdigest()[:16]


def hashes(shape, network, optimizer) -> dict[str, str]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, *shape)).astype(np.float32), rng.integers(0, 3, size=70)
    model = Model(network, LOSS, optimizer, metrics=["accuracy"], seed=3, backend=make_backend("numpy", threads=1))
    history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, validation_split=0.2)
    state = {key: digest(*(leaf for _, leaf in named_leaves(tree))) for key, tree in model.state.items()}
    values = [value for _, value in sorted(history.history.items())]
    return state | {"history": digest(*map(np.array, values)), "predictions": digest(model.predict(x))}


def main(arguments: list[str] | None = None) -> int:
    parser = cli.parser("tests.benchmarks.same_run", __doc__)
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="the hashes of an earlier run; the exit status is 1 if any hash differs",
    )
    before = parser.parse_args(arguments).compare
    found = {name: hashes(*run) for name, run in RUNS.items()}
    if before is None:
        print(json.dumps(found, indent=2))
        return 0
    expected = json.loads(before.read_text(encoding="utf-8"))
    differing = [f"{run}: {part}" for run in found for part in found[run] if found[run][part] != expected[run][part]]
    print(
        "\n".join(["These differ:", *differing]) if differing else f"All {len(found)} runs are the same, bit for bit."
    )
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
