"""Reads a CSV table of labeled rows of numbers.

Python's ``csv`` module splits the rows. The rules in :func:`label_first_csv` decide which row is the header and which column
holds the labels. If the rules do not decide, the table is refused, and the error names the line.
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
from xpnet.datasets.files import MAX_BYTES, MAX_LABEL, Labeled, label_type, lines, reading
from xpnet.errors import DatasetError
from xpnet.files import StrPath

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

    The file is plain or gzip, in UTF-8 or UTF-16, with any line ends. Cells may be quoted, blank lines are skipped, and
    rows keep their order. These rules decide what the options do not:

    - The delimiter is the comma, semicolon or tab in the first row. A first row with more than one kind is refused.
    - The first row is a header if no cell except the label is a number, and data if all of them are numbers. Three kinds of
      first row are refused: a mixture; numbers that count 0, 1, 2, ... or 1, 2, 3, ..., because pandas names columns in
      this way; and numbers beside a label that is "label", "labels", "class", "target" or "y", or beside a label that no
      other row has although other labels repeat.
    - The label is the first column. Three kinds of first column are refused: a column without a name; one that counts the
      rows, because pandas and R write row numbers; and one beside a column named "label", "labels", "class", "target" or
      "y". A last column without a name is refused too, because it usually means that each line ends in a delimiter.
    - If all labels are numbers, they are the labels. Otherwise they are names, numbered from 0 in sorted order. A mixture is
      refused.

    Parameters
    ----------
    path : path-like
        A regular file.
    header : bool, optional
        Whether the first row names the columns.
    delimiter : str, optional
        The character between cells.
    label_column, index_column : int or str, optional
        The column of the labels, and a column of row numbers to leave out. An integer is the position, from 0, or negative
        from the end; a string is the name.
    dtype : {"uint8", "float32", "float64"}, default "uint8"
        The type of the values. ``"uint8"`` accepts only integers from 0 to 255, for values and for labels. The other types
        accept all finite numbers, and integers from 0 to 65,535 for labels.
    max_bytes : int, default 2**30
        The longest text to read, in bytes after decompression.

    Returns
    -------
    x, y : Labeled
        Values ``(n, columns - 1)`` and labels ``(n,)``, ``uint8`` or ``uint16``. ``class_names[label]`` is the name of a
        label. ``x.reshape(-1, 28, 28)`` gives images.

    Raises
    ------
    DatasetError
        The file cannot be read, a rule above refuses it, or a row does not have the expected cells.
    """
    if dtype not in TYPE_CODES:
        raise ValueError(f"dtype must be 'uint8', 'float32' or 'float64'. Received: {dtype!r}")
    if header not in (True, False, None) or is_integer(header):
        raise ValueError(f"header must be True, False, or None to follow the rules. Received: {header!r}")
    for name, column in (("label_column", label_column), ("index_column", index_column)):
        if not (column is None or isinstance(column, str) or is_integer(column)):
            raise ValueError(f"{name} must be a column's name or its position, an integer. Received: {column!r}")
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one character, but not a quote or a line end. Received: {delimiter!r}")
    with reading(path) as stream:
        table = Table(path, lines(stream, path, max_bytes), delimiter, dtype)
        try:
            return table.read(header, label_column, index_column)
        except csv.Error as error:
            table.refuse("cells with matching quotes", "Fix the quotes in this line", str(error))


class Table:
    """A CSV file that is read once."""

    def __init__(self, path: StrPath, text: Iterator[str], delimiter: str | None, dtype: str):
        self.path, self.dtype = path, dtype
        leading = []  # the first line that is not blank, and the blank lines before it
        for line in text:
            leading.append(line)
            if line.strip():
                break
        self.delimiter = delimiter or self.only_delimiter(leading)
        spaces = self.delimiter != " "
        self.rows = csv.reader(chain(leading, text), delimiter=self.delimiter, skipinitialspace=spaces, strict=True)

    def refuse(self, expected: str, remedy: str, received: str, line: int | None = None) -> NoReturn:
        place = f"{self.path}, line {line or self.rows.line_num}"
        raise DatasetError(f"{place}: expected {expected}. {remedy}. Received: {received}")

    def only_delimiter(self, leading: Sequence[str]) -> str:
        first = leading[-1] if leading else ""
        bare = re.sub(r'"[^"]*"', "", first)
        found = [delimiter for delimiter in DELIMITERS if delimiter in bare]
        if len(found) == 1:
            return found[0]
        kinds = " and ".join(DELIMITERS[delimiter] for delimiter in found) or "no delimiter"
        remedy = (
            "Pass the correct one, such as delimiter=';', and write decimal points, not commas"
            if first.strip()
            else "Replace the file, which has no rows"
        )
        expected = "cells separated by commas, semicolons or tabs"
        self.refuse(expected, remedy, f"{kinds} in {first[:40]!r}", max(len(leading), 1))

    def read(self, header: bool | None, label_column: Column, index_column: Column) -> Labeled:
        first = next((row for row in self.rows if any(cell.strip() for cell in row)), [])
        names = [cell.strip() for cell in first]
        if len(names) < 2:
            self.refuse("at least two columns", f"Check delimiter={self.delimiter!r}", str(first))
        index = self.place(index_column, names)
        label = self.place(label_column, names)
        if label is None:
            label = 1 if index == 0 else 0
        if label == index:
            self.refuse("two columns", "Pass another label_column or index_column", f"column {label} for both")
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
        """The position of a column, counted from 0."""
        if isinstance(column, str):
            if names.count(column) != 1:
                self.refuse(f"one column named {column!r}", "Pass the column's position", f"the names {names[:10]}")
            return names.index(column)
        if column is not None and not -len(names) <= column < len(names):
            self.refuse(f"a column {column}", "Count from 0, or from -1 at the end", f"{len(names)} columns")
        return None if column is None else column % len(names)

    def is_header(self, names: Sequence[str], label: int, index: int | None) -> bool:
        values = [name for place, name in enumerate(names) if place not in (label, index)]
        numbers = [bool(NUMBER.fullmatch(value)) for value in values]
        if all(numbers):
            if counts(names if NUMBER.fullmatch(names[label]) else values):
                self.refuse("names or values", EITHER, f"numbers that count the columns, {names[:6]}")
            if names[label].casefold() in LABEL_NAMES:
                self.refuse("names or values", EITHER, f"{names[label]!r} and numbers, {names[:6]}")
            return False
        words = [name for name in names if not NUMBER.fullmatch(name)]
        if len(set(words)) < len(names):
            odd = words[0] if len(words) < len(names) else next(name for name in words if words.count(name) > 1)
            self.refuse(
                "only numbers, or only different names, in the first row",
                "Fix the row, or pass header=True if it names the columns"
                + f", or label_column={names.index(odd)} if that is a label" * (words == [odd] != [""]),
                repr(odd[:40]),
            )
        return True

    def check_names(self, names: Sequence[str], label: int, index: int | None, label_column: Column) -> None:
        """Refuse a header that contradicts the rules, which take the first column as the label and all others as values."""
        unnamed = names[0] == "" or names[0].startswith("Unnamed:")
        if unnamed and index != 0 and (label != 0 or label_column is None):
            self.refuse(
                "a name for each column",
                "Pass index_column=0 to leave out a column of row numbers, or label_column=0 if it holds the labels",
                f"{names[0]!r} for the first",
            )
        if names[-1] == "" and len(names) - 1 not in (label, index):
            remedy = "If each line ends in a delimiter, delete those delimiters"
            self.refuse("a name for each column", remedy, "no name for the last")
        better = [name for name in names if name.casefold() in LABEL_NAMES]
        if label_column is None and better and names[label] not in better:
            self.refuse(
                f"the label in column {label}",
                f"Pass label_column={better[0]!r}, or label_column={label}",
                f"{names[label]!r} there and {better[0]!r} in another column",
            )

    def collect(self, rows, width: int, label: int, index: int | None, known: bool, unsure: bool) -> Labeled:
        """Read all rows.

        ``known`` means that an option or the header named the label's column. ``unsure`` means that the first row may be a
        header of numbers.
        """
        drop = sorted({label} | ({index} if index is not None else set()), reverse=True)
        values, codes, places = array(TYPE_CODES[self.dtype]), array("q"), array("q")
        seen: dict[str, tuple[int, int]] = {}  # label text -> its code and its first line
        for row in rows:
            if len(row) != width:
                if not any(cell.strip() for cell in row) and len(row) < 2:
                    continue
                self.refuse(f"{width} cells, as in the first row", "Fix or delete the line", f"{len(row)} cells")
            text = row[label].strip()
            for place in drop:
                del row[place]
            self.take(values, row, drop)
            codes.append(seen.setdefault(text, (len(seen), self.rows.line_num))[0])
            places.append(self.rows.line_num)
        if not codes:
            self.refuse("rows of labels and values", "Replace the file", "no row below the header")
        x = np.frombuffer(values, self.dtype).reshape(len(codes), width - len(drop))
        if self.dtype != "uint8" and not (finite := np.isfinite(x).all(axis=1)).all():
            line = places[int(np.argmin(finite))]
            larger = "pass dtype='float64' for larger numbers, " * (self.dtype == "float32")
            remedy = f"Replace the number, {larger}or delete the line"
            self.refuse(f"finite {self.dtype} numbers", remedy, "a missing or larger number", line)
        if not known and len(codes) > 1 and len(seen) == len(codes) and counts(list(seen)):
            self.refuse(
                f"labels in column {label}",
                f"Pass index_column={label} to leave the column out, or label_column={label} if these are the labels",
                "numbers that count the rows",
            )
        if unsure and codes.count(0) == 1 and len(seen) < len(codes) and not NUMBER.fullmatch(name := next(iter(seen))):
            received = f"{name[:40]!r}, a label that no other row has, and numbers"
            self.refuse("a row of data, or names of columns", EITHER, received, places[0])
        labels, class_names = self.labels(seen)
        y = np.asarray(labels, label_type(max(labels)))[np.frombuffer(codes, np.int64)]
        return Labeled(x, y, class_names)

    def take(self, values: array, row: Sequence[str], drop: Sequence[int]) -> None:
        """Append a row to the values: the common forms at once, and other forms cell by cell."""
        try:
            if self.dtype == "uint8":
                return values.frombytes(bytes(map(BYTES.__getitem__, row)))
            text = "".join(row)
            if text.isascii() and "_" not in text:  # float() also accepts 1_000 and non-ASCII digits
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
        kind = "integers from 0 to 255" if self.dtype == "uint8" else "numbers"
        remedy = f"Fix the cell, delete the line, or pass label_column={place} if the column holds the labels"
        if re.fullmatch(r"[+-]?\d+,\d+", cell):
            remedy = "Write a decimal point instead of a comma"
        elif self.dtype == "uint8" and NUMBER.fullmatch(cell):
            remedy = "Pass dtype='float32' to read other numbers"
        elif cell == "":
            remedy = "Fill in the missing value, or delete the line"
        self.refuse(kind, remedy, f"{cell[:40]!r} in column {place}")

    def labels(self, seen: dict[str, tuple[int, int]]) -> tuple[list[int], tuple[str, ...]]:
        """The label of each text, and the name of each label."""
        names = [text for text in seen if not NUMBER.fullmatch(text)]
        if "" in seen:
            self.refuse("a label", "Fill in the cell, or delete the line", "an empty cell", seen[""][1])
        if names and len(names) < len(seen):
            number = next(text for text in seen if NUMBER.fullmatch(text))
            self.refuse(
                "labels that are all numbers or all names",
                "Fix the label, or pass header=True if this line names the columns",
                f"{names[0][:40]!r}, and {number!r} in line {seen[number][1]}",
                seen[names[0]][1],
            )
        if names:
            if len(names) > MAX_LABEL:
                self.refuse(f"at most {MAX_LABEL:,} classes", "Check label_column", f"{len(names):,} names")
            order = {name: label for label, name in enumerate(sorted(names))}
            return [order[name] for name in names], tuple(order)
        largest = 255 if self.dtype == "uint8" else MAX_LABEL
        for text, (_, line) in seen.items():
            if not (0 <= float(text) <= largest and float(text).is_integer()):
                above = ", or pass dtype='float32' for labels above 255" * (float(text) > largest == 255)
                remedy = f"Number the classes from 0{above}"
                self.refuse(f"labels that are integers from 0 to {largest:,}", remedy, repr(text), line)
        labels = [int(float(text)) for text in seen]
        return labels, tuple(map(str, range(max(labels) + 1)))


def counts(cells: Sequence[str]) -> bool:
    """Whether the cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    first = int(cells[0] == "1")
    return list(cells) == [str(number) for number in range(first, first + len(cells))]
