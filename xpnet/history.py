"""The history that `fit` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.tables import Table


@dataclass
class History:
    """The record of a training run, returned by `fit`.

    Attributes
    ----------
    history : dict of list
        One value for each epoch: ``"loss"``, each metric, with validation data ``"val_loss"``, ..., and values that callbacks
        add, such as ``"learning_rate"``.
    epoch : list of int
        The numbers of the epochs, counted from 0.
    validation_epoch : list of int
        The epochs after which the model was validated.
    iterations : dict of list
        With ``fit(record_every=k)``, one value for every k steps: ``"step"``, the mini-batch's ``"loss"`` and metrics, and
        with validation data ``"val_loss"``, ... directly after that step.
    params : dict
        The settings of `fit`, with ``"samples"``, the number of training samples, ``"steps"``, the batches in an epoch, and
        ``"weighted"``, whether the samples have weights. Callbacks are there by the names of their types.
    """

    history: dict[str, list[Any]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    validation_epoch: list[int] = field(default_factory=list, kw_only=True)
    iterations: dict[str, list[Any]] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict, kw_only=True, compare=False)

    def _repr_html_(self) -> str:
        return self.table.html()

    @property
    def table(self) -> Table:
        """A row for each epoch, without the middle of a long run. Values that are lists are left out."""
        names = [name for name, values in self.history.items() if isinstance(values[-1], int | float)]
        rows: list[tuple[str, ...]] = [
            (str(epoch), *(f"{self.history[name][i]:.4g}" if i < len(self.history[name]) else "" for name in names))
            for i, epoch in enumerate(self.epoch)
        ]
        if len(rows) > 12:
            rows = [*rows[:4], ("…",), *rows[-8:]]
        return import_module("xpnet.tables").Table(("epoch", *names), rows, " ".join(("epoch", *names)))

    @staticmethod
    def add(table: dict[str, list[Any]], logs: dict[str, Any]) -> None:
        """Append each value of `logs` to its column."""
        for name, value in logs.items():
            table.setdefault(name, []).append(value)
