"""The supervisor: one small process a home that works through the queue, each attempt a process of its own.

It owns nothing: all it knows it reads from the table, from the folders' locks and from exit.json. So it may be killed
at any moment, and the next one goes on where it was. An attempt that lives on without its supervisor is adopted, never
doubled: whether one lives is asked of the lock it holds. It outlives the page, so that runs go on; on SIGTERM it leaves
its attempts at work, for the next supervisor to settle.

Page-safe (the page calls `ensure_supervisor` or `keep_supervisor`), and free of torch.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from prefix_studio.runs import processes
from prefix_studio.runs.folder import LOCK, LOG, Exit, last_line, newest_checkpoint, trim_log, write_log
from prefix_studio.runs.locks import Busy, hold, is_held
from prefix_studio.runs.table import MAX_CRASHES, RunRow, RunTable
from prefix_studio.settings import MEGABYTE, Settings

WORKER_COMMAND = (sys.executable, "-m", "prefix_studio", "worker")
ATTEMPT_COMMAND = (sys.executable, "-m", "prefix_studio.runs.attempt")
SUPERVISOR_LOCK = "supervisor.lock"
SUPERVISOR_LOG = "supervisor.log"

POLL_SECONDS = 0.25
# How long an attempt may take to end: once asked to cancel, once asked to pause (there may be a large checkpoint to
# write), and once its exit.json is there.
GRACE_SECONDS = {"cancel": 10.0, "pause": 60.0, "exit": 20.0}
LOG_CHECK_SECONDS = 10.0
ASKED_TO_END = {-signal.SIGTERM, -signal.SIGINT, -getattr(signal, "SIGHUP", signal.SIGTERM)}


def main(settings: Settings) -> int:
    """`python -m prefix_studio worker`: supervise until SIGTERM, unless one is at work already."""
    return serve(Supervisor(settings))


def serve(supervisor: Supervisor) -> int:
    try:
        # Not at once: somebody may be holding the lock for the moment it takes to see whether it is free.
        with hold(supervisor.settings.home / SUPERVISOR_LOCK, timeout=2):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: supervisor.stop())
            supervisor.run()
    except Busy:
        say(f"A supervisor is at work already for {supervisor.settings.home}.")
    return 0


def ensure_supervisor(settings: Settings, *, command: Sequence[str] = WORKER_COMMAND) -> bool:
    """Start a supervisor, detached from this process, unless one is at work; whether one was started."""
    if is_held(settings.home / SUPERVISOR_LOCK):
        return False
    log = settings.home / SUPERVISOR_LOG
    trim_log(log, limit=MEGABYTE, keep=MEGABYTE // 8)
    processes.start(command, settings=settings, log=log)
    return True


def keep_supervisor(
    settings: Settings, *, every: float = 5.0, command: Sequence[str] = WORKER_COMMAND
) -> threading.Event:
    """See to it, from a daemon thread, that a supervisor is at work until this process ends or sets the event."""
    enough = threading.Event()

    def keep() -> None:
        while not enough.is_set() and settings.home.is_dir():
            try:
                ensure_supervisor(settings, command=command)
            except OSError as error:
                say(f"No supervisor could be started: {error}")
            enough.wait(every)

    threading.Thread(target=keep, name="keep-supervisor", daemon=True).start()
    return enough


class Supervisor:
    """Watches the running runs and starts the next. `run` is its life; `step` is one look around."""

    def __init__(
        self,
        settings: Settings,
        *,
        attempt_command: Sequence[str] = ATTEMPT_COMMAND,
        grace: Mapping[str, float] = GRACE_SECONDS,
    ):
        self.settings = settings
        self.table = RunTable(settings)
        self.attempt_command = attempt_command
        self.grace = grace
        self._children: dict[tuple[str, int], subprocess.Popen[bytes]] = {}  # by run and attempt
        self._adopted: set[tuple[str, int]] = set()  # another supervisor's, and seen alive
        self._stopping = threading.Event()
        self._next_log_check = 0.0

    def run(self) -> None:
        """Work until `stop`, or until the studio's home is gone. Raises StudioError when its database is not ours."""
        self.table.running()
        say(f"Supervising {self.settings.home}, devices {', '.join(self.settings.slots)}")
        while not self._stopping.is_set() and self.settings.database.exists():
            try:
                self.step()
            except (sqlite3.Error, OSError) as error:  # a full disk, say: wait for better times
                say(f"{type(error).__name__}: {error}")
                self._stopping.wait(5)
            self._stopping.wait(POLL_SECONDS)

    def stop(self) -> None:
        self._stopping.set()

    def step(self) -> None:
        running = self.table.running()
        for run in running:
            self._watch(run)
        self._trim_logs(running)
        if self.table.has_queued():
            for device in self.settings.slots:
                if run := self.table.claim(device):
                    self._start(run)

    def _start(self, run: RunRow) -> None:
        command = [*self.attempt_command, str(run.folder), "--attempt", str(run.attempt), "--device", str(run.device)]
        try:
            trim_log(run.folder / LOG)
            process = processes.start(command, settings=self.settings, log=run.folder / LOG)
        except OSError as error:
            self._crashed(run, f"The run's process could not be started: {error}.", "internal")
            return
        self._children[run.id, run.attempt] = process
        say(f"{run.id}: attempt {run.attempt} on {run.device} is process {process.pid}")

    def _watch(self, run: RunRow) -> None:
        key = (run.id, run.attempt)
        child = self._children.get(key)
        if child is not None and child.poll() is not None:
            run = self.table.get(run.id)  # it may have registered since the row was read
        elif child is not None or self._is_alive(run):
            if self._is_overdue(run):
                self._kill(run, child)
            return
        self._kill(run, child)  # what it started and left behind
        if outcome := self._settle(run, child):
            say(f"{run.id}: attempt {run.attempt} has ended, the run is {outcome}")
            self._children.pop(key, None)
            self._adopted.discard(key)

    def _is_alive(self, run: RunRow) -> bool:
        """Whether an attempt that another supervisor started is at work: its lock says so.

        One that has not come as far as its lock counts as dead, and is fenced off when its run is queued again. A lock
        that outlives its process is in the hands of something that process forked, which is killed.
        """
        if not is_held(run.folder / LOCK):
            return False
        if run.pid and run.pid_created:
            if processes.is_running(run.pid, run.pid_created):
                self._adopted.add((run.id, run.attempt))
            else:
                self._kill(run, None)
        return True

    def _is_overdue(self, run: RunRow) -> bool:
        """Whether a living attempt should have ended by now: asked to stop, or done and stuck in its teardown."""
        now = time.time()
        if run.request and run.requested and now > run.requested + self.grace[run.request]:
            return True
        done = Exit.read(run.folder, run.attempt)
        return done is not None and now > done.time + self.grace["exit"]

    def _kill(self, run: RunRow, child: subprocess.Popen[bytes] | None) -> None:
        if run.pid and run.pid_created:
            processes.kill_tree(run.pid, run.pid_created)
        elif child:
            child.kill()  # not registered yet, so it has started nothing

    def _settle(self, run: RunRow, child: subprocess.Popen[bytes] | None) -> str | None:
        """Write down what a dead attempt has come to; without an exit.json it was interrupted, whatever it had done.

        Returns the run's new state, or None when the row has changed since it was read: the next look decides.
        """
        end = Exit.read(run.folder, run.attempt)
        if end and end.state in ("finished", "failed", "cancelled"):
            self.table.finish(run.id, run.attempt, end.state, end.error, end.category)
            return end.state
        if stopped := self.table.stop(run.id, run.attempt):
            return stopped
        watched = child is not None or (run.id, run.attempt) in self._adopted
        shut_down = end is not None or (child is not None and child.returncode in ASKED_TO_END)
        if shut_down or not watched:
            # Told to stop, but not through the queue; or it died while nobody watched, as it does when the machine
            # goes down. Neither is the run's fault.
            return "queued" if self.table.requeue(run.id, run.attempt, run.pid) else None
        return self._crashed(run, *explain_death(child.returncode if child else None, run))

    def _crashed(self, run: RunRow, error: str, category: str) -> str | None:
        with suppress(OSError):  # the folder itself may be what is missing
            write_log(run.folder, error)
        often = f"{error} That happened {MAX_CRASHES} times in a row without a newer checkpoint."
        return self.table.crash(run.id, run.attempt, newest_checkpoint(run.folder), often, category)

    def _trim_logs(self, running: Sequence[RunRow]) -> None:
        # Elsewhere a file cannot be cut under the process that appends to it; there the log is cut between attempts.
        if sys.platform != "win32" and time.monotonic() >= self._next_log_check:
            self._next_log_check = time.monotonic() + LOG_CHECK_SECONDS
            for run in running:
                trim_log(run.folder / LOG)


def explain_death(returncode: int | None, run: RunRow) -> tuple[str, str]:
    """Why a process died that left no word, as well as can be told, and the category."""
    if returncode is None:
        return "The run's process died without a word.", "internal"
    if returncode >= 0:
        return f"The run's process ended with code {returncode}: {last_line(run.folder / LOG)}", "internal"
    if -returncode == getattr(signal, "SIGKILL", 9):
        hint = "A smaller per_device_train_batch_size or max_length needs less."
        return f"The run's process was killed (signal 9), as systems do when memory runs out. {hint}", "memory"
    return f"The run's process died of {signal.Signals(-returncode).name} (signal {-returncode}).", "internal"


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)
