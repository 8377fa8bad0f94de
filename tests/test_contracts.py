"""The layer protocol in custom layers."""

from dataclasses import dataclass

import numpy as np
import pytest

from xpnet import Model, loop
from xpnet.backend import namespace
from xpnet.layers import (
    LSTM,
    Add,
    Bidirectional,
    Dense,
    Dropout,
    Identity,
    Parallel,
    ReLU,
    Residual,
)
from xpnet.layers.base import Layer
from xpnet.random import normal
from xpnet.step import training_step

from .test_model import writable


def build(xp, layers, shape=(2,)):
    return Model(layers, "mean_squared_error", backend=writable(xp)).build(shape)


def test_layers_without_parameters_may_stand_in_a_network_often(xp):
    relu, drop = ReLU(), Dropout(0.5)
    build(xp, [Dense(2), relu, drop, Dense(2), relu, drop, Add([relu, relu, Identity()])])


def test_one_layer_may_appear_in_several_networks(xp):
    layer = Dense(2, activation="relu")

    assert build(xp, [layer]).network.layers[0] is build(xp, [layer]).network.layers[0]


def test_both_directions_of_a_bidirectional_layer_are_one_setting(xp):
    build(xp, [Bidirectional(LSTM(2))], (3, 2))


# ---------------------------------------------------------------------- custom layers


@dataclass(frozen=True)
class Scale(Layer):
    """y = x w, with one mistake."""

    wrong: str = ""

    def init(self, rng, input_shape):
        params = {"w": np.ones((1, *input_shape))}
        if self.wrong == "init":
            return params
        if self.wrong == "number":
            return {"w": 1.0}, input_shape
        return params, (5,) if self.wrong == "output shape" else input_shape

    def forward(self, params, x):
        w = params["w"]
        y = x * w
        if self.wrong == "forward":
            return y

        def backward(dy, need_dx=True):
            dw = x * dy if self.wrong == "gradient" else (x[:1, ...] * dy[:1, ...])
            grads = {"weight" if self.wrong == "name" else "w": dw}
            dx = dy[:1, ...] * w if self.wrong == "dx" else dy * w
            return grads if self.wrong == "backward" else (dx, grads)

        return y, backward


def train(xp, layers, units=3):
    """Take one step on four samples."""
    model = Model(layers, "mean_squared_error", backend=writable(xp))
    model.fit(np.ones((4, 2)), np.ones((4, units)), verbose=0)
    return model


def test_a_layer_of_ones_own_that_keeps_the_protocol_trains(xp):
    train(xp, [Dense(3), Residual(Scale())])


def test_a_layer_of_ones_own_is_called_on_real_samples_alone(xp):
    shapes = []

    @dataclass(frozen=True)
    class Spy(Layer):
        def forward(self, params, x):
            shapes.append(tuple(x.shape))
            return x * 1.0, lambda dy, need_dx=True: (dy, {})

    train(xp, [Dense(3), Spy()])

    assert set(shapes) == {(4, 3)}


def test_later_steps_pay_nothing_for_the_check(xp, monkeypatch):
    steps = []
    monkeypatch.setattr(loop, "training_step", lambda *parts: steps.append(parts) or training_step(*parts))

    model = train(xp, [Dense(3), Scale()])

    networks = [inference.network for inference, *_ in steps]
    assert networks[0] is model.checked
    assert (networks[-1] is model.network) == (not xp.compiles)


def test_a_network_of_xpnets_layers_is_not_wrapped(xp):
    model = build(xp, [Dense(3), Residual(ReLU())])

    assert model.checked is model.network


def test_several_networks_at_once_are_checked_too(xp):
    model = Model([Dense(3), ReLU(), Twice()], "mean_squared_error", seed=[0, 1], backend=writable(xp))

    model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)

    assert tuple(model.predict_logits(np.ones((4, 2))).shape) == (2, 4, 3)


@dataclass(frozen=True)
class Twice(Layer):
    def forward(self, params, x):
        return 2.0 * x, lambda dy, need_dx=True: (2.0 * dy, {})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("number", TypeError, r"Scale: init must return .* tree of NumPy arrays.*Received: \({'w': 1.0}"),
        ("init", TypeError, "Scale: init must return parameters .*, output_shape.*Received: {'w'"),
        ("output shape", ValueError, r"Scale: forward must return an output of shape \(5,\).*Received: .* of shape \(4, 3\)"),
        ("forward", TypeError, "Layer 1, Scale: forward must return y, backward. Received: "),
        ("backward", TypeError, "Layer 1, Scale: backward must return dx, grads. Received: dict"),
        ("gradient", ValueError, r"Scale: the gradient 'w' must have shape \(1, 3\), as init says. Received: \(4, 3\)"),
        ("name", ValueError, r"Scale: gradients must have the names \['w'\]. Received: \['weight'\]"),
        ("dx", ValueError, r"Scale: dx must have the shape of x, \(4, 3\). Received: .* of shape \(1, 3\)"),
    ],
)  # fmt: skip
def test_the_error_names_the_layer_that_breaks_the_protocol(xp, wrong, error, message):
    with pytest.raises(error, match=message):
        train(xp, [Dense(3), Scale(wrong)], units=5 if wrong == "output shape" else 3)


def test_a_layer_inside_a_container_is_found(xp):
    with pytest.raises(ValueError, match=r"Layer 1\.0, Scale: dx must have the shape of x"):
        train(xp, [Dense(3), Residual(Scale("dx"))])


def test_an_initializer_of_ones_own_must_return_the_shape_that_it_is_given(xp):
    def column(rng, shape, fan_in=None, fan_out=None):
        return np.ones((shape[0], 1))

    with pytest.raises(ValueError, match=r"column.* must return an array of shape \(2, 3\). Received: \(2, 1\)"):
        build(xp, [Dense(3, weight_initializer=column)])


def test_several_outputs_are_refused_by_the_model(xp):
    with pytest.raises(ValueError, match="Join them with Add or Concatenate"):
        build(xp, [Parallel([Dense(1), Dense(1)])])


@pytest.mark.parametrize("what", ["output", "dx", "gradient 'scale'"])
def test_a_result_of_another_float_type_is_named(what, xp):
    other = "float16" if xp.name == "jax" else "float64"  # JAX has no float64 by default

    @dataclass(frozen=True)
    class Widens(Layer):
        def init(self, rng, input_shape):
            return {"scale": np.ones(1)}, input_shape

        def forward(self, params, x):
            space = namespace(x)
            wide = getattr(space, other)

            def widened(part, array):
                return space.astype(array, wide) if part == what else array

            def backward(dy, need_dx=True):
                scale = space.sum(dy * x, axis=None)[None]
                return widened("dx", dy * params["scale"]), {"scale": widened("gradient 'scale'", scale)}

            return widened("output", x * params["scale"]), backward

    with pytest.raises(ValueError, match=f"Layer 1, Widens: (the )?{what} must have dtype .*{other}"):
        train(xp, [Dense(3), Widens(), Dense(3)])


@dataclass(frozen=True)
class Center(Layer):
    """y = x - running mean, with one mistake."""

    wrong: str = ""

    has_statistics = True

    def init(self, rng, input_shape):
        return {}, input_shape, {"mean": np.zeros((1, *input_shape))}

    def forward(self, params, x, *, statistics):
        mean = namespace(x).mean(x, axis=0, keepdims=self.wrong != "shape")
        return (
            x - statistics["mean"],
            lambda dy, need_dx=True: (dy, {}),
            {"means" if self.wrong == "name" else "mean": mean},
        )

    def __call__(self, params, x, *, statistics):
        return x - statistics["mean"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("shape", r"Layer 1, Center: the statistic 'mean' must have shape \(1, 3\), as init says. Received: \(3,\)"),
        ("name", r"Layer 1, Center: statistics must have the names \['mean'\]. Received: \['means'\]"),
    ],
)
def test_new_statistics_must_match_the_old_ones(xp, wrong, message):
    train(xp, [Dense(3), Center()])
    with pytest.raises(ValueError, match=message):
        train(xp, [Dense(3), Center(wrong)])


def test_a_layer_that_draws_must_define_its_inference(xp):
    @dataclass(frozen=True)
    class Noise(Layer):
        needs_key = True

        def forward(self, params, x, *, key):
            return x + normal(key, x), lambda dy, need_dx=True: (dy, {})

    with pytest.raises(TypeError, match=r"Layer 1, Noise: .* must define its inference, __call__"):
        build(xp, [Dense(3), Noise()])
