"""Metrics: numbers to look at, from states of samples that merge into those of batches and of a whole data set.

`Metric.terms` computes the state of each sample, on the device; `Metric.merge` joins states into one; `Metric.result`
makes the number from the state of all samples, on the host.
"""

from __future__ import annotations

from xpnet.checks import unknown_name
from xpnet.losses import BinaryCrossEntropy, Loss
from xpnet.metrics.base import Metric
from xpnet.metrics.classification import Accuracy, BinaryAccuracy, ElementwiseAccuracy, LogLoss, TopKAccuracy
from xpnet.metrics.counts import F1, BalancedAccuracy, ConfusionMatrix, Precision, Recall
from xpnet.metrics.ranking import AUC, BinnedMetric
from xpnet.metrics.regression import (
    R2,
    CosineSimilarity,
    ExplainedVariance,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    Pinball,
    RootMeanSquaredError,
)

__all__ = [
    "AUC",
    "F1",
    "R2",
    "Accuracy",
    "BalancedAccuracy",
    "BinaryAccuracy",
    "BinnedMetric",
    "ConfusionMatrix",
    "CosineSimilarity",
    "ElementwiseAccuracy",
    "ExplainedVariance",
    "LogLoss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "Metric",
    "Pinball",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "TopKAccuracy",
    "get",
]

BY_NAME: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Accuracy(), TopKAccuracy(), ElementwiseAccuracy(), BinaryAccuracy(), BalancedAccuracy(), LogLoss(),
        Precision(), Recall(), F1(), AUC(), AUC("PR"), ConfusionMatrix(),
        MeanAbsoluteError(), MeanSquaredError(), RootMeanSquaredError(), MeanAbsolutePercentageError(), R2(),
        ExplainedVariance(), CosineSimilarity(), Pinball(),
        # Keras' and scikit-learn's names of what means the same
        MeanAbsoluteError("mean_absolute_error"), MeanSquaredError("mean_squared_error"),
        RootMeanSquaredError(name="root_mean_squared_error"), AUC(name="roc_auc"),
        *(
            kind(average, name=f"{kind.name}_{average}")
            for kind in (Precision, Recall, F1) for average in ("macro", "micro", "weighted")
        ),
    )
}  # fmt: skip


ELSEWHERE = {  # names of Keras and scikit-learn in small letters and digits -> what to write here
    "acc": '"accuracy"',
    "categoricalaccuracy": '"accuracy"',
    "sparsecategoricalaccuracy": '"accuracy"',
    "topkaccuracy": "TopKAccuracy(k)",
    "topkcategoricalaccuracy": "TopKAccuracy(k)",
    "sparsetopkcategoricalaccuracy": "TopKAccuracy(k)",
    "binarycrossentropy": '"log_loss"',
    "categoricalcrossentropy": '"log_loss"',
    "sparsecategoricalcrossentropy": '"log_loss"',
    "neglogloss": '"log_loss"',
    "f1score": '"f1"',
    "auroc": '"auc"',
    "rocaucscore": '"auc"',
    "prauc": '"average_precision"',
    "auprc": '"average_precision"',
    "r2score": '"r2"',
    "meanabsolutepercentageerror": '"mape", which is a fraction and not percent',
    "negmeansquarederror": '"mse"',
    "negrootmeansquarederror": '"rmse"',
    "negmeanabsoluteerror": '"mae"',
}


def get(metric: str | Metric, loss: Loss) -> Metric:
    """The metric of that name, with default settings, or a metric as it is, each for a network with that loss.

    "accuracy" of a network trained with `BinaryCrossEntropy`, also `PerPosition`, is `BinaryAccuracy`, under the name "accuracy".
    """
    if isinstance(metric, Metric):
        return metric.for_loss(loss)
    if not isinstance(metric, str) or metric not in BY_NAME:
        raise unknown_name("A metric is an object such as TopKAccuracy(3) or one of", metric, BY_NAME, ELSEWHERE)
    if metric == "accuracy" and isinstance(loss.row_loss, BinaryCrossEntropy):
        return BinaryAccuracy(name="accuracy")
    return BY_NAME[metric].for_loss(loss)
