"""Pictures of training and of what was learnt, with matplotlib (``pip install "xpnet[plot]"``).

A function with one panel draws on `ax` and returns it; one with several fills `figure`, which may be a subfigure of a page,
and returns it. Without either it makes a new figure. Nothing is shown, so no screen is needed. Arrays may be of any library.
Colours are those of M. Okabe and K. Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xpnet.backend import to_numpy
from xpnet.callbacks import History
from xpnet.checks import is_integer
from xpnet.errors import optional_import
from xpnet.tree import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: dict[str, tuple[dict, dict]] = {  # of training and validation
    "epoch": ({"linestyle": "--", "linewidth": 1.4}, {"linewidth": 1.8}),
    "iteration": ({"linewidth": 0.8}, {"linewidth": 1.3}),
}


def learning_curves(
    history: History | Mapping[str, Any],
    metric: str = "loss",
    ax: Axes | None = None,
    per: Literal["epoch", "iteration"] = "epoch",
    smooth: int = 1,
    labels: tuple[str, str] | None = None,
) -> Axes:
    """A metric of the training data and, where recorded, of the validation data, against epochs or iterations.

    Of K networks trained at once, the mean in a band of ± one standard error.

    Parameters
    ----------
    history : History, dict of lists such as `History.history`, or dict of name -> history
        Several histories are drawn over each other, each in its colour.
    metric : str, default "loss"
        A name in the history, without ``"val_"``.
    ax : matplotlib.axes.Axes, optional
    per : {"epoch", "iteration"}, default "epoch"
        "iteration" draws what ``fit(record_every=k)`` recorded.
    smooth : int, default 1
        Draw the training curve as the mean of so many neighbouring points, over the points themselves, which turn pale.
    labels : (str, str), optional
        Names of the two curves; ("training", "validation"), or ("mini-batch", "validation") per iteration.

    Raises
    ------
    ValueError
        The history does not hold the metric, or not per epoch or iteration as asked; `smooth` exceeds its points.
    """
    if per not in ("epoch", "iteration"):
        raise ValueError(f'per must be "epoch" or "iteration". Received: per={per!r}')
    histories = _named_histories(history)
    series = [_series(one, metric, per) for one in histories.values()]
    smoothed = [_running_mean(*train, smooth) for train, *_ in series]
    ax = _axes(ax, 5.2, 3.4)
    pairs = [(BLUE, VERMILLION)] if "" in histories else [(color, color) for color in COLORS]
    style, validation_style = LINES[per]
    if per == "iteration" and "" not in histories and smooth == 1:
        style = style | {"alpha": 0.4}  # of the same colour as the validation curve, which lies over it
    for (train, *validation), means, (color, validation_color) in zip(series, smoothed, pairs, strict=False):
        if smooth > 1:
            _curve(ax, *train, color=color, **style | {"alpha": 0.3})
        _curve(ax, *means, color=color, **style)
        for values in validation:
            _curve(ax, *values, color=validation_color, **validation_style)

    if "" not in histories:
        for name, color in zip(histories, COLORS, strict=False):
            ax.plot([], [], color=color, linewidth=4, label=name)
        pairs = [(GREY, GREY)]
    train_label, validation_label = labels or ("training" if per == "epoch" else "mini-batch", "validation")
    ax.plot([], [], color=pairs[0][0], label=train_label, **style)
    if any(validation for _, *validation in series):
        ax.plot([], [], color=pairs[0][1], label=validation_label, **validation_style)
    _label_curves(ax, metric, per)
    return ax


def weight_images(
    weights: Array,
    shape: tuple[int, int] = (28, 28),
    columns: int = 5,
    titles: Sequence[Any] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """What each unit of a layer looks for: its weights as an image, all on one colour scale; white is 0.

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
    """Images in rows and columns, on one scale of grey or, outside 0 to 1, of floating-point colours.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3)
    titles : sequence, optional
        One for each image, such as the label, or "7, not 1" for a mistake.
    columns : int, default 5
        Images in a row.
    figure : matplotlib Figure or SubFigure, optional
    title_colors : sequence of colours, optional
        One for each title.
    cmap : str, default "gray_r"
        Dark where the value is large: ink, as in MNIST. "gray" shows photographs as they are.

    Raises
    ------
    ValueError
        `images` is not of these shapes; titles or colours are not one for each image.
    """
    images = to_numpy(images)
    if images.ndim not in (3, 4) or 0 in images.shape or images.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"images must have shape (n, height, width), with 1 or 3 channels behind. Reshape rows of pixels, such as "
            f"x.reshape(-1, 28, 28). Received: images of shape {images.shape}"
        )
    figure, axes = _image_axes(figure, len(images), columns, titles)
    if images.shape[3:] == (3,) and images.dtype.kind == "f" and (images.min() < 0 or images.max() > 1):
        images = (images - images.min()) / (np.ptp(images) or 1.0)  # matplotlib scales grey alone
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image, cmap=cmap, vmin=images.min(), vmax=images.max())
    if title_colors is not None:
        _require_one_each("title_colors", title_colors, len(images))
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
        One row of ``model.predict_proba``.
    label : int, optional
        The true class. Its bar is green, that of a wrong prediction vermillion.
    figure : matplotlib Figure or SubFigure, optional
    class_names : sequence, optional
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
            "probabilities must be one number in [0, 1] for each of two classes or more. Give one row of predict_proba; "
            f"of a single sigmoid output p give (1 - p, p). Received: probabilities {p!r}"
        )
    names = [str(name) for name in (range(len(p)) if class_names is None else class_names)]
    _require_one_each("class_names", names, len(p))
    predicted = int(np.argmax(p))
    colors = [GREY] * len(p)
    colors[predicted] = BLUE if label is None else VERMILLION
    title = f"Prediction: {names[predicted]}"
    if label is not None:
        if not (is_integer(label) and 0 <= label < len(p)):
            raise ValueError(f"label must be a class from 0 to {len(p) - 1}, or None. Received: label={label!r}")
        colors[label] = GREEN
        right = predicted == label
        title = f"CORRECT: {names[label]}" if right else f"INCORRECT: {names[predicted]}, not {names[label]}"
    figure = _figure(figure, max(4.4, 0.11 * len(title)), max(2.4, 0.18 * len(p) + 0.6))
    picture, bars = figure.subplots(1, 2, width_ratios=(1, 1.5))
    picture.imshow(to_numpy(image), cmap=cmap)
    picture.set_axis_off()
    bars.barh(range(len(p)), p, color=colors, tick_label=names)
    bars.set_ylim(len(p) - 0.4, -0.6)
    bars.set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="Probability")
    _tidy(bars, "x")
    figure.suptitle(title, color="black" if label is None else colors[predicted], weight="bold")
    return figure


def confusion_matrix(
    y_true: Array, y_pred: Array, ax: Axes | None = None, class_names: Sequence[Any] | None = None
) -> Axes:
    """How often each true class (row) was taken for each class (column), with scikit-learn's display.

    The shade follows the square root of the count, so that mistakes show beside thousands of correct predictions.

    Parameters
    ----------
    y_true, y_pred : arrays of shape (n,)
        Labels, and ``model.predict(x)``.
    ax : matplotlib.axes.Axes, optional
    class_names : sequence, optional
        Names of the classes 0, 1, 2, ...; the labels that occur if not given.

    Raises
    ------
    ValueError
        The labels are not of one shape (n,), or not among `class_names`.
    """
    metrics, colors = optional_import("sklearn.metrics", "sklearn"), optional_import("matplotlib.colors", "plot")
    y_true, y_pred = to_numpy(y_true), to_numpy(y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape or not len(y_true):
        raise ValueError(
            "y_true and y_pred must be labels of shape (n,). Make labels of one-hot rows with y.argmax(axis=1). Received: "
            f"shapes {y_true.shape} and {y_pred.shape}"
        )
    classes = np.unique([y_true, y_pred]) if class_names is None else np.arange(len(class_names))
    names = [str(name) for name in (classes if class_names is None else class_names)]
    if not np.all(np.isin([y_true, y_pred], classes)):
        raise ValueError(
            f"With {len(names)} class_names the labels must be 0 to {len(names) - 1}. Name every class, or leave class_names "
            f"out. Received: labels {np.unique([y_true, y_pred])}"
        )
    side = 1.2 + max(1.6, 0.46 * len(names))
    ax = _axes(ax, side, side)
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
        text.set_color("white" if dark else "black" if count else GREY)
    return ax


def layer_statistics(
    statistics: Sequence[Mapping[str, Any]], figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Activations and gradients layer by layer: do they vanish, explode, saturate or die on their way?

    Beside each layer stands its share of exact zeros. Where layers differ much in size, the scale is logarithmic away from 0.

    Parameters
    ----------
    statistics : list of dict
        What `xpnet.inspection.layer_statistics` returns.
    figure : matplotlib Figure or SubFigure, optional
    """
    names = [layer["layer"] for layer in statistics]
    figure = _figure(figure, 7.4, 1.5 + 0.34 * len(names))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, key, label in zip(axes, ("activation", "gradient"), ("Activation", "Gradient of the loss"), strict=True):
        _quantile_panel(ax, [layer[key] for layer in statistics])
        ax.set(xlabel=label, yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


# ---------------------------------------------------------------------- curves


def _named_histories(history: Any) -> dict[str, Any]:
    """Histories by name; a single one has the name ""."""
    if isinstance(history, Mapping) and history and all(isinstance(h, History | Mapping) for h in history.values()):
        if len(history) > len(COLORS):
            raise ValueError(
                f"One plot holds up to {len(COLORS)} histories; draw them on several. Received: {len(history)}"
            )
        return {str(name): one for name, one in history.items()}
    if isinstance(history, History | Mapping):
        return {"": history}
    raise TypeError(f"history must be what fit returns, its dict of lists, or a dict of those. Received: {history!r}")


def _series(history: History | Mapping, metric: str, per: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of the training and, where recorded, the validation data: positions from 1 on, and values of shape (n,) or (n, K)."""
    if not isinstance(history, History):
        table, positions = history, history.get("step")
        if (positions is None) != (per == "epoch"):
            raise ValueError(
                'With per="epoch" a dict is History.history, with per="iteration" History.iterations, which has a "step". '
                f"Received: per={per!r} and a dict of {', '.join(history)}"
            )
    elif per == "epoch":
        table, positions = history.history, history.epoch
    else:
        table, positions = history.iterations, history.iterations.get("step")
    names = [name for name in table if name != "step" and not name.startswith("val_")]
    if metric not in names:
        remedy = "fit(record_every=1) records iterations" if per == "iteration" else "Model(metrics=[...]) records more"
        raise ValueError(f"The history holds {', '.join(names) or 'nothing'}; {remedy}. Received: metric={metric!r}")
    train, validation = table[metric], table.get(f"val_{metric}")
    x = np.arange(len(train)) if positions is None else np.asarray(positions)
    if validation is None:
        return [(x + 1, np.asarray(train))]
    at = x if len(validation) == len(x) else np.asarray(getattr(history, "validation_epoch", []))
    if len(validation) != len(at):
        raise ValueError(
            "The epochs of the validation values are unknown: draw the History that fit returns, not its dict. Received: "
            f"{len(train)} values of {metric!r} and {len(validation)} of 'val_{metric}'"
        )
    return [(x + 1, np.asarray(train)), (at + 1, np.asarray(validation))]


def _running_mean(x: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over `width` neighbours, at the means of their positions."""
    if not (is_integer(width) and 1 <= width <= len(x)):
        raise ValueError(
            f"smooth must be an integer from 1 to the number of points, {len(x)}. Received: smooth={width!r}"
        )
    windows = np.lib.stride_tricks.sliding_window_view
    return windows(x, width).mean(axis=-1), windows(values, width, axis=0).mean(axis=-1)


def _curve(ax: Axes, x: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """A line; of values (n, K) their mean, and a band of ± one standard error."""
    if values.ndim == 2:
        k = values.shape[1]
        mean = values.mean(axis=1)
        if k > 1:
            error = values.std(axis=1, ddof=1) / math.sqrt(k)
            ax.fill_between(x, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
        values = mean
    ax.plot(x, values, marker="o" if len(x) <= 20 else None, markersize=3.5, **style)


def _label_curves(ax: Axes, metric: str, per: str) -> None:
    ticker = optional_import("matplotlib.ticker", "plot")
    ax.set(xlabel=per.capitalize(), ylabel=metric.replace("_", " ").capitalize())
    ax.xaxis.set_major_locator(ticker.MaxNLocator("auto", steps=(1, 2, 5, 10), integer=True, min_n_ticks=1))
    if "accuracy" in metric:
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    _tidy(ax, "both")
    many = len(ax.get_legend_handles_labels()[0]) > 5  # they would cover the curves
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if many else {}
    ax.legend(framealpha=0.8, edgecolor="none", **place)


# ---------------------------------------------------------------------- panels


def _quantile_panel(ax: Axes, layers: list[Mapping[str, Any]]) -> None:
    """One row for each layer's quantiles and mean, and its share of zeros beside it."""
    rows = range(len(layers))
    low, q1, median, q3, high = np.array([layer["quantiles"] for layer in layers]).T
    ax.hlines(rows, low, high, color=BLUE, linewidth=1.2, label="5–95 %")
    ax.hlines(rows, q1, q3, color="#56B4E9", linewidth=9, label="25–75 %")
    ax.plot(median, rows, "|", color="black", markersize=10, markeredgewidth=1.5, label="median")
    ax.plot([layer["mean"] for layer in layers], rows, "o", color=VERMILLION, markersize=4, label="mean")
    for row, layer in zip(rows, layers, strict=True):
        ax.text(1.02, row, f"{layer['zeros']:.0%}", transform=ax.get_yaxis_transform(), va="center")
    ax.text(1.02, 1.0, "zeros", transform=ax.transAxes, va="bottom")
    _tidy(ax, "x")
    sizes = np.maximum(np.abs(low), np.abs(high))
    sizes = sizes[sizes > 0]
    if len(sizes) and sizes.max() > 30 * sizes.min():
        _log_scale(ax, sizes.min(), sizes.max())
    else:
        ax.locator_params(axis="x", nbins=4)
        ax.ticklabel_format(axis="x", scilimits=(-2, 4))


def _log_scale(ax: Axes, smallest: float, largest: float) -> None:
    """Logarithmic on both sides of 0, with room for five labels."""
    first, last = math.floor(math.log10(smallest)), math.floor(math.log10(largest))
    ax.set_xscale("symlog", linthresh=10.0**first, linscale=max(1.0, (last - first) / 2))
    ax.set_xticks([-(10.0**last), -(10.0**first), 0.0, 10.0**first, 10.0**last])
    ax.minorticks_off()


# ---------------------------------------------------------------------- figures and axes


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return _figure(None, width, height).subplots() if ax is None else ax


def _figure(figure: Figure | SubFigure | None, width: float, height: float) -> Any:
    if figure is not None:
        return figure
    return optional_import("matplotlib.pyplot", "plot").figure(figsize=(width, height), dpi=150, layout="constrained")


def _image_axes(
    figure: Figure | SubFigure | None, count: int, columns: int, titles: Sequence[Any] | None, extra_width: float = 0.0
) -> tuple[Any, list[Axes]]:
    """One bare square for each image, with its title."""
    if titles is not None:
        _require_one_each("titles", titles, count)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    lines = [str(title).splitlines() for title in (() if titles is None else titles)]
    longest = max((len(line) for title in lines for line in title), default=0)
    width = max(min(1.15, 8 / columns), 0.085 * longest)  # in inches: a letter of a title takes about 0.08
    height = min(width, 1.15) + 0.2 * max(map(len, lines), default=0)
    figure = _figure(figure, width * columns + extra_width, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.set_axis_off()
    for ax, title in zip(axes, () if titles is None else titles, strict=False):
        ax.set_title(str(title), fontsize=10, pad=3)
    return figure, axes[:count]


def _tidy(ax: Axes, grid: Literal["x", "y", "both"]) -> None:
    """A light grid behind the data, and no frame above and on the right."""
    ax.grid(True, axis=grid, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _require_one_each(name: str, values: Sequence, count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name} must hold one entry for each of {count}. Received: {len(values)}")
