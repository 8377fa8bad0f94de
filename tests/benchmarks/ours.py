"""Training with xpnet's public `fit`, with loss, accuracy and progress bar."""

from __future__ import annotations

from functools import partial

from tests.benchmarks.cases import LEARNING_RATE

BACKENDS = ("numpy", "torch", "jax")


def network(case):
    """Return the case's layers."""
    from xpnet import layers

    if case.kind == "cnn":
        return [
            layers.Conv2D(16, 3), layers.ReLU(), layers.MaxPooling2D(),
            layers.Conv2D(32, 3), layers.ReLU(), layers.MaxPooling2D(),
            layers.Flatten(), layers.Dense(10),
        ]  # fmt: skip
    if case.kind == "lstm":
        return [layers.LSTM(128), layers.Dense(10)]
    hidden = [layer for units in case.widths[1:-1] for layer in (layers.Dense(units), layers.ReLU())]
    return [*hidden, layers.Dense(10)]


def model(case, backend, device=None):
    """Return the case's model."""
    import xpnet
    from xpnet.backend import make_backend

    return xpnet.Model(
        network(case),
        "softmax_cross_entropy",
        xpnet.SGD(LEARNING_RATE),
        metrics=["accuracy"],
        backend=make_backend(backend, device=device),
    )


def fit(case, x, y, epochs, on_epoch, backend="numpy", device=None):
    """Train with `Model.fit`, in the form of the functions in `peers.TRAIN`."""
    import xpnet

    class Stamp(xpnet.Callback):
        def on_epoch_end(self, epoch, logs=None):
            on_epoch(logs["loss"], logs["accuracy"])

    model(case, backend, device).fit(x, y, batch_size=case.batch, epochs=epochs, verbose=1, callbacks=[Stamp()])


TRAIN = {f"xpnet {backend}": partial(fit, backend=backend) for backend in BACKENDS}
