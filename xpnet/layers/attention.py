"""Attention, and the Transformer block."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet import initializers
from xpnet.backend import device, namespace
from xpnet.checks import set_booleans, set_counts
from xpnet.functions import softmax
from xpnet.layers.activations import GELU
from xpnet.layers.base import Layer
from xpnet.layers.composition import Residual, TimeDistributed
from xpnet.layers.dense import Dense
from xpnet.layers.dropout import Dropout
from xpnet.layers.normalization import LayerNormalization
from xpnet.layers.sequential import Sequential


@dataclass(frozen=True)
class MultiHeadAttention(Layer):
    """y = [head₁, …, headₕ] Wₒ + bₒ,   head = A v,   A = softmax(q kᵀ / √key_dim),   [q, k, v] = x W + b

    This is self-attention. Each step compares its query q with the keys k of all steps in its sequence, and returns the mean
    of their values v, weighted by A. Each head has its own columns of q, k and v. The backward pass of each head, with
    S = q kᵀ / √key_dim, is::

        dv = Aᵀ dhead,   dA = dhead vᵀ,   dS = A (dA - Σⱼ A dA),   dq = dS k / √key_dim,   dk = dSᵀ q / √key_dim

    where the sum in the softmax's derivative is Σⱼ Aᵢⱼ dAᵢⱼ = Σⱼ Aᵢⱼ (dheadᵢ · vⱼ) = dheadᵢ · headᵢ, which is a shorter sum.

    Attention includes every step, even padding, so all sequences in a batch should have the same length.

    x, y: (batch, time, d). W: (d, 3 h key_dim) and b: (1, 3 h key_dim) hold the columns of q, then of k, then of v. Within
    each, the heads follow one another. Wₒ, the ``"output_weight"``: (h key_dim, d), and bₒ, the ``"output_bias"``: (1, d).

    A. Vaswani et al., "Attention is all you need", NIPS 2017.

    Parameters
    ----------
    num_heads : int
        h, the number of heads.
    key_dim : int, default d / h
        The width of q, k and v in one head.
    use_causal_mask : bool, default False
        If True, a step attends only to itself and to earlier steps: A is 0 above the diagonal.
    weight_initializer : str or initializer, default "glorot_uniform"
        Draws W and Wₒ. Biases start at 0.

    Raises
    ------
    ValueError
        `num_heads` or `key_dim` is not a positive integer. The input is not a sequence, or its width is not a multiple of
        `num_heads` and `key_dim` is missing.
    """

    num_heads: int
    key_dim: int | None = None
    use_causal_mask: bool = False
    weight_initializer: str | initializers.Initializer = "glorot_uniform"

    def __post_init__(self):
        set_counts(self, "num_heads")
        set_booleans(self, "use_causal_mask")
        if self.key_dim is not None:
            set_counts(self, "key_dim")
        initializers.get(self.weight_initializer)

    def output_shape(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(
                "MultiHeadAttention needs sequences: an input of shape (batch, time, d). Put Embedding or Reshape((time, d)) "
                f"before it. Received: samples of shape {input_shape}"
            )
        d = input_shape[1]
        if self.key_dim is None and d % self.num_heads:
            rule = f"Without key_dim, the width d must be a multiple of num_heads={self.num_heads}. Set key_dim"
            raise ValueError(f"{rule}. Received: d={d}")
        return input_shape

    def init(self, rng, input_shape):
        output_shape, d = self.output_shape(input_shape), input_shape[-1]
        width = self.num_heads * (self.key_dim or d // self.num_heads)
        draw = initializers.draw
        return {
            "weight": draw(
                self.weight_initializer, rng, (d, 3 * width), fan_in=d, fan_out=width
            ),  # q, k and v are three layers
            "bias": draw("zeros", rng, (1, 3 * width)),
            "output_weight": draw(self.weight_initializer, rng, (width, d)),
            "output_bias": draw("zeros", rng, (1, d)),
        }, output_shape

    def forward(self, params, x):
        xp = namespace(x)
        W, W_o = params["weight"], params["output_weight"]
        batch, time, d = x.shape
        key_dim = W_o.shape[0] // self.num_heads
        scale = 1 / math.sqrt(key_dim)
        rows = xp.reshape(x, (batch * time, d))

        qkv = rows @ W
        qkv += params["bias"]
        qkv = xp.reshape(qkv, (batch, time, 3, self.num_heads, key_dim))
        q, k, v = xp.unstack(xp.permute_dims(qkv, (2, 0, 3, 1, 4)))  # each (batch, heads, time, key_dim)
        q = q * scale
        S = q @ k.mT
        if self.use_causal_mask:
            S += _causal_mask(S)
        A = softmax(S)
        head = A @ v
        heads = xp.reshape(xp.permute_dims(head, (0, 2, 1, 3)), (batch * time, self.num_heads * key_dim))
        y = heads @ W_o
        y += params["output_bias"]

        def backward(dy, need_dx=True):
            dy = xp.reshape(dy, (batch * time, d))
            dheads = xp.reshape(dy @ W_o.mT, (batch, time, self.num_heads, key_dim))
            dhead = xp.permute_dims(dheads, (0, 2, 1, 3))
            dS = dhead @ v.mT
            dS -= xp.sum(dhead * head, axis=-1, keepdims=True)
            dS *= A
            dqkv = xp.stack([dS @ k * scale, dS.mT @ q, A.mT @ dhead])
            dqkv = xp.reshape(xp.permute_dims(dqkv, (1, 3, 0, 2, 4)), (batch * time, W.shape[1]))
            grads = {
                "weight": rows.mT @ dqkv,
                "bias": xp.sum(dqkv, axis=0, keepdims=True),
                "output_weight": heads.mT @ dy,
                "output_bias": xp.sum(dy, axis=0, keepdims=True),
            }
            return (xp.reshape(dqkv @ W.mT, x.shape) if need_dx else None), grads

        return xp.reshape(y, x.shape), backward


def _causal_mask(S):
    """Return 0 on and below the diagonal and -∞ above, where exp gives exactly 0. Each row keeps at least its diagonal."""
    xp = namespace(S)
    step = xp.arange(S.shape[-1], device=device(S))
    zeros = xp.zeros(S.shape[-2:], dtype=S.dtype, device=device(S))
    return xp.where(step > step[:, None], -math.inf, zeros)


def TransformerBlock(
    units: int, num_heads: int, dim_feedforward: int, dropout: float = 0.0, use_causal_mask: bool = False
) -> Sequential:
    """y = x + attention(norm(x)),   z = y + mlp(norm(y)),   mlp: units -> dim_feedforward -> GELU -> units at each step

    The normalization comes first in each branch ("pre-norm"), so x passes from block to block unchanged, and deep stacks
    train without a warm-up. Put ``LayerNormalization()`` after the last block. R. Xiong et al., "On layer normalization in
    the Transformer architecture", ICML 2020.

    x, y, z: (batch, time, units).

    Parameters
    ----------
    units : int
        The width of the input and the output.
    num_heads : int
        The number of attention heads.
    dim_feedforward : int
        The width inside the mlp, usually 4 · units.
    dropout : float, default 0.0
        The dropout rate at the end of each branch.
    use_causal_mask : bool, default False
        If True, a step attends only to itself and to earlier steps; see `MultiHeadAttention`.

    Raises
    ------
    ValueError
        A setting is out of range, or the input does not have shape (batch, time, units).
    """
    drop = [Dropout(dropout)] if dropout else []
    attend = MultiHeadAttention(num_heads, use_causal_mask=use_causal_mask)
    attention = Sequential([LayerNormalization(), attend, *drop])
    mlp = Sequential([Dense(dim_feedforward), GELU("tanh"), Dense(units)])
    return Sequential([Residual(attention), Residual(Sequential([LayerNormalization(), TimeDistributed(mlp), *drop]))])
