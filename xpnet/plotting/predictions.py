"""Plots of predictions: calibration, decision regions, and a slice of the loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backend import to_numpy
from xpnet.checks import count, require, require_labels, require_one_network
from xpnet.plotting.figures import BLUE, COLORS, GRAY, VERMILLION, names_of_classes, one_panel, tidy
from xpnet.tree import Array, map_leaves

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def calibration_error(y_true: Array, probabilities: Array, bins: int = 10) -> float:
    """Return the expected calibration error, Σ n_b/n |accuracy_b - confidence_b| over bins of the largest probability."""
    found = _bins(y_true, probabilities, bins)
    return sum(n * abs(hit - mean) for n, mean, hit in found) / sum(n for n, _, _ in found)


def calibration(y_true: Array, probabilities: Array, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Plot how often predictions are correct against their probability, which shows whether the network is too sure.

    A. Niculescu-Mizil and R. Caruana, "Predicting good probabilities with supervised learning", ICML 2005.

    Parameters
    ----------
    y_true : array of shape (n,)
        True labels.
    probabilities : array of shape (n, classes), or (n,) for two classes
        Such as ``model.predict(x)``.
    bins : int, default 10
        The number of bins of equal width for the probability of the predicted class.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.

    Raises
    ------
    ValueError
        A sample has no label in 0 .. classes - 1.
    """
    found = _bins(y_true, probabilities, bins)
    ax = one_panel(ax, 4.2, 3.8)
    ax.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="perfect")
    _, means, hits = np.array(found).T
    ax.plot(means, hits, "o-", color=BLUE, label="network")
    ax.vlines(means, np.minimum(means, hits), np.maximum(means, hits), color=VERMILLION, linewidth=1.5)
    ax.set(xlabel="Probability of the predicted class", ylabel="Share of correct predictions")
    ax.set(xlim=(min(0.95, means.min() - 0.05), 1.02), ylim=(min(hits.min(), means.min()) - 0.05, 1.05))
    ax.set_title(f"Expected calibration error {calibration_error(y_true, probabilities, bins):.3f}")
    ax.legend(framealpha=0.8, edgecolor="none")
    tidy(ax, "both")
    return ax


def _bins(y_true: Array, probabilities: Array, bins: int) -> list[tuple[int, float, float]]:
    """Return (number of samples, mean probability, share of correct ones) for each bin with samples."""
    labels, p = to_numpy(y_true).reshape(-1), to_numpy(probabilities)
    if p.ndim == 1 or p.shape[1] == 1:
        p = np.stack([1 - p.reshape(-1), p.reshape(-1)], axis=1)
    require(len(p) > 0, "calibration needs at least one sample", f"probabilities of shape {p.shape}")
    require_labels(labels, *p.shape)
    count("bins", bins)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (int(np.sum(place == b)), float(confidence[place == b].mean()), float(correct[place == b].mean()))
        for b in np.unique(place)
    ]


def decision_regions(
    model: Any, x: Array, y: Array | None = None, ax: Axes | None = None, class_names: Sequence[Any] | None = None,
    points: int = 200,
) -> Axes:  # fmt: skip
    """Plot which class a model predicts in each place of the plane, and the samples.

    The color is paler where the probability is lower.

    Parameters
    ----------
    model : Model
        A classifier of samples with two features.
    x : array of shape (n, 2)
        The samples determine the section of the plane.
    y : array of shape (n,), optional
        Labels, which color the samples.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.
    class_names : sequence or dict of label -> name, optional
    points : int, default 200
        The number of places along each axis.

    Raises
    ------
    ValueError
        Samples do not have two features, a sample has no label in 0 .. classes - 1, there are more classes than colors, or the
        model is not a classifier or has several seeds.
    """
    require_one_network("decision_regions", model)
    samples = to_numpy(x)
    if samples.ndim != 2 or samples.shape[1] != 2:
        raise ValueError(f"decision_regions needs samples with two features. Received: x of shape {samples.shape}")
    low, high = samples.min(axis=0), samples.max(axis=0)
    labels = None if y is None else to_numpy(y).reshape(-1)
    margin = 0.08 * np.where(high > low, high - low, 1.0)
    across, up = (np.linspace(a, b, points) for a, b in zip(low - margin, high + margin, strict=True))
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2).astype(np.float32)
    p = to_numpy(model.predict(grid)).reshape(len(grid), -1)
    if p.shape[1] == 1:
        if not model.loss.of_classes:
            raise ValueError(f"decision_regions needs a model that predicts classes. Received: {model!r}")
        p = np.concatenate([1 - p, p], axis=1)
    classes = p.shape[1]
    if classes > len(COLORS):
        raise ValueError(f"decision_regions has colors for {len(COLORS)} classes. Received: {classes} classes")
    if labels is not None:
        require_labels(labels, len(samples), classes)
    ax = one_panel(ax, 4.6, 4.0)
    colors = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in COLORS])
    label = p.argmax(axis=1)
    strength = (p.max(axis=1) - 1 / classes) / (1 - 1 / classes)
    alpha = 0.1 + 0.4 * strength[:, None]
    image = np.concatenate([colors[label], alpha], axis=1).reshape(points, points, 4)
    extent = (across[0], across[-1], up[0], up[-1])
    ax.imshow(image, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    names = names_of_classes(class_names if class_names is not None else range(classes))
    for k in range(classes if labels is not None else 0):
        rows = samples[labels == k]
        ax.scatter(rows[:, 0], rows[:, 1], s=14, color=COLORS[k], edgecolor="white", linewidth=0.5, label=names[k])
    if labels is None:
        ax.scatter(samples[:, 0], samples[:, 1], s=14, color=GRAY, edgecolor="white", linewidth=0.5)
    else:
        ax.legend(framealpha=0.8, edgecolor="none")
    ax.set(xlabel="Feature 0", ylabel="Feature 1", xlim=extent[:2], ylim=extent[2:])
    return ax


def loss_slice(
    model: Any, x: Array, y: Array, ax: Axes | None = None, points: int = 25, width: float = 1.0, seed: int = 0
) -> Axes:
    """Plot the loss along two random directions through the parameters, which shows how flat the minimum is.

    Each direction has, in every array, the norm of that array's parameters. H. Li et al., "Visualizing the loss landscape of
    neural nets", NeurIPS 2018.

    Parameters
    ----------
    model : Model
        A built model. It does not change.
    x, y : array
        Samples and targets, in the form that `fit` accepts. A few hundred are enough.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.
    points : int, default 25
        The number of places along each direction.
    width : float, default 1.0
        The largest distance, as a multiple of the parameters' norm.
    seed : int, default 0
        Determines the directions.

    Raises
    ------
    ValueError
        The model has several seeds.
    """
    require_one_network("loss_slice", model)
    twin, rng = copy.copy(model), np.random.default_rng(seed)
    params = map_leaves(to_numpy, model.parameters)
    directions = [map_leaves(lambda p: _direction(rng, p), params) for _ in range(2)]
    require(count("points", points) > 1, "A slice needs at least two points in each direction", f"points={points}")
    places = np.linspace(-width, width, points)
    losses = np.empty((points, points))
    for i, b in enumerate(places):
        for j, a in enumerate(places):
            moved = map_leaves(lambda p, u, v, a=a, b=b: model.backend.asarray(p + a * u + b * v), params, *directions)
            twin.state = model.state | {"params": moved}
            losses[i, j] = twin.evaluate(x, y)[0]
    ax = one_panel(ax, 4.8, 4.0)
    finite = np.where(np.isfinite(losses), losses, np.nan)
    filled = ax.contourf(places, places, finite, levels=20, cmap="cividis_r")
    ax.contour(places, places, finite, levels=20, colors="white", linewidths=0.3)
    ax.plot(0, 0, "o", color=VERMILLION, markeredgecolor="white", label="the model")
    ax.figure.colorbar(filled, ax=ax, label="Loss")
    ax.set(xlabel="Direction 1", ylabel="Direction 2")
    ax.legend(framealpha=0.8, edgecolor="none")
    return ax


def _direction(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    d = rng.normal(size=p.shape)
    return (d * (float(np.linalg.norm(p)) / max(float(np.linalg.norm(d)), 1e-30))).astype(p.dtype)
