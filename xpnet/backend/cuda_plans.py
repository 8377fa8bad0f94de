"""How a kernel divides the elements of its outputs between threads.

Without reductions, a thread computes one element of every output of the same shape. With reductions, a block of threads
computes a row, which consists of the elements that depend on the same reductions. The threads share the work of each reduction,
and then each computes its elements of the row. A kernel always sums in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet.backend.cuda_text import NOWHERE, REDUCING, Index, Writer
from xpnet.backend.symbols import TYPES, Node, NotTraceable, Trace
from xpnet.tree import Array

ARGUMENT_BYTES = 4000  # a kernel accepts at most 4 KB of arguments
THREADS = 256
LONGEST = 1 << 16  # the most elements for one block of threads; CuPy distributes longer reductions over the device
# Fused multiply-add is off, so that the results equal those of one kernel for each operation, bit for bit
OPTIONS = ("--fmad=false",)


class KernelWriter(Writer):
    """Writes the source of a whole kernel."""

    def elements(self, outputs: list[Node]) -> None:
        """Write a kernel with a thread for each element. Outputs of the same shape share threads."""
        lines = self.blocks[0].lines
        lines.append("int i = blockIdx.x * blockDim.x + threadIdx.x;")
        groups = groups_of(outputs)
        for g, (shape, numbers) in enumerate(groups.items()):
            last = g == len(groups) - 1
            with self.block(0, f"if (i >= 0 && i < {self.count(shape)})") as depth:
                index = self.unflattened(("i", depth), shape)
                self.blocks[depth].known["flat", shape, *(text for text, _ in index)] = "i"
                for number in numbers:
                    self.store(depth, outputs, number, "i", index)
            lines += [] if last else [f"i -= {self.count(shape)};"]

    def rows(self, outputs: list[Node], row_axes: list[tuple[int, ...]]) -> None:
        """Write a kernel with a block of threads for each row. Every output has the same number of rows."""
        self.shared_rows = True
        self.blocks[0].lines.append("const int row = blockIdx.x;")
        first = outputs[0]
        row = [i for i in self.unflattened(("row", 0), first.shape, row_axes[0]) if i[0] != "0"]
        for number, (node, axes) in enumerate(zip(outputs, row_axes, strict=True)):
            index, places = [NOWHERE] * len(node.shape), iter(row)
            for axis in axes:
                index[axis] = next(places)
            lanes = tuple([axis for axis, n in enumerate(node.shape) if n != 1 and axis not in axes])
            if not lanes:
                value = self.value(node, tuple(index))
                flat = self.flattened(tuple(index), node.shape)[0]
                out = self.output(node, number)
                self.blocks[0].lines.append(f"if (threadIdx.x == 0) {out}[{flat}] = {value};")
                continue
            k = self.variable("e")
            length = " * ".join(self.axis_size(node.shape, axis) for axis in lanes)
            with self.block(0, f"for (int {k} = threadIdx.x; {k} < {length}; {k} += blockDim.x)") as depth:
                for axis, i in zip(range(len(index)), self.unflattened((k, depth), node.shape, lanes), strict=True):
                    index[axis] = i if axis in lanes else index[axis]
                flat = self.flattened(tuple(index), node.shape)[0]
                self.store(depth, outputs, number, flat, tuple(index))

    def output(self, node: Node, number: int) -> str:
        return self.parameter(f"y{number}", f"{TYPES[node.dtype.name]}*", "output", number)

    def store(self, depth: int, outputs: list[Node], number: int, flat: str, index: Index) -> None:
        value = self.value(outputs[number], index)
        self.blocks[depth].lines.append(f"{self.output(outputs[number], number)}[{flat}] = {value};")

    def source(self) -> str:
        parameters = ",\n    ".join(f"{kind} {name}" for name, (kind, _) in self.parameters.items())
        body = "\n    ".join(self.blocks[0].lines)
        head = REDUCING if self.shared_rows else ""
        return f'{head}\nextern "C" __global__ void rule(\n    {parameters})\n{{\n    {body}\n}}\n'


def groups_of(outputs: list[Node]) -> dict[tuple[int, ...], list[int]]:
    """Return the indices of the outputs, grouped by shape."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, node in enumerate(outputs):
        groups.setdefault(node.shape, []).append(number)
    return groups


def row_axes(node: Node) -> tuple[int, ...] | None:
    """Return the axes of an output that its reductions depend on, or None if it uses no reductions."""
    found: list[frozenset] = []
    seen = set()

    def visit(node, index):
        index = index[len(index) - len(node.shape) :]
        index = tuple([frozenset() if n == 1 else i for n, i in zip(node.shape, index, strict=True)])
        if (node.number, index) in seen:
            return
        seen.add((node.number, index))
        everything = frozenset().union(*index)
        if node.kind == "reduce":
            _, axes, keepdims = node.detail
            kept = iter(index)
            (x,) = node.operands
            outer = [next(kept) if keepdims or a not in axes else frozenset() for a in range(len(x.shape))]
            found.append(everything)
            visit(x, tuple(frozenset() if a in axes else i for a, i in enumerate(outer)))
        elif node.kind == "permute":
            before: list[frozenset] = [frozenset()] * len(index)
            for axis, i in zip(node.detail, index, strict=True):
                before[axis] = i
            visit(node.operands[0], tuple(before))
        elif node.kind == "index":
            places = iter(index)
            before = [frozenset() if code == "." else next(places) for code in node.detail]
            visit(node.operands[0], tuple(i for i, code in zip(before, node.detail, strict=True) if code != "n"))
        elif node.kind == "take":
            x, indices = node.operands
            axis, n = node.detail, len(indices.shape)
            visit(indices, index[axis : axis + n])
            visit(x, (*index[:axis], frozenset().union(*index[axis : axis + n]), *index[axis + n :]))
        elif node.kind == "reshape":
            visit(node.operands[0], (everything,) * len(node.operands[0].shape))
        else:
            for x in node.operands:
                visit(x, index)

    visit(node, tuple(frozenset([axis]) for axis in range(len(node.shape))))
    return tuple(sorted(frozenset().union(*found))) if found else None


class Plan:
    """A kernel, and how to launch it for any trace with the same key."""

    def __init__(self, cp: Any, trace: Trace, outputs: list[Node]):
        writer, axes = KernelWriter(trace.shapes), [row_axes(node) for node in outputs]
        if all(a is None for a in axes):
            self.row_axes: list[tuple[int, ...]] | None = None
            writer.elements(outputs)
        else:
            rows = next(tuple(x.shape[i] for i in a) for x, a in zip(outputs, axes, strict=True) if a is not None)
            leading = [tuple(range(len(rows))) if x.shape[: len(rows)] == rows else () for x in outputs]
            self.row_axes = [b if a is None else a for a, b in zip(axes, leading, strict=True)]
            self.require_rows(outputs)
            writer.rows(outputs, self.row_axes)
        self.parameters = list(writer.parameters.values())
        if (
            sum(8 if "*" in kind or "long" in kind or "double" in kind else 4 for kind, _ in self.parameters)
            > ARGUMENT_BYTES
        ):
            raise NotTraceable("more arguments than a kernel accepts")
        self.kernel = cp.RawKernel(writer.source(), "rule", OPTIONS)

    def require_rows(self, outputs: list[Node]) -> None:
        """Raise NotTraceable unless all outputs have the same rows. This depends on sizes, which the key does not contain."""
        if (
            self.row_axes
            and len({tuple(x.shape[i] for i in a) for x, a in zip(outputs, self.row_axes, strict=True)}) > 1
        ):
            raise NotTraceable("outputs with different rows")

    def launch(self, trace: Trace, nodes: list[Node]) -> Launch:
        """Return the launch for arrays with the form of the trace."""
        if self.row_axes is None:
            threads = THREADS
            blocks = -(-sum(math.prod(shape) for shape in groups_of(nodes)) // THREADS)
        else:
            blocks = math.prod(nodes[0].shape[axis] for axis in self.row_axes[0])
            longest = max(trace.longest, *(math.prod(node.shape) // blocks for node in nodes))
            if longest > LONGEST:
                raise NotTraceable("too much for one block of threads")
            threads = 32 * min(-(-longest // 32), 8 if blocks > 1 else 32)
        shapes = list(trace.shapes)
        find: dict[str, Callable] = {
            "size": lambda n: np.int32(trace.sizes[n]),
            "axis": lambda n, axis: np.int32(shapes[n][axis]),
            "count": lambda n: np.int32(math.prod(shapes[n])),
            "number": trace.numbers.__getitem__,
        }
        arguments, places = [], []
        for place, (_, (source, *where)) in enumerate(self.parameters):
            arguments.append(find[source](*where) if source in find else None)
            if source not in find:
                places.append((place, source == "output", where[0]))
        return Launch(self.kernel, blocks, threads, arguments, places, [(node.shape, node.dtype) for node in nodes])


class Launch:
    """A kernel with all its arguments except the arrays, whose shapes and types are fixed."""

    def __init__(self, kernel: Any, blocks: int, threads: int, arguments: list, places: list, outputs: list):
        self.kernel, self.grid, self.block = kernel, (blocks,), (threads,)
        self.arguments, self.places, self.outputs = arguments, places, outputs

    def __call__(self, inputs: Sequence[Array], outputs: list[Array]) -> None:
        arguments = self.arguments.copy()
        for place, is_output, number in self.places:
            arguments[place] = (outputs if is_output else inputs)[number]
        self.kernel(self.grid, self.block, tuple(arguments))
