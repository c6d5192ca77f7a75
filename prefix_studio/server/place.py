"""Where the model process is: home/server.json, written by it, read by whoever wants to talk to it. Page-safe."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from prefix_studio import __version__
from prefix_studio.runs.folder import write_atomically
from prefix_studio.runs.processes import is_running, start_time
from prefix_studio.settings import Settings


@dataclass(frozen=True)
class Place:
    """One model process. port: None while it is still starting. version: the program's, that it runs."""

    pid: int
    create_time: float
    port: int | None = None
    version: str = __version__

    @property
    def alive(self) -> bool:
        """Whether that very process runs; a later one with its pid does not count, nor does a zombie."""
        return is_running(self.pid, self.create_time)

    @property
    def ready(self) -> bool:
        return self.port is not None and self.alive

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def place_file(settings: Settings) -> Path:
    return settings.home / "server.json"


def lock_file(settings: Settings) -> Path:
    """Held by the model process for as long as it lives."""
    return settings.home / "server.lock"


def log_file(settings: Settings) -> Path:
    return settings.home / "server.log"


def read_place(settings: Settings) -> Place | None:
    """The model process that last said where it is; it may be dead."""
    try:
        return Place(**json.loads(place_file(settings).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def announce(settings: Settings, port: int | None) -> None:
    """Say that this process is the model process, starting (port None) or listening."""
    place = Place(os.getpid(), start_time(os.getpid()) or 0.0, port)
    write_atomically(place_file(settings), json.dumps(asdict(place)))


def withdraw(settings: Settings) -> None:
    """Take back what this process announced."""
    place = read_place(settings)
    if place and place.pid == os.getpid():
        place_file(settings).unlink(missing_ok=True)
