"""An optimizer's rule as one CUDA kernel over all parameters, instead of one for each operation and parameter.

The rule is called once with symbols in the place of arrays. They note what is done to them, line by line, and the lines are
the kernel's. A symbol behaves as the array it stands for: ``p -= g`` changes p, in its memory. A rule that does anything but
arithmetic and a few functions is applied leaf by leaf, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backend.base import _namespaces
from xpnet.tree import Array

LEAVES = 40  # of one launch: a kernel takes at most 4 KB of arguments
THREADS = 256
# Without fused multiply-add, so that the result is the same to the last bit as that of one kernel for each operation
OPTIONS = ("--fmad=false",)
TYPES = {"float32": "float", "float64": "double"}
FUNCTIONS = {
    "sqrt": "sqrt({})",
    "abs": "fabs({})",
    "exp": "exp({})",
    "log": "log({})",
    "maximum": "({0} != {0} || {0} > {1} ? {0} : {1})",  # NaN if either is
    "minimum": "({0} != {0} || {0} < {1} ? {0} : {1})",
}


class NotTraceable(Exception):
    """The rule does something that is no formula for an element."""


class Trace:
    """The lines of a kernel, and the numbers they need: `constants` of the host, `scalars` in arrays without axes."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype
        self.lines: list[str] = []
        self.constants: list[float] = []
        self.scalars: list[Array] = []

    def operand(self, x: Any) -> str:
        if isinstance(x, Symbol):
            return x.name
        if isinstance(x, (int, float)):
            self.constants.append(x)
            return f"c{len(self.constants) - 1}"
        if getattr(x, "shape", None) != () or x.dtype != self.dtype:
            raise NotTraceable(f"an operand of another shape or type: {type(x).__name__}")
        self.scalars.append(x)
        return f"s{len(self.scalars) - 1}"

    def emit(self, form: str, *operands: Any) -> str:
        """Note one operation -> the name of its result."""
        expression = form.format(*map(self.operand, operands))
        self.lines.append(f"const T t{len(self.lines)} = {expression};")
        return f"t{len(self.lines) - 1}"


def _operator(form: str, swapped: bool = False) -> Callable:
    def method(self, other):
        return Symbol(self.trace, self.trace.emit(form, *((other, self) if swapped else (self, other))))

    return method


def _in_place(form: str) -> Callable:
    def method(self, other):
        self.name = self.trace.emit(form, self, other)  # whoever else holds this symbol sees the change, as of an array
        return self

    return method


class Symbol:
    """Stands for the element of an array; `home` is the number of the array in whose memory it is, if it is in any."""

    __array_ufunc__ = None  # arrays leave operators to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, trace: Trace, name: str, home: int | None = None):
        self.trace, self.name, self.home = trace, name, home

    __add__, __radd__, __iadd__ = _operator("{} + {}"), _operator("{} + {}", True), _in_place("{} + {}")
    __sub__, __rsub__, __isub__ = _operator("{} - {}"), _operator("{} - {}", True), _in_place("{} - {}")
    __mul__, __rmul__, __imul__ = _operator("{} * {}"), _operator("{} * {}", True), _in_place("{} * {}")
    __truediv__, __rtruediv__, __itruediv__ = (
        _operator("{} / {}"),
        _operator("{} / {}", True),
        _in_place("{} / {}"),
    )

    def __neg__(self):
        return Symbol(self.trace, self.trace.emit("-{}", self))

    def _refuse(self, *args):
        raise NotTraceable("an operation that a kernel does not know")

    __bool__ = __float__ = __int__ = __len__ = __iter__ = __getitem__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse  # type: ignore[assignment]
    __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __and__ = __or__ = _refuse

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotTraceable(f"the attribute {name}")


class SymbolNamespace:
    """What `namespace` gives for a symbol."""

    def __getattr__(self, name: str) -> Callable:
        if name not in FUNCTIONS:
            raise NotTraceable(f"the function {name}")

        def function(*operands):
            trace = next(x.trace for x in operands if isinstance(x, Symbol))
            return Symbol(trace, trace.emit(FUNCTIONS[name], *operands))

        return function


_namespaces[Symbol] = SymbolNamespace()


def trace_rule(rule: Callable, arrays: int, dtype: np.dtype) -> tuple[Trace, list[Symbol], bool]:
    """Call the rule with symbols -> what it did, its results, and whether they are a tuple."""
    trace = Trace(dtype)
    result = rule(*(Symbol(trace, f"a{i}", home=i) for i in range(arrays)))
    results = list(result) if isinstance(result, tuple) else [result]
    if not all(isinstance(x, Symbol) for x in results):
        raise NotTraceable("a result that is no array")
    return trace, results, isinstance(result, tuple)


def kernel_source(trace: Trace, results: list[Symbol], arrays: int, count: int) -> str:
    """CUDA text: the rule for every element of `count` groups of `arrays` arrays, results in as many arrays more."""
    total = arrays + len(results)
    pointers = [[f"T* p{leaf}_{i}" for i in range(total)] for leaf in range(count)]
    parameters = [
        *(f"const T c{i}" for i in range(len(trace.constants))),
        *(f"const T* q{i}" for i in range(len(trace.scalars))),
        *(f"const long long n{leaf}, {', '.join(group)}" for leaf, group in enumerate(pointers)),
    ]
    choose = []
    for leaf in range(count):
        head = f"if (i < n{leaf})" if leaf == 0 else f"else if ((i -= n{leaf - 1}) < n{leaf})"
        choose.append(f"{head} {{ {' '.join(f'x{i} = p{leaf}_{i};' for i in range(total))} }}")
    body = [
        "long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;",
        f"T {', '.join(f'*x{i}' for i in range(total))};",
        *choose,
        "else return;",
        *(f"const T s{i} = *q{i};" for i in range(len(trace.scalars))),
        *(f"const T a{i} = x{i}[i];" for i in range(arrays)),
        *trace.lines,
        *(f"x{arrays + i}[i] = {x.name};" for i, x in enumerate(results)),
    ]
    head = f"typedef {TYPES[trace.dtype.name]} T;\n" + 'extern "C" __global__ void rule(\n    '
    return head + ",\n    ".join(parameters) + ")\n{\n    " + "\n    ".join(body) + "\n}\n"


class FusedRules:
    """Applies rules by kernels made for them; see `xpnet.backend.elementwise`.

    Parameters
    ----------
    cp : module
        CuPy.
    convert : callable, optional
        Of each array that is made anew.
    """

    def __init__(self, cp: Any, convert: Callable[[Array], Array] = lambda x: x):
        self.cp, self.convert = cp, convert
        self.kernels: dict[tuple, Any] = {}

    def __call__(self, rule: Callable, groups: list[tuple]) -> list:
        """The rule's result for each group of leaves; the leaves are handed over."""
        first = groups[0][0]
        alike = all(x.dtype == first.dtype and x.shape == group[0].shape for group in groups for x in group)
        if not alike or first.dtype.name not in TYPES:
            return [rule(*group) for group in groups]
        try:
            traced = trace_rule(rule, len(groups[0]), first.dtype)
        except NotTraceable:
            return [rule(*group) for group in groups]
        return [
            r for start in range(0, len(groups), LEAVES) for r in self._apply(*traced, groups[start : start + LEAVES])
        ]

    def _apply(self, trace: Trace, results: list[Symbol], is_tuple: bool, groups: list[tuple]) -> list:
        groups = [tuple(map(self._contiguous, group)) for group in groups]
        homes = [x.home for x in results]
        if 0 not in homes[1:]:
            homes[0] = 0  # parameters stay where they are: replay then has nothing to copy back
        outputs = [tuple(self._empty_like(group[0]) if i is None else group[i] for i in homes) for group in groups]
        number = trace.dtype.type
        arguments = [number(c) for c in trace.constants] + trace.scalars
        for group, output in zip(groups, outputs, strict=True):
            arguments += [np.int64(group[0].size), *group, *output]
        elements = sum(group[0].size for group in groups)
        kernel = self._kernel(trace, results, len(groups[0]), len(groups))
        kernel((max(1, -(-elements // THREADS)),), (THREADS,), tuple(arguments))
        return outputs if is_tuple else [output[0] for output in outputs]

    def _kernel(self, trace: Trace, results: list[Symbol], arrays: int, count: int) -> Any:
        key = (
            trace.dtype.name, *trace.lines, *(x.name for x in results), len(trace.constants), len(trace.scalars), arrays, count,
        )  # fmt: skip
        if key not in self.kernels:
            source = kernel_source(trace, results, arrays, count)
            self.kernels[key] = self.cp.RawKernel(source, "rule", OPTIONS)
        return self.kernels[key]

    def _contiguous(self, x: Array) -> Array:
        return x if x.flags.c_contiguous else self.convert(self.cp.ascontiguousarray(x))

    def _empty_like(self, x: Array) -> Array:
        return self.convert(self.cp.empty(x.shape, dtype=x.dtype))
