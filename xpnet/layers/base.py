"""The layer protocol: a layer is a frozen set of settings whose forward pass returns its own backward pass."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from xpnet.tree import Array, Tree, leaves

Shape = tuple[int, ...]  # of one sample: the batch axis is left out


class Layer:
    """A function of parameters and input that knows its derivative.

    Subclasses are frozen dataclasses of settings. A layer holds no arrays: parameters come in as a tree, gradients go
    out as the same tree. So it is thread-safe, it can be traced by a compiler, and one layer may appear in many
    networks.

    Some kinds of layer need more, and say so in a class attribute:

    - ``random = True`` (dropout): `forward` takes a keyword `key`, see `xpnet.random`;
    - ``running = True`` (batch normalization): `init` returns its running statistics as a third value, `forward` and the
      call take them as a keyword `statistics`, and `forward` returns the new ones as a third value;
    - ``integer_input = True`` (embedding): x is integers, `check_input` looks at their values, `backward` gives None for dx;
    - ``batch_first = True`` (reshaping): the batch must be the first axis, so no axis of parameter sets can come before it.
    """

    random: ClassVar[bool] = False
    running: ClassVar[bool] = False
    integer_input: ClassVar[bool] = False  # is input used as integers (token numbers) and not made floating point?
    batch_first: ClassVar[bool] = False  # must the batch be the first axis? Else parameter sets may have one before it

    def init(self, rng: np.random.Generator, input_shape: Shape) -> tuple:
        """Draw initial parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
        input_shape : tuple of int
            Of one sample.

        Returns
        -------
        params : tree of host arrays
        output_shape : tuple of int
            Of one sample.
        """
        return {}, input_shape

    def forward(self, params: Tree, x: Array, **extra: Any) -> tuple:
        """The training pass.

        Writes into neither `params` nor `x`.

        Returns
        -------
        y : array
        backward : callable
            ``backward(dy, need_dx=True) -> dx, grads``: from the gradient of the loss by `y`, the gradients by `x`
            (None if not needed) and by the parameters, each a new array, for the optimizer overwrites them. Writes not
            into `dy`.
        """
        raise NotImplementedError

    def check_input(self, x: Array) -> None:
        """Raise ValueError unless the layer takes these values; called once for a data set, when the layer comes first."""

    def __call__(self, params: Tree, x: Array) -> Array:
        """Inference: the output alone, no activation kept."""
        return self.forward(params, x)[0]


def forward(layer: Layer, params: Tree, x: Array, key: Array | None, statistics: Tree) -> tuple:
    """`layer.forward` with just what the layer declares -> output, backward, new statistics."""
    if layer.running:
        _require_statistics(layer, statistics)
        extra: dict[str, Any] = {"key": key} if layer.random else {}
        return layer.forward(params, x, statistics=statistics, **extra)
    y, backward = layer.forward(params, x, key=key) if layer.random else layer.forward(params, x)
    return y, backward, statistics


def infer(layer: Layer, params: Tree, x: Array, statistics: Tree) -> Array:
    """``layer(params, x)``, with the running statistics if the layer has any."""
    if layer.running:
        _require_statistics(layer, statistics)
        return layer(params, x, statistics=statistics)  # type: ignore[call-arg]
    return layer(params, x)


def _require_statistics(layer: Layer, statistics: Tree) -> None:
    if statistics is None:
        raise TypeError(
            f"{type(layer).__name__} keeps running statistics. Pass statistics=..., the third value of init or of the last "
            "forward."
        )


def init(layer: Layer, rng: np.random.Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree]:
    """`layer.init` -> parameters, output shape, statistics (an empty tree if the layer has none)."""
    if getattr(layer, "activation", None) is not None:
        raise ValueError("A layer with activation=... stands for two layers: put it into a Sequential.")
    require_one_output(input_shape)
    result = layer.init(rng, input_shape)
    if not (isinstance(result, tuple) and len(result) in (2, 3) and isinstance(result[1], (tuple, list))):
        raise TypeError(
            f"{type(layer).__name__}: init must return parameters, output_shape and, with running = True, statistics; "
            f"output_shape is a tuple, without the batch. Received: {result!r:.200}"
        )
    params, output_shape, *statistics = result
    if (records := _initialized.get()) is not None:
        records.append((layer, params, input_shape, output_shape))
    return params, output_shape, statistics[0] if statistics else {}


_initialized: ContextVar[list | None] = ContextVar("xpnet_initialized", default=None)


def init_counted(layer: Layer, rng: np.random.Generator, input_shape: Shape) -> tuple[Tree, Shape, Tree, int]:
    """`init`, and about how many multiplications the matrix products of one sample's forward pass take.

    Each weight is counted once for each position of its layer's input or output, whichever has more: times of a sequence, pixels
    of an image. Products of two activations, as in attention, are left out.
    """
    records: list[tuple[Layer, Tree, Shape, Shape]] = []
    token = _initialized.set(records)
    try:
        result = init(layer, rng, input_shape)
    finally:
        _initialized.reset(token)
    counts: dict[int, int] = {}
    for inner, params, before, after in records:  # inner layers come before those that hold them
        weights = [p for p in leaves(params) if np.ndim(p) > 1 and p.size > p.shape[-1] and id(p) not in counts]
        if weights and not inner.integer_input:
            positions = max(math.prod(before[:-1]), math.prod(after[:-1]))
            counts |= {id(p): positions * p.size for p in weights}
    return *result, sum(counts.values())


def require_one_output(*shapes: Shape) -> None:
    """Raise if one of them is the shape of several outputs, as `Parallel` has them."""
    if any(isinstance(n, tuple) for shape in shapes for n in shape):
        raise ValueError(
            "Parallel's outputs go into no layer, loss or prediction: join them by Add or Concatenate, or use the network's "
            f"own forward. Received: outputs of shapes {shapes}"
        )
