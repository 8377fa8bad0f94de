"""Each metric on each backend, compared with values computed by hand and by scikit-learn."""

import numpy as np
import pytest

from tests.conftest import no_sync
from tests.metric_checks import compute, from_sklearn
from xpnet import losses, metrics
from xpnet.averages import Averages
from xpnet.backend import device, namespace, to_numpy
from xpnet.metrics import (
    AUC,
    Accuracy,
    BalancedAccuracy,
    BinaryAccuracy,
    ConfusionMatrix,
    CosineSimilarity,
    ElementwiseAccuracy,
    ExplainedVariance,
    F1Score,
    LogLoss,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanPinballLoss,
    MeanSquaredError,
    Precision,
    R2Score,
    Recall,
    RootMeanSquaredError,
    TopKAccuracy,
)

explained_variance_score = from_sklearn("explained_variance_score")
mean_absolute_error = from_sklearn("mean_absolute_error")
r2_score = from_sklearn("r2_score")
root_mean_squared_error = from_sklearn("root_mean_squared_error")
top_k_accuracy_score = from_sklearn("top_k_accuracy_score")

CLASS_METRICS = [Accuracy(), TopKAccuracy(2), ElementwiseAccuracy(), Precision(), Recall("weighted"), F1Score(None),
                 BalancedAccuracy(), ConfusionMatrix(), ConfusionMatrix("pred"), LogLoss(), AUC(), AUC("PR", None)]  # fmt: skip
LABEL_METRICS = [BinaryAccuracy(), LogLoss(multi_label=True), Precision(multi_label=True), F1Score("micro", multi_label=True),
                 AUC("PR", "weighted", multi_label=True)]  # fmt: skip
NUMBER_METRICS = [MeanAbsoluteError(), MeanSquaredError(), RootMeanSquaredError(), RootMeanSquaredError("raw_values"), R2Score(),
                  R2Score("raw_values"), ExplainedVariance(), MeanAbsolutePercentageError(), MeanPinballLoss(0.2),
                  CosineSimilarity()]  # fmt: skip
METRICS = [*CLASS_METRICS, *LABEL_METRICS, *NUMBER_METRICS]

each_metric = pytest.mark.parametrize("metric", METRICS, ids=repr)


def draw(metric, rng, batch=6, units=3, networks=()):
    """Draw host targets, and outputs or predictions."""
    z = rng.normal(size=(*networks, batch, units))
    if metric in CLASS_METRICS:
        p = np.exp(z)
        return rng.integers(0, units, batch), p / p.sum(axis=-1, keepdims=True) if metric.on_predictions else z
    if metric in LABEL_METRICS:
        return rng.integers(0, 2, (batch, units)) * 1.0, 1 / (1 + np.exp(-z))
    return rng.normal(size=(batch, units)), z


def nested(values):
    """Return an approximation of values of any shape, to float32's rounding."""
    return pytest.approx(np.asarray(values), rel=1e-5, abs=1e-6, nan_ok=True)


@each_metric
@pytest.mark.parametrize("networks", [(), (2,)])
def test_terms_have_the_samples_last_in_z_s_type(metric, networks, xp, rng):
    y, z = (xp.asarray(array) for array in draw(metric, rng, networks=networks))

    with no_sync():
        terms = metric.terms(y, z)
        compiled = xp.call(metric.terms, y, z)  # on JAX, which refuses to read values

    assert isinstance(terms, tuple)
    for term, same in zip(terms, compiled, strict=True):
        assert term.shape[: len(networks)] == networks
        assert term.shape[-1] == 6
        assert term.dtype == xp.dtype
        assert namespace(term) is xp.namespace
        assert device(term) == xp.device
        np.testing.assert_allclose(to_numpy(same), to_numpy(term), rtol=1e-6)


@each_metric
def test_weight_two_equals_the_row_twice(metric, xp, rng):
    y, z = draw(metric, rng, batch=4)

    weighted = compute(xp, metric, y, z, weight=[2, 1, 1, 0])

    assert weighted == nested(compute(xp, metric, y[[0, 0, 1, 2]], z[[0, 0, 1, 2]]))


@each_metric
def test_neither_batch_size_nor_order_counts(metric, xp, rng):
    y, z = draw(metric, rng, batch=30)
    order, weight = rng.permutation(30), rng.random(30)
    whole, weighted = compute(xp, metric, y, z), compute(xp, metric, y, z, weight)

    for size in (1, 7):
        assert compute(xp, metric, y, z, batch_size=size) == nested(whole)
        assert compute(xp, metric, y[order], z[order], batch_size=size) == nested(whole)
        assert compute(xp, metric, y, z, weight, size) == nested(weighted)


@each_metric
def test_rows_of_weight_0_may_hold_anything(metric, xp, rng):
    y, z = draw(metric, rng, batch=12)
    weight = np.r_[0.0, rng.random(10), 0.0]
    right = compute(xp, metric, y[1:-1], z[1:-1], weight[1:-1])

    for fill, size in ((np.nan, 4), (np.inf, 12), (-np.inf, 4), (1e37, 4), (np.nan, 1)):
        z[[0, -1]] = fill
        y[[0, -1]] = -100 if y.ndim == 1 else fill
        assert compute(xp, metric, y, z, weight, size) == nested(right)


@each_metric
def test_of_weights_that_are_all_0_the_state_is_0(metric, xp, rng):
    y, z = draw(metric, rng)
    zeros = xp.asarray(np.zeros(6))

    for term in metric.state(xp.asarray(y), xp.asarray(np.full_like(z, np.nan)), zeros):
        assert not np.any(to_numpy(term))


@each_metric
def test_parts_merge_in_any_grouping(metric, xp64, rng):
    y, z = draw(metric, rng, batch=9)
    weight = xp64.asarray(rng.random(9))
    terms = metric.terms(xp64.asarray(y), xp64.asarray(z))
    whole = metric.merge(terms, weight)
    pieces = [slice(0, 2), slice(2, 7), slice(7, 9)]
    states = [metric.merge(tuple(t[..., piece] for t in terms), weight[piece]) for piece in pieces]
    totals = [xp64.namespace.sum(weight[piece]) for piece in pieces]
    left = join(metric, join(metric, (states[0], totals[0]), (states[1], totals[1])), (states[2], totals[2]))
    right = join(metric, (states[0], totals[0]), join(metric, (states[1], totals[1]), (states[2], totals[2])))

    expected = np.asarray(metric.result(*map(to_numpy, whole)))
    for merged, total in (left, right):
        np.testing.assert_allclose(to_numpy(total), to_numpy(weight).sum(), rtol=1e-12)
        np.testing.assert_allclose(metric.result(*map(to_numpy, merged)), expected, rtol=1e-12)


def join(metric, *parts):
    """Merge two pairs (state, weight) into one."""
    xp = namespace(parts[0][1])
    weight = xp.stack([weight for _, weight in parts])
    terms = tuple(xp.stack(both, axis=-1) for both in zip(*(state for state, _ in parts), strict=True))
    return metric.merge(terms, weight), xp.sum(weight)


@each_metric
def test_states_merge_inside_a_scan(metric, rng):
    """Only on JAX, where `jax.lax.scan` carries the merged state of all batches so far."""
    jax = pytest.importorskip("jax")
    y, z = draw(metric, rng, batch=40)
    weight = rng.integers(0, 3, (8, 5))
    data = [np.float32(a) if a.dtype == float else np.int32(a) for a in (y, z)]
    batches = (*(a.reshape(8, 5, *a.shape[1:]) for a in data), np.float32(weight))

    def step(carry, batch):
        y, z, w = batch
        return join(metric, carry, (metric.state(y, z, w), jax.numpy.sum(w))), None

    @jax.jit
    def run(y, z, weight):
        empty = metric.state(y[0], z[0], 0 * weight[0])
        return jax.lax.scan(step, (empty, jax.numpy.zeros(())), (y, z, weight))[0]

    state, total = run(*batches)
    whole = metric.state(y, z, weight.ravel() * 1.0)
    assert float(total) == weight.sum()
    results = [np.asarray(metric.result(*(np.asarray(t, float) for t in terms))) for terms in (state, whole)]
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-6)


@each_metric
def test_networks_on_a_leading_axis_equal_one_at_a_time(metric, xp, rng):
    y, z = draw(metric, rng, networks=(3,))

    values = compute(xp, metric, y, z)

    assert values == nested([compute(xp, metric, y, one) for one in z])


@pytest.mark.parametrize("metric", CLASS_METRICS, ids=repr)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_stand_for_one_hot_rows(metric, dtype, xp, rng):
    y, z = draw(metric, rng)

    assert compute(xp, metric, y.astype(dtype), z) == nested(compute(xp, metric, np.eye(3)[y], z))


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
    assert compute(xp, TopKAccuracy(1), np.array([0, 0, 1]), z) == pytest.approx(2 / 3)  # the first of equals wins


def test_top_k_is_that_of_sklearn(xp, rng):
    y, z = rng.integers(0, 10, 40), rng.normal(size=(40, 10))

    expected = top_k_accuracy_score(y, z, k=5, labels=range(10))
    assert compute(xp, TopKAccuracy(), y, z) == pytest.approx(expected)


@pytest.mark.parametrize("units", [1, 3])
def test_regression_metrics_are_those_of_sklearn(units, xp, rng):
    y = rng.normal(size=(30, units)) + [1.0, 2, 3][:units]
    z = y + 0.5 * rng.normal(size=y.shape)

    r2 = r2_score(y, z, multioutput="variance_weighted")
    assert compute(xp, R2Score(), y, z) == pytest.approx(r2, rel=1e-5)
    assert compute(xp, MeanAbsoluteError(), y, z) == pytest.approx(mean_absolute_error(y, z))
    rmse = root_mean_squared_error(y.ravel(), z.ravel())
    assert compute(xp, RootMeanSquaredError(), y, z) == pytest.approx(rmse)


def test_r2_of_targets_without_spread(xp):
    for value in (1.0, 0.1, 1 / 3, 7.7, 1e3 + 0.1):  # rounding leaves some variance
        y = np.full((512, 1), value)

        assert compute(xp, R2Score(), y, y) == 1
        assert compute(xp, R2Score(), y, y + 1) == 0


@pytest.mark.parametrize("metric", [R2Score(), ExplainedVariance()], ids=lambda metric: metric.name)
@pytest.mark.parametrize(
    ("mean", "spread"), [(1e3, 1.0), (1e6, 1.0), (1e7, 1.0), (-1e6, 0.1), (1.0, 1e-3), (1e-12, 1e-15)]
)
def test_shares_of_variance_far_from_zero(mean, spread, metric, xp, rng):
    """Compared after the data are rounded: scikit-learn receives the float32 values."""
    y = np.float32(mean + spread * rng.normal(size=(200, 1)))
    z = np.float32(y + 0.4 * spread * rng.normal(size=y.shape))
    score = {"r2": r2_score, "explained_variance": explained_variance_score}[metric.name]
    expected = score(y.astype(float), z.astype(float))

    for size, order in ((1, slice(None)), (50, np.argsort(y[:, 0])), (200, slice(None))):
        assert compute(xp, metric, y[order], z[order], batch_size=size) == pytest.approx(expected, abs=1e-4)


def test_r2_of_sorted_years(xp, rng):
    year = np.repeat(np.arange(2000.0, 2010.0), 512)[:, None]
    guess = year + rng.normal(0, 0.4, year.shape)

    for size in (64, 512, 5120):
        assert compute(xp, R2Score(), year, guess, batch_size=size) == pytest.approx(r2_score(year, guess), abs=5e-4)


@pytest.mark.parametrize("multioutput", ["variance_weighted", "uniform_average", "raw_values"])
@pytest.mark.parametrize(("metric", "score"), [(R2Score, r2_score), (ExplainedVariance, explained_variance_score)])
def test_outputs_are_joined_as_in_sklearn(metric, score, multioutput, xp, rng):
    y = rng.normal(size=(40, 4)) * [1.0, 10.0, 1.0, 1.0]
    z = y + rng.normal(size=y.shape)
    y[:, 2:] = 1.5
    z[:, 2:] = 1.75, 1.5
    z[::2, 2] = 1.25
    weight = rng.integers(1, 9, 40) / 8  # with these weights, the mean of a constant is exact, also in scikit-learn

    for w in (None, weight):
        expected = score(y, z, multioutput=multioutput, sample_weight=w)
        assert compute(xp, metric(multioutput), y, z, w, 7) == pytest.approx(expected, rel=1e-4)


def test_r2_where_all_outputs_are_constant(xp):
    y = np.full((6, 2), 1.5)  # the mean is exact in scikit-learn
    z = y + np.array([0.0, 0.1])

    for multioutput in ("variance_weighted", "uniform_average", "raw_values"):
        assert compute(xp, R2Score(multioutput), y, z) == pytest.approx(r2_score(y, z, multioutput=multioutput))


def test_rmse_of_several_outputs(xp, rng):
    y, z = rng.normal(size=(20, 3)), rng.normal(size=(20, 3)) * [1.0, 2.0, 3.0]

    roots = np.sqrt(np.mean((z - y) ** 2, axis=0))
    assert compute(xp, RootMeanSquaredError(), y, z) == pytest.approx(np.sqrt(np.mean(roots**2)))
    assert compute(xp, RootMeanSquaredError("uniform_average"), y, z) == pytest.approx(root_mean_squared_error(y, z))
    assert compute(xp, RootMeanSquaredError("raw_values"), y, z) == pytest.approx(roots)
    with pytest.raises(ValueError, match=r"multioutput must be one of 'pooled', .*Received: multioutput='mean'"):
        RootMeanSquaredError("mean")


def test_binary_accuracy_takes_a_threshold(xp):
    y, p = np.array([[1.0], [1], [0], [0]]), np.array([[0.9], [0.6], [0.6], [0.1]])

    assert compute(xp, BinaryAccuracy(), y, p) == 0.75
    assert compute(xp, BinaryAccuracy(threshold=0.7), y, p) == 0.75
    assert compute(xp, BinaryAccuracy(threshold=0.95), y, p) == 0.5


def test_metrics_of_gaussian_predictions_take_the_means(xp):
    y, z = np.array([[1.0], [2.0]]), np.array([[1.0, 100.0], [3.0, 100.0]])

    assert compute(xp, MeanAbsoluteError(), y, z) == 0.5


def test_accuracy_of_one_output_is_refused(xp):
    with pytest.raises(ValueError, match=r"Use BinaryAccuracy for one output\. Received: 1 output"):
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
        with pytest.raises(ValueError, match=r"\"accuracy\", .*Received: "):
            metrics.get(wrong, losses.huber)


def test_accuracy_of_a_binary_loss_is_binary():
    metric = metrics.get("accuracy", losses.binary_cross_entropy)

    assert isinstance(metric, BinaryAccuracy)
    assert metric.name == "accuracy"


@pytest.mark.parametrize("networks", [(), (2,)])
def test_averages_are_the_same_to_the_bit_however_many_steps_come_at_once(networks, rng):
    records = {"loss": rng.random((300, *networks)), "mae": (rng.random((300, *networks)),), "weight": rng.random(300)}

    def averages(*stops):
        result, start = Averages((metrics.MeanAbsoluteError(),)), 0
        for stop in (*stops, 300):
            parts = {"loss": records["loss"][start:stop], "mae": (records["mae"][0][start:stop],)}
            result.add(parts | {"weight": records["weight"][start:stop]}, 1)
            start = stop
        return result.values()

    assert averages() == averages(1, 2, 70, 200) == averages(64, 128) == averages(250)
    expected = np.average(records["loss"], axis=0, weights=records["weight"])
    np.testing.assert_allclose(averages()["loss"], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-25, 1e25])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_numbers_whose_squares_leave_float32(size, batch_size, xp, rng):
    y = rng.normal(size=(50, 2)) * size
    z = y * 1.1
    names = ["r2", "explained_variance", "rmse"]

    found = [compute(xp, metrics.get(name, losses.mean_squared_error), y, z, batch_size=batch_size) for name in names]

    error, deviation = z - y, y - y.mean(axis=0)
    unexplained = [(error**2).sum(), ((error - error.mean(axis=0)) ** 2).sum()]
    shares = [1 - value / (deviation**2).sum() for value in unexplained]
    assert found[:2] == pytest.approx(shares, rel=1e-5)
    assert found[2] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
