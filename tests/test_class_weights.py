"""The argument `class_weight` of `fit`, which weights samples or positions by class."""

import numpy as np
import pytest

from tests.metric_checks import from_sklearn
from xpnet import Adam, Model, inputs, losses
from xpnet.backend import to_numpy
from xpnet.layers import Dense, TimeDistributed

compute_class_weight = from_sklearn("compute_class_weight", "sklearn.utils.class_weight")
SOFTMAX = losses.softmax_cross_entropy


def weights(xp, y, class_weight, weight=None, loss=SOFTMAX, output_shape=(4,)):
    data = {"x": None, "y": xp.asarray(y)} | ({} if weight is None else {"weight": xp.asarray(weight)})
    return to_numpy(inputs.weigh_classes(xp, loss, output_shape, data, class_weight)["weight"])


def in_proportion(found, expected):
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-6)


def test_balanced_is_that_of_sklearn(xp, rng):
    y = rng.choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])

    in_proportion(weights(xp, y, "balanced"), compute_class_weight("balanced", classes=np.arange(4), y=y)[y])
    in_proportion(weights(xp, np.eye(4)[y], "balanced"), compute_class_weight("balanced", classes=np.arange(4), y=y)[y])


def test_balanced_counts_sample_weights(xp, rng):
    y, weight = rng.choice(3, 60, p=[0.7, 0.2, 0.1]), rng.random(60)
    found = weights(xp, y, "balanced", weight)

    sums = [found[y == label].sum() for label in range(3)]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    in_proportion(found, weight / np.bincount(y, weight)[y])


def test_labels_of_weight_0_are_no_classes(xp):
    y, weight = np.array([0, 1, 1, -100, 3]), np.array([1.0, 1, 1, 0, 0])

    assert weights(xp, y, "balanced", weight) == pytest.approx([1.5, 0.75, 0.75, 0, 0])
    assert weights(xp, y, {0: 0.5, 1: 1.0}, weight) == pytest.approx([0.5, 1, 1, 0, 0])


def test_ignored_labels_are_no_class():
    """The loss has already given them the weight 0. On the host, so only on NumPy."""
    x, y = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 1, -100, 1, 1, 0])
    for class_weight in ("balanced", {0: 1.5, 1: 1.0}):
        ignoring, without = (Model([Dense(2)], "softmax_cross_entropy", Adam(0.1)) for _ in range(2))
        ignoring.fit(x, y, 6, epochs=3, verbose=0, class_weight=class_weight)
        without.fit(x[y >= 0], y[y >= 0], 5, epochs=3, verbose=0, class_weight={0: 1.5, 1: 1.0})
        np.testing.assert_allclose(ignoring.predict(x), without.predict(x), rtol=1e-5)


def test_balanced_positions(xp, rng):
    y = rng.choice(3, (10, 5), p=[0.7, 0.2, 0.1])
    loss, counts = losses.PerPosition(SOFTMAX), np.bincount(y.ravel())

    in_proportion(weights(xp, y, "balanced", loss=loss, output_shape=(5, 3)), (1 / counts)[y])
    sample = rng.random(10)
    expected = sample[:, None] / np.bincount(y.ravel(), np.repeat(sample, 5))[y]
    in_proportion(weights(xp, y, "balanced", sample, loss, (5, 3)), expected)


def test_balanced_labels_of_one_output(xp):
    y = np.array([[1.0], [0.0], [0.0], [0.0]])

    found = weights(xp, y, "balanced", loss=losses.binary_cross_entropy, output_shape=(1,))
    assert found == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])


def test_a_rare_class_is_learned(xp, rng):
    backend = xp if xp.__class__.__name__ != "ReadOnlyNumpy" else "numpy"
    x = np.concatenate([rng.normal(size=(190, 2)), rng.normal(size=(10, 2)) + 1.5])
    y = np.repeat([0, 1], [190, 10])
    recalls = []
    for class_weight in (None, "balanced"):
        model = Model([Dense(2)], "softmax_cross_entropy", Adam(0.1), ["balanced_accuracy"], backend=backend)
        model.fit(x, y, 200, epochs=150, verbose=0, class_weight=class_weight)
        recalls.append(model.evaluate(x, y).balanced_accuracy)

    assert recalls[1] > recalls[0] + 0.1


def test_balanced_classes_of_values_are_refused():
    """Checked before any array is computed, so NumPy is enough."""
    with pytest.raises(ValueError, match=r"class_weight needs a classification loss. Pass sample_weight"):
        Model([Dense(1)], "mean_squared_error").fit(np.ones((3, 2)), np.arange(3.0), class_weight="balanced")


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
def test_each_weight_is_finite_and_not_negative(wrong):
    """Checked before any array is computed, so NumPy is enough. Class 2 is not in the first batch."""
    batches = [(np.ones((2, 3)), np.array([0, 1]))] * 2
    model = Model([Dense(3)], SOFTMAX)
    for data in ((np.ones((2, 3)), [0, 1]), (batches,)):
        with pytest.raises(ValueError, match=r"class_weight: weights must be finite and at least 0. Received: weights"):
            model.fit(*data, verbose=0, class_weight={0: 1.0, 1: 1.0, 2: wrong})
    assert model.step == 0


def test_other_class_weights_are_refused():
    """Checks only settings, so only on NumPy."""
    x, y = np.ones((6, 2, 2)), np.array([[0, 1]] * 6)
    model = Model([TimeDistributed(Dense(2))], losses.PerPosition(SOFTMAX))
    for wrong in ("auto", [1.0, 2.0]):
        with pytest.raises(
            ValueError, match=r'class_weight must be a dict of label -> weight, or "balanced". Received: '
        ):
            model.fit(x, y, verbose=0, class_weight=wrong)
