"""All variants of training that are timed on a GPU, in one precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from tests.benchmarks import ours, peers
from tests.benchmarks.cases import CASES, LEARNING_RATE, Case

ROWS = {"W8": 117 * 512, "CNN": 200 * 128, "LSTM": 60 * 128}  # long epochs, so that their ends do not matter


def backend_of(name: str):
    """Return the backend. ``"cupy graphs"`` means CuPy with graphs=True."""
    from xpnet.backend import make_backend

    library, *options = name.split()
    return make_backend(library, **dict.fromkeys(options, True))


def case_of(name: str) -> Case:
    """Return the case, with an epoch long enough for a GPU."""
    return replace(CASES[name], rows=ROWS.get(name, CASES[name].rows))


def train_xpnet(case, x, y, epochs, on_epoch, backend):
    """Train with `Model.fit`, with loss, metric and progress bar."""
    ours.fit(case, x, y, epochs, on_epoch, backend=backend_of(backend))


def train_torch_graph(case, x, y, epochs, on_epoch):
    """Train with PyTorch, with the whole step, from gather to update, captured in one CUDA graph, which the host only launches.

    A counter on the device selects the row of the epoch's order. Loss and accuracy are summed on the device.
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    model = peers.torch_network(case).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    x, y = peers.torch_data(case, x, y, "cuda")
    order = torch.zeros((case.steps, case.batch), dtype=torch.long, device="cuda")
    counter = torch.zeros(1, dtype=torch.long, device="cuda")
    sums = torch.zeros(2, device="cuda")

    def step():
        index = order.index_select(0, counter)[0]
        z = model(x[index])
        loss = F.cross_entropy(z, y[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        sums.add_(torch.stack([loss.detach(), (z.detach().argmax(1) == y[index]).float().mean()]))
        counter.add_(1)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
            counter.zero_()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(epochs):
        order.copy_(torch.randperm(len(x), device="cuda")[: order.numel()].reshape(order.shape))
        counter.zero_(), sums.zero_()
        for _ in range(case.steps):
            graph.replay()
        loss, accuracy = (sums / case.steps).tolist()
        on_epoch(loss, accuracy)


def set_precision(variant: str, tf32: bool) -> str:
    """Set the variant's library to float32 or TF32 before it computes. Return the setting. No other library is loaded."""
    if variant.startswith("xpnet"):
        os.environ["CUPY_TF32"] = "1" if tf32 else "0"  # for CuPy's products and xpnet's
        return f"CUPY_TF32={os.environ['CUPY_TF32']}"
    if variant.startswith("JAX"):
        import jax

        precision = "tensorfloat32" if tf32 else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
        return f"jax_default_matmul_precision={precision}"
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return f"allow_tf32={tf32}, for products and convolutions"


def variants(dry: bool) -> dict[str, Callable]:
    """Return all variants of training by name."""
    if dry:
        return {"xpnet numpy": partial(train_xpnet, backend="numpy"), "torch eager": peers.torch_eager}
    compiled = partial(peers.torch_compile_whole, device="cuda", mode="reduce-overhead")
    return {
        "xpnet cupy": partial(train_xpnet, backend="cupy"),
        "xpnet cupy graphs": partial(train_xpnet, backend="cupy graphs"),
        "PyTorch eager": partial(peers.torch_eager, device="cuda"),
        "PyTorch CUDA graph": train_torch_graph,
        "JAX scan": jax_on_gpu,
        "torch.compile": compiled,
    }


def jax_on_gpu(case, x, y, epochs, on_epoch):
    import jax

    peers.jax_scan(case, x, y, epochs, on_epoch, device=jax.devices("gpu")[0])
