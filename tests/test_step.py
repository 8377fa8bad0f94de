"""One training step."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.test_loop import STILL
from tests.test_model import X, Y, fit, make_model, writable
from xpnet import SGD, Model
from xpnet.backend import namespace, to_numpy
from xpnet.layers import Dense, Dropout, Layer
from xpnet.losses import mean_squared_error
from xpnet.step import Scores


def test_train_on_batch_is_one_step(xp):
    model = make_model(xp)
    first = model.train_on_batch(X, Y)
    second = model.train_on_batch(X, Y)

    assert model.step == 2
    assert model.epoch == 0
    assert second.loss < first.loss


def test_dropout_draws_another_mask_at_every_step(xp):
    model = make_model(xp, STILL, [Dropout(0.5), Dense(3)])
    losses = [fit(model, 3, batch_size=120, shuffle=False, record_every=1).iterations["loss"] for _ in range(2)]

    assert len(np.unique(losses)) == 6


@dataclass(frozen=True)
class Limit(Layer):
    """Limits the gradient that passes through it, with a bound on dL/dy."""

    bound: float = 0.05

    def forward(self, params, x):
        xp = namespace(x)
        return x, lambda dy, need_dx=True: (xp.minimum(xp.maximum(dy, -self.bound), self.bound), {})


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, l2=1e-30)], ids=repr)
def test_backward_is_given_the_gradient_of_the_loss(optimizer, xp):
    """This holds for every optimizer: factors that belong to the update are not multiplied into the gradient."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 1))
    layers = [Dense(1, use_bias=False), Limit()]
    model = Model(layers, "mean_squared_error", optimizer, backend=writable(xp)).build((3,))
    start = np.array(to_numpy(model.parameters[0]["weight"]))
    model.fit(x, y, batch_size=10, shuffle=False, verbose=0)

    expected = start - 0.1 * x.T @ np.clip(2 / 10 * (x @ start - y), -0.05, 0.05)
    np.testing.assert_allclose(to_numpy(model.parameters[0]["weight"]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [None, [30.0, 90.0], [0.0, 60.0]], ids=str)
def test_the_loss_of_parts_overflows_only_where_that_of_the_batch_does(xp, weight):
    """Most of the range of float32 is above 1e37, and the sum over 40 rows of 1e37 is infinite."""
    losses = np.array([1e37, 3e37], np.float32)
    records = [{"loss": xp.asarray(loss)} for loss in losses]
    if weight:
        records = [record | {"weight": xp.asarray(np.float32(w))} for record, w in zip(records, weight, strict=True)]
    with xp.scope():
        merged = Scores(mean_squared_error, ()).merge(tuple(records), [30, 90])

    expected = np.average(losses.astype(float), weights=weight or [30, 90])
    np.testing.assert_allclose(to_numpy(merged["loss"]), expected, rtol=1e-6)  # a few roundings of float32
