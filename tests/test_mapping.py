"""Networks created from other networks."""

from tests.containers import gate
from xpnet.layers import (
    LSTM,
    Bidirectional,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    TimeDistributed,
    base,
)
from xpnet.layers.mapping import map_layers


def test_mapped_layers_are_inside_every_container():
    """Checks only settings, so no backend."""
    network = Sequential([gate(), TimeDistributed(Tanh()), Bidirectional(LSTM(2)), Residual(Tanh())])
    mapped = map_layers(network, lambda path, layer: ReLU() if isinstance(layer, Tanh) else layer)

    kinds = [type(layer) for _, layer in base.walk(mapped)]
    assert Tanh not in kinds
    assert kinds.count(ReLU) == 2
    assert mapped.layers[0] is network.layers[0]
