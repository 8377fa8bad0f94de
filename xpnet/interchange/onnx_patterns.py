"""Finds the formulas of `onnx_formulas` among the nodes of a file: an expression of ONNX's operators becomes one layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.interchange import onnx_formulas as formulas
from xpnet.interchange.onnx_files import Node
from xpnet.interchange.onnx_flow import Flow, refuse
from xpnet.interchange.onnx_recurrent import OPERATORS, read_masked

COMMUTATIVE = ("Add", "Mul")


@dataclass(frozen=True)
class Variable:
    """A part of a formula that differs between files: the input x, a constant or an attribute."""

    name: str


@dataclass(frozen=True, eq=False)
class Expression:
    """An output of an operator."""

    operator: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    output: int = 0


class _Recorder:
    """An `op` whose operators return expressions."""

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        return partial(self._record, operator)

    @staticmethod
    def _record(operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        if operator == "ReduceSum":  # `onnx_files` reads the axes as an attribute
            inputs, attributes = inputs[:1], attributes | {"axes": inputs[1]}
        values = [Expression(operator, inputs, attributes, i) for i in range(outputs)]
        return values[0] if outputs == 1 else values


def pattern(formula: Callable[..., Any], *names: str) -> Expression:
    """Return the expression of a formula, with variables of these names as its arguments."""
    return formula(_Recorder(), Variable("x"), *map(Variable, names))


def match(expression: Any, value: str, producers: Mapping[str, Node], data: set[str]) -> dict[str, Any] | None:
    """Compare an expression with the nodes that compute a value. Return the variables (names of values, attributes), or None.

    Parameters
    ----------
    expression : Expression
    value : str
        The name of a value.
    producers : mapping of str to Node
        The node that computes each value.
    data : set of str
        The values that depend on the numbers in the input; x is one of them, and constants are not.
    """
    return _match(expression, value, producers, data, {})


def _match(part: Any, value: str, producers: Mapping[str, Node], data: set[str], found: dict) -> dict | None:
    key = part.name if isinstance(part, Variable) else id(part)  # a part that occurs twice is one value
    if key in found:
        return found if found[key] == value else None
    if isinstance(part, Variable):
        return found | {key: value} if (value in data) == (key == "x") else None
    node = producers.get(value)
    if (
        node is None
        or node.operator != part.operator
        or len(node.inputs) != len(part.inputs)
        or node.outputs[part.output : part.output + 1] != (value,)
    ):
        return None
    found = found | {key: value}
    for name, wanted in part.attributes.items():
        if isinstance(wanted, Variable):
            found = found | {wanted.name: (node.attributes.get(name),)}
        elif node.attributes.get(name) != wanted:
            return None
    orders = [node.inputs, node.inputs[::-1]] if part.operator in COMMUTATIVE else [node.inputs]
    for inputs in orders:
        matched: dict | None = found
        for inner, name in zip(part.inputs, inputs, strict=True):
            matched = None if matched is None else _match(inner, name, producers, data, matched)
        if matched is not None:
            return matched
    return None


# ------------------------------------------------------------------ the layers of formulas


def _gelu(flow, found):
    _require_numbers(found, root_of_two=math.sqrt(2), one=1.0, half=0.5)
    flow.append(layers.GELU())


def _gelu_tanh(flow, found):
    _require_numbers(found, cubic=0.044715, scale=math.sqrt(2 / math.pi), one=1.0, half=0.5)
    flow.append(layers.GELU("tanh"))


def _silu(flow, found):
    flow.append(layers.SiLU())


def _rms_normalization(flow, found):
    _require_numbers(found, two=2.0)
    last = len(flow.axes) - 1
    if found["axes"] not in ([-1], [last]):
        raise refuse("a normalization over the last axis", f"axes {found['axes']}")
    flow.with_last(last)
    flow.append(layers.RMSNormalization(float(found["epsilon"].reshape(()))), {"gamma": found["gamma"].reshape(1, -1)})


def _group_normalization(flow, found):
    _, groups, rest = found["grouped"].tolist()
    flow.with_last(1)
    expected = [flow.dims[0] or 0, *flow.dims[1:]]
    if rest != -1 or np.any(found["ones"] != 1) or np.any(found["zeros"]) or found["ungrouped"].tolist() != expected:
        raise refuse("a group normalization", f"groups {found['grouped']}")
    rows = {name: found[name].reshape(1, -1) for name in ("gamma", "beta")}
    if any(found[name].shape[0] != flow.shape[-1] or found[name].ndim != len(flow.shape) for name in rows):
        raise refuse("one number for each channel", f"shape {found['gamma'].shape}")
    flow.append(layers.GroupNormalization(groups, found["epsilon"] or 1e-5), rows)


def _attention(flow, found):
    flow.in_rows()
    (time, _), causal = flow.shape, "mask" in found
    _, length, three, heads, key_dim = found["divided"].tolist()
    _require_numbers(found, first=0, second=1, third=2, scale=1 / math.sqrt(key_dim))
    mask = found.get("mask")
    if (
        (length, three) != (time, 3)
        or found["joined"].tolist() != [0, time, heads * key_dim]
        or (causal and mask.shape != (time, time))  # compared first, because the input of a file may claim any length
        or (causal and not np.array_equal(mask, np.triu(np.full_like(mask, -np.inf), 1)))
    ):
        raise refuse("self-attention, causal or without a mask", f"heads {found['divided']}")
    weights = {"weight": found["W"], "bias": found["b"].reshape(1, -1), "output_weight": found["W_o"],
               "output_bias": found["b_o"].reshape(1, -1)}  # fmt: skip
    flow.append(layers.MultiHeadAttention(heads, key_dim, causal), weights)


def _require_numbers(found: dict[str, Any], **expected: float) -> None:
    for name, value in expected.items():
        if found[name].size != 1 or not math.isclose(found[name].item(), value, rel_tol=1e-5, abs_tol=1e-12):
            raise refuse(f"the number {value:.6g}", f"{found[name]!s:.100}")


_ATTENTION = ("W", "b", "divided", "first", "second", "third", "scale", "joined", "W_o", "b_o")
FORMULAS: list[tuple[Expression, Callable[[Flow, dict[str, Any]], None]]] = [
    (pattern(formulas.gelu, "root_of_two", "one", "half"), _gelu),
    (pattern(formulas.gelu_tanh, "cubic", "scale", "one", "half"), _gelu_tanh),
    (pattern(formulas.silu), _silu),
    (pattern(formulas.rms_normalization, "two", "axes", "epsilon", "gamma"), _rms_normalization),
    (
        pattern(formulas.group_normalization, "grouped", "ones", "zeros", "epsilon", "ungrouped", "gamma", "beta"),
        _group_normalization,
    ),
    (pattern(formulas.attention, *_ATTENTION), _attention),
    (pattern(formulas.attention, *_ATTENTION, "mask"), _attention),
]


def _masked(kind, sequences):
    operator, attributes, _ = OPERATORS[kind]
    settings = {"hidden_size": Variable("hidden_size"), "direction": Variable("direction"), **attributes}
    names = ["W", "R", "B", "value", "steps", "length", "positions", "count", "inner", "sizes"]
    if sequences:
        names += ["axis", "one", "zero", "state_axes", "state_sizes"]
    return (
        pattern(lambda op, x, *rest: formulas.masked_recurrence(op, x, operator, settings, sequences, *rest), *names),
        partial(read_masked, kind=kind, sequences=sequences),
    )


FORMULAS += [_masked(kind, sequences) for kind in OPERATORS for sequences in (False, True)]
