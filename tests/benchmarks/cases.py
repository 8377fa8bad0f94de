"""The cases: networks, data, and the matrix products that every implementation must compute."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

LEARNING_RATE = 0.1  # plain SGD without momentum, for every library


@dataclass(frozen=True)
class Case:
    """A network, a batch size and the number of rows in an epoch.

    Attributes
    ----------
    widths : tuple of int
        The widths of a dense network, from input to output, with ReLU between the layers.
    kind : {"dense", "cnn", "lstm"}
        "cnn" and "lstm" are fixed networks on images of 28 x 28.
    """

    name: str
    title: str
    batch: int
    rows: int = 60_000
    widths: tuple[int, ...] = ()
    kind: Literal["dense", "cnn", "lstm"] = "dense"

    @property
    def steps(self) -> int:
        """The number of steps in an epoch, which has no short batch."""
        return self.rows // self.batch

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, with the channels last."""
        return {"dense": (784,), "cnn": (28, 28, 1), "lstm": (28, 28)}[self.kind]


CASES = {
    case.name: case
    for case in (
        Case("W1", "784-10, batch 100", 100, widths=(784, 10)),
        Case("W2", "784-100-30-10, batch 100", 100, widths=(784, 100, 30, 10)),
        Case("W3", "784-100-10, batch 1,500", 1500, widths=(784, 100, 10)),
        Case("W7", "784-64-64-10, batch 32", 32, widths=(784, 64, 64, 10)),
        Case("W8", "784-2048-2048-10, batch 512", 512, rows=10 * 512, widths=(784, 2048, 2048, 10)),
        Case("CNN", "conv3x3(16)-pool2-conv3x3(32)-pool2-10, batch 128", 128, rows=10 * 128, kind="cnn"),
        Case("LSTM", "LSTM(128) of 28 steps-10, batch 128", 128, rows=20 * 128, kind="lstm"),
        Case("LSTM512", "LSTM(128) of 28 steps-10, batch 512", 512, rows=5 * 512, kind="lstm"),
        Case("tiny", "784-16-10, batch 50", 50, rows=10 * 50, widths=(784, 16, 10)),
    )
}
STANDARD = tuple(name for name in CASES if name != "tiny")  # "tiny" is for the tests of the harness


def write_data(folder: Path, rows: int = 60_000) -> str:
    """Write ``x.npy``, float32 (rows, 784) in 0 .. 1, and ``y.npy``, labels. Return a description of the data.

    Each measurement reads them directly into its training arrays, so that all measurements start with the same unused heap.
    """
    import xpnet

    try:
        (x, y), _ = xpnet.datasets.mnist(download=False)
        x, source = x[:rows].reshape(-1, 784).astype(np.float32) / 255, "MNIST"
    except xpnet.DatasetError:
        rng = np.random.default_rng(0)
        x = rng.random((rows, 784), dtype=np.float32)
        y = (x @ rng.standard_normal((784, 10), np.float32)).argmax(1)
        source = "random numbers in MNIST's shape (for MNIST, set XPNET_DATA to its folder)"
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y[:rows].astype(np.int64))
    return source


def read_data(folder: Path, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return the case's samples and labels, without allocating any other array."""
    with open(folder / "x.npy", "rb") as file:
        np.lib.format.read_magic(file)
        (rows, features), _, dtype = np.lib.format.read_array_header_1_0(file)
        rows = min(rows, case.rows)
        x = np.fromfile(file, dtype, rows * features)
    return x.reshape(rows, *case.input_shape), np.load(folder / "y.npy")[:rows].copy()


@dataclass(frozen=True)
class Products:
    """The matrix products of one layer that `parts` names: y = x W, dW = xᵀ dy and dx = dy Wᵀ."""

    rows: int
    inputs: int
    outputs: int
    parts: tuple[str, ...] = ("y", "dW", "dx")
    times: int = 1


def products(case: Case) -> list[Products]:
    """Return all matrix products of a training step. The first layer needs no dx."""
    b, first = case.batch, ("y", "dW")
    if case.kind == "cnn":  # a row for each window of the image
        return [Products(b * 26 * 26, 9, 16, first), Products(b * 11 * 11, 144, 32), Products(b, 800, 10)]
    if case.kind == "lstm":  # four gates; one product over all time steps gives the gradient of the recurrent weight
        return [
            Products(28 * b, 28, 512, first),
            Products(b, 128, 512, ("y", "dx"), times=27),
            Products(27 * b, 128, 512, ("dW",)),
            Products(b, 128, 10),
        ]
    pairs = pairwise(case.widths)
    return [Products(b, n, m, first if i == 0 else ("y", "dW", "dx")) for i, (n, m) in enumerate(pairs)]


def floor_step(case: Case):
    """Return a function that computes all of `products` with NumPy, in memory that is already allocated."""
    rng, calls = np.random.default_rng(0), []
    for p in products(case):
        x, W, dy = (
            rng.standard_normal(shape, np.float32)
            for shape in ((p.rows, p.inputs), (p.inputs, p.outputs), (p.rows, p.outputs))
        )
        operands = {"y": (x, W), "dW": (x.T, dy), "dx": (dy, W.T)}
        for a, b in (operands[part] for part in p.parts):
            calls += [(a, b, np.empty((a.shape[0], b.shape[1]), np.float32))] * p.times

    def step():
        for a, b, out in calls:
            np.matmul(a, b, out=out)

    return step
