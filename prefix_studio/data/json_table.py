"""JSON and JSON Lines as a table. Values keep their type; a column of lists, objects or mixed types is kept as JSON.

A .json file may hold a list of objects, a list of texts, an object of equally long lists, or an object around a list
of objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Features, Json, Value

from prefix_studio.data.table import Parsed, column_batches, encoding_of, kind_in_words, lower_first
from prefix_studio.errors import StudioError

INT64 = range(-(2**63), 2**63)


def parse_json(path: Path) -> Parsed:
    """An array of objects, an object of arrays, an object around one of them, or JSON Lines under the wrong name."""
    with path.open(encoding=encoding_of(path)) as file:
        text = file.read()
    if not text.strip():
        raise StudioError(f"{path.name} is empty.", "Choose a file that holds rows.", "data")
    try:
        rows = rows_of(path, load_json(text))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return parse_jsonl(path)
        raise StudioError(
            f"{path.name}: invalid JSON at line {error.lineno}, column {error.colno}: {lower_first(error.msg)}.",
            "Check that line; strings need double quotes and lists no comma at the end.",
            "data",
        ) from error
    except RepeatedKey as error:
        raise StudioError(f"{path.name}: {error}.", "Give every field a name of its own.", "data") from error
    return typed_rows(path, lambda: enumerate(rows, start=1))


def rows_of(path: Path, value: Any) -> list[Any]:
    if isinstance(value, list):
        return [{"text": row} for row in value] if value and all(isinstance(row, str) for row in value) else value
    fields = value if isinstance(value, dict) else {}
    lists = {name: column for name, column in fields.items() if isinstance(column, list)}
    if len(lists) == 1 and all(isinstance(row, dict) for row in next(iter(lists.values()))):
        return next(iter(lists.values()))  # {"data": [...]} and its like
    if not lists or len(lists) < len(fields):
        raise StudioError(
            f"{path.name} holds no table.", "Make it a list of objects, or an object of lists of equal length.", "data"
        )
    lengths = {name: len(column) for name, column in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise StudioError(f"{path.name}: the columns differ in length ({told}).", "Make them equally long.", "data")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def parse_jsonl(path: Path) -> Parsed:
    return typed_rows(path, lambda: jsonl_rows(path))


def jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Row numbers and values. Raises StudioError naming the line."""
    row = 0
    with path.open(encoding=encoding_of(path), newline="\n") as file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row += 1
            try:
                yield row, load_json(line)
            except json.JSONDecodeError as error:
                raise StudioError(
                    f"{path.name}: invalid JSON at line {line_number}, column {error.colno}: {lower_first(error.msg)}.",
                    "Each line must be one whole JSON object.",
                    "data",
                ) from error
            except RepeatedKey as error:
                raise StudioError(
                    f"{path.name}, line {line_number}: {error}.", "Give every field a name of its own.", "data"
                ) from error


def typed_rows(path: Path, rows: Callable[[], Iterable[tuple[int, Any]]]) -> Parsed:
    """Two passes: the first finds every column and its type, so that row 100,000 cannot surprise the second."""
    kinds: dict[str, set[str]] = {}
    for number, row in rows():
        if not isinstance(row, dict):
            raise StudioError(
                f"{path.name}, row {number} is {kind_in_words(row)}, not an object.",
                'Write every row as {"column": value, ...}.',
                "data",
            )
        for column, value in row.items():
            kinds.setdefault(column, set()).add(kind_of(value, path, number, column))
    if not kinds:
        raise StudioError(f"{path.name} holds no rows.", "Add at least one row.", "data")
    features = Features({column: feature_of(kind - {"null"}) for column, kind in kinds.items()})
    as_json = [isinstance(feature, Json) for feature in features.values()]

    def cells() -> Iterator[list[Any]]:
        for _, row in rows():
            values = (row.get(column) for column in features)
            yield [
                json.dumps(value, ensure_ascii=False) if nested and value is not None else value
                for value, nested in zip(values, as_json, strict=True)
            ]

    return Parsed(features, column_batches(list(features), cells()))


def kind_of(value: Any, path: Path, row: int, column: str) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise StudioError(
                f"{path.name}, row {row}, column {column!r}: half a character (\\u{ord(value[error.start]):04x}).",
                "Write both halves of the surrogate pair, or the character itself.",
                "data",
            ) from error
        return "string"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if value in INT64 else "json"
    if isinstance(value, float):
        return "float64"
    return "json"


def feature_of(kinds: set[str]) -> Value | Json:
    if not kinds:
        return Value("string")
    return Value(next(iter(kinds))) if len(kinds) == 1 and kinds != {"json"} else Json()


class RepeatedKey(ValueError):
    """One object names a field twice."""


def load_json(text: str) -> Any:
    # Python writes NaN and Infinity for missing numbers; JSON has no such values, so they count as missing.
    return json.loads(text, object_pairs_hook=unrepeated, parse_constant=lambda _: None)


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise RepeatedKey(f"an object names {name!r} twice")
    return fields
