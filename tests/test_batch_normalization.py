"""Batch normalization in parts of a batch. tests/test_normalization.py has its formulas, and tests/test_groups.py whole steps."""

import numpy as np

from xpnet import SGD, Model, layers
from xpnet.backend import to_numpy
from xpnet.groups import Threads
from xpnet.layers.mapping import in_group
from xpnet.step import Inference, training_step


def test_statistics_of_the_part_alone(xp):
    """With synchronized=False, a part has its own means."""
    own = layers.BatchNormalization(synchronized=False)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    network = [own, layers.Dense(3)]
    model = Model(network, "softmax_cross_entropy", SGD(0.1), seed=0, backend=xp).build((3,))
    data = model.prepare(x, np.arange(8) % 3)
    step = training_step(Inference(model.network, xp.dtype, Threads(2)), model._scores, model.optimizer)
    state, _ = xp.scan_eagerly(step, xp.copy(model.state), {"learning_rate": np.array([0.1])}, data)

    np.testing.assert_allclose(
        to_numpy(state["statistics"][0]["mean"]), 0.01 * x[:4].mean(0, keepdims=True), rtol=1e-4, atol=1e-6
    )
    assert in_group(own, Threads(2).members[0]) is own
