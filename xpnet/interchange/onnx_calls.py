"""One node of an ONNX file, in the form that the functions of `onnx_operators` use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.interchange.onnx_files import Node
from xpnet.interchange.onnx_flow import refuse


class Call:
    """A node, its constant inputs, and the attributes that have not been used yet.

    Parameters
    ----------
    node : Node
    constants : sequence of array or None
        One for each input: None for a value that depends on the data, and for an omitted input.
    output : str
        The name of the output that is needed.
    """

    def __init__(self, node: Node, constants: Sequence[np.ndarray | None], output: str):
        self.node, self.constants, self.output = node, constants, output
        self.attributes = dict(node.attributes)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.pop(name, default)

    def require(self, **expected: Any) -> None:
        """Raise unless each attribute that is present has this value."""
        for name, value in expected.items():
            if (received := self.attribute(name, value)) != value:
                raise refuse(f"{name}={value!r}", f"{name}={received!r}")

    def ignore(self, *names: str) -> None:
        for name in names:
            self.attribute(name)

    def constant(self, place: int, optional: bool = False) -> Any:
        """Return the constant at this place among the inputs, or None if it is optional and omitted."""
        found = self.constants[place] if place < len(self.constants) else None
        if found is None and not (optional and self.node.inputs[place : place + 1] in ((), ("",))):
            raise refuse(f"a constant as input {place}", "an input that depends on the data, or none")
        return found

    def weight(self, place: int, optional: bool = False) -> Any:
        """Like `constant`, in floating point."""
        found = self.constant(place, optional)
        return None if found is None else np.asarray(found, np.float64 if found.dtype == np.float64 else np.float32)

    def integers(self, place: int, optional: bool = False) -> Any:
        """Like `constant`, as a list of integers."""
        found = self.constant(place, optional)
        if found is not None and (found.dtype.kind not in "iu" or found.ndim > 1 or found.size > 100):
            raise refuse("integers", f"{found.dtype} of shape {found.shape}")
        return None if found is None else np.atleast_1d(found).tolist()

    def axis(self, rank: int, default: int = -1) -> int:
        axis = self.attribute("axis", default)
        if not isinstance(axis, int) or not -rank <= axis < rank:
            raise refuse(f"an axis of a value with {rank} axes", f"axis={axis}")
        return axis % rank
