"""A run's progress file: one JSON object a line, appended by the attempt, read by everybody as it grows.

Page-safe: no torch. Knows lines, not what draws them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prefix_studio.runs.folder import PROGRESS

TAIL_BYTES = 65_536
FIGURES = ("step", "total_steps", "loss", "eval_loss", "eta_s", "tokens_per_s", "learning_rate", "state")


class ProgressWriter:
    """Appends events, each with its time, whole lines at once.

    At most ten step events a second, thinning out to one in two seconds over a run of hours, so that the file stays a
    few megabytes. What is held back is only ever a step that a newer one replaces: the first and the last step, and
    the last before any other event, are always written. A context manager.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._file = path.open("ab+", buffering=0)
        self._began: float | None = None
        self._next_step = 0.0
        self._held: dict[str, Any] | None = None
        end_half_written_line(self._file)

    def write(self, event: dict[str, Any]) -> None:
        now = self._clock()
        event = {"event": event["event"], "time": now, **event}
        if event["event"] != "step":
            self._write_held()
            self._append(event)
        elif now >= self._next_step:
            self._held = None
            self._append(event)
            self._began = now if self._began is None else self._began
            self._next_step = now + min(max(0.1, (now - self._began) / 1000), 2.0)
        else:
            self._held = event

    def close(self) -> None:
        self._write_held()
        self._file.close()

    def _write_held(self) -> None:
        if self._held is not None:
            self._append(self._held)
            self._held = None

    def _append(self, event: dict[str, Any]) -> None:
        # No NaN: it is not JSON. A number of numpy's or torch's is written as the float it stands for.
        self._file.write((json.dumps(finite(event), ensure_ascii=False, default=float) + "\n").encode())

    def __enter__(self) -> ProgressWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_progress(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole events from byte `offset` on, and the offset to go on from.

    A last line that is still being written is left for the next call, a damaged one is passed over. A file that is
    not there yet has no events.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            whole, newline, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return [], 0
    return list(parse(whole.split(b"\n"))), offset + len(whole) + len(newline)


def summary(source: Path | Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Where a run stands: the latest of step, total_steps, loss, eval_loss, eta_s, tokens_per_s, learning_rate, state.

    source: a run's folder, or its events. What is not known yet is None.
    """
    events = tail(source / PROGRESS) if isinstance(source, Path) else source
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    for event in events:
        figures |= {name: event[name] for name in FIGURES if name in event}
    return figures


def tail(path: Path) -> list[dict[str, Any]]:
    """The file's last events, all of them where the tail holds no evaluation."""
    try:
        start = max(0, path.stat().st_size - TAIL_BYTES)
    except FileNotFoundError:
        return []
    events, _ = read_progress(path, start)  # a first line cut in two is passed over like a damaged one
    if start and not any(event.get("event") == "eval" for event in events):
        events, _ = read_progress(path)
    return events


def parse(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def finite(value: Any) -> Any:
    """The value with every NaN and infinity replaced by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def end_half_written_line(file: Any) -> None:
    """A killed attempt may have left half a line; close it, so that the next event has a line of its own."""
    if file.seek(0, 2) and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":
        file.write(b"\n")
