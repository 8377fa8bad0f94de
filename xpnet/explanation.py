"""Every quantity of one training step, by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from xpnet import inputs
from xpnet.backend import in_scope, to_numpy
from xpnet.groups import by_itself
from xpnet.layers.base import Container, Layer, walk
from xpnet.layers.mapping import map_layers
from xpnet.layers.observed import Observed
from xpnet.losses import Loss
from xpnet.optimizers import SGD, Optimizer
from xpnet.tables import Table
from xpnet.tree import Array, Tree, join, named_leaves

SYMBOLS = {"weight": "W", "bias": "b", "recurrent_weight": "R"}  # the names of docs/backprop.md
STAGES = ("forward", "loss", "backward", "update")
WHOLE_ROWS, WHOLE_COLUMNS = 8, 7  # larger arrays print as statistics
WIDTH = 80


@dataclass
class Quantity:
    """An array that the training step computed.

    Attributes
    ----------
    names : list of str
        All names of the array: the output of one layer is the input of the next.
    value : numpy.ndarray
    stage : {"forward", "loss", "backward", "update"}
    formula : str
        How the array is computed, in the notation of the layer, or "".
    """

    names: list[str]
    value: np.ndarray
    stage: str
    formula: str

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape


@dataclass(frozen=True, repr=False)
class Explanation(Mapping[str, np.ndarray]):
    """The quantities of a training step in the order of the computation: ``explanation["0.dW"]`` is an array.

    Attributes
    ----------
    quantities : list of Quantity
    """

    quantities: list[Quantity]

    def __getitem__(self, name: str) -> np.ndarray:
        names = {alias: quantity.value for quantity in self.quantities for alias in quantity.names}
        if name not in names:
            near = get_close_matches(str(name), names, n=3)
            raise KeyError(
                f"The training step has no quantity of this name. Use one of list(explanation), such as "
                f"{', '.join(near or list(names)[:3])}. Received: {name!r}"
            )
        return names[name]

    def __iter__(self) -> Iterator[str]:
        return (name for quantity in self.quantities for name in quantity.names)

    def __len__(self) -> int:
        return sum(len(quantity.names) for quantity in self.quantities)

    @property
    def table(self) -> Table:
        """The quantities as text: small arrays whole, and large ones by statistics."""
        rows: list[tuple[str, ...]] = []
        rest = (
            WIDTH - 4 - sum(max(map(len, cells)) for cells in zip(*map(_name_and_shape, self.quantities), strict=True))
        )
        for stage in STAGES:
            rows.append((f"{stage}:",))
            for quantity in self.quantities:
                if quantity.stage == stage:
                    rows.append((*_name_and_shape(quantity), _shortened(quantity.formula, rest)))
                    rows.append((_values(quantity.value),))
        return Table(("quantity", "shape", "formula"), rows)

    def __repr__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@in_scope
def explain(model: Any, x: Any, y: Any, sample_weight: Any = None) -> Explanation:
    """Return every quantity of the training step that ``model.train_on_batch(x, y)`` would take. The model does not change.

    The step runs on a copy of the model, with an observer around every layer, so the arrays are those of the step itself. Two
    things round differently in `fit`: a library that compiles, such as JAX, and a large batch, computed in parts on NumPy.
    With several ranks, each that calls it computes the whole batch.

    Parameters
    ----------
    model : Model
        If it is not built, the explanation begins with the initial parameters that `fit` would draw.
    x, y, sample_weight : array
        A batch in the form that `fit` accepts.

    Returns
    -------
    Explanation
        ``explanation["0.dW"]`` is the gradient of the first layer's weights. It prints as a table. The names, with "0" for
        the path of a layer as in `Model.summary`:

        - ``"x"``, ``"t"``, ``"w"``: the inputs, targets and sample weights.
        - ``"0.x"``, ``"0.W"``, ``"0.b"``, ``"0.y"``: a layer's input, parameters and output. Other parameters keep their names.
        - ``"z"``, ``"p"``, ``"loss"``, ``"dz"``: the network's output, the prediction, the loss, and its gradient.
        - ``"0.dy"``, ``"0.dW"``, ``"0.db"``, ``"0.dx"``: the gradients that a layer receives and returns.
        - ``"0.W_new"``: a parameter or running statistic after the step. The optimizer's arrays are, for example,
          ``"0.W_velocity"`` or ``"optimizer.t"``.

        If one layer object is at several places, ``"0.dW_part"`` is the gradient from one place, and ``"0.dW"`` is the sum.
    """
    twin = copy.copy(model)
    twin.backend = model.backend.eager()
    if twin.state is None:
        twin.build(inputs.prepare_x(twin.backend, x).shape[1:])
    data = {name: to_numpy(rows) for name, rows in twin.prepare(x, y, sample_weight).items()}
    kept = inputs.counted_rows(data)
    recorder = Recorder(twin.network, twin.loss)
    twin.checked = recorder.observe(twin.network)
    with by_itself():
        loss = twin.train_on_batch(x, y, sample_weight)[0]
    recorder.targets(data["y"][kept], data["weight"][kept] if "weight" in data else None, loss)
    recorder.update(twin.state, twin.optimizer)
    return Explanation(recorder.in_order())


@dataclass
class Recorder:
    """Observes all layers of a network during one training step."""

    network: Layer
    loss: Loss
    quantities: list[Quantity] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outermost: dict[str, Layer] = {}
        for path, layer in walk(self.network):
            self.outermost.setdefault(path, layer)
        self.by_name: dict[str, Quantity] = {}
        self.by_id: dict[int, tuple[Quantity, Array]] = {}  # an id is unique only while its array is alive

    __hash__ = object.__hash__  # the training step of one recorder must not serve another

    def __eq__(self, other: object) -> bool:
        return self is other

    def observe(self, network: Layer) -> Layer:
        return map_layers(network, lambda path, layer: Observed(layer, path, self))

    def outputs(self, path: str, layer: Layer, params: Tree, x: Array, statistics: Tree, result: Any) -> None:
        if not self.quantities:
            self.note("x", x, "forward")
        place, formulas = self._place(path, layer), _formulas(layer)
        self.note(join(place, "x"), x, "forward")
        if not isinstance(layer, Container):
            for name, p in sorted(named_leaves(params), key=_weights_first):
                self.note(join(place, _symbol(name)), p, "forward")
            for name, s in named_leaves(statistics if layer.has_statistics else {}):
                self.note(join(place, name), s, "forward")
        self.note(join(place, "y") if path else "z", result[0], "forward", formulas.get("y", ""))
        if not path and self.loss.built_in:
            self.note("p", self.loss.activation(result[0]), "loss", f"p = {self.loss.built_in.lower()}(z)")

    def gradients(self, path: str, layer: Layer, params: Tree, x: Array, dy: Array, need_dx: bool, result: Any) -> None:
        place, formulas = self._place(path, layer), _formulas(layer)
        dx, grads = result
        if path:
            self.note(join(place, "dy"), dy, "backward")
        else:
            formula = _formulas(self.loss.row_loss).get("dz", "")
            self.note("dz", dy, "loss", formula and f"{formula}, times 1/n")
        for name, g in sorted(named_leaves(grads), key=_weights_first):
            parent, _, parameter = join(place, name).rpartition(".")
            symbol = f"d{SYMBOLS.get(parameter, parameter)}"
            self.note(join(parent, symbol), g, "backward", formulas.get(symbol, ""))
        if dx is not None:
            self.note(join(place, "dx"), dx, "backward", formulas.get("dx", ""))

    def targets(self, t: np.ndarray, weight: np.ndarray | None, loss: Any) -> None:
        """Note what the loss is computed from, and its value."""
        self.note("t", t, "loss", "the targets")
        if weight is not None:
            self.note("w", weight, "loss", "the sample weights")
        mean = "loss = Σ l / n" if weight is None else "loss = Σ w l / Σ w"
        self.note(
            "loss",
            np.asarray(loss),
            "loss",
            f"{mean},  {_formulas(self.loss.row_loss).get('l', '')}".removesuffix(",  "),
        )

    def update(self, state: dict[str, Tree], optimizer: Optimizer) -> None:
        """Note the parameters, running statistics and optimizer state after the step."""
        self.by_id = {}  # new parameters may have the memory of their gradients
        rule = _step_formula(optimizer)
        for name, p in sorted(named_leaves(state["params"]), key=_weights_first):
            if _symbol(name, "d") in self.by_name:
                symbol = _symbol(name).rpartition(".")[2]
                self.note(f"{_symbol(name)}_new", p, "update", rule.format(symbol))
        for name, s in named_leaves(state["statistics"]):
            self.note(f"{name}_new", s, "update")
        for name, m in named_leaves(state["optimizer"]):
            kind, _, parameter = name.partition(".")
            self.note(f"{_symbol(parameter)}_{kind}" if parameter else f"optimizer.{kind}", m, "update")

    def note(self, name: str, x: Array, stage: str, formula: str = "") -> None:
        """Add an array. If it has been noted before, add only the name."""
        if isinstance(x, tuple):  # several outputs of `Parallel`
            return
        quantity, _ = self.by_id.get(id(x), (None, None))
        if quantity is None:
            quantity = Quantity([], np.array(to_numpy(x)), stage, formula)
            self.quantities.append(quantity)
            self.by_id[id(x)] = quantity, x
        if (older := self.by_name.get(name)) is not None and older is not quantity:
            older.names[older.names.index(name)] = f"{name}_part"
        if name not in quantity.names:
            quantity.names.append(name)
        if name == "dz":  # the last layer has noted it as its dy
            quantity.names.sort(key=lambda known: known != "dz")
            quantity.stage, quantity.formula = stage, formula
        self.by_name[name] = quantity

    def in_order(self) -> list[Quantity]:
        order = ["p", "t", "w", "loss", "dz"]
        return sorted(
            self.quantities, key=lambda q: (STAGES.index(q.stage), order.index(q.name) if q.name in order else 0)
        )

    def _place(self, path: str, layer: Layer) -> str:
        """Return the path, with the class for a layer inside a wrapper, whose path is that of the wrapper."""
        outer = type(self.outermost[path])
        return path if type(layer) is outer else join(path, type(layer).__name__)


def _symbol(name: str, prefix: str = "") -> str:
    path, _, parameter = name.rpartition(".")
    return join(path, prefix + SYMBOLS.get(parameter, parameter))


def _formulas(owner: Layer | Loss) -> dict[str, str]:
    """Return the formulas in the first line of a docstring by their left side. The first one is also that of y."""
    line = (type(owner).__doc__ or "").partition("\n")[0].rstrip(".")
    if isinstance(owner, Loss):
        line = re.sub(r"\by\b", "t", line)  # a loss calls the targets y, but here y is an output
    pieces = [piece.strip() for piece in re.split(r",   |[:;]   ?|   ", line) if " = " in piece]
    found = {piece.partition(" = ")[0]: piece for piece in pieces}
    return found | ({"y": pieces[0]} if pieces and "y" not in found else {})


def _weights_first(leaf: tuple[str, Array]) -> tuple[str, bool]:
    path, _, parameter = leaf[0].rpartition(".")
    return path, not parameter.endswith("weight")


def _step_formula(optimizer: Optimizer) -> str:
    plain = SGD(optimizer.learning_rate)
    if optimizer == plain and not callable(optimizer.learning_rate):
        return f"{{0}} - {optimizer.learning_rate:g} d{{0}}"
    return f"the step of {type(optimizer).__name__}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _name_and_shape(quantity: Quantity) -> tuple[str, str]:
    return " = ".join(quantity.names[:2]), str(quantity.shape)


def _values(x: np.ndarray) -> str:
    rows = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    if rows.shape[0] <= WHOLE_ROWS and rows.shape[1] <= WHOLE_COLUMNS:
        return "\n".join("  " + "".join(f"{value:>11.4g}" for value in row) for row in rows)
    values = rows.astype(float)
    parts = f"min {values.min():.4g}, mean {values.mean():.4g}, max {values.max():.4g}, std {values.std():.4g}"
    return f"    {parts}, zeros {np.mean(values == 0):.0%}"
