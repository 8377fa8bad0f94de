"""Penalties of single layers, by path."""

import numpy as np
import pytest

from tests.containers import X, model, train
from xpnet import SGD, Model
from xpnet.backend import to_numpy
from xpnet.layers import (
    Dense,
    ReLU,
    Residual,
    Sequential,
)


def moved(xp, layers, optimizer):
    """Return the parameters after a step whose gradients are 0."""
    trained = model(xp, layers, optimizer)
    before = trained.get_weights()
    train(trained, y=to_numpy(trained.predict(X)))
    return before, trained.get_weights()


@pytest.mark.parametrize("setting", ["l2", "weight_decay"])
def test_penalties_by_path(setting, xp):
    layers = [Dense(4), Residual(Sequential([Dense(4), Dense(4)])), Dense(3)]
    before, after = moved(xp, layers, SGD(0.5, **{setting: {"1": 0.5, "1.0.1": 0.25}}))

    shrunk = [1.0, 1.0, 0.75, 1.0, 0.875, 1.0, 1.0, 1.0]
    for a, b, factor in zip(before, after, shrunk, strict=True):
        np.testing.assert_allclose(b, factor * a, rtol=1e-4, atol=1e-5)  # the gradient is rounding noise


def test_the_l1_penalty_by_path(xp):
    before, after = moved(xp, [Dense(4), Dense(3)], SGD(0.5, l1={"1": 0.01}))

    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after[2], before[2] - 0.005 * np.sign(before[2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("l2", "message"),
    [
        ({"00": 0.1}, "The paths of this network's layers are .* Did you mean .0."),
        ({"2": 0.1}, "The layer at 2 is the layer at 0; use that path. Received: '2'"),
        ({"1": 0.1}, "must name a layer with parameters. Received: '1', a ReLU"),
        ({"0": -1.0}, r"l2\['0'\] must be a number in \[0, inf\)"),
    ],
    ids=["unknown", "shared", "without parameters", "negative"],
)
def test_paths_of_penalties_are_checked(l2, message):
    """Checks only settings, so no backend."""
    d = Dense(4)
    with pytest.raises(ValueError, match=message):
        Model([d, ReLU(), d, Dense(3)], "mean_squared_error", SGD(0.1, l2=l2))
