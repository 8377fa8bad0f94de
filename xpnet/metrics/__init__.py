"""Metrics: values to watch during training. The states of samples merge into the state of a data set.

`Metric.terms` computes the state of each sample on the device. `Metric.merge` joins states into one. `Metric.result`
computes the value from the state of all samples on the host.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from xpnet.checks import unknown_name
from xpnet.lazy import lazy_names
from xpnet.losses import BinaryCrossEntropy, Loss
from xpnet.metrics.base import BinnedMetric, Metric

if TYPE_CHECKING:  # the names of _MODULES, for editors and type checkers
    from xpnet.metrics.classification import Accuracy, BinaryAccuracy, ElementwiseAccuracy, LogLoss, TopKAccuracy
    from xpnet.metrics.counts import BalancedAccuracy, ConfusionMatrix, F1Score, Precision, Recall
    from xpnet.metrics.ranking import AUC
    from xpnet.metrics.regression import (
        CosineSimilarity,
        ExplainedVariance,
        MeanAbsoluteError,
        MeanAbsolutePercentageError,
        MeanPinballLoss,
        MeanSquaredError,
        R2Score,
        RootMeanSquaredError,
    )

_MODULES = {
    "classification": ["Accuracy", "BinaryAccuracy", "ElementwiseAccuracy", "LogLoss", "TopKAccuracy"],
    "counts": ["BalancedAccuracy", "ConfusionMatrix", "F1Score", "Precision", "Recall"],
    "ranking": ["AUC"],
    "regression": [
        "CosineSimilarity",
        "ExplainedVariance",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredError",
        "MeanPinballLoss",
        "R2Score",
        "RootMeanSquaredError",
    ],
}
__getattr__, __dir__ = lazy_names(__name__, _MODULES)

__all__ = [
    "AUC",
    "Accuracy",
    "BalancedAccuracy",
    "BinaryAccuracy",
    "BinnedMetric",
    "ConfusionMatrix",
    "CosineSimilarity",
    "ElementwiseAccuracy",
    "ExplainedVariance",
    "F1Score",
    "LogLoss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanPinballLoss",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "TopKAccuracy",
    "get",
]

BY_NAME: dict[str, tuple[str, dict[str, Any]]] = {  # name -> class and settings
    "accuracy": ("Accuracy", {}),
    "top_5_accuracy": ("TopKAccuracy", {}),
    "elementwise_accuracy": ("ElementwiseAccuracy", {}),
    "binary_accuracy": ("BinaryAccuracy", {}),
    "balanced_accuracy": ("BalancedAccuracy", {}),
    "log_loss": ("LogLoss", {}),
    "precision": ("Precision", {}),
    "recall": ("Recall", {}),
    "f1": ("F1Score", {}),
    "auc": ("AUC", {}),
    "average_precision": ("AUC", {"curve": "PR"}),
    "confusion_matrix": ("ConfusionMatrix", {}),
    "mae": ("MeanAbsoluteError", {}),
    "mse": ("MeanSquaredError", {}),
    "rmse": ("RootMeanSquaredError", {}),
    "mape": ("MeanAbsolutePercentageError", {}),
    "r2": ("R2Score", {}),
    "explained_variance": ("ExplainedVariance", {}),
    "cosine_similarity": ("CosineSimilarity", {}),
    "mean_pinball_loss": ("MeanPinballLoss", {}),
}
BY_NAME |= {  # names of Keras and scikit-learn with the same meaning
    "mean_absolute_error": ("MeanAbsoluteError", {}),
    "mean_squared_error": ("MeanSquaredError", {}),
    "root_mean_squared_error": ("RootMeanSquaredError", {}),
    "roc_auc": ("AUC", {}),
} | {
    f"{kind}_{average}": (name, {"average": average})
    for kind, name in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F1Score"))
    for average in ("macro", "micro", "weighted")
}
ELSEWHERE = {  # names of Keras and scikit-learn, as `plain` returns them -> what to write here
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
    "pinball": '"mean_pinball_loss"',
    "auroc": '"auc"',
    "rocaucscore": '"auc"',
    "prauc": '"average_precision"',
    "auprc": '"average_precision"',
    "r2score": '"r2"',
    "meanabsolutepercentageerror": '"mape", which is a fraction, not a percentage',
    "negmeansquarederror": '"mse"',
    "negrootmeansquarederror": '"rmse"',
    "negmeanabsoluteerror": '"mae"',
}


def get(metric: str | Metric, loss: Loss) -> Metric:
    """Return the metric with this name, with its default settings, or a `Metric`, completed for a network with this loss.

    If the network is trained with `BinaryCrossEntropy`, alone or inside `PerPosition`, "accuracy" is a `BinaryAccuracy` named
    "accuracy".
    """
    if isinstance(metric, Metric):
        return metric.for_loss(loss)
    if callable(metric) and not isinstance(metric, type):
        raise ValueError(
            "A custom metric must be a subclass of xpnet.metrics.Metric with a method terms(y, z), which returns numbers for "
            f"each sample. See help(xpnet.metrics.Metric). Received: {metric!r}"
        )
    if not isinstance(metric, str) or metric not in BY_NAME:
        raise unknown_name("A metric must be an object such as TopKAccuracy(3) or one of", metric, BY_NAME, ELSEWHERE)
    binary = metric == "accuracy" and isinstance(loss.row_loss, BinaryCrossEntropy)
    kind, settings = BY_NAME["binary_accuracy" if binary else metric]
    return getattr(sys.modules[__name__], kind)(**settings, name=metric).for_loss(loss)
