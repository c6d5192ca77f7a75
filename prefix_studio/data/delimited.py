"""CSV and TSV: a header and rows of as many values. A cell stays the text that stands in the file.

"007" and "NA" are neither numbers nor gaps here. Rows are counted from 1, without the header and blank lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasets import Features, Value

from prefix_studio.data.table import Parsed, column_batches, counted, encoding_of, refuse_repeated, undecodable
from prefix_studio.errors import StudioError

LONGEST_CELL = 2**31 - 1  # characters: a cell may hold a whole document


def parse_csv(path: Path) -> Parsed:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=encoding_of(path), newline="") as file:
        columns = header(path, file)
    if next(csv_rows(path, len(columns)), None) is None:
        raise StudioError(f"{path.name} has a header but no rows.", "Add at least one row below the header.", "data")
    features = Features({column: Value("string") for column in columns})
    return Parsed(features, column_batches(columns, csv_rows(path, len(columns))))


def header(path: Path, file: Iterable[str]) -> list[str]:
    try:
        names = next((row for row in csv.reader(file, delimiter=delimiter_of(path), strict=True) if row), None)
    except csv.Error as error:
        raise StudioError(
            f"{path.name}: the header cannot be read: {error}.", "Check its quotes and delimiters.", "data"
        ) from error
    if names is None or not any(name.strip() for name in names):
        raise StudioError(f"{path.name} is empty: it has no header.", "Name the columns in the first line.", "data")
    columns = [name.strip() or f"column_{number}" for number, name in enumerate(names, start=1)]
    refuse_repeated(columns, path)
    return columns


def csv_rows(path: Path, width: int) -> Iterator[list[str]]:
    """The rows below the header. Raises StudioError naming row and line."""
    number = 0
    try:
        with path.open(encoding=encoding_of(path), newline="") as file:
            reader = csv.reader(file, delimiter=delimiter_of(path), strict=True)
            rows = (row for row in reader if row)
            next(rows)
            for number, row in enumerate(rows, start=1):
                if len(row) != width:
                    raise StudioError(
                        f"{path.name}, row {number} (line {reader.line_num}): "
                        f"{counted(len(row), 'value')} for {counted(width, 'column')}.",
                        "Put quotes around values that contain the delimiter, a quote or a line break.",
                        "data",
                    )
                yield row
    except csv.Error as error:
        what = "a quote opened in this row is never closed" if "end of data" in str(error) else str(error)
        raise StudioError(
            f"{path.name}, row {number + 1} (up to line {reader.line_num}): {what}.",
            'Inside a quoted value, write a quote as "".',
            "data",
        ) from error
    except UnicodeDecodeError as error:
        raise undecodable(path) from error


def delimiter_of(path: Path) -> str:
    """Tab for .tsv; for .csv the comma, or what some spreadsheets write in its place (semicolon, tab)."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding=encoding_of(path)) as file:
        first = next((line for line in file if line.strip()), "")
    return next((delimiter for delimiter in ",;\t" if delimiter in first), ",")
