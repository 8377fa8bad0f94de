"""One training step on several backends."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import available_backends, make_backend
from xpnet.explanation import explain
from xpnet.tables import Table


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of `compare_backends`. It prints as a table.

    Attributes
    ----------
    backends : tuple of str
    differences : dict of str -> float
        For each array of the step, by the names of `explain`, the largest difference between any two backends, divided by the
        array's largest absolute value.
    """

    backends: tuple[str, ...]
    differences: dict[str, float]

    @property
    def largest(self) -> float:
        return max(self.differences.values())

    @property
    def table(self) -> Table:
        rows = []
        for place in dict.fromkeys(name.rpartition(".")[0] for name in self.differences if "." in name):
            parts = {name[len(place) + 1 :]: value for name, value in self.differences.items()
                     if name.rpartition(".")[0] == place}  # fmt: skip
            outputs = parts.get("y", 0.0)
            gradients = max((value for name, value in parts.items() if name.startswith("d")), default=0.0)
            updates = max((value for name, value in parts.items() if name.endswith("_new")), default=0.0)
            rows.append((place, f"{outputs:.1e}", f"{gradients:.1e}", f"{updates:.1e}"))
        rows.append(("loss", f"{self.differences['loss']:.1e}", f"{self.differences['dz']:.1e}", ""))
        note = (f"largest differences between {', '.join(self.backends)}, relative to each array's largest value",)
        return Table(("layer", "output", "gradients", "updated"), [*rows, note], right="output gradients updated")

    def __repr__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def compare_backends(
    model: Any, x: Any, y: Any, sample_weight: Any = None, *, backends: Sequence[str] | None = None
) -> Comparison:
    """Take the next training step of a model on several backends and compare all arrays. The model does not change.

    Parameters
    ----------
    model : Model
        A built model.
    x, y, sample_weight : array
        A batch in the form that `fit` accepts.
    backends : sequence of str, optional
        The names of two or more backends. The default is every backend that this machine can use; see `available_backends`.

    Returns
    -------
    Comparison
        It prints a row for each layer with the largest differences.

    Raises
    ------
    ValueError
        There are not two backends to compare.
    """
    model.built_state()
    usable = available_backends()
    names = [name for name in usable if usable[name].startswith("usable")] if backends is None else list(backends)
    if isinstance(backends, str) or len(names) < 2:
        raise ValueError(
            'compare_backends needs two or more backends, such as backends=["numpy", "torch"]. available_backends() says which '
            f"ones this machine can use. Received: {names if backends is None else backends!r}"
        )
    explained = []
    for name in names:
        twin = copy.copy(model)
        twin.to(make_backend(name).computing_in(model.backend.float_name))
        explained.append(explain(twin, x, y, sample_weight))
    return Comparison(tuple(names), {name: _difference([one[name] for one in explained]) for name in explained[0]})


def _difference(arrays: list[np.ndarray]) -> float:
    values = np.stack(arrays).astype(float)
    largest = float(np.max(np.abs(values)))
    return float(np.max(np.ptp(values, axis=0))) / largest if largest else 0.0
