"""A data file as columns and rows, or one sentence that says where it breaks.

Knows which extension is which format, and Parquet; `delimited` and `json_table` know theirs. Knows nothing of prompts,
caches or the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from prefix_studio.data.delimited import parse_csv
from prefix_studio.data.json_table import parse_json, parse_jsonl
from prefix_studio.data.table import BATCH_ROWS, Parsed, first_line, refuse_repeated, undecodable
from prefix_studio.errors import StudioError


def parse(path: Path) -> Parsed:
    """The file's rows, by its extension.

    Raises StudioError (category data) at once for a file that is missing, empty, of unknown kind or without rows, and
    while the batches are read for a row that cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise StudioError(f"{path} is a folder.", "Give the path of one file in it.", "data")
    if not path.exists():
        raise StudioError(f"There is no file {path}.", "Check the path, or upload the file again.", "data")
    if suffix not in PARSERS:
        raise StudioError(
            f"{path.name} is of an unknown kind ({suffix or 'no extension'}).",
            f"Save it as one of: {', '.join(PARSERS)}.",
            "data",
        )
    try:
        if path.stat().st_size == 0:
            raise StudioError(f"{path.name} is empty.", "Choose a file that holds rows.", "data")
        return PARSERS[suffix](path)
    except UnicodeDecodeError as error:
        raise undecodable(path) from error
    except RecursionError as error:
        raise StudioError(f"{path.name} is nested too deeply.", "Flatten its values.", "data") from error
    except OSError as error:
        raise StudioError(
            f"{path.name} cannot be read: {error.strerror or error}.", "Check the file.", "data"
        ) from error


def parse_parquet(path: Path) -> Parsed:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise StudioError(
            f"{path.name} is not a Parquet file, or is damaged: {first_line(error)}.", "Write it again.", "data"
        ) from error
    if file.metadata.num_rows == 0:
        raise StudioError(f"{path.name} holds no rows.", "Add at least one row.", "data")
    refuse_repeated(file.schema_arrow.names, path)

    def tables() -> Iterator[pa.Table]:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield pa.Table.from_batches([batch])
        except pa.ArrowException as error:
            raise StudioError(f"{path.name} is damaged: {first_line(error)}.", "Write it again.", "data") from error

    try:
        return Parsed(Features.from_arrow_schema(file.schema_arrow), tables())
    except ValueError as error:
        raise StudioError(
            f"{path.name} has a column of a type that is not supported: {first_line(error)}.",
            "Write it as text.",
            "data",
        ) from error


PARSERS: dict[str, Callable[[Path], Parsed]] = {
    ".csv": parse_csv,
    ".tsv": parse_csv,
    ".json": parse_json,
    ".jsonl": parse_jsonl,
    ".ndjson": parse_jsonl,
    ".parquet": parse_parquet,
}
