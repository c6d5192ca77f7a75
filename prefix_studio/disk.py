"""Files that are there whole, on the disk, or not at all: also after a crash, a full disk or a power cut.

Knows files and what the disk may refuse; knows nothing of what is in them. No torch.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prefix_studio.errors import StudioError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, and its folder where there is none. Raises StudioError (disk) when the disk refuses."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, content)


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """As `write_whole`, with the value as JSON."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")


def replace_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes a file in a folder that is there. An OSError leaves the old file, and nothing half-written beside it.

    private: nobody but its owner may read it.
    """
    # A name of its own for every writer: two that write one file at once leave one of the two, whole.
    writing = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_synced(writing, content, mode=0o600 if private else 0o666)
        writing.replace(path)
    except BaseException:
        writing.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_synced(path: Path, content: bytes, mode: int = 0o666) -> None:
    with open(path, "wb", opener=partial(os.open, mode=mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes renames in a folder last through a power cut, where the system can (Windows cannot open folders)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says in one sentence what the disk refused."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StudioError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Free some disk space, then try again." if full else "Check the folder's permissions.",
            "disk",
        ) from error
