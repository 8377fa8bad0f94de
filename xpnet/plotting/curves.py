"""Learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xpnet.checks import is_integer, require_choice
from xpnet.errors import optional_import
from xpnet.history import History
from xpnet.plotting.figures import BLUE, COLORS, VERMILLION, one_panel, text_color, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xpnet.callbacks import LearningRateFinder

LINES: dict[str, tuple[dict, dict]] = {  # the styles of the training and validation curves
    "epoch": (
        {"linestyle": "--", "linewidth": 1.4, "zorder": 2.5},
        {"linewidth": 1.8},
    ),  # the dashed line lies on top, so that both show where they meet
    "iteration": ({"linewidth": 0.9}, {"linewidth": 1.5}),
}
MARKERS = "os^DvPX"  # one for each color, for several histories
STEEP = 100  # maximum / median: on a linear axis, half of the values would use less than a hundredth of the height
SPIKE = 15  # the limit after the first tenth of a history, where the steep descent is over


def learning_curves(
    history: History | Mapping[str, Any],
    metric: str = "loss",
    ax: Axes | None = None,
    per: Literal["epoch", "iteration"] = "epoch",
    smooth: int = 1,
    labels: tuple[str, str] | None = None,
) -> Axes:
    """Plot a metric of the training data, and of the validation data if recorded, against epochs or iterations.

    For K networks trained at once, it plots the mean and a band of ± one standard error. The axis is logarithmic if the
    largest value exceeds 100 times the median of a history, or 15 times the median after the first tenth of the history,
    because one spike would flatten everything else. ``ax.set_yscale("linear")`` undoes this.

    Parameters
    ----------
    history : History, dict of lists such as `History.history`, or dict of name -> history
        Several histories are drawn in one plot, each with its own color and marker.
    metric : str, default "loss"
        A name in the history, without ``"val_"``.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.
    per : {"epoch", "iteration"}, default "epoch"
        "iteration" plots the values that ``fit(record_every=k)`` recorded.
    smooth : int, default 1
        The number of neighboring points to average for the training curve. The points themselves are drawn in a pale color.
    labels : (str, str), optional
        The names of the two curves. The default is ("training", "validation"), or ("mini-batch", "validation") for
        iterations.

    Raises
    ------
    ValueError
        The history does not hold the metric for epochs or iterations; a value is a list, such as one number for each class;
        or `smooth` exceeds the number of points.
    """
    require_choice("per", per, "epoch", "iteration")
    histories = _named_histories(history)
    series = [_series(one, metric, per) for one in histories.values()]
    smoothed = [_running_mean(*train, smooth) for train, *_ in series]
    ax = one_panel(ax, 5.2, 3.4)
    train_style, validation_style = LINES[per]
    several = "" not in histories
    crowded = several or max(len(x) for (x, _), *_ in series) > 500
    if per == "iteration" and smooth == 1 and crowded and any(len(one) > 1 for one in series):
        train_style = train_style | {"alpha": 0.5}  # keeps the validation curve visible
    for i, ((train, *validation), means) in enumerate(zip(series, smoothed, strict=True)):
        color, validation_color = (COLORS[i], COLORS[i]) if several else (BLUE, VERMILLION)
        marker = _marker(i, len(series), len((validation or [means])[0][0])) if several else {}
        if smooth > 1:
            _curve(ax, *train, color=color, **train_style | {"alpha": 0.3})
        _curve(ax, *means, color=color, **train_style, **({} if validation else marker))
        for values in validation:
            _curve(ax, *values, color=validation_color, **validation_style, **marker)

    _scale(ax, [np.concatenate([np.ravel(values) for _, values in one]) for one in series])
    names = labels or ("training" if per == "epoch" else "mini-batch", "validation")
    _legend(ax, list(histories) if several else [], names[: max(map(len, series))], (train_style, validation_style))
    _label_curves(ax, metric, per)
    return ax


def learning_rate_curve(finder: LearningRateFinder, ax: Axes | None = None) -> Axes:
    """Plot the losses of a test of learning rates, their smoothed values, and the suggestion.

    Parameters
    ----------
    finder : LearningRateFinder
        After its run of `fit`.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.

    Raises
    ------
    ValueError
        The finder was not in a run.
    """
    rates, losses = finder.learning_rates, np.asarray(finder.losses)
    if not rates:
        raise ValueError("finder has no losses yet. Run model.fit(..., callbacks=[finder]) first. Received: 0 losses")
    ax = one_panel(ax, 5.2, 3.4)
    ax.plot(rates, losses, color=BLUE, alpha=0.5, linewidth=0.8, label="mini-batch")
    ax.plot(rates, finder.smoothed, color=BLUE, label="smoothed")
    if finder.suggestion is not None:
        ax.axvline(finder.suggestion, color=VERMILLION, linestyle="--", label=f"suggestion: {finder.suggestion:.2g}")
    _scale(ax, [losses])
    ax.set(xscale="log", xlabel="Learning rate", ylabel="Loss")
    ax.legend(framealpha=0.8, edgecolor="none")
    tidy(ax, "both")
    return ax


def _named_histories(history: Any) -> dict[str, Any]:
    """Return histories by name; a single history has the name ""."""
    if isinstance(history, Mapping) and history and all(isinstance(h, History | Mapping) for h in history.values()):
        if len(history) > len(COLORS):
            raise ValueError(
                f"A plot can hold at most {len(COLORS)} histories. Draw several plots. Received: {len(history)}"
            )
        return {str(name): one for name, one in history.items()}
    if isinstance(history, History | Mapping):
        return {"": history}
    raise TypeError(
        f"history must be the History that fit returns, its dict of lists, or a dict of these. Received: {history!r}"
    )


def _series(history: History | Mapping, metric: str, per: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions, from 1, and values (n,) or (n, K) of the training data, and of the validation data if recorded."""
    if not isinstance(history, History):
        table, positions = history, history.get("step")
        if (positions is None) != (per == "epoch"):
            raise ValueError(
                'history as a dict must be History.history for per="epoch", and History.iterations, which has a "step", for '
                f'per="iteration". Received: per={per!r} and a dict of {", ".join(history)}'
            )
    elif per == "epoch":
        table, positions = history.history, history.epoch
    else:
        table, positions = history.iterations, history.iterations.get("step")
    names = [name for name in table if name != "step" and not name.startswith("val_")]
    if metric not in names and metric.startswith("val_"):
        raise ValueError(
            f'metric must be a name without "val_", because both curves are drawn. Write {metric.removeprefix("val_")!r}. '
            f"Received: metric={metric!r}"
        )
    if metric not in names:
        remedy = "fit(record_every=1) records iterations" if per == "iteration" else "Model(metrics=[...]) records more"
        raise ValueError(
            f"metric must be in the history, which holds {', '.join(names) or 'nothing'}. {remedy}. "
            f"Received: metric={metric!r}"
        )
    train, validation = table[metric], table.get(f"val_{metric}")
    if "loss" in table and np.ndim(train[:1]) != np.ndim(table["loss"][:1]):
        raise ValueError(
            f"A curve needs one number at each point, but each value of {metric} is a list. Plot one entry of the lists: "
            f'learning_curves({{"first": [value[0] for value in history.history["{metric}"]]}}, "first"). '
            f"Received: values of shape {np.shape(train[0])}"
        )
    x = np.arange(len(train)) if positions is None else np.asarray(positions)
    if validation is None:
        return [(x + 1, np.asarray(train))]
    at = x if len(validation) == len(x) else np.asarray(getattr(history, "validation_epoch", []))
    if len(validation) != len(at):
        raise ValueError(
            "A dict does not hold the epochs of the validation values. Plot the History that fit returns. Received: "
            f"{len(train)} values of {metric!r} and {len(validation)} of 'val_{metric}'"
        )
    return [(x + 1, np.asarray(train)), (at + 1, np.asarray(validation))]


def _running_mean(x: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of `width` neighbors, at the means of their positions."""
    if not (is_integer(width) and 1 <= width <= len(x)):
        raise ValueError(
            f"smooth must be an integer from 1 to the number of points, {len(x)}. Received: smooth={width!r}"
        )
    windows = np.lib.stride_tricks.sliding_window_view
    return windows(x, width).mean(axis=-1), windows(values, width, axis=0).mean(axis=-1)


def _curve(ax: Axes, x: np.ndarray, values: np.ndarray, /, **style: Any) -> None:
    """Draw a line. For values (n, K), draw their mean and a band of ± one standard error."""
    if values.ndim == 2:
        k = values.shape[1]
        mean = values.mean(axis=1)
        if k > 1:
            error = values.std(axis=1, ddof=1) / math.sqrt(k)
            ax.fill_between(x, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
        values = mean
    ax.plot(x, values, **{"marker": "o" if len(x) <= 20 else None, "markersize": 3.5} | style)


def _marker(i: int, count: int, points: int) -> dict[str, Any]:
    """The marker of the i-th of `count` curves, at about eight points. The points of different curves do not coincide."""
    step = max(1, points // 8)
    return {"marker": MARKERS[i], "markevery": (i * step // count, step), "markersize": 5}


def _scale(ax: Axes, histories: list[np.ndarray]) -> None:
    """Set a logarithmic axis if a linear one would show little but a spike; values <= 0 get a linear part around 0."""
    sizes = [np.abs(values[np.isfinite(values) & (values != 0)]) for values in histories]
    sizes = [size for size in sizes if len(size)]
    if not sizes:
        return
    median = min(float(np.median(size)) for size in sizes)
    behind_start = [size[-(-len(size) // 10) :] for size in sizes]  # a high loss at the start is not a spike
    later = max((float(size.max()) for size in behind_start if len(size)), default=0.0)
    if later > SPIKE * median or max(float(size.max()) for size in sizes) > STEEP * median:
        if all(np.all(~(values <= 0)) for values in histories):
            ax.set_yscale("log")
        else:
            ax.set_yscale("symlog", linthresh=median)


def _legend(ax: Axes, histories: list[str], curves: tuple[str, ...], styles: tuple[dict, dict]) -> None:
    """Add a legend with the colors and markers of several histories, and the line style of each kind of curve."""
    for name, color, marker in zip(histories, COLORS, MARKERS, strict=False):
        ax.plot([], [], color=color, linewidth=4, marker=marker, markersize=7, label=name)
    colors = (text_color(),) * 2 if histories else (BLUE, VERMILLION)
    for name, color, style in zip(curves, colors, styles, strict=False):
        ax.plot([], [], color=color, label=name, **style)
    many = len(histories) + len(curves) > 4  # a legend inside the plot would cover the curves
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if many else {}
    ax.legend(framealpha=0.8, edgecolor="none", **place)


def _label_curves(ax: Axes, metric: str, per: str) -> None:
    ticker = optional_import("matplotlib.ticker", "plot")
    ax.set(xlabel=per.capitalize(), ylabel=metric.replace("_", " ").capitalize())
    long = ax.get_xlim()[1] >= 10_000  # labels of six characters need space
    locator = ticker.MaxNLocator(5 if long else "auto", steps=(1, 2, 5, 10), integer=True, min_n_ticks=1)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    if "accuracy" in metric:
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    tidy(ax, "both")
