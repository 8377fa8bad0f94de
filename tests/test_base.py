"""The layer protocol: xpnet's containers, custom containers, and layers that have an activation."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.containers import Gate, gate
from tests.layer_checks import check_layer
from xpnet import initializers
from xpnet.backend import to_numpy
from xpnet.layers import (
    LSTM,
    BatchNormalization,
    Bidirectional,
    Container,
    Conv1D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    Layer,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    TimeDistributed,
    base,
)
from xpnet.tree import map_leaves


def test_a_container_of_ones_own_passes_the_gradient_check(xp64, rng):
    check_layer(gate(), xp64, rng.normal(size=(5, 4)))


def test_what_a_container_needs_is_what_its_layers_need():
    """Checks only settings, so no backend."""
    noisy = Gate(Sequential([Dense(3), Dropout(0.5)]), Sequential([BatchNormalization(), Flatten()]))

    assert noisy.needs_key
    assert noisy.has_statistics
    assert noisy.needs_leading_batch
    assert not any((gate().needs_key, gate().has_statistics, gate().needs_leading_batch, gate().integer_input))


def test_inference_of_a_container_is_forward_with_children_at_inference(xp):
    """The container defines no `__call__`. Dropout drops nothing, and batch normalization uses its running statistics."""
    layer = Gate(Sequential([Dense(3), Dropout(0.5)]), Sequential([Dense(3), BatchNormalization()]))
    x = np.ones((4, 2), dtype="float32")
    params, _, statistics = layer.init(np.random.default_rng(0), (2,))
    on_device = [map_leaves(lambda a: xp.asarray(a.astype("float32")), tree) for tree in (params, statistics)]
    parts = [x @ params[name][0]["weight"] for name in ("layer", "gate")]

    y = layer(on_device[0], xp.asarray(x), statistics=on_device[1])
    np.testing.assert_allclose(to_numpy(y), parts[0] * parts[1] / np.sqrt(1.001), rtol=1e-5)
    with pytest.raises(TypeError, match="Gate needs its running statistics"):
        layer(on_device[0], xp.asarray(x))


def test_the_children_of_a_container_are_its_layers_and_tuples_of_layers():
    """Checks only settings, so no backend."""

    @dataclass(frozen=True)
    class Blocks(Container):
        depth: int
        blocks: tuple[Layer, ...]
        head: Layer
        names: tuple[str, ...] = ("a",)

    container = Blocks(2, (Dense(1), Dropout(0.5)), Tanh())

    assert [path for path, _ in base.walk(container)] == ["", "blocks.0", "blocks.1", "head"]
    assert container.needs_key
    assert container.with_children(container.children) == container


def test_the_walk_goes_into_every_container():
    """Checks only settings, so no backend."""
    network = Sequential([gate(), TimeDistributed(Sequential([Tanh()])), Bidirectional(LSTM(2)), Residual(ReLU())])

    assert [(path, type(layer).__name__) for path, layer in base.walk(network)] == [
        ("", "Sequential"), ("0", "Gate"), ("0.gate", "Sequential"), ("0.gate.0", "Dense"), ("0.gate.1", "Sigmoid"),
        ("0.layer", "Dense"), ("1", "TimeDistributed"), ("1", "Sequential"), ("1.0", "Tanh"), ("2", "Bidirectional"),
        ("2.backwards", "LSTM"), ("2.forwards", "LSTM"), ("3", "Add"), ("3.0", "ReLU"), ("3.1", "Identity"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Dense(3, activation="relu"), (2,)),
        (Conv1D(3, 1, activation="relu"), (5, 2)),
        (Conv2DTranspose(3, 1, activation="relu"), (5, 5, 2)),
    ],
    ids=["Dense", "Conv1D", "Conv2DTranspose"],
)
def test_a_layer_with_an_activation_never_computes_without_it(layer, shape, xp, rng):
    """A direct call of its forward raises an error. Inside a container, both layers run."""
    network = Sequential([layer])
    params, _, _ = network.init(rng, shape)
    params, x = map_leaves(xp.asarray, params), xp.asarray(rng.normal(size=(4, *shape)))

    for compute in (layer.forward, layer):
        with pytest.raises(ValueError, match=r"means two layers.*Put it into a Sequential.*Received: a direct call"):
            compute(params[0], x)
    assert np.all(to_numpy(network(params, x)) >= 0)


def test_the_shape_of_a_layer_that_defines_init_alone_draws_nothing():
    """The layer has 10¹² weights. Checks only shapes, so no backend."""

    @dataclass(frozen=True)
    class Wide(Layer):
        def init(self, rng, input_shape):
            return {"weight": initializers.draw("glorot_uniform", rng, (*input_shape, 10**9))}, [10**9]

    assert base.output_shape(Wide(), (1000,)) == (10**9,)
