"""Embeddings of tokens and of positions."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet import initializers
from xpnet.backend import device, namespace
from xpnet.checks import is_integer, require, set_counts
from xpnet.layers.base import Layer
from xpnet.tree import Array


@dataclass(frozen=True)
class Embedding(Layer):
    """y = W[x], a row of W for each token,   dW[v] = Σ dy over the places where x = v

    Where x = padding_idx, y is 0 and W gets no gradient.

    x: (batch, ...) of integers in 0 .. input_dim - 1, y: (batch, ..., output_dim), W: (input_dim, output_dim). The layer
    computes the same as a Dense layer on one-hot rows, without the multiplications by zero. Integers have no gradient, so
    `backward` returns None for dx, and an Embedding must come first in a network.

    Y. Bengio et al., "A neural probabilistic language model", JMLR 3 (2003).

    Parameters
    ----------
    input_dim : int
        The number of different tokens.
    output_dim : int
        The width of the vectors.
    weight_initializer : str or initializer, default "random_uniform"
        Draws W. The default is U(-0.05, 0.05), as in Keras.
    padding_idx : int, optional
        The token that pads short sequences. With ``mask_value=0.0``, a recurrent layer after this one skips these steps.

    Raises
    ------
    ValueError
        `input_dim` or `output_dim` is not a positive integer, or `padding_idx` is not a token. A model also raises it for
        tokens that are not integers or are out of range. The layer by itself does not check tokens: NumPy and PyTorch raise
        an IndexError, while CuPy and JAX return values without an error.
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
        xp, rule = namespace(x), f"Embedding needs integer tokens in 0 .. {self.input_dim - 1}."
        if not xp.isdtype(x.dtype, "integral"):
            raise ValueError(f"{rule} Convert them with x.astype(int). Received: tokens of dtype {x.dtype}")
        lowest, highest = int(xp.min(x)), int(xp.max(x))
        if lowest < 0 or highest >= self.input_dim:
            raise ValueError(
                f"{rule} Renumber them (np.unique(x, return_inverse=True)) or increase input_dim. "
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
    """yₜ = xₜ + Wₜ,   dx = dy,   dWₜ = Σ_batch dyₜ

    Attention ignores the order of steps. This layer tells it the position of each step in the sequence.

    x, y: (batch, time, d), W: (max_length, d). J. Gehring et al., "Convolutional sequence to sequence learning", ICML 2017.

    Parameters
    ----------
    max_length : int
        The length of the longest sequence. Shorter sequences use the first rows of W.
    weight_initializer : str or initializer, default "random_uniform"
        Draws W.

    Raises
    ------
    ValueError
        `max_length` is not a positive integer, or the input is not a sequence of at most `max_length` steps.
    """

    max_length: int
    weight_initializer: str | initializers.Initializer = "random_uniform"

    def __post_init__(self):
        set_counts(self, "max_length")
        initializers.get(self.weight_initializer)

    def output_shape(self, input_shape):
        if len(input_shape) != 2 or input_shape[0] > self.max_length:
            raise ValueError(
                f"PositionEmbedding needs sequences of shape (batch, time, d) with time <= max_length={self.max_length}. Put "
                f"Embedding before it, or increase max_length. Received: samples of shape {input_shape}"
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
    """y[v] = Σ of the rows whose token is v, as a product with a matrix of 0 and 1; fast for a small `count`"""
    xp = namespace(rows)
    values = xp.arange(count, dtype=tokens.dtype, device=device(tokens))
    return xp.astype(values[:, None] == tokens, rows.dtype) @ rows


def sum_by_token(tokens: Array, rows: Array, count: int) -> Array:
    """y[v] = Σ of the rows whose token is v,   v = 0 .. count - 1:   a scatter-add, which the Array API standard lacks

    After sorting by token, the rows of v form a run. The sorted rows are the leaves of a binary tree. Each node stores two
    sums over the rows below it. Its "head" is the sum of the rows that have the same token as its first row. Its "tail" is
    the sum of the rows that have the same token as its last row. Consider the lowest node that contains a whole run. The run
    is the tail of its left child and the head of its right child, so y[v] is the sum of these two. The result is as precise
    as pairwise summation, because nothing is subtracted, and the work is proportional to the size of rows and y.

    tokens: (n,) of int32, rows: (n, d), y: (count, d).
    """
    xp = namespace(rows)
    n = tokens.shape[0]
    leaves = 1 << (n - 1).bit_length()  # the next power of two; the added rows have the token `count`, which y omits
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

    # Nodes are numbered as in a heap: node 1 is the root, node i has the children 2i and 2i + 1, and position p is the leaf
    # leaves + p. Node 0 holds zeros.
    first, last = edges[:-1] + leaves, edges[1:] + (leaves - 1)  # the ends of each run; last < first if v is absent
    height = xp.zeros_like(first)  # the height at which the ancestors of first and last are siblings
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
