"""A run's progress file, read as it grows: curves for the chart, the latest step, and the tail of the log.

Every viewer's tick asks for the same few runs, so one `Progress` keeps, per run, how far it has read and what it has
seen; a tick costs the lines that are new. Knows progress.jsonl (design: one JSON object a line) and no page.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefix_studio.runs.progress import read_progress

REMEMBERED_RUNS = 64
POINTS = 200
LOG_TAIL_BYTES = 16_384
LOG_TAIL_LINES = 60
BATCH_SIZES = {"per_device_train_batch_size", "per_device_eval_batch_size"}


@dataclass
class Seen:
    """What has been read of one run. smaller_batches: by the recipe's name for a batch size, why it had to give way."""

    offset: int = 0
    train: list[tuple[int, float]] = field(default_factory=list)
    eval: list[tuple[int, float]] = field(default_factory=list)
    step: dict[str, Any] = field(default_factory=dict)
    last_eval: dict[str, Any] = field(default_factory=dict)
    base_loss: float | None = None
    state: str = ""
    smaller_batches: dict[str, str] = field(default_factory=dict)

    def take(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "step":
            self.step = event
            append_step(self.train, event.get("step"), event.get("loss"))
        elif kind == "eval":
            self.last_eval = event
            self.base_loss = event.get("base_loss", self.base_loss)
            append_step(self.eval, event.get("step"), event.get("eval_loss"))
        elif kind == "state":
            self.state = str(event.get("state", ""))
            for name in BATCH_SIZES & event.keys():
                self.smaller_batches[name] = " ".join(map(str, event.get("warnings") or []))


class Progress:
    """Reads runs' progress files, each only once."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Path, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, folder: Path) -> Seen:
        """What is known of the run in `folder` by now. A file that shrank is read anew."""
        path = Path(folder) / "progress.jsonl"
        with self._lock:
            seen = self._seen.pop(path, None)
            size = path.stat().st_size if path.exists() else 0
            if seen is None or size < seen.offset:
                seen = Seen()
            if size > seen.offset:
                events, seen.offset = read_progress(path, seen.offset)
                for event in events:
                    seen.take(event)
            self._seen[path] = seen
            while len(self._seen) > REMEMBERED_RUNS:
                self._seen.popitem(last=False)
            return seen


def append_step(series: list[tuple[int, float]], step: Any, value: Any) -> None:
    """Adds a point; a resumed run goes back to its checkpoint, and what came after that is forgotten."""
    if not isinstance(step, int) or not isinstance(value, int | float) or value != value:
        return
    while series and series[-1][0] >= step:
        series.pop()
    series.append((step, float(value)))


def decimate(series: list[tuple[int, float]], points: int = POINTS) -> list[tuple[int, float]]:
    """At most `points` points: the mean of each equal stretch, but the first and the last point as they are.

    A thinned curve must not hide where it started or where it stands now.
    """
    if len(series) <= points:
        return list(series)
    inner = series[1:-1]
    buckets = points - 2
    thinned = [series[0]]
    for index in range(buckets):
        part = inner[index * len(inner) // buckets : (index + 1) * len(inner) // buckets]
        thinned.append((part[len(part) // 2][0], sum(value for _, value in part) / len(part)))
    return [*thinned, series[-1]]


def log_tail(folder: Path) -> str:
    """The last lines of the run's log, or an empty string before there is one."""
    path = Path(folder) / "log.txt"
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - LOG_TAIL_BYTES)
            file.seek(start)
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = text.splitlines()
    return "\n".join((lines[1:] if start else lines)[-LOG_TAIL_LINES:])
