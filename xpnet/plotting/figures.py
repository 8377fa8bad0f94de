"""What all pictures share: colors, figures and axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Literal

from xpnet.errors import optional_import

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BLUE, VERMILLION, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GRAY)  # each shows on white and on black


def text_color() -> str:
    """Black, or light where matplotlib's style is a dark one."""
    return optional_import("matplotlib", "plot").rcParams["text.color"]


def one_panel(ax: Axes | None, width: float, height: float) -> Axes:
    return new_figure(None, width, height).subplots() if ax is None else ax


def new_figure(figure: Figure | SubFigure | None, width: float, height: float) -> Any:
    if figure is not None:
        return figure
    return optional_import("matplotlib.pyplot", "plot").figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(ax: Axes, grid: Literal["x", "y", "both"]) -> None:
    """A light grid behind the data, and no frame above and on the right."""
    ax.grid(True, axis=grid, color=GRAY, alpha=0.3, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def names_of_classes(class_names: Any) -> list[str]:
    """The names of classes 0, 1, 2, ... in this order, of a sequence or a dict from label to name."""
    if isinstance(class_names, Mapping):
        if set(class_names) != set(range(len(class_names))):
            raise ValueError(f"class_names as a dict has the keys 0, 1, 2, ... Received: {list(class_names)}")
        class_names = [class_names[label] for label in range(len(class_names))]
    if isinstance(class_names, Set):
        raise ValueError(f"class_names are in the order of the classes, and a set has none. Received: {class_names!r}")
    return [str(name) for name in class_names]


def require_one_each(name: str, values: Sequence, count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name} must hold one entry for each of {count}. Received: {len(values)}")
