"""The rows of one rank in the batches of a source; see `xpnet.ranks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xpnet.errors import SourceError
from xpnet.groups import PER_ROW
from xpnet.ranks import Ranks
from xpnet.sources.base import Batches, Chunk


class SharedBatches(Batches):
    """The remaining batches of an epoch, of which each rank has its rows. All ranks take the same number of batches at once.

    The source may have left out the rows of other ranks already. `Chunk.rows` counts those of all ranks.
    """

    def __init__(self, batches: Batches, ranks: Ranks):
        self.batches, self.ranks = batches, ranks
        self.held: Chunk | None = None  # batches that the other ranks have not read yet

    @property
    def alike(self) -> int | None:
        return self.batches.alike

    def take(self, most: int) -> Chunk | None:
        chunk, self.held = self.held or self.batches.take(most), None
        found = self.ranks.gather(0 if chunk is None else min(chunk.steps, most))
        if chunk is None or not all(found):
            if any(found):
                ended = [rank for rank, steps in enumerate(found) if not steps]
                raise SourceError(
                    f"All ranks need the same number of batches. Received: data that have ended in rank {ended[0]} only",
                    -1,
                )
            return None
        if min(found) < chunk.steps:
            chunk, self.held = _cut(chunk, 0, min(found)), _cut(chunk, min(found), chunk.steps)
        return self._own(chunk)

    def _own(self, chunk: Chunk) -> Chunk:
        begin, end = self.ranks.bounds(chunk.rows)
        columns, data = dict(chunk.columns), chunk.data
        read = "index" if "index" in columns else "x"
        if read not in columns:
            data = {name: values[begin:end, ...] for name, values in data.items()}
        elif columns[read].shape[1] == chunk.rows:
            columns |= {name: columns[name][:, begin:end, ...] for name in ("index", *PER_ROW) if name in columns}
        return replace(chunk, columns=columns | {"rows": np.full(chunk.steps, chunk.rows)}, data=data)

    def __exit__(self, *error: Any) -> None:
        self.batches.__exit__(*error)


def _cut(chunk: Chunk, start: int, stop: int) -> Chunk:
    columns = {name: values[start:stop, ...] for name, values in chunk.columns.items()}
    return replace(chunk, steps=stop - start, columns=columns)
