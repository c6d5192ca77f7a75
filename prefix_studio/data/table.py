"""What every file format becomes, and what they share: encodings, and words for errors.

Knows bytes and columns; no format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features

from prefix_studio.errors import StudioError

BATCH_ROWS = 1000
Batch = dict[str, list[Any]] | pa.Table


@dataclass(frozen=True)
class Parsed:
    """The columns' types, and the rows in batches: a list per column, or an Arrow table."""

    features: Features
    batches: Iterable[Batch]


def column_batches(columns: list[str], rows: Iterator[list[Any]]) -> Iterator[Batch]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield dict(zip(columns, map(list, zip(*batch, strict=True)), strict=True))


def refuse_repeated(columns: list[str], path: Path) -> None:
    """Raises StudioError when two columns have one name."""
    name, count = Counter(columns).most_common(1)[0]
    if count > 1:
        raise StudioError(
            f"{path.name}: the column name {name!r} occurs {count} times.",
            "Give every column a name of its own.",
            "data",
        )


def encoding_of(path: Path) -> str:
    """UTF-8, unless a byte-order mark says UTF-16, as Excel's "Unicode text" has."""
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def undecodable(path: Path) -> StudioError:
    """The error for a file whose bytes are not its encoding's: the first bad byte, its position and its line."""
    encoding = encoding_of(path)
    if encoding == "utf-16":
        return StudioError(f"{path.name} starts like UTF-16 text, but is not.", "Save it as UTF-8.", "data")
    position = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return StudioError(
                    f"{path.name} is not UTF-8 text: byte 0x{line[error.start]:02X} at position "
                    f"{position + error.start} (line {number}) cannot be decoded.",
                    'Save it as UTF-8 (in Excel: "CSV UTF-8").',
                    "data",
                )
            position += len(line)
    return StudioError(f"{path.name} is not UTF-8 text.", "Save it as UTF-8.", "data")


def kind_in_words(value: Any) -> str:
    names = {
        str: "a text",
        list: "a list",
        bool: "true or false",
        type(None): "null",
        int: "a number",
        float: "a number",
    }
    return names[type(value)]


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
