"""Labeled rows of numbers as a CSV table.

Python's ``csv`` module splits the rows; which row is the header and which column the label follows rules that are
stated in :func:`label_first_csv`. What the rules leave open is refused, with the line of the file.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NoReturn

import numpy as np

from xpnet.checks import is_integer
from xpnet.datasets.files import MAX_BYTES, MAX_LABEL, Labeled, StrPath, label_type, lines, reading
from xpnet.errors import DatasetError

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
EITHER = "Pass header=True if they name the columns, header=False if they are data"
LABEL_NAMES = {"label", "labels", "class", "target", "y"}
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE)
BYTES = {str(value): value for value in range(256)}
TYPE_CODES = {"uint8": "B", "float32": "f", "float64": "d"}
Column = int | str | None


def label_first_csv(
    path: StrPath,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    label_column: Column = None,
    index_column: Column = None,
    dtype: str = "uint8",
    max_bytes: int = MAX_BYTES,
) -> Labeled:
    """Read a CSV file of labeled rows: by default the label first, then pixels from 0 to 255.

    The file is plain or gzip, in UTF-8 or UTF-16, with any line ends; cells may be quoted, blank lines are passed
    over, and rows keep their order. What the options leave open is decided by these rules:

    - The delimiter is the comma, semicolon or tab that the first row has. A row with several kinds is refused.
    - The first row is a header if no cell but the label's is a number, and data if all are. A mixture is refused.
      Refused as well are numbers that count 0, 1, 2, ... or 1, 2, 3, ..., for pandas names columns like that, and
      numbers beside a label that is called "label", "class", "target" or "y", or that no other row has although
      labels come more than once.
    - The label is the first column. A first column without a name is refused, and so is one that counts the rows
      (pandas and R write such a column), and one beside another that is called "label", "class", "target" or "y".
      A last column without a name is refused too: most such lines just end in a delimiter.
    - Labels that are all numbers stand for themselves. Others are names, which are numbered from 0 in sorted order.
      A mixture is refused.

    Parameters
    ----------
    path : path-like
        A regular file.
    header : bool, optional
        Whether the first row names the columns.
    delimiter : str, optional
        The character between cells.
    label_column, index_column : int or str, optional
        The place (from 0; negative from the end) or name of the label, and of a column of row numbers to leave out.
    dtype : {"uint8", "float32", "float64"}
        The type of the values. ``"uint8"`` takes whole numbers from 0 to 255 only, as labels too; the others take all
        finite numbers, and whole numbers from 0 to 65,535 as labels.
    max_bytes : int, default 2**30
        The longest text, in bytes after unpacking, that is read.

    Returns
    -------
    x, y : Labeled
        Values ``(n, columns - 1)`` and labels ``(n,)``, ``uint8`` or ``uint16``. The pair's ``class_names[label]`` is
        what a label is called. As images: ``x.reshape(-1, 28, 28)``.

    Raises
    ------
    DatasetError
        If the file cannot be read, a rule above refuses it, or a row is longer, shorter or otherwise than expected.
    """
    if dtype not in TYPE_CODES:
        raise ValueError(f"dtype must be 'uint8', 'float32' or 'float64'. Received: {dtype!r}.")
    if header not in (True, False, None) or is_integer(header):
        raise ValueError(f"header must be True, False or None, which stands for the rule. Received: {header!r}.")
    for name, column in (("label_column", label_column), ("index_column", index_column)):
        if not (column is None or isinstance(column, str) or is_integer(column)):
            raise ValueError(f"{name} must be the name of a column or its place, an integer. Received: {column!r}.")
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one character, no quote and no line end. Received: {delimiter!r}.")
    with reading(path) as stream:
        table = Table(path, lines(stream, path, max_bytes), delimiter, dtype)
        try:
            return table.read(header, label_column, index_column)
        except csv.Error as error:
            table.refuse(f"cells whose quotes match, found otherwise ({error})", "Mend the quotes of this line")


class Table:
    """One reading of one file."""

    def __init__(self, path: StrPath, text: Iterator[str], delimiter: str | None, dtype: str):
        self.path, self.dtype = path, dtype
        leading = []  # blank lines, and the first that is not
        for line in text:
            leading.append(line)
            if line.strip():
                break
        self.delimiter = delimiter or self.only_delimiter(leading)
        spaces = self.delimiter != " "
        self.rows = csv.reader(chain(leading, text), delimiter=self.delimiter, skipinitialspace=spaces, strict=True)

    def refuse(self, what: str, remedy: str, line: int | None = None) -> NoReturn:
        raise DatasetError(f"{self.path}, line {line or self.rows.line_num}: expected {what}. {remedy}.")

    def only_delimiter(self, leading: Sequence[str]) -> str:
        first = leading[-1] if leading else ""
        bare = re.sub(r'"[^"]*"', "", first)
        found = [delimiter for delimiter in DELIMITERS if delimiter in bare]
        if len(found) == 1:
            return found[0]
        kinds = " and ".join(DELIMITERS[delimiter] for delimiter in found) or "none"
        remedy = (
            "Pass the right one, such as delimiter=';', and write decimal points, not commas"
            if first.strip()
            else "The file has no rows; replace it"
        )
        self.refuse(
            f"cells between commas, semicolons or tabs, found {kinds} in {first[:40]!r}", remedy, max(len(leading), 1)
        )

    def read(self, header: bool | None, label_column: Column, index_column: Column) -> Labeled:
        first = next((row for row in self.rows if any(cell.strip() for cell in row)), [])
        names = [cell.strip() for cell in first]
        if len(names) < 2:
            self.refuse(f"at least two columns, found {first}", f"Check delimiter={self.delimiter!r}")
        index = self.place(index_column, names)
        label = self.place(label_column, names)
        if label is None:
            label = 1 if index == 0 else 0
        if label == index:
            self.refuse(f"two columns, found {label} for both", "Pass another label_column or index_column")
        unsure = header is None
        if isinstance(label_column, str) or isinstance(index_column, str):
            header, unsure = True, False
        elif header is None:
            header = self.is_header(names, label, index)
        if header:
            self.check_names(names, label, index, label_column)
        rows = self.rows if header else chain([first], self.rows)
        known = label_column is not None or (header and names[label].casefold() in LABEL_NAMES)
        return self.collect(rows, len(first), label, index, known, unsure and not header)

    def place(self, column: Column, names: Sequence[str]) -> int | None:
        """Where a column is, counted from 0."""
        if isinstance(column, str):
            if names.count(column) != 1:
                self.refuse(
                    f"one column called {column!r}, found the names {names[:10]}", "Pass the place of the column"
                )
            return names.index(column)
        if column is not None and not -len(names) <= column < len(names):
            self.refuse(f"a column {column}, found {len(names)} columns", "Count from 0, or from -1 at the end")
        return None if column is None else column % len(names)

    def is_header(self, names: Sequence[str], label: int, index: int | None) -> bool:
        values = [name for place, name in enumerate(names) if place not in (label, index)]
        numbers = [bool(NUMBER.fullmatch(value)) for value in values]
        if all(numbers):
            if counts(names if NUMBER.fullmatch(names[label]) else values):
                self.refuse(f"names or values, found numbers that count the columns: {names[:6]}", EITHER)
            if names[label].casefold() in LABEL_NAMES:
                self.refuse(f"names or values, found {names[label]!r} and numbers: {names[:6]}", EITHER)
            return False
        words = [name for name in names if not NUMBER.fullmatch(name)]
        if len(set(words)) < len(names):
            odd = words[0] if len(words) < len(names) else next(name for name in words if words.count(name) > 1)
            self.refuse(
                f"numbers, or names that are each another, found neither ({odd[:40]!r} in the first row)",
                "Mend the row, or pass header=True if it names the columns"
                + f", or label_column={names.index(odd)} if that is a label" * (words == [odd] != [""]),
            )
        return True

    def check_names(self, names: Sequence[str], label: int, index: int | None, label_column: Column) -> None:
        """Refuse a header that says that the first column, or another, is not what the rules take it for."""
        unnamed = names[0] == "" or names[0].startswith("Unnamed:")
        if unnamed and index != 0 and (label != 0 or label_column is None):
            self.refuse(
                f"a name for each column, found {names[0]!r} for the first, as where pandas writes row numbers",
                "Pass index_column=0 to leave the column out, or label_column=0 if it holds the labels",
            )
        if names[-1] == "" and len(names) - 1 not in (label, index):
            self.refuse(
                "a name for each column, found none for the last", "If each line ends in a delimiter, delete these"
            )
        better = [name for name in names if name.casefold() in LABEL_NAMES]
        if label_column is None and better and names[label] not in better:
            self.refuse(
                f"the label in column {label}, found {names[label]!r} there and {better[0]!r} elsewhere",
                f"Pass label_column={better[0]!r}, or label_column={label}",
            )

    def collect(self, rows, width: int, label: int, index: int | None, known: bool, unsure: bool) -> Labeled:
        """Read all rows; ``known`` says that the label's column is not just taken for it, ``unsure`` that the first row
        may be a header of numbers."""
        drop = sorted({label} | ({index} if index is not None else set()), reverse=True)
        values, codes, places = array(TYPE_CODES[self.dtype]), array("q"), array("q")
        seen: dict[str, tuple[int, int]] = {}  # a label's text -> its code and its first line
        for row in rows:
            if len(row) != width:
                if not any(cell.strip() for cell in row) and len(row) < 2:
                    continue
                self.refuse(f"{width} cells as in the first row, found {len(row)}", "Mend or delete the line")
            text = row[label].strip()
            for place in drop:
                del row[place]
            self.take(values, row, drop)
            codes.append(seen.setdefault(text, (len(seen), self.rows.line_num))[0])
            places.append(self.rows.line_num)
        if not codes:
            self.refuse("rows of labels and values, found none below the header", "Replace the file")
        x = np.frombuffer(values, self.dtype).reshape(len(codes), width - len(drop))
        if self.dtype != "uint8" and not (finite := np.isfinite(x).all(axis=1)).all():
            line = places[int(np.argmin(finite))]
            larger = " (dtype='float64' holds larger ones)" * (self.dtype == "float32")
            self.refuse(
                f"finite {self.dtype} numbers, found a missing or larger one{larger}",
                "Replace it, or delete the line",
                line,
            )
        if not known and len(codes) > 1 and len(seen) == len(codes) and counts(list(seen)):
            self.refuse(
                f"labels in column {label}, found numbers that count the rows",
                f"Pass index_column={label} to leave the column out, or label_column={label} if these are the labels",
            )
        if unsure and codes.count(0) == 1 and len(seen) < len(codes) and not NUMBER.fullmatch(name := next(iter(seen))):
            self.refuse(
                f"labels or names of columns, found {name[:40]!r}, a label that no other row has, and numbers",
                EITHER,
                places[0],
            )
        labels, class_names = self.labels(seen)
        y = np.asarray(labels, label_type(max(labels)))[np.frombuffer(codes, np.int64)]
        return Labeled(x, y, class_names)

    def take(self, values: array, row: Sequence[str], drop: Sequence[int]) -> None:
        """Append a row to the values: the common forms at once, others cell by cell."""
        try:
            if self.dtype == "uint8":
                return values.frombytes(bytes(map(BYTES.__getitem__, row)))
            text = "".join(row)
            if text.isascii() and "_" not in text:  # Python's float() knows more digits than ours, and 1_000
                return values.fromlist(list(map(float, row)))
        except (KeyError, ValueError):
            pass
        places = [place for place in range(len(row) + len(drop)) if place not in drop]
        for place, cell in zip(places, row, strict=True):
            values.append(self.number(cell.strip(), place))

    def number(self, cell: str, place: int) -> float:
        if self.dtype == "uint8" and (whole := re.fullmatch(r"\+?0*(\d{1,3})", cell, re.ASCII)) and int(whole[1]) < 256:
            return int(whole[1])
        if self.dtype != "uint8" and NUMBER.fullmatch(cell):
            return float(cell)
        kind = "whole numbers from 0 to 255" if self.dtype == "uint8" else "numbers"
        remedy = f"Mend the cell, delete the line, or pass label_column={place} if the column holds the labels"
        if re.fullmatch(r"[+-]?\d+,\d+", cell):
            remedy = "A decimal comma is not read: write a point"
        elif self.dtype == "uint8" and NUMBER.fullmatch(cell):
            remedy = "Pass dtype='float32' to read other numbers"
        elif cell == "":
            remedy = "Fill in the missing value, or delete the line"
        self.refuse(f"{kind}, found {cell[:40]!r} in column {place}", remedy)

    def labels(self, seen: dict[str, tuple[int, int]]) -> tuple[list[int], tuple[str, ...]]:
        """The label of each text, and the name of each label."""
        names = [text for text in seen if not NUMBER.fullmatch(text)]
        if "" in seen:
            self.refuse("a label, found an empty cell", "Fill it in, or delete the line", seen[""][1])
        if names and len(names) < len(seen):
            number = next(text for text in seen if NUMBER.fullmatch(text))
            self.refuse(
                f"labels that are all numbers or all names, found {names[0][:40]!r}, and {number!r} in line {seen[number][1]}",
                "Mend the label, or pass header=True if this line names the columns",
                seen[names[0]][1],
            )
        if names:
            if len(names) > MAX_LABEL:
                self.refuse(f"at most {MAX_LABEL:,} classes, found {len(names):,} names", "Check label_column")
            order = {name: label for label, name in enumerate(sorted(names))}
            return [order[name] for name in names], tuple(order)
        largest = 255 if self.dtype == "uint8" else MAX_LABEL
        for text, (_, line) in seen.items():
            if not (0 <= float(text) <= largest and float(text).is_integer()):
                above = ", or pass dtype='float32' for labels above 255" * (float(text) > largest == 255)
                remedy = f"Number the classes from 0{above}"
                self.refuse(f"labels that are whole numbers from 0 to {largest:,}, found {text!r}", remedy, line)
        labels = [int(float(text)) for text in seen]
        return labels, tuple(map(str, range(max(labels) + 1)))


def counts(cells: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    first = int(cells[0] == "1")
    return list(cells) == [str(number) for number in range(first, first + len(cells))]
