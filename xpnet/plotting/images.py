"""Images: weights, samples, and samples beside their predictions."""

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
    """What each unit of a layer looks for: its weights as an image, all on one color scale; white is 0.

    Parameters
    ----------
    weights : array of shape (pixels, units)
        Such as ``model.parameters[0]["weight"]`` of a network that begins with `Dense`.
    shape : (int, int), default (28, 28)
        Height and width, with height · width = pixels.
    columns : int, default 5
        Images in a row.
    titles : sequence, optional
        One for each unit; for ten digits ``range(10)``.
    figure : matplotlib Figure or SubFigure, optional

    Raises
    ------
    ValueError
        `weights` does not fit `shape`; the titles are not one for each unit.
    """
    weights = to_numpy(weights)
    if weights.ndim != 2 or weights.shape[0] != math.prod(shape) or 0 in weights.shape:
        raise ValueError(
            f"weights must have shape ({math.prod(shape)}, units) for images of shape {tuple(shape)}. Set shape=(height, "
            f"width); of several networks give one, weights[k]. Received: weights of shape {weights.shape}"
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
    """Images in rows and columns, on one scale of gray or, outside 0 to 1, of floating-point colors.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3)
    titles : sequence, optional
        One for each image, such as the label, or "7, not 1" for a mistake.
    columns : int, default 5
        Images in a row.
    figure : matplotlib Figure or SubFigure, optional
    title_colors : sequence of colors, optional
        One for each title.
    cmap : str, default "gray_r"
        Dark where the value is large: ink, as in MNIST. "gray" shows photographs as they are.

    Raises
    ------
    ValueError
        `images` is not of these shapes; titles or colors are not one for each image.
    """
    images = to_numpy(images)
    if images.ndim not in (3, 4) or 0 in images.shape or images.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"images must have shape (n, height, width), with 1 or 3 channels behind. Reshape rows of pixels, such as "
            f"x.reshape(-1, 28, 28). Received: images of shape {images.shape}"
        )
    figure, axes = _image_axes(figure, len(images), columns, titles)
    if images.shape[3:] == (3,) and images.dtype.kind == "f" and (images.min() < 0 or images.max() > 1):
        images = (images - images.min()) / (np.ptp(images) or 1.0)  # matplotlib scales gray alone
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
    """An image beside the probability that the network gives each class, titled CORRECT or INCORRECT.

    Parameters
    ----------
    image : array of shape (height, width), (height, width, 1) or (height, width, 3)
    probabilities : array of shape (classes,)
        One row of ``model.predict``.
    label : int, optional
        The true class. Its bar is green, that of a wrong prediction vermillion.
    figure : matplotlib Figure or SubFigure, optional
    class_names : sequence or dict of label -> name, optional
        One for each class; 0, 1, 2, ... if not given.
    cmap : str, default "gray_r"
        As in `image_grid`.

    Raises
    ------
    ValueError
        `probabilities` is not one row of them; the names do not fit; `label` is no class.
    """
    p = to_numpy(probabilities)
    if p.ndim != 1 or len(p) < 2 or not (np.all(p >= 0) and np.all(p <= 1)):
        raise ValueError(
            "probabilities must be one number in [0, 1] for each of two classes or more. Give one row of predict; "
            f"of a single sigmoid output p give (1 - p, p). Received: probabilities {p!r}"
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
    """One bare square for each image, with its title."""
    if titles is not None:
        require_one_each("titles", titles, count)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    lines = [str(title).splitlines() for title in (() if titles is None else titles)]
    longest = max((len(line) for title in lines for line in title), default=0)
    width = max(min(1.15, 8 / columns), 0.085 * longest)  # in inches: a letter of a title takes about 0.08
    height = min(width, 1.15) + 0.2 * max(map(len, lines), default=0)
    figure = new_figure(figure, width * columns + extra_width, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, title in zip(axes, () if titles is None else titles, strict=False):
        ax.set_title(str(title), fontsize=10, pad=3)
    return figure, axes[:count]
