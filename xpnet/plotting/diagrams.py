"""A diagram of a small dense network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backend import to_numpy
from xpnet.checks import require_one_network
from xpnet.layers import Dense
from xpnet.layers.shapes import walk_shapes
from xpnet.plotting.figures import BLUE, VERMILLION, one_panel, text_color
from xpnet.tree import subtree

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def network_diagram(model: Any, ax: Axes | None = None, units: int = 16) -> Axes:
    """Plot the dense layers of a network as columns of circles, and their weights as lines.

    Blue lines are positive weights, and orange ones are negative. Wider lines have larger absolute values in their layer.
    Other layers, such as activations, are named below the column that they follow.

    Parameters
    ----------
    model : Model
        A built model whose network has dense layers one after another.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on.
    units : int, default 16
        The most circles in a column. Of more units, the first and the last ones are drawn.

    Raises
    ------
    ValueError
        The network has no dense layer, or the model has several seeds.
    """
    model.built_state()
    require_one_network("network_diagram", model)
    places = [place for place in walk_shapes(model.network, model.input_shape) if place.path and "." not in place.path]
    dense = [place for place in places if isinstance(place.layer, Dense)]
    if not dense:
        raise ValueError(f"network_diagram needs a network with Dense layers. Received: {model!r}")
    sizes = [dense[0].input_shape[-1], *(place.output_shape[-1] for place in dense)]
    columns = [_drawn(size, units) for size in sizes]
    ax = one_panel(ax, 1.4 + 1.5 * len(sizes), 1.2 + 0.28 * max(map(len, columns)))
    heights = [np.linspace(1, 0, len(column) + 2)[1:-1] for column in columns]
    for k, place in enumerate(dense):
        weight = to_numpy(subtree(model.network.filled(model.parameters), place.path)["weight"])
        largest = max(float(np.abs(weight).max()), 1e-30)
        for i, top in zip(columns[k], heights[k], strict=True):
            for j, end in zip(columns[k + 1], heights[k + 1], strict=True):
                if i is not None and j is not None:
                    share = abs(float(weight[i, j])) / largest
                    color = BLUE if weight[i, j] >= 0 else VERMILLION
                    ax.plot(
                        [k, k + 1],
                        [top, end],
                        color=color,
                        linewidth=0.2 + 1.8 * share,
                        alpha=0.15 + 0.75 * share,
                        zorder=1,
                    )
    for k, (column, height) in enumerate(zip(columns, heights, strict=True)):
        for unit, y in zip(column, height, strict=True):
            if unit is None:
                ax.text(k, y, "⋮", ha="center", va="center", color=text_color(), zorder=3)
            else:
                ax.plot(k, y, "o", color="white", markeredgecolor=text_color(), markersize=9, zorder=2)
    for k, text in enumerate(_captions(places, dense, sizes)):
        ax.text(k, -0.02, text, ha="center", va="top", color=text_color(), fontsize="small")
    ax.set(xlim=(-0.5, len(sizes) - 0.5), ylim=(-0.25, 1.02))
    ax.axis("off")
    return ax


def _drawn(size: int, units: int) -> list[int | None]:
    """Return the units to draw; None is a gap."""
    if size <= units:
        return list(range(size))
    half = max(1, (units - 1) // 2)
    return [*range(half), None, *range(size - half, size)]


def _captions(places: list[Any], dense: list[Any], sizes: list[int]) -> list[str]:
    captions = [f"input\n{sizes[0]}"]
    for place in places:
        if place in dense:
            captions.append(f"Dense\n{place.output_shape[-1]}")
        elif len(captions) > 1:
            captions[-1] += f"\n{type(place.layer).__name__}"
    return captions
