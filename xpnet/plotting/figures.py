"""Shared code of the plots: colors, figures and axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Literal

from xpnet.errors import optional_import

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BLUE, VERMILLION, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GRAY)  # all visible on white and on black


def text_color() -> str:
    """The text color of matplotlib's style: black, or light in a dark style."""
    return optional_import("matplotlib", "plot").rcParams["text.color"]


def one_panel(ax: Axes | None, width: float, height: float) -> Axes:
    return new_figure(None, width, height).subplots() if ax is None else ax


def new_figure(figure: Figure | SubFigure | None, width: float, height: float) -> Any:
    if figure is not None:
        return figure
    return optional_import("matplotlib.pyplot", "plot").figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(ax: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Draw a light grid behind the data, and remove the frame at the top and on the right."""
    ax.grid(True, axis=grid, color=GRAY, alpha=0.3, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def names_of_classes(class_names: Any) -> list[str]:
    """Return the names of classes 0, 1, 2, ... from a sequence or a dict of label -> name."""
    if isinstance(class_names, Mapping):
        if set(class_names) != set(range(len(class_names))):
            raise ValueError(f"class_names as a dict must have the keys 0, 1, 2, ... Received: {list(class_names)}")
        class_names = [class_names[label] for label in range(len(class_names))]
    if isinstance(class_names, Set):
        raise ValueError(
            f"class_names must follow the order of the classes, but a set has no order. Received: {class_names!r}"
        )
    return [str(name) for name in class_names]


def require_one_each(name: str, values: Sequence, count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name} must hold {count} entries, one for each. Received: {len(values)}")
