"""Each metric on each backend, against values by hand and scikit-learn's."""

import numpy as np
import pytest

from tests.conftest import no_sync
from xpnet import losses, metrics
from xpnet.backend import device, namespace, to_numpy
from xpnet.metrics import (
    R2,
    Accuracy,
    BinaryAccuracy,
    ElementwiseAccuracy,
    MeanAbsoluteError,
    RootMeanSquaredError,
    TopKAccuracy,
)

CLASS_METRICS = [Accuracy(), TopKAccuracy(2), ElementwiseAccuracy()]
METRICS = [*CLASS_METRICS, BinaryAccuracy(), MeanAbsoluteError(), RootMeanSquaredError(), R2()]

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def draw(metric, rng, batch=6, units=3, networks=()):
    """Host targets and outputs or predictions."""
    z = rng.normal(size=(*networks, batch, units))
    if metric in CLASS_METRICS:
        return rng.integers(0, units, batch), z
    if isinstance(metric, BinaryAccuracy):
        return rng.integers(0, 2, (batch, units)) * 1.0, 1 / (1 + np.exp(-z))
    return rng.normal(size=(batch, units)), z


def compute(xp, metric, y, z, weight=None):
    """The metric as the trainer computes it: the means of the terms, combined."""
    terms = xp.call(metric.terms, xp.asarray(y), xp.asarray(z))
    return metric.combine(*(np.average(to_numpy(term), axis=-1, weights=weight) for term in terms))


@each_metric
@pytest.mark.parametrize("networks", [(), (2,)])
def test_terms_are_one_number_a_sample_in_z_s_type(metric, networks, xp, rng):
    y, z = (xp.asarray(array) for array in draw(metric, rng, networks=networks))

    with no_sync():
        terms = metric.terms(y, z)
        compiled = xp.call(metric.terms, y, z)  # on JAX, which refuses to read values

    assert isinstance(terms, tuple)
    for term, same in zip(terms, compiled, strict=True):
        assert term.shape == (*networks, 6)
        assert term.dtype == xp.dtype
        assert namespace(term) is xp.namespace
        assert device(term) == xp.device
        np.testing.assert_allclose(to_numpy(same), to_numpy(term), rtol=1e-6)


@each_metric
def test_weight_two_equals_the_row_twice(metric, xp, rng):
    y, z = draw(metric, rng, batch=4)

    weighted = compute(xp, metric, y, z, weight=[2, 1, 1, 0])

    assert weighted == pytest.approx(compute(xp, metric, y[[0, 0, 1, 2]], z[[0, 0, 1, 2]]), rel=1e-5)


@each_metric
def test_networks_on_a_leading_axis_equal_one_at_a_time(metric, xp, rng):
    y, z = draw(metric, rng, networks=(3,))

    values = compute(xp, metric, y, z)

    assert values == pytest.approx(np.array([compute(xp, metric, y, one) for one in z]), rel=1e-5)


@pytest.mark.parametrize("metric", CLASS_METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_stand_for_one_hot_rows(metric, dtype, xp, rng):
    y, z = draw(metric, rng)

    assert compute(xp, metric, y.astype(dtype), z) == compute(xp, metric, np.eye(3)[y], z)


def test_accuracy_by_hand(xp):
    y, z = np.array([0, 1, 2, 2]), np.array([[3.0, 2, 1], [3, 2, 1], [1, 2, 3], [3, 2, 1]])

    assert compute(xp, Accuracy(), y, z) == 0.5
    assert compute(xp, TopKAccuracy(1), y, z) == 0.5
    assert compute(xp, TopKAccuracy(2), y, z) == 0.75
    assert compute(xp, TopKAccuracy(5), y, z) == 1
    assert compute(xp, ElementwiseAccuracy(), y, z) == pytest.approx(1 - 2 * 0.5 / 3)


def test_elementwise_accuracy_counts_entries(xp, rng):
    y, z = rng.integers(0, 10, 50), rng.normal(size=(50, 10))

    agreement = np.mean(np.eye(10)[np.argmax(z, axis=1)] == np.eye(10)[y])
    assert compute(xp, ElementwiseAccuracy(), y, z) == pytest.approx(agreement, rel=1e-6)


def test_equal_outputs_are_no_free_top_k(xp):
    y, z = np.array([0, 1, 2]), np.ones((3, 3))

    assert compute(xp, TopKAccuracy(1), y, z) == compute(xp, Accuracy(), y, z) == pytest.approx(1 / 3)
    assert compute(xp, TopKAccuracy(2), y, z) == pytest.approx(2 / 3)
    assert compute(xp, TopKAccuracy(1), np.array([0, 0, 1]), z) == pytest.approx(2 / 3)  # the first of equals counts


def test_top_k_is_that_of_sklearn(xp, rng):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    y, z = rng.integers(0, 10, 40), rng.normal(size=(40, 10))

    expected = sklearn_metrics.top_k_accuracy_score(y, z, k=5, labels=range(10))
    assert compute(xp, TopKAccuracy(), y, z) == pytest.approx(expected)


@pytest.mark.parametrize("units", [1, 3])
def test_regression_metrics_are_those_of_sklearn(units, xp, rng):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    y = rng.normal(size=(30, units)) + [1.0, 2, 3][:units]
    z = y + 0.5 * rng.normal(size=y.shape)

    r2 = sklearn_metrics.r2_score(y, z, multioutput="variance_weighted")
    assert compute(xp, R2(), y, z) == pytest.approx(r2, rel=1e-5)
    assert compute(xp, MeanAbsoluteError(), y, z) == pytest.approx(sklearn_metrics.mean_absolute_error(y, z))
    rmse = sklearn_metrics.root_mean_squared_error(y.ravel(), z.ravel())
    assert compute(xp, RootMeanSquaredError(), y, z) == pytest.approx(rmse)


def test_r2_of_targets_without_spread(xp):
    for value in (1.0, 0.1, 1 / 3, 7.7, 1e3 + 0.1):  # rounding leaves some variance
        y = np.full((512, 1), value)

        assert compute(xp, R2(), y, y) == 1
        assert compute(xp, R2(), y, y + 1) == 0


@pytest.mark.parametrize("mean", [100.0, 1000.0])
def test_r2_of_targets_far_from_zero(mean, xp, rng):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    y = mean + rng.normal(size=(500, 1))
    z = y + 0.3 * rng.normal(size=y.shape)

    assert compute(xp, R2(), y, z) == pytest.approx(sklearn_metrics.r2_score(y, z), abs=1e-8 * mean**2 + 2e-4)


def test_binary_accuracy_takes_a_threshold(xp):
    y, p = np.array([[1.0], [1], [0], [0]]), np.array([[0.9], [0.6], [0.6], [0.1]])

    assert compute(xp, BinaryAccuracy(), y, p) == 0.75
    assert compute(xp, BinaryAccuracy(threshold=0.7), y, p) == 0.75
    assert compute(xp, BinaryAccuracy(threshold=0.95), y, p) == 0.5


def test_metrics_of_gaussian_predictions_take_the_means(xp):
    y, z = np.array([[1.0], [2.0]]), np.array([[1.0, 100.0], [3.0, 100.0]])

    assert compute(xp, MeanAbsoluteError(), y, z) == 0.5


def test_accuracy_of_one_output_is_refused(xp):
    with pytest.raises(ValueError, match="take BinaryAccuracy"):
        compute(xp, Accuracy(), np.ones((2, 1)), np.ones((2, 1)))


def test_top_k_settings_are_checked():
    for k in (0, 1.5):
        with pytest.raises(ValueError, match="Received: k="):
            TopKAccuracy(k)


def test_names_are_the_keys_of_a_history():
    names = ["accuracy", "top_5_accuracy", "elementwise_accuracy", "binary_accuracy", "mae", "rmse", "r2"]

    assert [metrics.get(name, losses.huber).name for name in names] == names
    assert TopKAccuracy(2).name == "top_2_accuracy"


def test_get():
    assert metrics.get("accuracy", losses.softmax_cross_entropy) == Accuracy()
    assert metrics.get(TopKAccuracy(3), losses.softmax_cross_entropy) == TopKAccuracy(3)
    for wrong in ("acc", None, Accuracy):
        with pytest.raises(ValueError, match=r"accuracy, .*Received: "):
            metrics.get(wrong, losses.huber)


def test_accuracy_of_a_binary_loss_is_binary():
    metric = metrics.get("accuracy", losses.binary_cross_entropy)

    assert isinstance(metric, BinaryAccuracy)
    assert metric.name == "accuracy"
