"""Metrics: numbers to look at, from states of samples that merge into those of batches and of a whole data set.

`Metric.terms` computes the state of each sample, on the device; `Metric.merge` joins states into one; `Metric.result`
makes the number from the state of all samples, on the host.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches

from xpnet.losses import BinaryCrossEntropy, Loss
from xpnet.metrics.base import Metric
from xpnet.metrics.classification import Accuracy, BinaryAccuracy, ElementwiseAccuracy, LogLoss, TopKAccuracy
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
    "R2",
    "Accuracy",
    "BinaryAccuracy",
    "CosineSimilarity",
    "ElementwiseAccuracy",
    "ExplainedVariance",
    "LogLoss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "Metric",
    "Pinball",
    "RootMeanSquaredError",
    "TopKAccuracy",
    "get",
]

_METRICS = (
    Accuracy, TopKAccuracy, ElementwiseAccuracy, BinaryAccuracy, LogLoss,
    MeanAbsoluteError, MeanSquaredError, RootMeanSquaredError, MeanAbsolutePercentageError, R2, ExplainedVariance,
    CosineSimilarity, Pinball,
)  # fmt: skip
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in (make() for make in _METRICS)}  # type: ignore[abstract]
BY_NAME |= {  # Keras' and scikit-learn's long names, for what means the same
    long: replace(BY_NAME[short], name=long)  # type: ignore[type-var]
    for long, short in {
        "mean_absolute_error": "mae",
        "mean_squared_error": "mse",
        "root_mean_squared_error": "rmse",
    }.items()
}


def get(metric: str | Metric, loss: Loss) -> Metric:
    """The metric of that name, with default settings, or a metric as it is, each for a network with that loss.

    "accuracy" of a network trained with `BinaryCrossEntropy`, also `PerPosition`, is `BinaryAccuracy`, under the name "accuracy".
    """
    if isinstance(metric, Metric):
        return metric.for_loss(loss)
    if not isinstance(metric, str) or metric not in BY_NAME:
        near = suggest(metric) if isinstance(metric, str) else ""
        raise ValueError(
            f"A metric is an object such as TopKAccuracy(3) or one of {', '.join(BY_NAME)}.{near} Received: {metric!r}"
        )
    if metric == "accuracy" and isinstance(loss.row_loss, BinaryCrossEntropy):
        return BinaryAccuracy(name="accuracy")
    return BY_NAME[metric].for_loss(loss)


def suggest(name: str) -> str:
    """``' Did you mean "accuracy"?'``, or nothing where no known name is like this one."""
    near = get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    return f' Did you mean "{near[0]}"?' if near else ""
