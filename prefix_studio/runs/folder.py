"""A run's folder: the names of its files, and how they are written.

    recipe.yaml  progress.jsonl  log.txt  checkpoints/  adapter/  exit.json  request  .lock

exit.json is how an attempt ended, request is what a running one is asked for, .lock is held by the attempt at work.
Knows nothing of the queue or of training.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prefix_studio.disk import replace_whole

RECIPE = "recipe.yaml"
PROGRESS = "progress.jsonl"
LOG = "log.txt"
EXIT = "exit.json"
REQUEST = "request"
LOCK = ".lock"
CHECKPOINTS = "checkpoints"
ADAPTER = "adapter"


@dataclass(frozen=True)
class Exit:
    """How an attempt ended, as exit.json says it. An attempt that left none was interrupted, whatever it had done."""

    state: str
    attempt: int
    error: str = ""
    category: str = ""
    time: float = field(default_factory=time.time)

    def write(self, folder: Path) -> None:
        write_atomically(folder / EXIT, json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path, attempt: int | None = None) -> Exit | None:
        """The exit in `folder`, or None where there is none, it cannot be read, or it is another attempt's."""
        try:
            found = cls(**json.loads((folder / EXIT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if attempt in (None, found.attempt) else None


def newest_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint, read from the names in checkpoints/; -1 where there is none."""
    try:
        names = [path.name for path in (folder / CHECKPOINTS).iterdir()]
    except OSError:
        return -1
    steps = (re.fullmatch(r"\D*(\d+)", name) for name in names if not name.startswith("."))
    return max((int(step[1]) for step in steps if step), default=-1)


def write_atomically(path: Path, text: str) -> None:
    """Write a file of the owner's that is there whole or not at all, also after a power cut. Raises OSError."""
    replace_whole(path, text.encode(), private=True)


def write_log(folder: Path, text: str) -> None:
    """Append a line, with its time, to the run's log."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def last_line(path: Path) -> str:
    """The last line of a log, or an empty string."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def trim_log(path: Path, *, limit: int = 8 * 1024 * 1024, keep: int = 1024 * 1024) -> None:
    """Cut a log longer than `limit` bytes down to its last `keep`, in place: its writer appends and goes on."""
    with suppress(FileNotFoundError):
        if path.stat().st_size <= limit:
            return
        with path.open("r+b") as file:
            file.seek(-keep, os.SEEK_END)
            tail = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(b"(what came before was cut)\n" + tail)
            file.truncate()
