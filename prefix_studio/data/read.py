"""Where rows come from: a file, a bundled sample, or the Hub. The result is always a memory-mapped `Dataset`.

`read_rows` is the one door. What a file looks like inside is `parse`'s business, what the rows mean `examples`'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Json

from prefix_studio.data.cache import read_cached
from prefix_studio.data.hub import read_hub
from prefix_studio.data.samples import sample_file
from prefix_studio.errors import StudioError

BATCH_ROWS = 1000


def read_rows(source: str, *, token: str | None = None) -> Dataset:
    """The rows of `source`: a path, `sample:NAME`, or `hub:OWNER/NAME[:CONFIG[:SPLIT]]`.

    token: for private sets of the Hub; None means the environment's or the standard login's.
    Raises StudioError, category data, that says what is wrong with the file and where; category network when the Hub
    cannot be reached.
    """
    if source.startswith("sample:"):
        return read_cached(sample_file(source.removeprefix("sample:"), "train"))
    if source.startswith("hub:"):
        return read_hub(source, token)
    return read_cached(file_path(source))


def file_path(source: str) -> Path:
    try:
        path = Path(source).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, an unknown ~user, a NUL
        raise StudioError(f"{source[:60]!r} cannot be a path: {error}.", "Check data.source.", "data") from error
    return path


def row_values(rows: Dataset, count: int | None = None) -> Iterator[dict[str, Any]]:
    """The first `count` rows, or all, as plain values.

    `datasets` decodes JSON columns with a parser that rounds one float in a thousand (1.723286 -> 1.7232859999999999);
    Python's own keeps every number as it stands in the file.
    """
    as_json = {name for name, feature in rows.features.items() if isinstance(feature, Json)}
    chosen = rows if count is None else rows.select(range(min(count, len(rows))))
    for batch in chosen.with_format("arrow").iter(batch_size=BATCH_ROWS):
        columns = {
            name: [json.loads(cell) if name in as_json and cell is not None else cell for cell in column.to_pylist()]
            for name, column in zip(batch.column_names, batch.columns, strict=True)
        }
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
