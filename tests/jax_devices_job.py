"""What tests/test_backend_jax_devices.py runs on four devices: ``python -m tests.jax_devices_job FILE``, with XLA_FLAGS."""

import sys

import numpy as np

from tests.distributed_jobs import IMAGES, ROWS_X, TEXTS, WEIGHT, Y
from xpnet import SGD, Adam, Model, layers
from xpnet.backend import make_backend, to_numpy
from xpnet.backend.jax import compiled_functions
from xpnet.step import TrainingStep
from xpnet.tree import leaves

NETWORKS = {
    "dense": ([layers.Dense(20, activation="tanh"), layers.Dense(3)], SGD(0.1, global_clipnorm=0.1), ROWS_X, None),
    "dropout": ([layers.GaussianNoise(0.2), layers.Dense(30, activation="tanh"), layers.Dropout(0.4), layers.Dense(3)],
                Adam(0.01), ROWS_X, None),
    "weights": ([layers.Dense(30), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)],
                SGD(0.05, momentum=0.9), ROWS_X, WEIGHT),
    "CNN": ([layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(),
             layers.SpatialDropout2D(0.2), layers.Flatten(), layers.Dense(3)], SGD(0.05, momentum=0.9), IMAGES, None),
    "micro-batches": ([layers.Conv2D(4, 3, activation="relu"), layers.GroupNormalization(2), layers.Dropout(0.2),
                       layers.Flatten(), layers.Dense(3)], Adam(0.01), IMAGES, None),
    "LSTM": ([layers.LSTM(12), layers.Dense(3)], Adam(0.01), TEXTS, None),
}  # fmt: skip


def train(name, backend):
    """Return the model and its history after two epochs, whose last batch has 3 of 16 rows."""
    network, optimizer, x, weight = NETWORKS[name]
    model = Model(network, "softmax_cross_entropy", optimizer, ["accuracy", "f1"], seed=3, backend=backend)
    validation = {"validation_data": (x, Y), "validation_batch_size": 20}
    micro = {"micro_batch_size": 8} if name == "micro-batches" else {}
    return model, model.fit(x, Y, 16, 2, sample_weight=weight, verbose=0, **validation, **micro)


def code(model):
    """Return the compiled code of two steps with 16 rows."""
    (step,) = [f for f in model.workshop.functions.values() if isinstance(f, TrainingStep)]
    x = IMAGES if len(model.input_shape) == 3 else TEXTS
    keys = {"key": np.zeros((2, 2), np.uint32)} if model.network.needs_key else {}
    batches = {"learning_rate": np.full(2, 0.01, np.float32), "index": np.arange(32).reshape(2, 16) % 16} | keys
    arguments = model.backend.copy(model.state), batches, model.prepare(x[:16], Y[:16])
    return compiled_functions[step][model.backend].lower(*arguments).compile().as_text()


if __name__ == "__main__":
    backend, results = make_backend("jax", devices=4), {}
    for name in NETWORKS:
        model, history = train(name, backend)
        results |= {f"{name}/{i}": to_numpy(array) for i, array in enumerate(leaves(model.state))}
        results |= {f"{name}/{key}": values for key, values in history.history.items()}
        results[f"{name}/predict"] = to_numpy(model.predict(NETWORKS[name][2]))
        if name in ("micro-batches", "LSTM"):
            results[f"{name}/code"] = code(model)
    data = model.prepare(TEXTS[:16], Y[:16])
    results["repr"] = repr(backend)
    inference = compiled_functions[model._keep(model._inference)][backend, "call"]
    results["inference"] = inference.lower(model.state, {"x": data["x"]}).compile().as_text()
    np.savez(sys.argv[1], **results)
