"""The loss at every position of a sequence."""

import numpy as np
import pytest

from tests.gradients import check_gradient
from xpnet import Adam, Model
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import Dense, TimeDistributed
from xpnet.losses import PerPosition, mean_squared_error, softmax_cross_entropy

LOSS = PerPosition(softmax_cross_entropy)


def test_gradient_and_mean_over_positions(xp64, rng):
    y, z, w = rng.integers(0, 4, (3, 5)), rng.normal(size=(3, 5, 4)), np.array([1.0, 0.5, 2.0])
    move = xp64.asarray
    loss, dz = LOSS(move(y), move(z), move(w))
    flat, _ = softmax_cross_entropy(move(y.reshape(-1)), move(z.reshape(-1, 4)), move(np.repeat(w, 5)))

    assert float(to_numpy(loss)) == pytest.approx(float(to_numpy(flat)), rel=1e-12)
    check_gradient(lambda z: float(to_numpy(LOSS(move(y), move(z), move(w))[0])), z, to_numpy(dz))


def test_a_model_learns_and_counts_positions(xp):
    backend = make_backend("numpy") if xp.__class__.__name__ == "ReadOnlyNumpy" else xp
    x = np.random.default_rng(0).normal(size=(60, 7, 3))
    y = np.argmax(x, axis=2)
    model = Model([TimeDistributed(Dense(3))], LOSS, Adam(0.1), metrics=["accuracy"], backend=backend)
    model.fit(x, y, batch_size=20, epochs=30, verbose=0)
    result = model.evaluate(x, y)

    assert result.accuracy > 0.95
    assert model.predict(x).shape == (60, 7)
    assert np.mean(to_numpy(model.predict(x)) == y) == pytest.approx(result.accuracy, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "y", "output_shape", "message"),
    [
        (LOSS, np.zeros((4, 5), int), (4,), r"takes outputs of shape \(T, units\)"),
        (LOSS, np.zeros((4, 6), int), (5, 3), r"targets of shape \(n, 5, ...\). Received: targets of shape \(4, 6\)"),
        (LOSS, np.full((4, 5), 3), (5, 3), "labels in 0 .. 2"),
        (PerPosition(mean_squared_error), np.zeros((4, 5, 2)), (5, 3), r"targets of shape \(n, 3\)"),
    ],
)
def test_targets_are_checked(loss, y, output_shape, message):
    """Checked alike on every backend by the loss inside; here on NumPy."""
    with pytest.raises(ValueError, match=message):
        loss.check(y, output_shape, np.float32)
