"""Layers that the divergence guard inspects."""

import numpy as np
import pytest

from tests.containers import Gate, X, model, train
from xpnet import DivergenceError
from xpnet.layers import (
    Dense,
    Flatten,
    Sequential,
    Tanh,
    TimeDistributed,
)


@pytest.mark.parametrize(
    ("layers", "place", "leaf"),
    [
        ([Gate(Dense(3), Sequential([Dense(3)])), Dense(3)], ("0", "gate", "0"), "0.gate.0 Dense output"),
        ([TimeDistributed(Sequential([Tanh(), Dense(2)])), Flatten(), Dense(3)], ("0", "1"), "0.1 Dense output"),
    ],
    ids=["own", "TimeDistributed"],
)
def test_the_divergence_guard_sees_through_every_container(xp, layers, place, leaf):
    x = X if isinstance(layers[0], Gate) else np.stack([X, X], axis=1)
    trained = model(xp, layers, shape=x.shape[1:])
    part = trained.parameters
    for key in place:
        part = part[key if isinstance(part, dict) else int(key)]
    part["weight"] = trained.backend.asarray(np.full(part["weight"].shape, 3e38, "float32"))

    with pytest.raises(DivergenceError) as caught:
        train(trained, x=1e3 * x)
    assert caught.value.layer == leaf
