"""Prediction. Each function returns ``predict(x)``, which computes NumPy labels from a NumPy array."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.benchmarks import ours, peers


def xpnet_predict(case, x, y, backend):
    """xpnet's `predict_classes`, with its default batches."""
    import xpnet

    model = ours.model(case, backend)
    model.build(case.input_shape)
    return lambda x: xpnet.to_numpy(model.predict_classes(x))


def torch_predict(case, x, y):
    """PyTorch eager, all rows at once."""
    import torch

    model = peers.torch_network(case).eval()

    def predict(x):
        with torch.inference_mode():
            return model(torch.from_numpy(x)).argmax(1).numpy()

    return predict


def jax_predict(case, x, y):
    """JAX, all rows at once in one jit."""
    import jax

    network, params = peers.jax_network(case)
    labels = jax.jit(lambda params, x: network(params, x).argmax(1))
    params = jax.device_put(params)
    return lambda x: np.asarray(labels(params, x))


def keras_predict(case, x, y):
    """Keras' `predict`, with its default batches of 32."""
    model = peers.keras_model(case)
    return lambda x: model.predict(x, verbose=0).argmax(1)


def sklearn_predict(case, x, y):
    """scikit-learn's `predict`."""
    model = peers.sklearn_mlp(case)
    model.partial_fit(x, y, classes=np.arange(10))
    return model.predict


PREDICTORS = {f"xpnet {backend}": partial(xpnet_predict, backend=backend) for backend in ours.BACKENDS} | {
    "torch eager": torch_predict,
    "JAX scan": jax_predict,
    "Keras on JAX": keras_predict,
    "scikit-learn": sklearn_predict,
}
