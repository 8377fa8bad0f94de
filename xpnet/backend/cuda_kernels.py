"""Formulas as single CUDA kernels; see `xpnet.backend.fusion` and `xpnet.backend.symbols`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType, NoneType
from typing import Any

import numpy as np

from xpnet.backend import symbol_functions
from xpnet.backend.cuda_plans import ARGUMENT_BYTES, OPTIONS, THREADS, Launch, Plan
from xpnet.backend.cuda_text import Writer
from xpnet.backend.symbols import LARGEST, TYPES, Node, NotTraceable, Symbol, Trace, trace_rule
from xpnet.tree import Array

COPIES = 8  # to join more arrays, CuPy uploads their addresses
KNOWN = 4096


def form_of(rule: Callable, arrays: tuple[Array, ...]) -> Any:
    """Return a key, equal for two calls only if both compute the same from their arrays' values, or None if that is unknown."""
    if len({id(x) for x in arrays}) < len(arrays):
        return None
    try:
        form = _identity(rule), *[(x.shape, x.strides, x.dtype) for x in arrays]
        hash(form)
    except (AttributeError, TypeError, ValueError):  # for example, the rule captures an array
        return None
    return form


def _identity(x: Any, depth: int = 0) -> Any:
    """Identify a rule of this package and everything it captures: functions by their code, settings by their values.

    Other functions raise TypeError, because they may read a global variable, or call a function that is redefined in a
    notebook.
    """
    if isinstance(x, float):
        return x.hex()  # because 0.0 == -0.0
    if isinstance(x, (int, str, NoneType)):
        return type(x), x
    if isinstance(x, tuple):
        return tuple, *[_identity(part, depth) for part in x]
    if isinstance(x, MethodType):
        return _identity(x.__func__, depth), _identity(x.__self__, depth)
    of = x if isinstance(x, (FunctionType, type)) else type(x)
    if not of.__module__.startswith("xpnet.") or depth == 5:
        raise TypeError(f"{of.__name__} may change")
    if isinstance(x, FunctionType):
        captured = *(cell.cell_contents for cell in x.__closure__ or ()), x.__defaults__, x.__kwdefaults__
        return x.__module__, x.__code__, _identity(captured, depth + 1)
    if isinstance(x, type):
        return x
    if x.__dataclass_params__.frozen:
        return of, _identity(tuple(vars(x).values()), depth + 1)
    raise TypeError(f"{of.__name__} may change")


class CudaKernels:
    """Applies rules with kernels that are generated for them.

    Parameters
    ----------
    cp : module
        CuPy.
    convert : callable, optional
        Converts each new array. The default returns it unchanged.
    """

    def __init__(self, cp: Any, convert: Callable[[Array], Array] = lambda x: x):
        self.cp, self.convert = cp, convert
        self.plans: dict[tuple, Plan | None] = {}
        self.known: dict[Any, tuple[Launch | None, bool]] = {}  # by `form_of`; these rules are not traced again
        self.kernels: dict[tuple, Any] = {}

    # ------------------------------------------------------------------ rules of whole arrays

    def apply(self, rule: Callable, arrays: tuple[Array, ...], otherwise: Callable | None = None) -> Any:
        """Return ``rule(*arrays)`` from one kernel or, if that is impossible, from `otherwise` or the rule itself."""
        if not self._are_here(arrays):
            return (otherwise or rule)(*arrays)
        form = form_of(rule, arrays)
        inputs: Sequence[Array] = arrays
        found = self.known.get(form)
        if found is None:
            found, inputs = self.traced(rule, arrays)
            if form is not None and len(inputs) == len(arrays):  # no captured arrays
                if len(self.known) >= KNOWN:
                    self.known.clear()
                self.known[form] = found
        launch, several = found
        if launch is None:
            return (otherwise or rule)(*arrays)
        outputs = [self._empty(shape, dtype) for shape, dtype in launch.outputs]
        launch(inputs, outputs)
        return tuple(outputs) if several else outputs[0]

    def traced(self, rule: Callable, arrays: tuple[Array, ...]) -> tuple[tuple[Launch | None, bool], Sequence[Array]]:
        """Return (the launch, or None without a kernel; whether the rule returns a tuple), and the kernel's inputs."""
        trace = Trace()
        try:
            symbols = [Symbol(trace, trace.input(x)) for x in arrays]
            results, several = trace_rule(rule, trace, symbols)
            nodes = [x.node for x in results]
            if not self._are_here(trace.arrays[len(arrays) :]):
                raise NotTraceable("a captured array on another device")
            return (self._plan(trace, nodes).launch(trace, nodes), several), trace.arrays
        except NotTraceable:
            return (None, False), arrays

    def _are_here(self, arrays: Sequence[Any]) -> bool:
        """Whether these are CuPy arrays on the current device. CuPy copies or rejects other arrays, but a kernel would fail."""
        device = self.cp.cuda.runtime.getDevice()
        return all(isinstance(x, self.cp.ndarray) and x.data.device_id == device for x in arrays)

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        """Join arrays along an axis with one kernel. CuPy would launch one for each array, or upload a table of addresses."""

        def by_copies(*arrays):
            few = [self.cp.concatenate(arrays[i : i + COPIES], axis=axis) for i in range(0, len(arrays), COPIES)]
            return self.convert(few[0] if len(few) == 1 else by_copies(*few))

        return self.apply(lambda *arrays: symbol_functions.concat(arrays, axis=axis), tuple(arrays), by_copies)

    def _plan(self, trace: Trace, nodes: list[Node]) -> Plan:
        if sum(math.prod(node.shape) for node in nodes) > LARGEST:
            raise NotTraceable("too much for one kernel")
        key = (*trace.key, *[node.number for node in nodes])
        if key not in self.plans:
            try:
                self.plans[key] = Plan(self.cp, trace, nodes)
            except (NotTraceable, RecursionError):  # RecursionError: a chain of thousands of operations
                self.plans[key] = None
        plan = self.plans[key]
        if plan is None:
            raise NotTraceable("a rule that has no kernel")
        plan.require_rows(nodes)
        return plan

    # ------------------------------------------------------------------ rules of elements, for all leaves of trees

    def map(self, rule: Callable, groups: list[tuple]) -> list:
        """Return the rule's result for each group of leaves. The memory of the leaves may be reused."""
        traced = self._traced_elements(rule, groups)
        if traced is None:
            return [rule(*group) for group in groups]
        trace, results, _ = traced
        others, each = len(trace.numbers) + len(trace.arrays), 1 + len(groups[0]) + len(results)
        n = (ARGUMENT_BYTES // 8 - others) // each  # the number of leaves in one launch
        parts = (groups[start : start + n] for start in range(0, len(groups), n))
        return [result for part in parts for result in self._map(*traced, part)]

    def _traced_elements(self, rule: Callable, groups: list[tuple]) -> tuple[Trace, list[Symbol], bool] | None:
        """Return the trace of the rule, its results, and whether they are a tuple; None if a kernel is impossible."""
        first = groups[0][0]
        if not self._are_here([x for group in groups for x in group]):
            return None
        if any(x.dtype != first.dtype or x.shape != group[0].shape for group in groups for x in group):
            return None
        trace = Trace(of_elements=True)
        try:
            nodes = [trace.node("element", f"a{i}", (), (), first.dtype) for i in range(len(groups[0]))]
            symbols = [Symbol(trace, node, home=i) for i, node in enumerate(nodes)]
            results, several = trace_rule(rule, trace, symbols)
        except NotTraceable:
            return None
        if not self._are_here(trace.arrays) or any(x.dtype != first.dtype for x in results):
            return None
        return trace, results, several

    def _map(self, trace: Trace, results: list[Symbol], several: bool, groups: list[tuple]) -> list:
        dtype = groups[0][0].dtype
        groups = [tuple(map(self._contiguous, group)) for group in groups]
        homes = [x.home for x in results]
        if 0 not in homes[1:]:
            homes[0] = 0  # update parameters in place, so that a replay has nothing to copy back
        outputs = [
            tuple(self._empty(group[0].shape, dtype) if i is None else group[i] for i in homes) for group in groups
        ]
        key = *trace.key, *(x.node.number for x in results), len(groups[0]), len(groups)
        if key not in self.kernels:
            source = rule_source(trace, results, len(groups[0]), len(groups), TYPES[dtype.name])
            self.kernels[key] = self.cp.RawKernel(source, "rule", OPTIONS)
        arguments = [*trace.numbers, *trace.arrays]
        for group, output in zip(groups, outputs, strict=True):
            arguments += [np.int64(group[0].size), *group, *output]
        elements = sum(group[0].size for group in groups)
        self.kernels[key]((max(1, -(-elements // THREADS)),), (THREADS,), tuple(arguments))
        return outputs if several else [output[0] for output in outputs]

    def _contiguous(self, x: Array) -> Array:
        return x if x.flags.c_contiguous else self.convert(self.cp.ascontiguousarray(x))

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        return self.convert(self.cp.empty(shape, dtype=dtype))


class Keeper:
    """Copies the results of a captured step to their permanent places and counts the step, in one kernel.

    Parameters
    ----------
    cp : module
        CuPy.
    counter : array of one int64
        It is set to `now` + 1.
    """

    PAIRS = 150  # the number of copies in one launch

    def __init__(self, cp: Any, counter: Array):
        self.cp, self.counter = cp, counter

    def __call__(self, now: Array, rows: list[tuple[Array, Array]], whole: list[tuple[Array, Array]]) -> None:
        """For each (to, array) in `rows`, copy the array to row `now` of the table `to`. For those in `whole`, overwrite `to`."""
        pairs = [(to, self.cp.ascontiguousarray(x), "*now * n{0} + i") for to, x in rows]
        pairs += [(to, self.cp.ascontiguousarray(x), "i") for to, x in whole]
        for start in range(0, max(len(pairs), 1), self.PAIRS):
            self._launch(now, pairs[start : start + self.PAIRS])

    def _launch(self, now: Array, pairs: list[tuple[Array, Array, str]]) -> None:
        parameters, lines = ["const long long* now", "long long* counter"], []
        for p, (_, x, place) in enumerate(pairs):
            kind = {1: "char", 2: "short", 4: "int", 8: "long long"}[x.itemsize]
            parameters.append(f"long long n{p}, const {kind}* from{p}, {kind}* to{p}")
            lines.append(f"if (i < n{p}) to{p}[{place.format(p)}] = from{p}[i];")
        source = f"""extern "C" __global__ void keep(
    {("," + chr(10) + "    ").join(parameters)})
{{
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i == 0) *counter = *now + 1;
    {(chr(10) + "    ").join(lines)}
}}
"""
        arguments = [now, self.counter]
        for to, x, _ in pairs:
            arguments += [np.int64(x.size), x, to]
        blocks = -(-max([x.size for _, x, _ in pairs] + [1]) // THREADS)
        self.cp.RawKernel(source, "keep", OPTIONS)((blocks,), (THREADS,), tuple(arguments))


def rule_source(trace: Trace, results: list[Symbol], arrays: int, count: int, T: str) -> str:
    """Return the CUDA source that applies the rule to every element of `count` groups of `arrays` arrays each."""
    total = arrays + len(results)
    pointers = [[f"{T}* p{leaf}_{i}" for i in range(total)] for leaf in range(count)]
    writer = Writer(trace.shapes)
    values = [writer.value(x.node, ()) for x in results]
    parameters = [
        *(f"const {TYPES[number.dtype.name]} c{i}" for i, number in enumerate(trace.numbers)),
        *(f"const {TYPES[x.dtype.name]}* x{i}" for i, x in enumerate(trace.arrays)),
        *(f"const long long n{leaf}, {', '.join(group)}" for leaf, group in enumerate(pointers)),
    ]
    choose = []
    for leaf in range(count):
        head = f"if (i < n{leaf})" if leaf == 0 else f"else if ((i -= n{leaf - 1}) < n{leaf})"
        choose.append(f"{head} {{ {' '.join(f'at{i} = p{leaf}_{i};' for i in range(total))} }}")
    body = [
        "long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;",
        f"{T} {', '.join(f'*at{i}' for i in range(total))};",
        *choose,
        "else return;",
        *(f"const {T} a{i} = at{i}[i];" for i in range(arrays)),
        *writer.blocks[0].lines,
        *(f"at{arrays + i}[i] = {value};" for i, value in enumerate(values)),
    ]
    head = 'extern "C" __global__ void rule(\n    '
    return head + ",\n    ".join(parameters) + ")\n{\n    " + "\n    ".join(body) + "\n}\n"
