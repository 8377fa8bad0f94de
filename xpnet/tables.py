"""Tables that print at a fixed width and display as HTML in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text below a header.

    Attributes
    ----------
    header : sequence of str
    rows : iterable of sequences of str
        A row with one cell spans all columns. Its cell may have several lines.
    right : str
        The names of the columns that are aligned to the right, separated by spaces.
    """

    header: Row
    rows: Sequence[Row]
    right: str = ""
    line_length: int | None = None  # the widest column that is aligned to the left grows or shrinks to fit

    def __str__(self) -> str:
        whole = [row for row in (self.header, *self.rows) if len(row) > 1]
        widths = [max(map(len, cells)) for cells in zip(*whole, strict=True)]
        if self.line_length is not None:
            left = [i for i, name in enumerate(self.header) if name not in self.right.split()]
            widest = max(left, key=widths.__getitem__)
            widths[widest] = max(widths[widest] + self.line_length - sum(widths) - 2 * (len(widths) - 1), 1)
        lines = [self._line(row, widths) for row in (self.header, *self.rows)]
        ruler = "-" * (self.line_length or max(len(self._line(row, widths)) for row in whole))
        return "\n".join([lines[0], ruler, *lines[1:]])

    def _line(self, row: Row, widths: Sequence[int]) -> str:
        if len(row) == 1:
            return row[0]
        cut = (cell if len(cell) <= n else f"{cell[: n - 1]}…" for cell, n in zip(row, widths, strict=True))
        cells = zip(cut, widths, self.header, strict=True)
        return "  ".join(f"{c:>{n}}" if name in self.right.split() else f"{c:<{n}}" for c, n, name in cells).rstrip()

    def html(self) -> str:
        head = "".join(self._cells("th", self.header))
        body = "".join(f"<tr>{''.join(self._cells('td', row))}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    _repr_html_ = html

    def _cells(self, tag: str, row: Row) -> Iterable[str]:
        if len(row) == 1:
            yield f'<{tag} colspan="{len(self.header)}" style="text-align:left"><pre>{escape(row[0])}</pre></{tag}>'
            return
        for cell, name in zip(row, self.header, strict=True):
            side = "right" if name in self.right.split() else "left"
            yield f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
