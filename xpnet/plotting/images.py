"""Images of weights, of samples, and of samples beside their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backend import to_numpy
from xpnet.checks import is_integer
from xpnet.plotting.figures import (
    BLUE,
    GRAY,
    GREEN,
    VERMILLION,
    names_of_classes,
    new_figure,
    require_one_each,
    text_color,
    tidy,
)
from xpnet.tree import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


def weight_images(
    weights: Array,
    shape: tuple[int, int] = (28, 28),
    columns: int = 5,
    titles: Sequence[Any] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Plot the weights of each unit as an image, which shows what the unit responds to. All share a color scale; white is 0.

    Parameters
    ----------
    weights : array of shape (pixels, units)
        For example ``model.parameters[0]["weight"]`` of a network that begins with `Dense`.
    shape : (int, int), default (28, 28)
        Height and width, with height · width = pixels.
    columns : int, default 5
        Images in a row.
    titles : sequence, optional
        One title for each unit, such as ``range(10)`` for ten digits.
    figure : matplotlib Figure or SubFigure, optional
        The figure to fill.

    Raises
    ------
    ValueError
        `weights` does not fit `shape`, or the number of titles is wrong.
    """
    weights = to_numpy(weights)
    if weights.ndim != 2 or weights.shape[0] != math.prod(shape) or 0 in weights.shape:
        raise ValueError(
            f"weights must have shape ({math.prod(shape)}, units) for images of shape {tuple(shape)}. Set shape=(height, "
            f"width). For several networks, pass one of them, weights[k]. Received: weights of shape {weights.shape}"
        )
    limit = np.abs(weights).max()
    figure, axes = _image_axes(figure, weights.shape[1], columns, titles, extra_width=0.8)
    for ax, column in zip(axes, weights.T, strict=True):
        shown = ax.imshow(column.reshape(shape), cmap="RdBu_r", vmin=-limit, vmax=limit)
    figure.colorbar(shown, ax=axes, label="Weight", aspect=15 * math.ceil(len(axes) / columns))
    return figure


def image_grid(
    images: Array,
    titles: Sequence[Any] | None = None,
    columns: int = 5,
    figure: Figure | SubFigure | None = None,
    title_colors: Sequence[Any] | None = None,
    cmap: str = "gray_r",
) -> Figure | SubFigure:
    """Plot images in rows and columns.

    Gray images share one scale. Floating-point color images with values outside [0, 1] are scaled together to that range.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3)
    titles : sequence, optional
        One title for each image, such as the label, or "7, not 1" for a mistake.
    columns : int, default 5
        Images in a row.
    figure : matplotlib Figure or SubFigure, optional
        The figure to fill.
    title_colors : sequence of colors, optional
        One color for each title.
    cmap : str, default "gray_r"
        matplotlib's color map for gray images. "gray_r" draws large values dark, like ink, which suits MNIST. "gray" suits
        photographs.

    Raises
    ------
    ValueError
        `images` does not have one of these shapes, or the number of titles or colors is wrong.
    """
    images = to_numpy(images)
    if images.ndim not in (3, 4) or 0 in images.shape or images.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"images must have shape (n, height, width), optionally followed by 1 or 3 channels. Reshape rows of pixels, "
            f"such as x.reshape(-1, 28, 28). Received: images of shape {images.shape}"
        )
    figure, axes = _image_axes(figure, len(images), columns, titles)
    if images.shape[3:] == (3,) and images.dtype.kind == "f" and (images.min() < 0 or images.max() > 1):
        images = (images - images.min()) / (np.ptp(images) or 1.0)  # matplotlib scales only gray images
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image, cmap=cmap, vmin=images.min(), vmax=images.max())
    if title_colors is not None:
        require_one_each("title_colors", title_colors, len(images))
        for ax, color in zip(axes, title_colors, strict=True):
            ax.title.set_color(color)
    return figure


def prediction_bars(
    image: Array,
    probabilities: Array,
    label: int | None = None,
    figure: Figure | SubFigure | None = None,
    class_names: Sequence[Any] | None = None,
    cmap: str = "gray_r",
) -> Figure | SubFigure:
    """Plot an image beside the predicted probability of each class, with the title CORRECT or INCORRECT.

    Parameters
    ----------
    image : array of shape (height, width), (height, width, 1) or (height, width, 3)
    probabilities : array of shape (classes,)
        One row of ``model.predict``.
    label : int, optional
        The true class. Its bar is green, and the bar of a wrong prediction is vermillion.
    figure : matplotlib Figure or SubFigure, optional
        The figure to fill.
    class_names : sequence or dict of label -> name, optional
        One name for each class. The default is 0, 1, 2, ...
    cmap : str, default "gray_r"
        As in `image_grid`.

    Raises
    ------
    ValueError
        `probabilities` is not one row of probabilities, the number of names is wrong, or `label` is not a class.
    """
    p = to_numpy(probabilities)
    if p.ndim != 1 or len(p) < 2 or not (np.all(p >= 0) and np.all(p <= 1)):
        raise ValueError(
            "probabilities must be one number in [0, 1] for each of at least two classes. Pass one row of predict, or "
            f"(1 - p, p) for a single sigmoid output p. Received: probabilities {p!r}"
        )
    names = names_of_classes(range(len(p)) if class_names is None else class_names)
    require_one_each("class_names", names, len(p))
    predicted = int(np.argmax(p))
    colors = [GRAY] * len(p)
    colors[predicted] = BLUE if label is None else VERMILLION
    title = f"Prediction: {names[predicted]}"
    if label is not None:
        if not (is_integer(label) and 0 <= label < len(p)):
            raise ValueError(f"label must be a class from 0 to {len(p) - 1}, or None. Received: label={label!r}")
        colors[label] = GREEN
        right = predicted == label
        title = f"CORRECT: {names[label]}" if right else f"INCORRECT: {names[predicted]}, not {names[label]}"
    figure = new_figure(figure, max(4.4, 0.11 * len(title)), max(2.4, 0.18 * len(p) + 0.6))
    picture, bars = figure.subplots(1, 2, width_ratios=(1, 1.5))
    picture.imshow(to_numpy(image), cmap=cmap)
    picture.set_axis_off()
    bars.barh(range(len(p)), p, color=colors, tick_label=names)
    bars.set_ylim(len(p) - 0.4, -0.6)
    bars.set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="Probability")
    tidy(bars, "x")
    figure.suptitle(title, color=text_color() if label is None else colors[predicted], weight="bold")
    return figure


def _image_axes(
    figure: Figure | SubFigure | None, count: int, columns: int, titles: Sequence[Any] | None, extra_width: float = 0.0
) -> tuple[Any, list[Axes]]:
    """Return one set of axes for each image, without frame and ticks, with its title."""
    if titles is not None:
        require_one_each("titles", titles, count)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    lines = [str(title).splitlines() for title in (() if titles is None else titles)]
    longest = max((len(line) for title in lines for line in title), default=0)
    width = max(min(1.15, 8 / columns), 0.085 * longest)  # in inches; a character of a title takes about 0.08
    height = min(width, 1.15) + 0.2 * max(map(len, lines), default=0)
    figure = new_figure(figure, width * columns + extra_width, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, title in zip(axes, () if titles is None else titles, strict=False):
        ax.set_title(str(title), fontsize=10, pad=3)
    return figure, axes[:count]
