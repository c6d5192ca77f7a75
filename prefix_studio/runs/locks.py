"""Locks between processes: who holds one works, and whoever cannot take it knows that somebody does.

They are the operating system's own (flock, or Windows' equivalent): they end with the process that holds them, however
it ends. So whether a process lives is asked of its lock, never of a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from prefix_studio.errors import StudioError


class Busy(StudioError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, timeout: float = 0) -> Iterator[None]:
    """Hold the lock file `path`. Raises Busy when another process has it for longer than `timeout` seconds."""
    lock = open_lock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise Busy(
            f"Another process works in {path.parent}.", "Wait until it is done, or stop it.", "interrupted"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock file `path`."""
    if not path.exists():
        return False
    lock = open_lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def open_lock(path: Path) -> FileLock:
    # Where a file system has no locks, a soft one would outlive a killed process: refused rather than stuck for ever.
    return FileLock(path, fallback_to_soft=False)
