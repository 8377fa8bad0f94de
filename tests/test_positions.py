"""The loss at every position of a sequence."""

import numpy as np
import pytest

from tests.gradients import check_gradient
from xpnet import Adam, Model
from xpnet.backend import make_backend, to_numpy
from xpnet.layers import Conv2D, Conv2DTranspose, Dense, TimeDistributed
from xpnet.losses import PerPosition, binary_cross_entropy, mean_squared_error, softmax_cross_entropy

LOSS = PerPosition(softmax_cross_entropy)


def test_gradient_and_mean_over_positions(xp64, rng):
    y, z, w = rng.integers(0, 4, (3, 5)), rng.normal(size=(3, 5, 4)), np.array([1.0, 0.5, 2.0])
    move = xp64.asarray
    loss, dz = LOSS(move(y), move(z), move(w))
    flat, _ = softmax_cross_entropy(move(y.reshape(-1)), move(z.reshape(-1, 4)), move(np.repeat(w, 5)))

    assert float(to_numpy(loss)) == pytest.approx(float(to_numpy(flat)), rel=1e-12)
    check_gradient(lambda z: float(to_numpy(LOSS(move(y), move(z), move(w))[0])), z, to_numpy(dz))


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.5])])
def test_positions_may_be_pixels(weight, xp64, rng):
    y, z = rng.integers(0, 4, (2, 3, 5)), rng.normal(size=(2, 3, 5, 4))
    move = lambda x: None if x is None else xp64.asarray(x)  # noqa: E731
    loss, dz = LOSS(move(y), move(z), move(weight))
    flat, dflat = LOSS(move(y.reshape(2, 15)), move(z.reshape(2, 15, 4)), move(weight))

    np.testing.assert_allclose(to_numpy(loss), to_numpy(flat), rtol=1e-12)
    np.testing.assert_allclose(to_numpy(dz).reshape(2, 15, 4), to_numpy(dflat), rtol=1e-12)
    assert LOSS.row_shapes((2, 3, 5), (3, 5, 4)) == ((30,), 4)


def test_an_autoencoder_learns_images(xp):
    backend = make_backend("numpy") if xp.__class__.__name__ == "ReadOnlyNumpy" else xp
    x = np.random.default_rng(0).normal(size=(20, 6, 6, 1))
    layers = [Conv2D(4, 3, 2, "same", activation="relu"), Conv2DTranspose(1, 3, 2, "same")]
    model = Model(layers, PerPosition(mean_squared_error), Adam(0.05), metrics=["mae"], backend=backend)
    history = model.fit(x, x, batch_size=10, epochs=10, verbose=0, validation_data=(x, x), validation_batch_size=7)

    assert history.history["val_loss"][-1] < 0.8 * history.history["loss"][0]
    assert tuple(model.predict(x).shape) == x.shape


def test_a_model_learns_and_counts_positions(xp):
    backend = make_backend("numpy") if xp.__class__.__name__ == "ReadOnlyNumpy" else xp
    x = np.random.default_rng(0).normal(size=(60, 7, 3))
    y = np.argmax(x, axis=2)
    model = Model([TimeDistributed(Dense(3))], LOSS, Adam(0.1), metrics=["accuracy"], backend=backend)
    model.fit(x, y, batch_size=20, epochs=30, verbose=0)
    result = model.evaluate(x, y)

    assert result.accuracy > 0.95
    assert model.predict_classes(x).shape == (60, 7)
    assert np.mean(to_numpy(model.predict_classes(x)) == y) == pytest.approx(result.accuracy, abs=1e-6)


def test_weights_of_positions_leave_padding_out(xp64, rng):
    y, z, w = rng.integers(0, 4, (3, 5)), rng.normal(size=(3, 5, 4)), rng.integers(0, 3, (3, 5)).astype(float)
    move = xp64.asarray
    loss, dz = LOSS(move(y), move(z), move(w))
    flat, _ = softmax_cross_entropy(move(y.reshape(-1)), move(z.reshape(-1, 4)), move(w.reshape(-1)))

    assert float(to_numpy(loss)) == pytest.approx(float(to_numpy(flat)), rel=1e-12)
    check_gradient(lambda z: float(to_numpy(LOSS(move(y), move(z), move(w))[0])), z, to_numpy(dz))


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_are_those_of_positions(one_hot, xp):
    backend = make_backend("numpy") if xp.__class__.__name__ == "ReadOnlyNumpy" else xp
    x = np.random.default_rng(0).normal(size=(12, 4, 5, 2))
    labels, given = np.argmax(x, axis=-1), np.linspace(1, 2, 12)
    y = np.eye(2)[labels] if one_hot else labels

    def trained(**weights):
        model = Model([Conv2D(2, 1)], LOSS, Adam(0.1), metrics=["accuracy"], backend=backend)
        history = model.fit(x, y, batch_size=5, epochs=2, verbose=0, **weights)
        return [*history.history["accuracy"], *history.history["loss"]]

    by_class = trained(class_weight={0: 1.0, 1: 3.0}, sample_weight=given)
    by_position = trained(sample_weight=np.where(labels == 1, 3.0, 1.0) * given[:, None, None])

    np.testing.assert_allclose(by_class, by_position, rtol=1e-6)


def test_accuracy_of_a_binary_loss_is_that_of_units(xp):
    backend = make_backend("numpy") if xp.__class__.__name__ == "ReadOnlyNumpy" else xp
    x = np.random.default_rng(0).normal(size=(20, 4, 2))
    loss = PerPosition(binary_cross_entropy)
    model = Model([TimeDistributed(Dense(1))], loss, Adam(0.1), metrics=["accuracy"], backend=backend)
    model.fit(x, (x[..., 0] > 0).astype(int), epochs=40, verbose=0)

    assert model.history.history["accuracy"][-1] > 0.9


def test_weights_have_the_shape_of_samples_or_positions(xp):
    model = Model([Conv2D(2, 1)], LOSS, backend=xp)
    x, y = np.zeros((3, 4, 5, 2)), np.zeros((3, 4, 5), int)

    with pytest.raises(ValueError, match=r"shape \(3,\) or \(3, 4, 5\), .*Received: shape \(3, 5, 4\)"):
        model.fit(x, y, batch_size=3, sample_weight=np.ones((3, 5, 4)))
    model = Model([Conv2D(2, 1)], PerPosition(mean_squared_error), backend=xp)
    with pytest.raises(ValueError, match=r"one class label for each sample. Received: targets of shape \(3, 4, 5, 2\)"):
        model.fit(x, x, batch_size=3, class_weight={0: 1.0})


@pytest.mark.parametrize(
    ("loss", "y", "output_shape", "message"),
    [
        (LOSS, np.zeros((4, 5), int), (4,), r"needs outputs of shape \(T, units\)"),
        (LOSS, np.zeros((4, 6), int), (5, 3), r"targets of shape \(n, 5, ...\). Received: targets of shape \(4, 6\)"),
        (LOSS, np.zeros((4, 5, 3), int), (5, 4, 3), r"targets of shape \(n, 5, 4, ...\). Received: .*\(4, 5, 3\)"),
        (LOSS, np.full((4, 5), 3), (5, 3), "labels in 0 .. 2"),
        (PerPosition(mean_squared_error), np.zeros((4, 5, 2)), (5, 3), r"targets of shape \(n, 3\)"),
    ],
)
def test_targets_are_checked(loss, y, output_shape, message):
    """Only on NumPy, because the loss inside checks its targets in the same way on every backend."""
    with pytest.raises(ValueError, match=message):
        loss.check(y, output_shape, np.float32)


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", None, type(softmax_cross_entropy), PerPosition(softmax_cross_entropy)]
)
def test_the_loss_inside_is_a_loss(loss):
    """Checks only settings, so no backend."""
    with pytest.raises(ValueError, match="loss must be a loss of one position, such as"):
        PerPosition(loss)


def test_ignored_positions_do_not_count(xp, rng):
    y, z = rng.integers(0, 4, (3, 5)), rng.normal(size=(3, 5, 4))
    keep = rng.uniform(size=(3, 5)) < 0.6
    labels, weight = np.where(keep, y, -100), np.array([1.0, 0.5, 2.0])
    move = xp.asarray

    value, dz = xp.call(LOSS, move(labels), move(z), move(weight))
    checked, positions = LOSS.check(move(labels), (5, 4), xp.dtype, move(weight))

    expected, expected_dz = xp.call(LOSS, move(y), move(z), move(keep * weight[:, None]))
    np.testing.assert_allclose(to_numpy(value), to_numpy(expected), rtol=1e-6)
    np.testing.assert_allclose(to_numpy(dz), to_numpy(expected_dz), rtol=1e-6)
    np.testing.assert_array_equal(to_numpy(positions), keep * weight[:, None])
    np.testing.assert_array_equal(to_numpy(checked)[keep], y[keep])


def test_weights_of_samples_stay_where_no_label_is_ignored(xp):
    weight = xp.asarray(np.array([1.0, 0.0]))

    checked, same = LOSS.check(xp.asarray(np.array([[0, 1], [9, 9]])), (2, 3), xp.dtype, weight)

    assert same is weight
    assert to_numpy(checked).tolist() == [[0, 1], [0, 0]]


def test_training_leaves_ignored_positions_out_of_loss_metrics_and_class_weights(xp, rng):
    backend = make_backend("numpy") if xp.__class__.__name__ == "ReadOnlyNumpy" else xp
    x, y = rng.normal(size=(4, 3, 2)), np.array([[2, 1, -100], [2, -100, -100], [1, 1, 2], [-100, 1, -100]])
    models = [Model([TimeDistributed(Dense(3))], LOSS, metrics=["accuracy"], seed=0, backend=backend) for _ in range(2)]
    settings = {"batch_size": 2, "epochs": 2, "verbose": 0}

    ignoring = models[0].fit(x, y, class_weight={1: 1.0, 2: 3.0}, **settings)
    weight = np.choose(np.maximum(y, 0), [0.0, 1.0, 3.0])
    weighted = models[1].fit(x, np.where(y < 0, 0, y), sample_weight=weight, **settings)

    for name, values in weighted.history.items():
        assert ignoring.history[name] == pytest.approx(values, rel=1e-6)
    assert models[0].evaluate(x, y) == pytest.approx(models[1].evaluate(x, abs(y) % 100, sample_weight=(y >= 0) * 1.0))
