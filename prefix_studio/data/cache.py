"""Parsed files as memory-mapped Arrow, kept in the studio's home so that a file is parsed once.

An entry's name is a digest of the file's bytes and kind, so a changed file can never meet the rows of the old one.
Entries nobody used for a month are removed. Knows nothing of formats: it is handed what `parse` makes.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

from prefix_studio.data.parse import parse
from prefix_studio.data.table import Parsed
from prefix_studio.errors import StudioError
from prefix_studio.settings import Settings

LAYOUT = "1"  # part of every entry's name: raise it when `parse` turns the same bytes into other rows
MONTH = 30 * 24 * 3600.0  # seconds


def read_cached(path: Path) -> Dataset:
    """The rows of `path`, parsed or from the cache. Raises StudioError as `parse` does, or when the disk is full."""
    if not path.is_file():
        parse(path)  # says what is wrong
    folder = Settings.from_environment().home / "cache" / "rows"
    entry = folder / f"{digest(path)}.arrow"
    try:
        if entry.exists():
            entry.touch()
        else:
            folder.mkdir(parents=True, exist_ok=True)
            remove_unused(folder)
            write(parse(path), entry)
    except OSError as error:
        raise StudioError(
            f"The rows of {path.name} cannot be kept in {folder}: {error.strerror or error}.",
            "Free some space, or set PREFIX_STUDIO_HOME to a folder of yours.",
            "disk",
        ) from error
    return Dataset.from_file(str(entry))


def write(parsed: Parsed, entry: Path) -> None:
    """The whole entry or none: a process killed here leaves at most a .part file."""
    part = entry.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        with ArrowWriter(features=parsed.features, path=str(part)) as writer:
            for batch in parsed.batches:
                if isinstance(batch, pa.Table):
                    writer.write_table(batch)
                else:
                    writer.write_batch(batch)
            writer.finalize()
        part.replace(entry)
    finally:
        part.unlink(missing_ok=True)


def digest(path: Path) -> str:
    digest = hashlib.blake2b(f"{LAYOUT} {path.suffix.lower()} ".encode(), digest_size=20)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise StudioError(f"{path.name} cannot be read: {error.strerror or error}.", "Check it.", "data") from error
    return digest.hexdigest()


def remove_unused(folder: Path) -> None:
    for entry in folder.iterdir():
        try:
            if time.time() - entry.stat().st_mtime > MONTH:
                entry.unlink()
        except OSError:
            continue  # mapped by another process (Windows), or already gone
