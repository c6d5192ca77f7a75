"""One thread that does the heavy work, one job at a time, first come first served.

A job is a function that is handed `should_stop` and gives events; each event is passed on as it is made. Waiting jobs
are bounded, and a job whose caller has gone is stopped or never begun. Knows nothing of models and HTTP.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from prefix_studio.errors import StudioError

MAX_WAITING = 32
SECONDS_BETWEEN_IDLE_CALLS = 10.0

Work = Callable[[Callable[[], bool]], Iterable[Any]]


class Busy(StudioError):
    """Too many jobs wait already."""


class Job:
    """Work that was handed in. `emit` is called from the worker's thread with every event, then with None.

    An exception that the work raises is emitted as itself, as the last event before None.
    """

    def __init__(self, work: Work, emit: Callable[[Any], None]):
        self.work = work
        self.emit = emit
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop at the next opportunity; harmless when the job is over."""
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def run(self) -> None:
        try:
            for event in self.work(self.is_cancelled):
                if self.is_cancelled():
                    break
                self.emit(event)
        except Exception as error:  # the caller's to handle, whatever it is: this thread must live on
            self.emit(error)
        finally:
            self.emit(None)


class Worker:
    """The thread. `when_idle` is called now and then while there is nothing to do."""

    def __init__(self, *, when_idle: Callable[[], None] = lambda: None, max_waiting: int = MAX_WAITING):
        self.max_waiting = max_waiting
        self._when_idle = when_idle
        self._waiting: deque[Job] = deque()
        self._in_hand: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work_off, name="generation", daemon=True)
        self._thread.start()

    def submit(self, work: Work, emit: Callable[[Any], None]) -> Job:
        """Queue the work. Raises Busy when `max_waiting` jobs wait already."""
        job = Job(work, emit)
        with self._changed:
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.is_cancelled())
            if len(self._waiting) >= self.max_waiting:
                raise Busy(f"The model process is busy: {self.max_waiting} requests wait already.", "Try again later.")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """End the thread; the job in hand is cancelled, waiting ones are dropped."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            if self._in_hand:
                self._in_hand.cancel()
            self._changed.notify()
        self._thread.join()

    def _work_off(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._closed:
                    self._changed.wait(SECONDS_BETWEEN_IDLE_CALLS)
                if self._closed:
                    return
                self._in_hand = job = self._waiting.popleft() if self._waiting else None
            if job is None:
                self._when_idle()
            elif not job.is_cancelled():
                job.run()
