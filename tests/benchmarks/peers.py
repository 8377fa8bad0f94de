"""The same training with other libraries, written as their users would write it for speed.

Every function has the form ``train(case, x, y, epochs, on_epoch)``. It trains with plain SGD on shuffled mini-batches, records
the loss and accuracy of each step without waiting for them, and calls ``on_epoch(loss, accuracy)`` when an epoch is over and its
numbers are on the host. x and y are host arrays, channels last. The functions for PyTorch and JAX also accept a `device`.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from itertools import pairwise

import numpy as np

from tests.benchmarks.cases import LEARNING_RATE

# ---------------------------------------------------------------------- PyTorch


def torch_network(case):
    """Return the case's network as a module. Its images have the channels first."""
    from torch import nn

    if case.kind == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, 10),
        )  # fmt: skip
    if case.kind == "lstm":

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.dense = nn.LSTM(28, 128, batch_first=True), nn.Linear(128, 10)

            def forward(self, x):
                return self.dense(self.lstm(x)[0][:, -1])

        return Network()
    layers = []
    for n, m in pairwise(case.widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
        nn.init.xavier_uniform_(layers[-2].weight), nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


def torch_data(case, x, y, device):
    """Return the data set on the device."""
    import torch

    if case.kind == "cnn":
        x = x.reshape(len(x), 1, 28, 28)  # with one channel, channels last and channels first are the same memory
    return torch.as_tensor(x, device=device), torch.as_tensor(y, device=device)


def torch_epochs(step, rows, batch, epochs, on_epoch, device):
    """Call ``step(row numbers) -> loss, accuracy`` for all batches of all epochs."""
    import torch

    for _ in range(epochs):
        order = torch.randperm(rows, device=device)
        records = [step(index) for index in order.split(batch)]
        loss, accuracy = (torch.stack(values).mean().item() for values in zip(*records, strict=True))
        on_epoch(loss, accuracy)


def torch_eager(case, x, y, epochs, on_epoch, device="cpu", compiled=False):
    """Train with PyTorch in a handwritten loop. If `compiled`, torch.compile compiles forward, loss and their backward."""
    torch_epochs(torch_step(case, x, y, device, compiled), len(x), case.batch, epochs, on_epoch, device)


def torch_step(case, x, y, device="cpu", compiled=False):
    """Return the training step ``step(row numbers) -> loss, accuracy`` of `torch_eager`."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    model = torch_network(case).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    x, y = torch_data(case, x, y, device)

    def forward(x, y):
        z = model(x)
        return F.cross_entropy(z, y), (z.detach().argmax(1) == y).float().mean()

    if compiled:
        forward = torch.compile(forward)

    def step(index):
        rows = (a.index_select(0, index) for a in (x, y))  # x[index] takes 2 to 4 times as long
        loss, accuracy = forward(*rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach(), accuracy

    return step


def torch_compile_whole(case, x, y, epochs, on_epoch, device="cpu", mode=None):
    """Train with PyTorch, with the whole step, from gather to update, compiled into one graph with torch.func."""
    import torch
    from torch.func import functional_call, grad_and_value
    from torch.nn import functional as F

    torch.manual_seed(0)
    model = torch_network(case).to(device)
    params = {name: p.detach() for name, p in model.named_parameters()}
    x, y = torch_data(case, x, y, device)

    def loss_of(params, x, y):
        z = functional_call(model, params, (x,))
        return F.cross_entropy(z, y), (z.detach().argmax(1) == y).float().mean()

    @partial(torch.compile, fullgraph=True, mode=mode)
    def compiled_step(params, x, y, index):
        grads, (loss, accuracy) = grad_and_value(loss_of, has_aux=True)(params, x[index], y[index])
        for name, p in params.items():
            p.sub_(grads[name], alpha=LEARNING_RATE)
        return loss, accuracy

    def step(index):
        loss, accuracy = compiled_step(params, x, y, index)
        return loss.clone(), accuracy.clone()  # the next replay of a CUDA graph overwrites them

    if device != "cpu":  # otherwise a CUDA graph would copy the data in each step, and refuse parameters that change
        for tensor in (*params.values(), x, y):
            torch._dynamo.mark_static_address(tensor, guard=False)
    with torch.no_grad():
        torch_epochs(step, len(x), case.batch, epochs, on_epoch, device)


# ---------------------------------------------------------------------- JAX


def jax_network(case):
    """Return the function ``z = network(params, x)`` and its initial parameters, from Glorot's initializer."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    rng = np.random.default_rng(0)

    def glorot(*shape):
        receptive = math.prod(shape[:-2])
        limit = math.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
        return rng.uniform(-limit, limit, shape).astype(np.float32)

    def layer(*shape):
        return glorot(*shape), np.zeros(shape[-1], np.float32)

    def dense(params, x):
        for W, b in params[:-1]:
            x = jax.nn.relu(x @ W + b)
        W, b = params[-1]
        return x @ W + b

    def cnn(params, x):
        for W, b in params[:-1]:
            x = lax.conv_general_dilated(x, W, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x + b)
            height, width = (n // 2 * 2 for n in x.shape[1:3])
            quarters = [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
            x = reduce(jnp.maximum, quarters)  # lax.reduce_window takes 4 times as long on a CPU
        return dense(params[-1:], jnp.reshape(x, (len(x), -1)))

    def lstm(params, x):
        (W, b), (R, _), last = params
        u = jnp.swapaxes(x @ W + b, 0, 1)  # time first

        def step(carry, u):
            h, c = carry
            i, f, g, o = jnp.split(u + h @ R, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), None

        zeros = jnp.zeros((len(x), 128), x.dtype)
        (h, _), _ = lax.scan(step, (zeros, zeros), u)
        return dense([last], h)

    if case.kind == "cnn":
        return cnn, [layer(3, 3, 1, 16), layer(3, 3, 16, 32), layer(800, 10)]
    if case.kind == "lstm":
        return lstm, [layer(28, 512), layer(128, 512), layer(128, 10)]
    return dense, [layer(n, m) for n, m in pairwise(case.widths)]


def jax_scan(case, x, y, epochs, on_epoch, device=None):
    """Train with JAX by hand. An epoch is one jit around lax.scan, which gathers rows by index."""
    import jax
    from jax import numpy as jnp

    network, params = jax_network(case)
    params, x, y = jax.device_put((params, x, y), device)

    def loss_of(params, x, y):
        z = network(params, x)
        one_hot = jax.nn.one_hot(y, 10)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(z) * one_hot, 1)), jnp.mean(jnp.argmax(z, 1) == y)

    @partial(jax.jit, donate_argnums=0)
    def epoch(params, x, y, order):
        def step(params, index):
            rows = (a.at[index].get(mode="promise_in_bounds") for a in (x, y))
            record, grads = jax.value_and_grad(loss_of, has_aux=True)(params, *rows)
            return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads), record

        return jax.lax.scan(step, params, order)

    rng, used = np.random.default_rng(0), case.steps * case.batch
    for _ in range(epochs):
        order = rng.permutation(len(x))[:used].reshape(case.steps, case.batch)
        params, records = epoch(params, x, y, jax.device_put(order, device))
        loss, accuracy = jax.device_get(records)
        on_epoch(float(loss.mean()), float(accuracy.mean()))


# ---------------------------------------------------------------------- Keras


def keras_model(case):
    """Return the case's network, compiled."""
    import keras
    from keras import layers

    if case.kind == "cnn":
        body = [
            layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
            layers.Flatten(),
        ]  # fmt: skip
    elif case.kind == "lstm":
        body = [layers.LSTM(128)]
    else:
        body = [layers.Dense(units, activation="relu") for units in case.widths[1:-1]]
    model = keras.Sequential([keras.Input(case.input_shape), *body, layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    return model


def keras_fit(case, x, y, epochs, on_epoch):
    """Train with the `fit` of Keras 3 and its progress bar, on the backend in KERAS_BACKEND."""
    import keras

    class Stamp(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            on_epoch(logs["loss"], logs["accuracy"])

    keras.utils.set_random_seed(0)
    keras_model(case).fit(x, y, batch_size=case.batch, epochs=epochs, verbose=1, callbacks=[Stamp()])


# ---------------------------------------------------------------------- scikit-learn


def sklearn_mlp(case, **settings):
    """Return the case's network as an MLPClassifier."""
    from sklearn.neural_network import MLPClassifier

    if case.kind != "dense":
        raise NotImplementedError("scikit-learn has only dense networks")
    return MLPClassifier(
        case.widths[1:-1], solver="sgd", alpha=0.0, batch_size=case.batch, learning_rate_init=LEARNING_RATE, momentum=0.0,
        nesterovs_momentum=False, random_state=0, **settings,
    )  # fmt: skip


def sklearn_fit(case, x, y, epochs, on_epoch):
    """Train with scikit-learn's `fit`, which does not report the accuracy of the training."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    model = sklearn_mlp(case, max_iter=epochs, tol=0.0, n_iter_no_change=epochs + 1)
    count = model._update_no_improvement_count  # called once at the end of each epoch

    def counted(*args, **kwargs):
        on_epoch(float(model.loss_curve_[-1]), None)
        return count(*args, **kwargs)

    model._update_no_improvement_count = counted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)


TRAIN = {
    "torch eager": torch_eager,
    "torch.compile": partial(torch_eager, compiled=True),
    "torch.compile whole": torch_compile_whole,
    "JAX scan": jax_scan,
    "Keras on JAX": keras_fit,
    "scikit-learn": sklearn_fit,
}
