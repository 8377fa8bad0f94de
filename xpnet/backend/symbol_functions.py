"""The functions of the Array API for symbols; see `xpnet.backend.symbols`. Kernels do not support the missing functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from xpnet.backend.base import register_namespace
from xpnet.backend.symbols import BOOL, TYPES, NotTraceable, Symbol, current, view

FLOATS = {  # functions of floating-point numbers, in C++
    "sqrt": "sqrt({})", "exp": "exp({})", "expm1": "expm1({})", "log": "log({})", "log1p": "log1p({})", "tanh": "tanh({})",
    "cos": "cos({})", "sin": "sin({})", "round": "rint({})", "abs": "fabs({})",
    "sign": "({0} != {0} ? {0} : ({0} > 0) - ({0} < 0))",
}  # fmt: skip
LARGER = "({0} != {0} || {0} > {1} ? {0} : {1})"  # NaN if either is
SMALLER = "({0} != {0} || {0} < {1} ? {0} : {1})"


def permute_dims(x, /, axes):
    axes = normalize_axis_tuple(axes, x.ndim)
    if len(axes) < x.ndim:
        raise NotTraceable("missing axes")
    return view(x, "permute", axes, tuple([x.shape[axis] for axis in axes]))


def reshape(x, /, shape, *, copy=None):
    shape = tuple(shape)
    if -1 in shape:
        shape = tuple([math.prod(x.shape) // -math.prod(shape) if n == -1 else n for n in shape])
    if math.prod(shape) != math.prod(x.shape):
        raise NotTraceable("a shape that does not fit")
    node = x.node
    while node.kind == "reshape":
        (node,) = node.operands
    if node.shape != shape:
        node = x.trace.node("reshape", None, (node,), shape, x.dtype)
    return Symbol(x.trace, node, base=x)


def moveaxis(x, source, destination, /):
    source, destination = (normalize_axis_index(axis, x.ndim) for axis in (source, destination))
    axes = [axis for axis in range(x.ndim) if axis != source]
    axes.insert(destination, source)
    return permute_dims(x, axes)


def expand_dims(x, /, *, axis=0):
    at = normalize_axis_index(axis, x.ndim + 1)
    return x[(*at * (slice(None),), None)]


def broadcast_to(x, /, shape):
    shape = tuple(shape)
    if np.broadcast_shapes(x.shape, shape) != shape:
        raise NotTraceable("a shape that does not fit")
    return view(x, "broadcast", None, shape)


def tile(x, repetitions, /):
    missing = len(repetitions) - x.ndim
    shape = (*(1,) * missing, *x.shape)
    if missing < 0 or any(n != 1 and r != 1 for n, r in zip(shape, repetitions, strict=True)):
        raise NotTraceable("a repetition of more than one element")
    return view(x, "broadcast", None, tuple([n * r for n, r in zip(shape, repetitions, strict=True)]))


def concat(arrays, /, *, axis=0):
    trace = current.trace
    if axis is None:
        arrays, axis = [reshape(x, (-1,)) for x in arrays], 0
    dtype = np.result_type(*[x.dtype for x in arrays])
    nodes = tuple([trace.cast(trace.operand(x, dtype), dtype) for x in arrays])
    axis = normalize_axis_index(axis, len(nodes[0].shape))
    shape = list(nodes[0].shape)
    ends = np.cumsum([node.shape[axis] for node in nodes]).tolist()
    shape[axis] = ends[-1]
    for node in nodes:
        if [*node.shape[:axis], *node.shape[axis + 1 :]] != [*shape[:axis], *shape[axis + 1 :]]:
            raise NotTraceable("arrays that do not fit")
    return Symbol(trace, trace.node("concat", axis, nodes, tuple(shape), dtype, ends[:-1]))


def stack(arrays, /, *, axis=0):
    arrays = [symbol_of(x) for x in arrays]
    axis = normalize_axis_index(axis, arrays[0].ndim + 1)
    return concat([expand_dims(x, axis=axis) for x in arrays], axis=axis)


def take(x, indices, /, *, axis=0):
    x, indices = symbol_of(x), symbol_of(indices)
    if indices.dtype.kind not in "iu":
        raise NotTraceable("indices that are not integers")
    axis = normalize_axis_index(axis, x.ndim)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return Symbol(x.trace, x.trace.node("take", axis, (x.node, indices.node), shape, x.dtype))


def symbol_of(x):
    return x if isinstance(x, Symbol) else Symbol(current.trace, current.trace.operand(x, BOOL))


def where(condition, x, y, /):
    trace = current.trace
    types = [v.dtype for v in (x, y) if hasattr(v, "dtype")]
    if not types:
        raise NotTraceable("a choice between numbers")
    dtype = np.result_type(*types)
    nodes = tuple([trace.cast(trace.operand(v, dtype), dtype) for v in (x, y)])
    nodes = (trace.cast(trace.operand(condition, BOOL), BOOL), *nodes)
    shape = np.broadcast_shapes(*[node.shape for node in nodes])
    return Symbol(trace, trace.node("apply", "({} ? {} : {})", nodes, shape, dtype))


def astype(x, dtype, /, *, copy=True, device=None):
    x, dtype = symbol_of(x), np.dtype(dtype)
    if x.dtype == dtype and not copy:
        return x
    if x.dtype == dtype:
        return Symbol(x.trace, x.node)
    return Symbol(x.trace, x.trace.cast(x.node, dtype))


def arange(stop, /, *, dtype=None, device=None):
    if not isinstance(stop, int):
        raise NotTraceable("a range that is not of integers")
    return Symbol(current.trace, current.trace.node("iota", None, (), (stop,), np.dtype(dtype or np.int64)))


def full(shape, value, *, dtype=None, device=None):
    if dtype is None:
        raise NotTraceable("an array without a type")
    trace, dtype = current.trace, np.dtype(dtype)
    number = trace.operand(value, dtype)
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return Symbol(trace, trace.node("broadcast", None, (number,), shape, dtype))


def zeros(shape, *, dtype=None, device=None):
    return full(shape, 0, dtype=dtype)


def ones(shape, *, dtype=None, device=None):
    return full(shape, 1, dtype=dtype)


def zeros_like(x, /):
    return full(x.shape, 0, dtype=x.dtype)


def isfinite(x, /):
    return x.trace.apply("({0} - {0} == 0)", x, dtype=BOOL, kinds="f")


def vecdot(x1, x2, /, *, axis=-1):
    return sum_of(x1 * x2, axis=axis)


def mean(x, /, *, axis=None, keepdims=False):
    total = sum_of(x, axis=axis, keepdims=keepdims)
    return total / (math.prod(x.shape) // math.prod(total.shape))


def _extreme(form: str) -> Callable:
    def function(x1, x2, /):
        return current.trace.apply(form, x1, x2)

    return function


def _of_floats(form: str) -> Callable:
    def function(x, /):
        return x.trace.apply(form, x, kinds="f")

    return function


def _reduction(name: str, kinds: str, dtype: np.dtype | None = None) -> Callable:
    def function(x, /, *, axis=None, keepdims=False):
        if x.dtype.kind not in kinds:
            raise NotTraceable(f"{name} of {x.dtype}")
        axes = tuple(range(x.ndim)) if axis is None else tuple(sorted(normalize_axis_tuple(axis, x.ndim)))
        if not axes or (name == "argmax" and len(axes) > 1):
            raise NotTraceable(f"{name} over {len(axes)} axes")
        shape = tuple([1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes])
        node = x.trace.node("reduce", (name, axes, keepdims), (x.node,), shape, dtype or x.dtype)
        before = math.prod(x.shape)
        x.trace.reductions.append((x.ndim, axes, before, before // math.prod(shape)))
        return Symbol(x.trace, node)

    return function


sum_of = _reduction("sum", "f")
_FUNCTIONS: dict[str, Any] = {
    "permute_dims": permute_dims, "reshape": reshape, "moveaxis": moveaxis, "expand_dims": expand_dims,
    "broadcast_to": broadcast_to, "tile": tile, "concat": concat, "stack": stack, "take": take, "where": where, "astype": astype,
    "arange": arange, "full": full, "zeros": zeros, "ones": ones, "zeros_like": zeros_like, "isfinite": isfinite,
    "vecdot": vecdot, "mean": mean, "sum": sum_of, "maximum": _extreme(LARGER), "minimum": _extreme(SMALLER),
    "max": _reduction("max", "fiu"), "min": _reduction("min", "fiu"), "any": _reduction("any", "b"),
    "all": _reduction("all", "b"),
    "argmax": _reduction("argmax", "fiu", np.dtype(np.int64)),
    **{name: _of_floats(form) for name, form in FLOATS.items()},
    **{name: np.dtype(name) for name in TYPES}, "finfo": np.finfo, "pi": math.pi,
}  # fmt: skip


class SymbolNamespace:
    """The namespace of symbols."""

    Labels = None  # a kernel compares all classes with the label

    def __getattr__(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            raise NotTraceable(f"the function {name}")
        return _FUNCTIONS[name]


register_namespace(Symbol, SymbolNamespace())
