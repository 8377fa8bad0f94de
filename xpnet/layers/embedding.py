"""Vectors for tokens, and for positions."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet import initializers
from xpnet.backend import device, namespace
from xpnet.checks import is_integer, require, set_counts
from xpnet.layers.base import Layer
from xpnet.tree import Array


@dataclass(frozen=True)
class Embedding(Layer):
    """y = W[x], the row of W that belongs to each token,   dW[v] = Σ dy over the places where x = v

    y = 0 and no gradient where x = padding_idx.

    x: (batch, ...) of integers in 0 .. input_dim - 1, y: (batch, ..., output_dim), W: (input_dim, output_dim). It is the
    Dense layer of one-hot rows, without the zeros. Integers have no gradient: `backward` gives None for dx, so an
    Embedding comes first in a network.

    Y. Bengio et al., "A neural probabilistic language model", JMLR 3 (2003).

    Parameters
    ----------
    input_dim : int
        Number of different tokens.
    output_dim : int
    weight_initializer : str or initializer, default "random_uniform"
        U(-0.05, 0.05), as in Keras.
    padding_idx : int, optional
        The token that fills short sequences up. A recurrent layer behind it skips those steps with ``mask_value=0.0``.

    Raises
    ------
    ValueError
        `input_dim` or `output_dim` is not a positive integer, `padding_idx` is no token; a model is given tokens that are not
        integers, or out of range. (A layer used on its own does not look: NumPy and PyTorch raise an IndexError, CuPy and
        JAX compute on.)
    """

    needs_leading_batch = True
    integer_input = True

    input_dim: int
    output_dim: int
    weight_initializer: str | initializers.Initializer = "random_uniform"
    padding_idx: int | None = None

    def __post_init__(self):
        set_counts(self, "input_dim", "output_dim")
        initializers.get(self.weight_initializer)
        if self.padding_idx is not None:
            is_token = is_integer(self.padding_idx) and 0 <= self.padding_idx < self.input_dim
            require(is_token, f"padding_idx must be in 0 .. {self.input_dim - 1}", f"padding_idx={self.padding_idx!r}")

    def output_shape(self, input_shape):
        return (*input_shape, self.output_dim)

    def init(self, rng, input_shape):
        weight = initializers.draw(self.weight_initializer, rng, (self.input_dim, self.output_dim))
        return {"weight": weight}, self.output_shape(input_shape)

    def check_input(self, x):
        xp, rule = namespace(x), f"Embedding takes integer tokens in 0 .. {self.input_dim - 1}."
        if not xp.isdtype(x.dtype, "integral"):
            raise ValueError(f"{rule} Convert them by x.astype(int). Received: tokens of dtype {x.dtype}")
        lowest, highest = int(xp.min(x)), int(xp.max(x))
        if lowest < 0 or highest >= self.input_dim:
            raise ValueError(
                f"{rule} Renumber them (np.unique(x, return_inverse=True)) or make input_dim larger. "
                f"Received: tokens from {lowest} to {highest}"
            )

    def forward(self, params, x):
        xp = namespace(params["weight"])
        tokens = xp.astype(xp.reshape(x, (-1,)), xp.int32)
        y = xp.take(params["weight"], tokens, axis=0)
        if self.padding_idx is not None:
            known = xp.astype(tokens != self.padding_idx, y.dtype)[:, None]
            y *= known

        def backward(dy, need_dx=True):
            rows = xp.reshape(dy, (-1, self.output_dim))
            if self.padding_idx is not None:
                rows = rows * known
            few = self.input_dim <= 256 or not tokens.shape[0]
            sum_rows = sum_by_one_hot if few else sum_by_token
            return None, {"weight": sum_rows(tokens, rows, self.input_dim)}

        return xp.reshape(y, (*x.shape, self.output_dim)), backward


@dataclass(frozen=True)
class PositionEmbedding(Layer):
    """yₜ = xₜ + Wₜ,   dx = dy,   dWₜ = Σ_batch dyₜ:   tells attention, which knows no order, where in a sequence a step is

    x, y: (batch, time, d), W: (max_length, d). J. Gehring et al., "Convolutional sequence to sequence learning", ICML 2017.

    Parameters
    ----------
    max_length : int
        The longest sequence; shorter ones take the first rows of W.
    weight_initializer : str or initializer, default "random_uniform"

    Raises
    ------
    ValueError
        `max_length` is not a positive integer; the input is not a sequence, or is longer.
    """

    max_length: int
    weight_initializer: str | initializers.Initializer = "random_uniform"

    def __post_init__(self):
        set_counts(self, "max_length")
        initializers.get(self.weight_initializer)

    def output_shape(self, input_shape):
        if len(input_shape) != 2 or input_shape[0] > self.max_length:
            raise ValueError(
                f"PositionEmbedding takes sequences of shape (batch, time, d), time <= max_length={self.max_length}. Put "
                f"Embedding before it, or raise max_length. Received: samples of shape {input_shape}"
            )
        return input_shape

    def init(self, rng, input_shape):
        output_shape = self.output_shape(input_shape)
        weight = initializers.draw(self.weight_initializer, rng, (self.max_length, input_shape[1]))
        return {"weight": weight}, output_shape

    def forward(self, params, x):
        xp = namespace(x)
        W, time = params["weight"], x.shape[1]

        def backward(dy, need_dx=True):
            dW = xp.concat([xp.sum(dy, axis=0), xp.zeros_like(W[time:, :])])
            return dy, {"weight": dW}

        return x + W[:time, :], backward


def sum_by_one_hot(tokens: Array, rows: Array, count: int) -> Array:
    """y[v] = Σ of the rows whose token is v, as a product with a matrix of 0 and 1: right for few tokens"""
    xp = namespace(rows)
    values = xp.arange(count, dtype=tokens.dtype, device=device(tokens))
    return xp.astype(values[:, None] == tokens, rows.dtype) @ rows


def sum_by_token(tokens: Array, rows: Array, count: int) -> Array:
    """y[v] = Σ of the rows whose token is v,   v = 0 .. count - 1:   the scatter-add that the standard lacks

    Sorted by token, the rows of v are a run. Over the sorted rows stands a binary tree: each node knows, of the rows below
    it, the sum of those that have its first row's token ("head") and of those that have its last row's ("tail"). Below
    the lowest node that holds a whole run, the run is the tail of the left child and the head of the right one: y[v] is
    the sum of the two. Nothing is subtracted, so it is as precise as pairwise summation; the work is proportional to the
    size of rows and y.

    tokens: (n,) of int32, rows: (n, d), y: (count, d).
    """
    xp = namespace(rows)
    n = tokens.shape[0]
    leaves = 1 << (n - 1).bit_length()  # the next power of two; the rows added have the token `count`, never asked for
    order = xp.argsort(tokens)
    tokens = _append(xp.take(tokens, order), leaves - n, count)
    edges = xp.searchsorted(tokens, xp.arange(-1, count, dtype=tokens.dtype, device=device(tokens)), side="right")

    head = tail = xp.take(rows, _append(order, leaves - n, 0), axis=0)
    head_token = tail_token = tokens[:, None]
    heads, tails = [head], [tail]
    while head.shape[0] > 1:
        joined = xp.astype(head_token[::2, :] == head_token[1::2, :], rows.dtype)
        head = head[::2, :] + joined * head[1::2, :]
        joined = xp.astype(tail_token[::2, :] == tail_token[1::2, :], rows.dtype)
        tail = tail[1::2, :] + joined * tail[::2, :]
        head_token, tail_token = head_token[::2, :], tail_token[1::2, :]
        heads.append(head)
        tails.append(tail)

    # As in a heap: node 1 is the root, node i has the children 2i and 2i + 1, position p is the leaf leaves + p. Node 0 is zero.
    first, last = edges[:-1] + leaves, edges[1:] + (leaves - 1)  # of each run; last < first if v does not occur
    height = xp.zeros_like(first)  # at which the ancestors of first and last are siblings
    for bit in range(1, len(heads)):
        height += xp.astype((first ^ last) >> bit > 0, height.dtype)
    left = xp.where(first <= last, first >> height, 0)
    right = xp.where(first < last, last >> height, 0)
    zero = xp.zeros_like(head)
    tails, heads = xp.concat([zero, *reversed(tails)]), xp.concat([zero, *reversed(heads)])
    return xp.take(tails, left, axis=0) + xp.take(heads, right, axis=0)


def _append(x: Array, n: int, value: int) -> Array:
    xp = namespace(x)
    return xp.concat([x, xp.full(n, value, dtype=x.dtype, device=device(x))]) if n else x
