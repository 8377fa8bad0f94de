"""Formulas as data: a rule is called with symbols instead of arrays, and the symbols record the operations.

A symbol has the shape and type of an array, and supports the same operators and Array API functions, so a rule works with both. A
`Trace` stores the operations as nodes, each computed from earlier nodes. A library's module writes one kernel from it; see
`xpnet.backend.cuda_kernels`. An operation that a kernel cannot perform raises `NotTraceable`, and the rule is then called with
the arrays.

Two traces with equal keys have the same kernel. Shapes, strides, numbers and addresses are its arguments.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend.indexing import index_codes
from xpnet.tree import Array

BOOL = np.dtype(bool)
TYPES = {
    "float32": "float", "float64": "double", "bool": "bool", "int8": "signed char", "uint8": "unsigned char", "int16": "short",
    "uint16": "unsigned short", "int32": "int", "uint32": "unsigned", "int64": "long long", "uint64": "unsigned long long",
}  # fmt: skip
KINDS = frozenset(map(np.dtype, TYPES))
LARGEST = 2**31 - 1  # kernels count elements in 32 bits
current = threading.local()  # the trace of this thread


class NotTraceable(BaseException):  # so that ``except Exception`` in a rule does not catch it
    """The rule does something that is not a formula for an element."""


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One value for each element. `kind` says how to compute it from its operands and `sizes`, indices of `Trace.sizes`."""

    number: int
    kind: str
    detail: Any
    operands: tuple[Node, ...]
    sizes: range
    shape: tuple[int, ...]
    dtype: np.dtype


class Trace:
    """The operations of a rule. `arrays`, `numbers` and `sizes` are the arguments of its kernel.

    Parameters
    ----------
    of_elements : bool, default False
        Whether symbols represent single elements of arrays of any shape, so that a rule cannot use other elements.
    """

    def __init__(self, of_elements: bool = False) -> None:
        self.of_elements = of_elements
        self.key: list = []
        self.arrays: list[Array] = []
        self._inputs: list[Node] = []  # the nodes of `arrays`
        self.numbers: list[np.generic] = []
        self.sizes: list[int] = []
        self.shapes: dict[tuple[int, ...], int] = {}
        self.nodes: dict[tuple, Node] = {}  # by content, so that equal operations are one node
        self.reductions: list[tuple] = []  # (number of axes, reduced axes, elements before, elements in each reduction)

    def node(
        self,
        kind: str,
        detail: Any,
        operands: tuple[Node, ...],
        shape: tuple,
        dtype: np.dtype,
        sizes: Sequence[int] = (),
    ) -> Node:
        if self.of_elements and (shape or kind not in ("element", "input", "number", "apply", "broadcast")):
            raise NotTraceable("an operation on more than one element")
        if math.prod(shape) > LARGEST or 0 in shape or dtype not in KINDS:
            raise NotTraceable(f"an array of shape {shape} and type {dtype}")
        entry = kind, detail, tuple([x.number for x in operands]), self.shape_number(shape), dtype.char
        known = self.nodes.get((entry, *sizes))
        if known is not None:
            return known
        self.key.append(entry)
        places = range(len(self.sizes), len(self.sizes) + len(sizes))
        self.sizes += sizes
        made = Node(len(self.nodes), kind, detail, operands, places, shape, dtype)
        self.nodes[entry, *sizes] = made
        return made

    @property
    def longest(self) -> int:
        """The most elements that a block of threads must reduce: all elements if reductions are over different axes."""
        several = len({(ndim, axes) for ndim, axes, *_ in self.reductions}) > 1
        return max([before if several else each for *_, before, each in self.reductions], default=1)

    def shape_number(self, shape: tuple[int, ...]) -> int:
        number = self.shapes.get(shape)
        if number is None:
            number = self.shapes[shape] = len(self.shapes)
            self.key.append(tuple([n == 1 for n in shape]))
        return number

    def input(self, x: Array) -> Node:
        """Return the node of an array that the kernel reads. An array that is used twice is one input."""
        for node, known in zip(self._inputs, self.arrays, strict=True):
            if known is x:
                return node
        extent = sum((n - 1) * abs(stride) for n, stride in zip(x.shape, x.strides, strict=True))
        if extent > LARGEST * x.itemsize or any(stride % x.itemsize for stride in x.strides):
            raise NotTraceable("an array of more than 2^31 elements, or with misaligned strides")
        strides = [stride // x.itemsize for stride in x.strides]
        detail = len(self.arrays), x.flags.c_contiguous, bool(strides) and strides[-1] == 1
        made = self.node("input", detail, (), tuple(x.shape), x.dtype, strides)
        self.arrays.append(x)
        self._inputs.append(made)
        return made

    def operand(self, x: Any, dtype: np.dtype) -> Node:
        """Return the node of a symbol, an array or a Python number. A number gets the type of the other operand."""
        if isinstance(x, Symbol):
            if x.trace is not self:
                raise NotTraceable("a symbol of another rule")
            return x.node
        if isinstance(x, (bool, int, float)):
            if not fits(x, dtype):
                raise NotTraceable(f"{x} in {dtype}")
            self.numbers.append(dtype.type(x))
            return self.node("number", len(self.numbers) - 1, (), (), dtype)
        if hasattr(x, "data") and hasattr(x, "strides") and not isinstance(x, (np.ndarray, np.generic)):
            return self.input(x)
        raise NotTraceable(f"an operand of type {type(x).__name__}")

    def apply(self, form: str, *operands: Any, dtype: np.dtype | None = None, kinds: str = "") -> Symbol:
        """Apply an operation on elements, given as C++. `dtype` is the result's type if it differs from the operands'."""
        types = [x.dtype for x in operands if hasattr(x, "dtype")]
        common = types[0] if all(t == types[0] for t in types) else np.result_type(*types)
        if kinds and common.kind not in kinds:
            raise NotTraceable(f"{form} of {common}")
        nodes = tuple([self.cast(self.operand(x, common), common) for x in operands])
        shape = nodes[0].shape
        if any(node.shape != shape for node in nodes):
            shape = np.broadcast_shapes(*[node.shape for node in nodes])
        return Symbol(self, self.node("apply", form, nodes, shape, dtype or common))

    def cast(self, node: Node, dtype: np.dtype) -> Node:
        if node.dtype == dtype:
            return node
        form = "({} != 0)" if dtype == BOOL else f"({TYPES.get(dtype.name)}){{}}"
        return self.node("apply", form, (node,), node.shape, dtype)


def fits(x: Any, dtype: np.dtype) -> bool:
    """Whether an operation with this Python number keeps the dtype of an array."""
    return (
        dtype.kind == "f" or (isinstance(x, int) and dtype.kind in "iu") or (isinstance(x, bool) and dtype.kind == "b")
    )


def _operator(form: str, kinds: str = "f", dtype: np.dtype | None = None) -> tuple[Callable, Callable, Callable]:
    def forwards(self, other):
        return self.trace.apply(form, self, other, dtype=dtype, kinds=kinds)

    def swapped(self, other):
        return self.trace.apply(form, other, self, dtype=dtype, kinds=kinds)

    def in_place(self, other):
        result = self.trace.apply(form, self, other, dtype=dtype, kinds=kinds).node
        if (result.shape, result.dtype) != (self.shape, self.dtype):
            raise NotTraceable("an in-place operation that changes an array's shape or type")
        self.memory[0] += 1
        self._node, self.version = result, self.memory[0]  # all references to this symbol see the change
        return self

    return forwards, swapped, in_place


class Symbol:
    """Represents an array. `home` is the number of the argument whose memory it uses, or None.

    An array and its views share memory, so their symbols share `memory`, which counts in-place changes. A change updates one
    symbol. The other symbols that share its memory can then no longer be used.
    """

    __array_ufunc__ = None  # so that NumPy arrays leave operators to this class
    __hash__ = None  # type: ignore[assignment]
    device = None

    def __init__(self, trace: Trace, node: Node, home: int | None = None, base: Symbol | None = None) -> None:
        self.trace, self._node, self.home = trace, node, home
        self.memory: list[int] = [0] if base is None else base.memory
        self.version = self.memory[0]

    @property
    def node(self) -> Node:
        if self.version != self.memory[0]:
            raise NotTraceable("an in-place change that is read through another view")
        return self._node

    @property
    def shape(self) -> tuple[int, ...]:
        return self._node.shape

    @property
    def dtype(self) -> np.dtype:
        return self._node.dtype

    @property
    def ndim(self) -> int:
        return len(self._node.shape)

    @property
    def mT(self) -> Symbol:
        if self.ndim < 2:
            raise NotTraceable("a transposed array without rows")
        axes = *range(self.ndim - 2), self.ndim - 1, self.ndim - 2
        return view(self, "permute", axes, tuple([self.shape[axis] for axis in axes]))

    @property
    def at(self) -> _At:
        """As for a JAX array: ``x.at[index].add(y)``."""
        return _At(self)

    # Only for floating-point numbers: signed integers wrap around in NumPy, but their overflow is undefined in C++
    __add__, __radd__, __iadd__ = _operator("{} + {}")
    __sub__, __rsub__, __isub__ = _operator("{} - {}")
    __mul__, __rmul__, __imul__ = _operator("{} * {}")
    __truediv__, __rtruediv__, __itruediv__ = _operator("{} / {}")
    __pow__, __rpow__, __ipow__ = _operator("pow({}, {})")
    __and__, __rand__, __iand__ = _operator("{} & {}", "biu")
    __or__, __ror__, __ior__ = _operator("{} | {}", "biu")
    __lt__, __gt__ = (_operator(f"{{}} {sign} {{}}", "bfiu", BOOL)[0] for sign in ("<", ">"))
    __le__, __ge__ = (_operator(f"{{}} {sign} {{}}", "bfiu", BOOL)[0] for sign in ("<=", ">="))
    __eq__, __ne__ = (_operator(f"{{}} {sign} {{}}", "bfiu", BOOL)[0] for sign in ("==", "!="))  # type: ignore[assignment]

    def __neg__(self):
        return self.trace.apply("-{}", self, kinds="f")

    def __invert__(self):
        return self.trace.apply("!{}" if self.dtype == BOOL else "~{}", self, kinds="biu")

    def __getitem__(self, index):
        codes, sizes, shape = index_codes(self.shape, index)
        return view(self, "index", codes, shape, sizes)

    def _refuse(self, *args):
        raise NotTraceable("an operation that a kernel does not support")

    __bool__ = __float__ = __int__ = __len__ = __iter__ = __index__ = __setitem__ = __matmul__ = __rmatmul__ = _refuse

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotTraceable(f"the attribute {name}")


class _At:
    """Implements ``x.at[index].add(y)``."""

    def __init__(self, x: Symbol, codes: str = "", sizes: Sequence[int] = (), shape: tuple = ()):
        self.x, self.codes, self.sizes, self.shape = x, codes, sizes, shape

    def __getitem__(self, index):
        codes, sizes, shape = index_codes(self.x.shape, index, counted=True)
        if not set(codes) <= set("=+:"):
            raise NotTraceable("writing to an index that is not a slice")
        return _At(self.x, codes, sizes, shape)

    def add(self, y: Any) -> Symbol:
        x, trace = self.x.node, self.x.trace
        part = trace.cast(trace.operand(y, x.dtype), x.dtype)
        if part.shape != self.shape:
            raise NotTraceable("a part of another shape")
        return Symbol(trace, trace.node("add_at", self.codes, (x, part), x.shape, x.dtype, self.sizes))


def view(x: Symbol, kind: str, detail: Any, shape: tuple[int, ...], sizes: Sequence[int] = ()) -> Symbol:
    return Symbol(x.trace, x.trace.node(kind, detail, (x.node,), shape, x.dtype, sizes), base=x)


def trace_rule(rule: Callable, trace: Trace, arguments: Sequence[Symbol]) -> tuple[list[Symbol], bool]:
    """Call the rule with symbols. Return its results, and whether they are a tuple.

    Raises
    ------
    NotTraceable
        The rule is not a formula that a kernel can compute, or it fails.
    """
    outer, current.trace = getattr(current, "trace", None), trace
    try:
        result = rule(*arguments)
    except NotTraceable:
        raise
    except Exception as error:  # if the rule also fails with arrays, the error is raised then
        raise NotTraceable(str(error)) from error
    finally:
        current.trace = outer
    results = list(result) if isinstance(result, tuple) else [result]
    if not results or not all(isinstance(x, Symbol) for x in results):
        raise NotTraceable("a result that is not an array")
    return results, isinstance(result, tuple)
