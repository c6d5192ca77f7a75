"""Processes: started so that they outlive their parent, and ended with everything they started.

Works on Linux, macOS and Windows through subprocess and psutil. Knows nothing of runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from prefix_studio.settings import LIBRARY_ENVIRONMENT, PROJECT, Settings

# Two readings of one process's start may differ by a tick of the clock, two processes with one pid differ by far more.
SAME_START_SECONDS = 1.0


def start(command: Sequence[str], *, settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """Start a process of its own session for the studio of `settings`, its output appended to `log`.

    A file and never a pipe: a pipe that nobody reads any more would stop the process.
    """
    environment = {
        **LIBRARY_ENVIRONMENT,
        **os.environ,
        "PREFIX_STUDIO_HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.devices:
        environment["PREFIX_STUDIO_DEVICES"] = ",".join(settings.devices)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
            env=environment,
            **own_session(),
        )


def own_session() -> dict[str, object]:
    """Arguments that keep a closing terminal's, and the parent's, signals from the child."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def start_time(pid: int) -> float | None:
    """When the process began, seconds since the epoch; with its pid the name of one process for ever. None: no more."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def is_running(pid: int, started: float) -> bool:
    """Whether that very process runs; a zombie does not."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < SAME_START_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_tree(pid: int, started: float) -> None:
    """Kill the process and all it started, at once. A pid that has passed to another process is left alone."""
    victims = []
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        if abs(leader.create_time() - started) >= SAME_START_SECONDS:
            return
        victims = [*leader.children(recursive=True), leader]
    if sys.platform != "win32":
        # Its group outlives it, and keeps the pid from being given away, while any child is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for victim in victims:
        with suppress(psutil.Error):
            victim.kill()


def be_nice() -> None:
    """Leave the page the first claim on the processor; a run takes what is left, which is nearly all."""
    with suppress(psutil.Error, OSError):
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5)
