"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet import initializers
from xpnet.backend import namespace
from xpnet.checks import require_no_input_size, set_booleans, set_counts
from xpnet.layers.base import Layer, compute_in_container


@dataclass(frozen=True)
class Dense(Layer):
    """y = x W + b,   dx = dy Wᵀ,   dW = xᵀ dy,   db = Σ_batch dy

    x: (batch, in), y: (batch, units), W: (in, units), b: (1, units). With a leading axis of K parameter sets,
    W: (K, in, units), the layer computes K networks at once: x: (batch, in) or (K, batch, in), y: (K, batch, units).

    Parameters
    ----------
    units : int
        The width of the output.
    activation : str or Layer, optional
        ``Dense(100, activation="relu")`` means the two layers ``Dense(100), ReLU()`` in a `Sequential`.
    use_bias : bool, default True
        If False, b is omitted.
    weight_initializer : str or initializer, default "glorot_uniform"
        Draws W.
    bias_initializer : str or initializer, default "zeros"
        Draws b.

    Raises
    ------
    ValueError
        A setting is invalid, or a sample is not a single row of features.
    """

    units: int
    activation: str | Layer | None = None
    use_bias: bool = True
    weight_initializer: str | initializers.Initializer = "glorot_uniform"
    bias_initializer: str | initializers.Initializer = "zeros"

    def __post_init__(self):
        set_counts(self, "units")
        require_no_input_size("Dense", "activation", self.activation, f"Dense({self.activation})")
        set_booleans(self, "use_bias")
        initializers.get(self.weight_initializer), initializers.get(self.bias_initializer)
        compute_in_container(self)

    def output_shape(self, input_shape):
        if len(input_shape) != 1:
            raise ValueError(
                "Dense needs one row of features for each sample. Put Flatten() before it, or use TimeDistributed(Dense(...)) "
                f"to apply it at every position. Received: samples of shape {input_shape}"
            )
        return (self.units,)

    def init(self, rng, input_shape):
        output_shape = self.output_shape(input_shape)
        params = {"weight": initializers.draw(self.weight_initializer, rng, (*input_shape, self.units))}
        if self.use_bias:
            params["bias"] = initializers.draw(self.bias_initializer, rng, (1, self.units))
        return params, output_shape

    def forward(self, params, x):
        W, b = params["weight"], params.get("bias")
        y = x @ W
        if b is not None:
            y += b  # y is a new array

        def backward(dy, need_dx=True):
            grads = {"weight": x.mT @ dy}
            if b is not None:
                grads["bias"] = namespace(dy).sum(dy, axis=-2, keepdims=True)
            return (dy @ W.mT if need_dx else None), grads

        return y, backward
