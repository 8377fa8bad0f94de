"""Recurrent layers: a state that is carried through time, with the same weights at every step.

All accept x: (batch, time, features). They return the last output, (batch, units), or all outputs, (batch, time, units), with
``return_sequences=True``. `Recurrent` contains the loop over time and its backward pass. A layer adds the formula of one step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from xpnet import initializers
from xpnet.backend import device, namespace
from xpnet.backend.fusion import fused
from xpnet.checks import require_choice, require_no_input_size, set_booleans, set_counts, set_numbers
from xpnet.functions import sigmoid
from xpnet.layers import base
from xpnet.layers.base import Container, Layer
from xpnet.layers.mapping import innermost
from xpnet.tree import Array, Tree


@dataclass(frozen=True)
class Recurrent(Layer):
    """uₜ = xₜ W + b,   stateₜ = step(uₜ, stateₜ₋₁),   yₜ = hₜ, the first array of stateₜ,   state₀ = 0

    A single matrix product computes all uₜ. Only hₜ₋₁ R, inside the step, must wait for the previous step. Backpropagation
    through time is the chain rule, applied backward along the loop. With vₜ = hₜ₋₁ R, and duₜ and dvₜ from each step's
    backward::

        dstateₜ₋₁ = (∂stateₜ/∂stateₜ₋₁)ᵀ dstateₜ,   and dyₜ₋₁ is added to its dhₜ₋₁
        dxₜ = duₜ Wᵀ,   dW = Σ xₜᵀ duₜ,   db = Σ duₜ,   dR = Σ hₜ₋₁ᵀ dvₜ   (sums over time and batch: one product each)

    P. Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78 (1990).

    Parameters
    ----------
    units : int
        The width of the state.
    return_sequences : bool, default False
        Return the output of every step instead of the last one.
    truncate : int, optional
        Truncated backpropagation through time. The sequence is divided into segments of `truncate` steps, counted from its
        end, so the first may be shorter. The state passes from segment to segment, but gradients do not, so dxₜ contains only
        the gradient of the outputs in the segment of t. Steps that `mask_value` skips count too, so pad sequences at the
        front if only the last output is used. R. Williams and J. Peng, "An efficient gradient-based algorithm for on-line
        training of recurrent network trajectories", Neural Computation 2 (1990).
    mask_value : float, optional
        If all features of a step equal `mask_value`, the step is skipped: the sample's state does not change. With
        ``return_sequences=True`` the output of this step is `mask_value`, so a recurrent layer after this one, with the same
        `mask_value`, skips it too. For tokens, use ``Embedding(..., padding_idx=0)`` and ``mask_value=0.0``. Layers between
        the two must preserve the value. Tanh, ReLU and dropout preserve 0, but ReLU and dropout may also set all features of
        a real step to 0 if the step has few features. A bias or a normalization does not preserve 0.
    weight_initializer : str or initializer, default "glorot_uniform"
        Draws W.
    recurrent_initializer : str or initializer, default "orthogonal"
        Draws R.
    bias_initializer : str or initializer, default "zeros"
        Draws b.

    Raises
    ------
    ValueError
        A setting is out of range, or the input is not a sequence.

    Notes
    -----
    States and gates are accurate in relative error. Their derivatives, σ (1 - σ) and 1 - tanh², are computed from the states
    and gates, as in PyTorch, so they are accurate only in absolute error, 6e-8 in float32. Accurate derivatives, as in the
    layers `Sigmoid` and `Tanh`, would make a training step of LSTM 6 to 16 % slower.

    JAX compiles every step of the loop, which takes 3 s for a sequence of 28 steps and 20 s for 300.
    """

    # The uₜ of a skipped step, one number for each block of `units` columns. It blocks the input and the gradient
    _shut: ClassVar[tuple[float, ...]]
    _states: ClassVar[int] = 1  # the number of arrays in the state

    units: int
    return_sequences: bool = False
    truncate: int | None = None
    mask_value: float | None = None
    weight_initializer: str | initializers.Initializer = "glorot_uniform"
    recurrent_initializer: str | initializers.Initializer = "orthogonal"
    bias_initializer: str | initializers.Initializer = "zeros"

    def __post_init__(self):
        set_counts(self, "units")
        name, second = type(self).__name__, self.return_sequences
        require_no_input_size(name, "return_sequences", second, f"{name}({second})")
        set_booleans(self, "return_sequences")
        if self.truncate is not None:
            set_counts(self, "truncate")
        if self.mask_value is not None:
            set_numbers(self, "(-inf, inf)", "mask_value")
        for initializer in (self.weight_initializer, self.recurrent_initializer, self.bias_initializer):
            initializers.get(initializer)

    def output_shape(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(
                f"{type(self).__name__} needs sequences: an input of shape (batch, time, features). Put Reshape((time, "
                f"features)) before it, or Embedding for tokens. Received: samples of shape {input_shape}"
            )
        return (input_shape[0], self.units) if self.return_sequences else (self.units,)

    def init(self, rng, input_shape):
        output_shape, (_, features) = self.output_shape(input_shape), input_shape
        width = len(self._shut) * self.units
        params = {
            "weight": initializers.draw(self.weight_initializer, rng, (features, width)),
            "recurrent_weight": initializers.draw(self.recurrent_initializer, rng, (self.units, width)),
            "bias": initializers.draw(self.bias_initializer, rng, (1, width)),
        }
        return params, output_shape

    def _step(self, params: Tree, u: Array, *state: Array) -> tuple:
        """Compute one step. Return the new state, a tuple, and ``backward(*dstate) -> du, dv, gradient of the old state``."""
        raise NotImplementedError

    def _valid(self, x: Array) -> Array | None:
        """Return which steps are not skipped, (batch, time, 1), or None if `mask_value` is not set."""
        return None if self.mask_value is None else namespace(x).any(x != self.mask_value, axis=-1, keepdims=True)

    def _steps(self, params: Tree, x: Array, valid: Array | None) -> Iterator[tuple]:
        """Yield the state after each step, and the step's backward."""
        xp = namespace(x)
        batch, time, features = x.shape
        u = xp.reshape(x, (batch * time, features)) @ params["weight"]
        u += params["bias"]
        u = xp.reshape(u, (batch, time, u.shape[-1]))
        if valid is not None:
            shut = [xp.full((self.units,), value, dtype=u.dtype, device=device(u)) for value in self._shut]
            u = xp.where(valid, u, xp.concat(shut))
        state = self._states * (xp.zeros((batch, self.units), dtype=x.dtype, device=device(x)),)
        for t in range(time):
            new, backward = self._step(params, u[:, t, :], *state)
            if valid is not None:
                new, backward = _skip(valid[:, t, :], state, new, backward)
            state = new
            yield state, backward

    def _outputs(self, hs: list[Array], valid: Array | None) -> Array:
        xp = namespace(hs[0])
        if not self.return_sequences:
            return hs[-1]
        y = xp.stack(hs, axis=1)
        return y if valid is None else xp.where(valid, y, self.mask_value)

    def forward(self, params, x):
        xp, valid = namespace(x), self._valid(x)
        W = params["weight"]
        states, backwards = zip(*self._steps(params, x, valid), strict=True)
        hs = [h for h, *_ in states]

        def backward(dy, need_dx=True):
            batch, time, features = x.shape
            zeros = self._states * (xp.zeros_like(hs[0]),)
            if self.return_sequences and valid is not None:
                dy = xp.where(valid, dy, 0.0)
            dstate = zeros if self.return_sequences else (dy, *zeros[1:])
            du, dv = time * [None], time * [None]
            for t in reversed(range(time)):
                dh, *rest = dstate
                if self.return_sequences:
                    dh = dh + dy[:, t, :]
                du[t], dv[t], dstate = backwards[t](dh, *rest)
                if self.truncate and (time - t) % self.truncate == 0:
                    dstate = zeros

            def rows(steps):
                return xp.reshape(xp.stack(steps, axis=1), (batch * time, steps[0].shape[-1]))

            dU = rows(du)
            dV = dU if dv[0] is du[0] else rows(dv)  # they differ only in GRU
            grads = {
                "weight": xp.reshape(x, (batch * time, features)).mT @ dU,
                "recurrent_weight": rows([*zeros[:1], *hs[:-1]]).mT @ dV,
                "bias": xp.sum(dU, axis=0, keepdims=True),
            }
            if "recurrent_bias" in params:
                grads["recurrent_bias"] = xp.sum(dV, axis=0, keepdims=True)
            return (xp.reshape(dU @ W.mT, x.shape) if need_dx else None), grads

        return self._outputs(hs, valid), backward

    def __call__(self, params, x):
        valid = self._valid(x)
        hs = (h for (h, *_), _ in self._steps(params, x, valid))
        return self._outputs(list(deque(hs, maxlen=None if self.return_sequences else 1)), valid)


def _skip(valid: Array, old: tuple, new: tuple, backward):
    """Keep the old h where a step is skipped. There the gates are closed, so du and dv are 0."""
    where = namespace(valid).where

    def skipping_backward(dh, *others):
        du, dv, (dh_before, *others) = backward(dh, *others)
        return du, dv, (where(valid, dh_before, dh), *others)

    return (where(valid, new[0], old[0]), *new[1:]), skipping_backward


@dataclass(frozen=True)
class SimpleRNN(Recurrent):
    """hₜ = tanh(xₜ W + hₜ₋₁ R + b),   dzₜ = (1 - hₜ²) dhₜ,   dhₜ₋₁ = dzₜ Rᵀ

    W: (features, units), R: (units, units), b: (1, units). J. Elman, "Finding structure in time", Cognitive Science 14
    (1990).

    Parameters
    ----------
    units : int
        Width of the state.
    return_sequences : bool, default False
        Return the output of every step instead of the last one.
    truncate : int, optional
        Number of steps that gradients pass back through: see `xpnet.layers.recurrent.Recurrent`.
    mask_value : float, optional
        Skip steps whose features all equal this value: see `xpnet.layers.recurrent.Recurrent`.
    weight_initializer, recurrent_initializer, bias_initializer : str or initializer
        Default "glorot_uniform", "orthogonal" and "zeros".
    """

    _shut = (1e9,)  # tanh' = 0

    def _step(self, params, u, h_before):
        R = params["recurrent_weight"]

        def value(z, u):
            z += u
            return namespace(z).tanh(z)

        def gradient(dh, h):
            dz = 1.0 - h * h
            dz *= dh
            return dz

        def backward(dh):
            dz = fused(gradient, dh, h)
            return dz, dz, (dz @ R.mT,)

        h = fused(value, h_before @ R, u)
        return (h,), backward


@dataclass(frozen=True)
class LSTM(Recurrent):
    """cₜ = f cₜ₋₁ + i g,   hₜ = o tanh cₜ,   (i, f, o) = σ(z_i, z_f, z_o),   g = tanh z_g,   z = xₜ W + hₜ₋₁ R + b

    The cell c is a memory that the gates write, erase and read. The backward pass, with σ' = σ (1 - σ) and
    tanh' = 1 - tanh², is::

        dc += dh o (1 - tanh² c) = dh (o - h tanh c),   dcₜ₋₁ = dc f,   dhₜ₋₁ = dz Rᵀ
        dz_i = dc g i (1 - i),   dz_f = dc cₜ₋₁ f (1 - f),   dz_g = dc i (1 - g²),   dz_o = dh tanh c o (1 - o)

    The gates are in the order i, f, g, o, as in PyTorch and Keras: W: (features, 4 units), R: (units, 4 units),
    b: (1, 4 units). S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997); the forget gate:
    F. Gers et al., "Learning to forget", Neural Computation 12 (2000).

    Parameters
    ----------
    units : int
        Width of the state.
    return_sequences : bool, default False
        Return the output of every step instead of the last one.
    truncate : int, optional
        Number of steps that gradients pass back through: see `xpnet.layers.recurrent.Recurrent`.
    mask_value : float, optional
        Skip steps whose features all equal this value: see `xpnet.layers.recurrent.Recurrent`.
    weight_initializer, recurrent_initializer, bias_initializer : str or initializer
        Default "glorot_uniform", "orthogonal" and "zeros".
    unit_forget_bias : bool, default True
        Start with 1 as the bias of the forget gate, so that the cell remembers. R. Jozefowicz et al., "An empirical
        exploration of recurrent network architectures", ICML 2015.
    """

    _shut = (-1e9, 1e9, 0.0, -1e9)  # i = 0, f = 1: c stays; o = 0
    _states = 2

    unit_forget_bias: bool = True

    def __post_init__(self):
        super().__post_init__()
        set_booleans(self, "unit_forget_bias")

    def init(self, rng, input_shape):
        params, output_shape = super().init(rng, input_shape)
        if self.unit_forget_bias:
            params["bias"][:, self.units : 2 * self.units] = 1.0
        return params, output_shape

    def _step(self, params, u, h_before, c_before):
        n, R = self.units, params["recurrent_weight"]

        def value(z, u, c_before):
            xp = namespace(z)
            z += u
            i_f, g, o = sigmoid(z[:, : 2 * n]), xp.tanh(z[:, 2 * n : 3 * n]), sigmoid(z[:, 3 * n :])
            i, f = i_f[:, :n], i_f[:, n:]
            written, kept = i * g, f * c_before
            c = kept + written
            tanh_c = xp.tanh(c)
            return o * tanh_c, c, i, f, g, o, written, kept, tanh_c

        def gradient(dh, dc, h, c_before, i, f, g, o, written, kept, tanh_c):
            dc = dc + dh * (o - h * tanh_c)
            dc_before = dc * f  # using it in dz_f keeps XLA from recomputing the chain of all dc at each step
            dz = namespace(dh).concat(
                [dc * (written - written * i), dc_before * (c_before - kept), dc * (i - written * g), dh * (h - h * o)],
                axis=-1,
            )
            return dz, dc_before

        def backward(dh, dc):
            dz, dc_before = fused(gradient, dh, dc, h, c_before, *gates)
            return dz, dz, (dz @ R.mT, dc_before)

        h, c, *gates = fused(value, h_before @ R, u, c_before)
        return (h, c), backward


@dataclass(frozen=True)
class GRU(Recurrent):
    """hₜ = z hₜ₋₁ + (1 - z) n,   (z, r) = σ(u_z + v_z, u_r + v_r),   n = tanh(u_n + r v_n),   u = xₜ W + b,   v = hₜ₋₁ R + b'

    z keeps the old state, and r shows it to the candidate n. The backward pass is::

        du_n = dh (1 - z) (1 - n²),   dv_n = du_n r
        du_z = dv_z = dh (hₜ₋₁ - n) z (1 - z),   du_r = dv_r = du_n v_n r (1 - r)
        dhₜ₋₁ = dh z + dv Rᵀ

    The gates are in the order z, r, n, as in Keras (PyTorch: r, z, n): W: (features, 3 units), R: (units, 3 units), b and b',
    the ``"recurrent_bias"``: (1, 3 units). r is applied after the product with R, as in cuDNN, PyTorch and Keras
    (``reset_after=True``). K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.

    Parameters
    ----------
    units : int
        Width of the state.
    return_sequences : bool, default False
        Return the output of every step instead of the last one.
    truncate : int, optional
        Number of steps that gradients pass back through: see `xpnet.layers.recurrent.Recurrent`.
    mask_value : float, optional
        Skip steps whose features all equal this value: see `xpnet.layers.recurrent.Recurrent`.
    weight_initializer, recurrent_initializer, bias_initializer : str or initializer
        Default "glorot_uniform", "orthogonal" and "zeros".
    """

    _shut = (1e9, 0.0, 0.0)  # z = 1

    def init(self, rng, input_shape):
        params, output_shape = super().init(rng, input_shape)
        params["recurrent_bias"] = initializers.draw(self.bias_initializer, rng, params["bias"].shape)
        return params, output_shape

    def _step(self, params, u, h_before):
        n, R = self.units, params["recurrent_weight"]

        def value(v, b, u, h_before):
            v += b
            z_r = sigmoid(u[:, : 2 * n] + v[:, : 2 * n])
            z, r = z_r[:, :n], z_r[:, n:]
            v_n = v[:, 2 * n :]
            candidate = namespace(u).tanh(u[:, 2 * n :] + r * v_n)
            change = h_before - candidate
            h = z * change
            h += candidate
            return h, z, r, v_n, candidate, change

        def gradient(dh, z, r, v_n, candidate, change):
            xp, kept = namespace(dh), dh * z
            du_n = (dh - kept) * (1.0 - candidate * candidate)
            dv_n = du_n * r
            du_z, du_r = kept * change * (1.0 - z), dv_n * v_n * (1.0 - r)
            return xp.concat([du_z, du_r, du_n], axis=-1), xp.concat([du_z, du_r, dv_n], axis=-1), kept

        def backward(dh):
            du, dv, kept = fused(gradient, dh, *gates)
            return du, dv, (kept + dv @ R.mT,)

        h, *gates = fused(value, h_before @ R, params["recurrent_bias"], u, h_before)
        return (h,), backward


@dataclass(frozen=True)
class Bidirectional(Container):
    """y = [f(x), g(x reversed in time)] or their sum,   dx = f'ᵀ dy_f + (g'ᵀ dy_g reversed in time)

    Each output depends on earlier and later steps. g is a layer like f with separate parameters. With
    ``return_sequences=True`` the outputs of g are reversed again, so that step t of both belongs to xₜ. Otherwise y holds the
    last output of each layer: f ends at the last step of x, and g ends at the first. In the backward pass each layer receives
    its part of dy, or all of dy for a sum. M. Schuster and K. Paliwal, "Bidirectional recurrent neural networks", IEEE Trans.
    Signal Processing 45 (1997).

    x: (batch, time, features), y: (batch, time, units or 2 units) or (batch, units or 2 units).

    Parameters
    ----------
    layer : SimpleRNN, LSTM or GRU
        f.
    merge_mode : {"concat", "sum"}, default "concat"
        Whether to concatenate or to add the outputs of the two layers.
    backward_layer : SimpleRNN, LSTM or GRU, optional
        g. The default is a copy of `layer`.

    Raises
    ------
    ValueError
        A layer is not recurrent, the two differ in `units` or `return_sequences`, or `merge_mode` is not one of these. A sum
        would give masked steps a value other than `mask_value`.
    """

    layer: Layer
    merge_mode: Literal["concat", "sum"] = "concat"
    backward_layer: Layer | None = None

    def __post_init__(self):
        if self.backward_layer is None:
            object.__setattr__(self, "backward_layer", deepcopy(self.layer))
        both: Any = [innermost(layer) for layer in self.children.values()]
        for layer in both:
            if not isinstance(layer, Recurrent):
                raise ValueError(f"layer must be a SimpleRNN, LSTM or GRU. Received: {layer!r}")
        first = both[0]
        require_choice("merge_mode", self.merge_mode, "concat", "sum")
        if any(layer.units != first.units or layer.return_sequences != first.return_sequences for layer in both):
            raise ValueError(f"Both layers must have the same units and return_sequences. Received: {both}")
        if self.merge_mode == "sum" and first.return_sequences and first.mask_value:
            raise ValueError(
                'merge_mode="sum" needs mask_value=0.0, because a sum does not preserve other values. Use "concat". '
                f"Received: mask_value={first.mask_value}"
            )

    @property
    def children(self):
        return {"forwards": self.layer, "backwards": self.backward_layer}

    def with_children(self, children):
        return replace(self, layer=children["forwards"], backward_layer=children["backwards"])

    def output_shape(self, input_shape):
        *time, units = base.output_shape(self.layer, input_shape)
        return (*time, 2 * units if self.merge_mode == "concat" else units)

    def init(self, rng, input_shape):
        output_shape, params, statistics = self.output_shape(input_shape), {}, {}
        for name in ("forwards", "backwards"):
            params[name], _, statistics[name] = base.init(self.children[name], rng, input_shape)
        return params, output_shape, statistics

    def forward(self, params, x, *, key=None, statistics=None):
        xp = namespace(x)
        passes = []
        for name, z in (("forwards", x), ("backwards", xp.flip(x, axis=1))):
            layer_statistics = statistics and statistics[name]
            passes.append(base.forward(self.children[name], params[name], z, key, layer_statistics))
        (y, backward, new), (flipped, flipped_backward, new_flipped) = passes

        def both_backward(dy, need_dx=True):
            n = y.shape[-1]
            d, d_flipped = (dy, dy) if self.merge_mode == "sum" else (dy[..., :n], dy[..., n:])
            dx, grads = backward(d, need_dx)
            dx_flipped, grads_flipped = flipped_backward(_turn(d_flipped), need_dx)
            dx = dx + xp.flip(dx_flipped, axis=1) if need_dx else None
            return dx, {"forwards": grads, "backwards": grads_flipped}

        z = _turn(flipped)
        merged = y + z if self.merge_mode == "sum" else xp.concat([y, z], axis=-1)
        return merged, both_backward, {"forwards": new, "backwards": new_flipped}


def _turn(y):
    """Reverse a sequence of outputs in time; return a single output unchanged."""
    return namespace(y).flip(y, axis=1) if y.ndim == 3 else y
