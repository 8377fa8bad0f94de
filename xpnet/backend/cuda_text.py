"""The source text of CUDA kernels, written from nodes of `xpnet.backend.symbols`.

The text is written backward from the outputs. An operation computes its value at an index from its operands' values at the same
index. A view reads its operand at another index, and a sum is a loop. Each value is a variable in the outermost block in which
its index is known, so no thread computes anything twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xpnet.backend.symbols import TYPES, Node

Index = tuple[tuple[str, int], ...]  # for each axis, an expression and the depth of the block in which it is known
NOWHERE = ("0", 0)

REDUCING = """
template <class T> struct Place { T value; int at; };
template <class T> __device__ T other(T v, int distance) { return __shfl_xor_sync(0xffffffffu, v, distance); }
__device__ bool other(bool v, int distance) { return __shfl_xor_sync(0xffffffffu, (int)v, distance); }
template <class T> __device__ Place<T> other(Place<T> v, int distance) {
  return {other(v.value, distance), other(v.at, distance)};
}
template <class T, class F> __device__ T together(T v, F join) {  // joins the values of all threads in a block
  for (int distance = 16; distance; distance >>= 1) v = join(v, other(v, distance));
  if (blockDim.x > 32) {
    __shared__ T parts[32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = parts[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp) v = join(v, parts[warp]);
  }
  return v;
}
struct Sum { template <class T> __device__ T operator()(T a, T b) const { return a + b; } };
struct Max { template <class T> __device__ T operator()(T a, T b) const { return a != a || a > b ? a : b; } };
struct Min { template <class T> __device__ T operator()(T a, T b) const { return a != a || a < b ? a : b; } };
struct Any { __device__ bool operator()(bool a, bool b) const { return a || b; } };
struct All { __device__ bool operator()(bool a, bool b) const { return a && b; } };
struct First {  // the first of several maxima; NaN counts as a maximum
  template <class T> __device__ Place<T> operator()(Place<T> a, Place<T> b) const {
    if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;
    const bool more = a.value != a.value ? b.value == b.value : a.value > b.value;
    const bool less = b.value != b.value ? a.value == a.value : b.value > a.value;
    return more || (!less && a.at < b.at) ? a : b;
  }
};
"""
REDUCTIONS = {"sum": "Sum", "max": "Max", "min": "Min", "any": "Any", "all": "All", "argmax": "First"}


class Block:
    """A part of a kernel's text in braces: its lines, and its variables by (node, index)."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.known: dict[tuple, str] = {}


class Writer:
    """Writes a kernel. `parameters` are the names in its text, each with a type and the source of its argument."""

    def __init__(self, shapes: dict[tuple[int, ...], int]):
        self.shapes = shapes
        self.blocks = [Block()]
        self.parameters: dict[str, tuple[str, tuple]] = {}
        self.shared_rows = False  # whether all threads of a block have the same index in the outermost block of text
        self.variables = 0

    # ------------------------------------------------------------------ names

    def parameter(self, name: str, kind: str, *source: Any) -> str:
        self.parameters.setdefault(name, (kind, source))
        return name

    def size(self, number: int) -> str:
        return self.parameter(f"k{number}", "const int", "size", number)

    def axis_size(self, shape: tuple[int, ...], axis: int) -> str:
        number = self.shapes[shape]
        return "1" if shape[axis] == 1 else self.parameter(f"n{number}_{axis}", "const int", "axis", number, axis)

    def count(self, shape: tuple[int, ...]) -> str:
        number = self.shapes[shape]
        return self.parameter(f"n{number}", "const int", "count", number)

    def variable(self, prefix: str) -> str:
        self.variables += 1
        return f"{prefix}{self.variables}"

    @contextmanager
    def block(self, depth: int, head: str, lines: list[str] | None = None) -> Iterator[int]:
        """Open a block of text inside the block at `depth` and yield its depth. The text goes to the outer block or to `lines`.

        Until it closes, other open blocks below `depth` are set aside.
        """
        waiting, self.blocks = self.blocks[depth + 1 :], [*self.blocks[: depth + 1], Block()]
        yield depth + 1
        text = [f"{head} {{", *(f"  {line}" for line in self.blocks[-1].lines), "}"]
        self.blocks = [*self.blocks[: depth + 1], *waiting]
        (self.blocks[depth].lines if lines is None else lines).extend(text)

    def define(self, depth: int, kind: str, prefix: str, expression: str) -> str:
        name = self.variable(prefix)
        self.blocks[depth].lines.append(f"const {kind} {name} = {expression};")
        return name

    def place(self, expression: str, *parts: tuple[str, int]) -> tuple[str, int]:
        """Return a computed index, stored in a variable."""
        depth = max(d for _, d in parts)
        known = self.blocks[depth].known
        if (expression,) not in known:
            known[expression,] = self.define(depth, "int", "j", expression)
        return known[expression,], depth

    # ------------------------------------------------------------------ values

    def value(self, node: Node, index: Index) -> str:
        """Return the variable that holds an element of a node. If the index has more axes, only the last ones count."""
        index = index[len(index) - len(node.shape) :]
        index = tuple([NOWHERE if n == 1 else i for n, i in zip(node.shape, index, strict=True)])
        depth = max((d for _, d in index), default=0)
        key = node.number, *(text for text, _ in index)
        found = self.blocks[depth].known.get(key)
        if found is None:
            found = getattr(self, f"_{node.kind}")(node, index, depth)
            self.blocks[depth].known[key] = found
        return found

    def _number(self, node, index, depth):
        return self.parameter(f"c{node.detail}", f"const {TYPES[node.dtype.name]}", "number", node.detail)

    def _element(self, node, index, depth):
        return node.detail

    def _input(self, node, index, depth):
        number, contiguous, ends = node.detail
        x = self.parameter(f"x{number}", f"const {TYPES[node.dtype.name]}*", "array", number)
        flat = self.blocks[depth].known.get(("flat", node.shape, *(text for text, _ in index))) if contiguous else None
        offsets = [
            text if ends and axis == node.sizes[-1] else f"{text} * {self.size(axis)}"
            for axis, (text, _) in zip(node.sizes, index, strict=True)
            if text != "0"
        ]
        return self.define(depth, TYPES[node.dtype.name], "t", f"{x}[{flat or ' + '.join(offsets) or '0'}]")

    def _apply(self, node, index, depth):
        expression = node.detail.format(*[self.value(x, index) for x in node.operands])
        return self.define(depth, TYPES[node.dtype.name], "t", expression)

    def _iota(self, node, index, depth):
        return self.define(depth, TYPES[node.dtype.name], "t", index[0][0])

    def _broadcast(self, node, index, depth):
        return self.value(node.operands[0], index)

    def _permute(self, node, index, depth):
        before = [NOWHERE] * len(index)
        for axis, i in zip(node.detail, index, strict=True):
            before[axis] = i
        return self.value(node.operands[0], tuple(before))

    def _index(self, node, index, depth):
        places, sizes, before = iter(index), map(self.size, node.sizes), []
        for code in node.detail:
            if code == ".":
                before.append(self.place(next(sizes), NOWHERE))
                continue
            i = next(places)
            if code == "=":
                before.append(i)
            elif code == "+":
                before.append(self.place(f"{i[0]} + {next(sizes)}", i))
            elif code == ":":
                before.append(self.place(f"{next(sizes)} + {i[0]} * {next(sizes)}", i))
        return self.value(node.operands[0], tuple(before))

    def _reshape(self, node, index, depth):
        (x,) = node.operands
        flat = self.flattened(index, node.shape)
        return self.value(x, self.unflattened(flat, x.shape))

    def flattened(self, index: Index, shape: tuple[int, ...]) -> tuple[str, int]:
        """Return the number of an element in an array of this shape, counted row by row."""
        text, parts = "", [NOWHERE]
        for axis, i in enumerate(index):
            if text and shape[axis] != 1:
                text = f"({text}) * {self.axis_size(shape, axis)}"
            if i[0] != "0":
                text = f"{text} + {i[0]}" if text else i[0]
                parts.append(i)
        return self.place(text, *parts) if len(parts) > 2 or "*" in text else (text or "0", parts[-1][1])

    def unflattened(self, flat: tuple[str, int], shape: tuple[int, ...], axes: tuple[int, ...] | None = None) -> Index:
        """Return the index of element number `flat` along these axes of an array, with 0 along the others."""
        axes = tuple(range(len(shape))) if axes is None else axes
        index, rest = [NOWHERE] * len(shape), flat
        several = [axis for axis in axes if shape[axis] != 1]
        for axis in reversed(several):
            if axis == several[0]:
                index[axis] = rest
            else:
                n = self.axis_size(shape, axis)
                index[axis] = self.place(f"{rest[0]} % {n}", rest)
                rest = self.place(f"{rest[0]} / {n}", rest)
        return tuple(index)

    def _take(self, node, index, depth):
        x, indices = node.operands
        axis, n = node.detail, len(indices.shape)
        place = self.value(indices, index[axis : axis + n])
        size = self.axis_size(x.shape, axis)
        at = self.place(f"(int){place} < 0 ? (int){place} + {size} : (int){place}", *index[axis : axis + n], NOWHERE)
        return self.value(x, (*index[:axis], at, *index[axis + n :]))

    def _concat(self, node, index, depth):
        axis = node.detail
        result, i = self.variable("t"), index[axis][0]
        choices: list[str] = []
        self.blocks[depth].lines.append(f"{TYPES[node.dtype.name]} {result};")
        ends = [self.size(number) for number in node.sizes]
        for part, x in enumerate(node.operands):
            head = f"if ({i} < {ends[part]})" if part < len(ends) else ""
            with self.block(depth, f"else {head}".strip() if part else head, choices) as inside:
                start = f" - {ends[part - 1]}" if part else ""
                local = self.define(inside, "int", "j", f"{i}{start}")
                value = self.value(x, (*index[:axis], (local, inside), *index[axis + 1 :]))
                self.blocks[inside].lines.append(f"{result} = {value};")
        self.blocks[depth].lines += choices  # after the lines that they need
        return result

    def _add_at(self, node, index, depth):
        x, part = node.operands
        result, sizes = self.variable("t"), map(self.size, node.sizes)
        self.blocks[depth].lines.append(f"{TYPES[node.dtype.name]} {result} = {self.value(x, index)};")
        conditions, places = [], []
        for code, (i, _) in zip(node.detail, index, strict=True):
            if code == "=":
                places.append(i)
                continue
            start, step, count = next(sizes), next(sizes) if code == ":" else "1", next(sizes)
            conditions.append(f"{i} >= {start} && {i} < {start} + {step} * {count}")
            if code == ":":
                conditions.append(f"({i} - {start}) % {step} == 0")
            places.append(f"({i} - {start}) / {step}")
        with self.block(depth, f"if ({' && '.join(conditions) or 'true'})") as inside:
            local = tuple([(self.define(inside, "int", "j", place), inside) for place in places])
            self.blocks[inside].lines.append(f"{result} = {result} + {self.value(part, local)};")
        return result

    def _reduce(self, node, index, depth):
        (x,) = node.operands
        name, axes, keepdims = node.detail
        shared = self.shared_rows and depth == 0
        kind, join = TYPES[x.dtype.name], f"{REDUCTIONS[name]}()"
        result, k = self.variable("t"), self.variable("e")
        start = {"sum": "0", "any": "false", "all": "true", "argmax": "{0, -1}"}.get(name, "")
        kept = iter(index)
        outer = [next(kept) if keepdims or axis not in axes else NOWHERE for axis in range(len(x.shape))]
        length = " * ".join(self.axis_size(x.shape, axis) for axis in axes)
        if name == "argmax":
            kind = f"Place<{kind}>"
        if not start:  # a maximum starts with the first element, which several threads may read
            start = self.value(x, tuple([NOWHERE if axis in axes else i for axis, i in enumerate(outer)]))
        self.blocks[depth].lines.append(f"{kind} {result} = {start};")
        first, step = ("(int)threadIdx.x", "(int)blockDim.x") if shared else ("0", "1")
        with self.block(depth, f"for (int {k} = {first}; {k} < {length}; {k} += {step})") as inside:
            places = self.unflattened((k, inside), x.shape, axes)
            value = self.value(x, tuple([places[axis] if axis in axes else i for axis, i in enumerate(outer)]))
            value = f"{kind}{{{value}, {k}}}" if name == "argmax" else value
            self.blocks[inside].lines.append(f"{result} = {join}({result}, {value});")
        if shared:
            self.blocks[depth].lines.append(f"{result} = together({result}, {join});")
        return f"{result}.at" if name == "argmax" else result
