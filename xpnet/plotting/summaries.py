"""Plots that summarize many predictions, or the activations of all layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backend import to_numpy
from xpnet.errors import optional_import
from xpnet.plotting.figures import BLUE, GRAY, VERMILLION, names_of_classes, new_figure, one_panel, text_color, tidy
from xpnet.tree import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


def confusion_matrix(
    y_true: Array, y_pred: Array, ax: Axes | None = None, class_names: Sequence[Any] | None = None
) -> Axes:
    """Plot how often each true class (row) was predicted as each class (column), with scikit-learn's display.

    The shade follows the square root of the count, so that mistakes are visible beside thousands of correct predictions.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (n,)
        True labels, and predicted labels such as ``model.predict_classes(x)``.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.
    class_names : sequence or dict of label -> name, optional
        Names of the classes 0, 1, 2, ... The default is the labels that occur.

    Raises
    ------
    ValueError
        The labels do not have the same shape (n,) and the same kind, a label is missing, or a label has no name.
    """
    metrics, colors = optional_import("sklearn.metrics", "sklearn"), optional_import("matplotlib.colors", "plot")
    y_true, y_pred = _labels("y_true", y_true), _labels("y_pred", y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape or not len(y_true):
        raise ValueError(
            "y_true and y_pred must be labels of the same shape (n,). Convert one-hot rows with y.argmax(axis=1). Received: "
            f"shapes {y_true.shape} and {y_pred.shape}"
        )
    if (y_true.dtype.kind in "US") != (y_pred.dtype.kind in "US"):
        raise ValueError(
            "y_true and y_pred must both be numbers or both be text. Use numbers, and name the classes with class_names. "
            f"Received: dtypes {y_true.dtype} and {y_pred.dtype}"
        )
    classes = np.unique([y_true, y_pred]) if class_names is None else np.arange(len(class_names))
    names = names_of_classes(classes if class_names is None else class_names)
    if not np.all(np.isin([y_true, y_pred], classes)):
        raise ValueError(
            f"With {len(names)} class_names, the labels must be 0 to {len(names) - 1}. Name every class, or omit class_names. "
            f"Received: labels {np.unique([y_true, y_pred])}"
        )
    side = 1.2 + max(1.6, 0.46 * len(names))
    ax = one_panel(ax, side, side)
    shown = metrics.ConfusionMatrixDisplay.from_predictions(
        y_true, y_pred, labels=classes, display_labels=names, ax=ax, cmap="Blues", colorbar=False, values_format="d",
        im_kw={"norm": colors.PowerNorm(0.5, vmin=0)},
    )  # fmt: skip
    if max(map(len, names)) > 5:
        for name in ax.get_xticklabels():
            name.set(rotation=45, horizontalalignment="right", rotation_mode="anchor")
    counts = shown.confusion_matrix
    for text, count in zip(shown.text_.flat, counts.flat, strict=True):
        dark = count > counts.max() / 3
        text.set_color("white" if dark else "black" if count else GRAY)
    return ax


def _labels(name: str, y: Array) -> np.ndarray:
    """Return labels on the host; an object array becomes an array of integers or text."""
    labels = to_numpy(y)
    if labels.dtype.kind == "O":
        labels = np.array(labels.tolist())
    if labels.dtype.kind not in "fiubUS" or (labels.dtype.kind == "f" and np.any(np.isnan(labels))):
        raise ValueError(
            f"{name} must hold a label for every sample. Remove samples without a label (NaN, None). Received: {y!r:.200}"
        )
    return labels


def layer_statistics(
    statistics: Sequence[Mapping[str, Any]], figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Plot activations and gradients layer by layer, which shows whether they vanish, explode, saturate or die.

    The percentage beside each layer is its fraction of exact zeros. If the sizes of the layers differ greatly, the scale is
    logarithmic away from 0.

    Parameters
    ----------
    statistics : list of dict
        The result of `xpnet.inspection.layer_statistics`.
    figure : matplotlib Figure or SubFigure, optional
        The figure to fill.
    """
    names = [layer["layer"] for layer in statistics]
    figure = new_figure(figure, 7.4, 1.5 + 0.34 * len(names))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, key, label in zip(axes, ("activation", "gradient"), ("Activation", "Gradient of the loss"), strict=True):
        _quantile_panel(ax, [layer[key] for layer in statistics])
        ax.set(xlabel=label, yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _quantile_panel(ax: Axes, layers: list[Mapping[str, Any]]) -> None:
    """Draw a row for each layer with its quantiles, its mean, and its fraction of zeros."""
    rows = range(len(layers))
    low, q1, median, q3, high = np.array([layer["quantiles"] for layer in layers]).T
    ax.hlines(rows, low, high, color=BLUE, linewidth=1.2, label="5–95 %")
    ax.hlines(rows, q1, q3, color="#56B4E9", linewidth=9, label="25–75 %")
    ax.plot(median, rows, "|", color=text_color(), markersize=10, markeredgewidth=1.5, label="median")
    ax.plot([layer["mean"] for layer in layers], rows, "o", color=VERMILLION, markersize=4, label="mean")
    for row, layer in zip(rows, layers, strict=True):
        ax.text(1.02, row, f"{layer['zeros']:.0%}", transform=ax.get_yaxis_transform(), va="center")
    ax.text(1.02, 1.0, "zeros", transform=ax.transAxes, va="bottom")
    tidy(ax, "x")
    sizes = np.maximum(np.abs(low), np.abs(high))
    sizes = sizes[sizes > 0]
    if len(sizes) and sizes.max() > 30 * sizes.min():
        _log_scale(ax, sizes.min(), sizes.max())
    else:
        ax.locator_params(axis="x", nbins=4)
        ax.ticklabel_format(axis="x", scilimits=(-2, 4))


def _log_scale(ax: Axes, smallest: float, largest: float) -> None:
    """Set a scale that is logarithmic on both sides of 0, with space for five labels."""
    first, last = math.floor(math.log10(smallest)), math.floor(math.log10(largest))
    ax.set_xscale("symlog", linthresh=10.0**first, linscale=max(1.0, (last - first) / 2))
    ax.set_xticks([-(10.0**last), -(10.0**first), 0.0, 10.0**first, 10.0**last])
    ax.minorticks_off()
