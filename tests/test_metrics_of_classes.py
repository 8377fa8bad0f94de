"""Metrics of classes, decisions and rankings, compared with scikit-learn's values."""

import warnings

import numpy as np
import pytest

from tests.metric_checks import compute
from xpnet import Model, losses
from xpnet.backend import to_numpy
from xpnet.layers import Dense, Identity, Softmax, TimeDistributed
from xpnet.metrics import AUC, BalancedAccuracy, ConfusionMatrix, F1Score, LogLoss, Precision, Recall

sk = pytest.importorskip("sklearn.metrics")
SCORES = {Precision: sk.precision_score, Recall: sk.recall_score, F1Score: sk.f1_score}
N = 90


def near(value):
    """Return an approximation that allows for rounding of predictions and fractions in float32."""
    return pytest.approx(np.asarray(value), rel=2e-6, abs=1e-6, nan_ok=True)


@pytest.fixture
def classes(rng):
    """Return labels 0 to 3, one of them rare, with outputs, probabilities and weights."""
    y = rng.choice(4, N, p=[0.5, 0.3, 0.15, 0.05])
    z = (rng.normal(size=(N, 4)) + 1.5 * np.eye(4)[y]).astype("float32")
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return y, z, e / e.sum(axis=1, keepdims=True), rng.random(N)


@pytest.fixture
def sides(rng):
    """Return targets of 0 or 1 for three units, with probabilities that include ties, and weights."""
    y = rng.integers(0, 2, (N, 3)) * 1.0
    p = np.round(np.clip(0.5 + 0.3 * (y - 0.5) + 0.2 * rng.normal(size=y.shape), 0.1, 0.9), 1).astype("float32")
    return y, p, rng.random(N)


each_score = pytest.mark.parametrize("kind", SCORES)
each_average = pytest.mark.parametrize("average", ["macro", "micro", "weighted", None])


@each_score
@each_average
def test_scores_of_classes(kind, average, xp, classes):
    y, z, _, weight = classes
    predicted = z.argmax(axis=1)

    for w in (None, weight):
        expected = SCORES[kind](y, predicted, average=average, sample_weight=w)
        assert compute(xp, kind(average), y, z, w, 32) == near(expected)
        assert compute(xp, kind(average), np.eye(4)[y], z, w, 32) == near(expected)
    assert compute(xp, kind(), y, z) == near(SCORES[kind](y, predicted, average="macro"))


@each_score
@each_average
def test_scores_of_labels(kind, average, xp, sides):
    y, p, weight = sides

    for w in (None, weight):
        expected = SCORES[kind](y > 0.5, p > 0.5, average=average, sample_weight=w)
        assert compute(xp, kind(average, multi_label=True), y, p, w, 32) == near(expected)


@each_score
@pytest.mark.parametrize("average", ["binary", "macro", "micro", "weighted", None])
def test_scores_of_one_output_and_of_two_classes(kind, average, xp, sides):
    y, p, weight = sides
    y, p = y[:, :1], p[:, :1]

    for w in (None, weight):
        expected = SCORES[kind](y[:, 0], p[:, 0] > 0.55, average=average, sample_weight=w)
        assert compute(xp, kind(average, threshold=0.55), y, p, w, 32) == near(expected)
    two = np.concatenate([1.001 - p, p], axis=1)  # no ties
    expected = SCORES[kind](y[:, 0], two.argmax(axis=1), average=average)
    assert compute(xp, kind(average), y[:, 0].astype(int), two) == near(expected)
    assert compute(xp, kind(), y, p) == near(SCORES[kind](y[:, 0], p[:, 0] > 0.5))


@each_score
@each_average
@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
def test_nothing_divided_by_nothing(kind, average, zero_division, xp):
    """Class 1 is never predicted, and class 2 is never correct. Class 3 does not occur at all, so no mean includes it."""
    y, predicted = np.array([0, 0, 1, 1, 0]), np.array([0, 0, 0, 2, 0])
    z = np.eye(4)[predicted]

    settings = {"average": average, "zero_division": zero_division}
    expected = SCORES[kind](y, predicted, labels=[0, 1, 2, 3] if average is None else None, **settings)
    assert compute(xp, kind(**settings), y, z) == near(expected)


@each_score
def test_no_positive_at_all(kind, xp):
    y, p = np.zeros((4, 1)), np.full((4, 1), 0.2)

    for zero_division in (0.0, 1.0):
        expected = SCORES[kind](y[:, 0], p[:, 0] > 0.5, zero_division=zero_division)
        assert compute(xp, kind(zero_division=zero_division), y, p) == expected
        weighted = SCORES[kind](np.zeros((4, 2)), np.zeros((4, 2)), average="weighted", zero_division=zero_division)
        settings = {"multi_label": True, "zero_division": zero_division}
        assert compute(xp, kind("weighted", **settings), np.zeros((4, 2)), np.zeros((4, 2))) == weighted


@pytest.mark.parametrize("adjusted", [False, True])
def test_balanced_accuracy(adjusted, xp, classes, sides):
    y, z, _, weight = classes
    y[y == 3] = 0  # a class without samples

    for w in (None, weight):
        with warnings.catch_warnings(action="ignore"):  # scikit-learn warns about such a class
            expected = sk.balanced_accuracy_score(y, z.argmax(axis=1), sample_weight=w, adjusted=adjusted)
        assert compute(xp, BalancedAccuracy(adjusted), y, z, w, 32) == near(expected)
    y, p, _ = sides
    expected = sk.balanced_accuracy_score(y[:, 0], p[:, 0] > 0.5, adjusted=adjusted)
    assert compute(xp, BalancedAccuracy(adjusted), y[:, :1], p[:, :1]) == near(expected)


@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_confusion_matrix(normalize, xp, classes, sides):
    y, z, _, weight = classes

    for w in (None, weight, np.arange(N) % 3):
        expected = sk.confusion_matrix(y, z.argmax(axis=1), sample_weight=w, normalize=normalize)
        assert compute(xp, ConfusionMatrix(normalize), y, z, w, 32) == near(expected)
    y, p, _ = sides
    expected = sk.confusion_matrix(y[:, 0], p[:, 0] > 0.5, normalize=normalize)
    assert compute(xp, ConfusionMatrix(normalize), y[:, :1], p[:, :1]) == near(expected)


def test_counts_are_whole(xp, classes):
    y, z, *_ = classes

    matrix = compute(xp, ConfusionMatrix(), y, z, batch_size=7)
    assert matrix == sk.confusion_matrix(y, z.argmax(axis=1)).tolist()


def test_log_loss(xp, classes, sides):
    y, _, p, weight = classes
    p[0] = [0.0, 0.0, 1.0, 0.0]
    for w in (None, weight):
        assert compute(xp, LogLoss(), y, p, w, 32) == near(sk.log_loss(y, p, sample_weight=w))
        assert compute(xp, LogLoss(), np.eye(4)[y], p, w, 32) == near(sk.log_loss(y, p, sample_weight=w))
    y, p, weight = sides
    columns = [sk.log_loss(y[:, i], p[:, i], sample_weight=weight) for i in range(3)]
    assert compute(xp, LogLoss(), y[:, :1], p[:, :1], weight) == near(columns[0])
    assert compute(xp, LogLoss(multi_label=True), y, p, weight) == near(np.mean(columns))


# ---------------------------------------------------------------------- rankings


def exact(metric, y, p, weight=None):
    p = np.asarray(p, float)
    return np.asarray(metric.exact(y, p, np.ones(len(y)) if weight is None else weight))


@pytest.mark.parametrize("average", ["macro", "weighted", None])
def test_exact_areas(average, classes, sides):
    """On the host, so no backend."""
    y, _, p, weight = classes
    one_hot = np.eye(4)[y]
    for w in (None, weight):
        roc = sk.roc_auc_score(one_hot, p, average=average, sample_weight=w)
        precision = sk.average_precision_score(one_hot, p, average=average, sample_weight=w)
        for target in (y, one_hot):
            assert exact(AUC(average=average), target, p, w) == pytest.approx(roc, rel=1e-12)
            assert exact(AUC("PR", average), target, p, w) == pytest.approx(precision, rel=1e-12)
    y, p, weight = sides  # with ties
    for w in (None, weight):
        settings = {"average": average, "sample_weight": w}
        assert exact(AUC(average=average, multi_label=True), y, p, w) == pytest.approx(
            sk.roc_auc_score(y, p, **settings)
        )
        precision = sk.average_precision_score(y, p, **settings)
        assert exact(AUC("PR", average, multi_label=True), y, p, w) == pytest.approx(precision)
        one = {"sample_weight": w}
        for target, score in ((y[:, :1], p[:, :1]), (y[:, 0].astype(int), np.stack([1 - p[:, 0], p[:, 0]], axis=1))):
            assert exact(AUC(average=average), target, score, w) == pytest.approx(
                sk.roc_auc_score(y[:, 0], p[:, 0], **one)
            )
            precision = sk.average_precision_score(y[:, 0], p[:, 0], **one)
            assert exact(AUC("PR", average), target, score, w) == pytest.approx(precision)


def test_one_class_against_the_rest_is_that_of_sklearn(classes):
    y, _, p, _ = classes

    assert exact(AUC(), y, p) == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), rel=1e-12)


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_areas_without_positives_are_left_out(curve, classes):
    y, _, p, _ = classes
    y[y == 2] = 1

    areas = exact(AUC(curve, None), y, p)
    assert np.isnan(areas).tolist() == [False, False, True, False]
    assert exact(AUC(curve), y, p) == np.nanmean(areas)
    assert np.isnan(exact(AUC(curve), np.zeros((3, 1)), np.ones((3, 1))))
    assert np.isnan(exact(AUC(curve), y, p * np.nan))


@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0, 30.0])
def test_bins_are_as_near_as_documented(spread, xp, rng):
    y = rng.integers(0, 2, 500)
    odds = spread * (rng.normal(size=500) + y)
    p = (1 / (1 + np.exp(-odds))).astype("float32")[:, None]
    state = [to_numpy(term).astype(float) for term in AUC().state(xp.asarray(y[:, None] * 1.0), xp.asarray(p))]
    positive, negative = (term[0] / term.sum() for term in state)
    bound = 0.5 * np.sum(positive * negative)

    assert abs(compute(xp, AUC(), y[:, None] * 1.0, p, batch_size=64) - sk.roc_auc_score(y, p)) <= bound + 1e-6
    hits, calls = (np.cumsum(term[::-1])[::-1] for term in (state[0][0], state[0][0] + state[1][0]))
    after = np.append(hits[1:] / np.maximum(calls[1:], 1e-9), 1.0)
    best = (after * np.append(calls[1:], 0) + state[0][0]) / np.maximum(np.append(calls[1:], 0) + state[0][0], 1e-9)
    worst = (np.append(hits[1:], 0)) / np.maximum(calls, 1e-9)
    bound = np.sum(positive * np.abs(best - worst))
    assert abs(compute(xp, AUC("PR"), y[:, None] * 1.0, p) - sk.average_precision_score(y, p)) <= bound + 1e-6


# ---------------------------------------------------------------------- in a model


def evaluate(xp, names, loss, x, y, layers=(), batch_size=None, **settings):
    model = Model(layers or [Identity()], loss, metrics=names, backend=xp).build(x.shape[1:])
    return model.evaluate(x, y, batch_size, return_dict=True, **settings)


def test_all_names_of_classes_in_evaluate(xp, classes):
    y, z, p, weight = classes
    names = ["accuracy", "precision", "recall_micro", "f1_weighted", "balanced_accuracy", "auc", "average_precision",
             "log_loss", "confusion_matrix"]  # fmt: skip
    predicted, w = z.argmax(axis=1), {"sample_weight": weight}
    expected = {
        "accuracy": sk.accuracy_score(y, predicted, **w),
        "precision": sk.precision_score(y, predicted, average="macro", **w),
        "recall_micro": sk.recall_score(y, predicted, average="micro", **w),
        "f1_weighted": sk.f1_score(y, predicted, average="weighted", **w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted, **w),
        "auc": sk.roc_auc_score(np.eye(4)[y], p, **w),
        "average_precision": sk.average_precision_score(np.eye(4)[y], p, **w),
        "log_loss": sk.log_loss(y, p, **w),
        "confusion_matrix": sk.confusion_matrix(y, predicted, **w),
    }

    for size in (None, 1, 17):
        found = evaluate(xp, names, "softmax_cross_entropy", z, y, batch_size=size, sample_weight=weight)
        assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-5)
        assert list(found) == ["loss", *names]
        for name, value in expected.items():
            assert found[name] == pytest.approx(np.asarray(value), rel=1e-5, abs=1e-6), name


def test_all_names_of_labels_in_evaluate(xp, sides):
    y, p, _ = sides
    z = np.log(p / (1 - p))
    found = evaluate(xp, ["accuracy", "precision", "recall", "f1", "auc", "log_loss"], "binary_cross_entropy", z, y)

    assert found["accuracy"] == pytest.approx(np.mean((p > 0.5) == y))
    assert found["precision"] == near(sk.precision_score(y, z > 0, average="macro"))
    assert found["auc"] == near(sk.roc_auc_score(y, z))
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-5)
    one = evaluate(xp, ["precision", "f1", "auc", "confusion_matrix"], "binary_cross_entropy", z[:, :1], y[:, 0])
    assert one["precision"] == near(sk.precision_score(y[:, 0], z[:, 0] > 0))
    assert one["confusion_matrix"] == sk.confusion_matrix(y[:, 0], z[:, 0] > 0).tolist()


def test_positions_are_counted(xp, rng):
    y, z = rng.integers(0, 3, (5, 7)), rng.normal(size=(5, 7, 3)).astype("float32")
    weight = rng.integers(0, 2, (5, 7)) * 1.0
    layers = [TimeDistributed(Identity())]
    names = ["f1", "auc", "confusion_matrix"]
    for w in (None, weight):
        found = evaluate(xp, names, losses.PerPosition(losses.SoftmaxCrossEntropy()), z, y, layers, 2, sample_weight=w)
        counted = np.ones(35, bool) if w is None else weight.ravel() > 0
        flat, right = z.reshape(-1, 3)[counted], y.ravel()[counted]
        assert found["confusion_matrix"] == sk.confusion_matrix(right, flat.argmax(axis=1)).tolist()
        assert found["f1"] == near(sk.f1_score(right, flat.argmax(axis=1), average="macro"))
        p = np.exp(flat) / np.exp(flat).sum(axis=1, keepdims=True)
        assert found["auc"] == near(sk.roc_auc_score(np.eye(3)[right], p))


def test_ignored_labels_count_in_no_metric(xp, classes):
    y, z, *_ = classes
    ignored = np.where(np.arange(N) % 3 == 0, -100, y)
    names = ["accuracy", "f1", "auc", "balanced_accuracy", "log_loss", "confusion_matrix"]
    without = evaluate(xp, names, "softmax_cross_entropy", z[ignored >= 0], y[ignored >= 0])

    for size in (None, 1, 17):
        found = evaluate(xp, names, "softmax_cross_entropy", z, ignored, batch_size=size)
        for name, value in without.items():
            assert found[name] == near(value), name


def test_targets_of_weight_0_may_be_nan(xp, rng):
    y, z, weight = rng.normal(size=(N, 2)), rng.normal(size=(N, 2)), np.arange(N) % 2
    names = ["r2", "explained_variance", "mae", "rmse", "mape", "cosine_similarity", "mean_pinball_loss"]
    without = evaluate(xp, names, "mean_squared_error", z[1::2], y[1::2])
    y[::2] = np.nan

    found = evaluate(xp, names, "mean_squared_error", z, y, batch_size=7, sample_weight=weight)
    for name, value in without.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_several_networks_have_a_value_each(xp, rng):
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    names = ["f1", "auc", Recall(None), "confusion_matrix"]
    together = Model([Dense(3)], "softmax_cross_entropy", metrics=names, seed=(0, 1), backend=xp).build((3,))
    found = together.evaluate(x, y, batch_size=16, return_dict=True)

    for k in range(2):
        alone = Model([Dense(3)], "softmax_cross_entropy", metrics=names, seed=k, backend=xp).build((3,))
        for name, value in alone.evaluate(x, y, return_dict=True).items():
            assert found[name][k] == pytest.approx(np.asarray(value), rel=1e-5)


def test_fit_records_them(xp, rng):
    backend = xp if xp.__class__.__name__ != "ReadOnlyNumpy" else "numpy"
    x = rng.normal(size=(60, 3))
    y = x.argmax(axis=1)
    names = [Recall(None), "confusion_matrix", "auc", "average_precision", "accuracy"]
    model = Model([Dense(3)], "softmax_cross_entropy", "adam", names, backend=backend)
    history = model.fit(x, y, 16, epochs=2, verbose=0, validation_data=(x, y), record_every=2)

    table = history.history
    assert np.shape(table["recall"]) == np.shape(table["val_recall"]) == (2, 3)
    assert np.sum(table["confusion_matrix"], axis=(1, 2)).tolist() == [60, 60]
    assert np.trace(table["confusion_matrix"][1]) == pytest.approx(60 * table["accuracy"][1])
    assert table["val_auc"][-1] == pytest.approx(model.evaluate(x, y).auc)
    assert abs(table["auc"][-1] - table["val_auc"][-1]) < 0.2
    assert np.sum(history.iterations["confusion_matrix"][0]) == 16


def test_metrics_that_do_not_fit_are_refused(rng):
    """Checks only shapes, so only on NumPy."""
    y, z = rng.integers(0, 2, (6, 3)) * 1.0, rng.normal(size=(6, 3))
    for name in ("balanced_accuracy", "confusion_matrix"):
        with pytest.raises(ValueError, match=f"{name} needs classes that exclude each other.*Received: 3 outputs"):
            evaluate("numpy", [name], "binary_cross_entropy", z, y)
    for name in ("f1", "auc", "log_loss", "confusion_matrix"):
        with pytest.raises(ValueError, match=r"needs (an|one) output for each class"):
            evaluate("numpy", [name], "categorical_cross_entropy", z[:, :1], np.zeros(6, int))
    with pytest.raises(ValueError, match=r'average="binary" needs one output or two classes.*Received: 3 outputs'):
        evaluate("numpy", [F1Score("binary")], "softmax_cross_entropy", z, y.argmax(axis=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Precision("mean"), "average must be one of 'auto', .*Received: average='mean'"),
        (lambda: F1Score(zero_division=0.5), "zero_division must be 0, 1 or nan. Received: zero_division=0.5"),
        (lambda: F1Score(zero_division="warn"), "zero_division must be 0, 1 or nan. Received: zero_division='warn'"),
        (lambda: Recall(threshold="a"), "threshold must be a number"),
        (lambda: BalancedAccuracy("yes"), "adjusted must be True or False"),
        (lambda: ConfusionMatrix("rows"), "normalize must be 'true', 'pred', 'all' or None"),
        (lambda: AUC("roc"), 'curve must be "ROC" or "PR". Received: curve=\'roc\''),
        (lambda: AUC(average="micro"), 'average must be "macro", "weighted" or None'),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_network_that_ends_in_softmax(xp, classes):
    y, z, _, _ = classes
    found = evaluate(xp, ["f1", "log_loss"], "categorical_cross_entropy", z, y, [Softmax()])

    assert found["f1"] == near(sk.f1_score(y, z.argmax(axis=1), average="macro"))
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-5)
