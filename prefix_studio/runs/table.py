"""The queue: one row a run, and every change of its state.

Two sides write here. People (through the page, the API, the command line) submit, cancel, pause, resume, retry, rename
and delete; the supervisor claims, and settles what an attempt has come to. Each change is one transaction that checks
the state it starts from, so that any number of processes may call any of it at any time; what the supervisor settles is
fenced by the attempt's number, so that a run's final state is written once.

    queued -> running -> finished | failed | cancelled
       ^         |
       +-- paused, or interrupted and queued again

Page-safe: no torch. Knows no processes: whether an attempt lives is the supervisor's business.
"""

from __future__ import annotations

import builtins
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prefix_studio.disk import sync_folder
from prefix_studio.errors import StudioError
from prefix_studio.runs.database import connect, writing
from prefix_studio.runs.folder import RECIPE, REQUEST, write_atomically
from prefix_studio.settings import LOCAL_OWNER, SAMPLES, Settings

if TYPE_CHECKING:
    from prefix_studio.recipe import Recipe

MAX_CRASHES = 3

SELECT = """
SELECT *, CASE state WHEN 'queued' THEN
    (SELECT count(*) FROM runs AS ahead WHERE ahead.state = 'queued' AND ahead.place <= runs.place)
END AS position FROM runs"""


@dataclass(frozen=True)
class RunRow:
    """One run as it stood when it was read.

    position: 1 is next in the queue, None when not queued. request: what a running one has been asked for, "cancel",
    "pause" or "". crashes: of its own, since it last got further. device, pid: of the latest attempt. Times are seconds
    since the epoch.
    """

    id: str
    name: str
    owner: str
    state: str
    recipe_yaml: str = field(repr=False)
    created: float
    started: float | None
    ended: float | None
    attempt: int
    crashes: int
    device: str | None
    error: str
    category: str
    request: str
    requested: float | None
    pid: int | None
    pid_created: float | None
    position: int | None
    folder: Path


COLUMNS = tuple(column.name for column in fields(RunRow) if column.name != "folder")


class RunTable:
    """The queue of one studio. `owner` None sees every run; with a name, other people's runs do not exist."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._local = threading.local()

    # What people do

    def submit(self, recipe: Recipe, *, owner: str = LOCAL_OWNER, key: str | None = None) -> str:
        """Queue a recipe and return the run's id. When this returns, no crash loses the run.

        key: the submitter's own name for this submission; a second call with it returns the first call's run.
        Raises StudioError when a file that the recipe names is not there, or when the disk refuses.
        """
        if key is not None and (known := self._submitted(owner, key)):
            return known
        recipe = recipe.anchored(Path.cwd())
        check_sources(recipe)
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder = self.settings.runs / run_id
        try:
            folder.mkdir(parents=True)
            write_atomically(folder / RECIPE, recipe.to_yaml())
            sync_folder(self.settings.runs)
            self._insert(run_id, recipe, owner, key)
        except (OSError, sqlite3.Error) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if key is not None and (known := self._submitted(owner, key)):  # by another process since we looked
                return known
            reason = getattr(error, "strerror", None) or error
            raise StudioError(f"The run cannot be kept: {reason}.", "Make room on the disk.", "disk") from error
        return run_id

    def get(self, run_id: str, owner: str | None = None) -> RunRow:
        """The run. Raises StudioError when there is none of that id, or it is another's."""
        found = self._select("WHERE id = ? AND owner = coalesce(?, owner)", run_id, owner)
        return found[0] if found else refuse_unknown(run_id)

    def list(self, owner: str | None = None) -> list[RunRow]:
        """All runs, newest first."""
        return self._select("WHERE owner = coalesce(?, owner) ORDER BY created DESC, place DESC", owner)

    def cancel(self, run_id: str, owner: str | None = None) -> RunRow:
        """Cancel: at once while it waits, within seconds while it runs."""
        with self._changing(run_id, owner) as (db, run):
            if run.state == "running":
                ask(db, run, "cancel")
            elif run.state in ("queued", "paused"):
                db.execute("UPDATE runs SET state = 'cancelled', ended = ? WHERE id = ?", (time.time(), run_id))
            elif run.state != "cancelled":
                refuse(run, "cancelled")
        return self.get(run_id, owner)

    def pause(self, run_id: str, owner: str | None = None) -> RunRow:
        """Pause: a running one writes a checkpoint and frees its device, a queued one is held back."""
        with self._changing(run_id, owner) as (db, run):
            if run.state == "running" and run.request != "cancel":
                ask(db, run, "pause")
            elif run.state == "queued":
                db.execute("UPDATE runs SET state = 'paused' WHERE id = ?", (run_id,))
            elif run.state not in ("paused", "running"):
                refuse(run, "paused")
        return self.get(run_id, owner)

    def resume(self, run_id: str, owner: str | None = None) -> RunRow:
        """Let a paused run wait for a device again, behind the others; it goes on from its checkpoint."""
        with self._changing(run_id, owner) as (db, run):
            if run.state == "running" and run.request == "pause":
                withdraw(db, run)
            elif run.state == "paused":
                enqueue_last(db, run_id)
            elif run.state not in ("queued", "running"):
                refuse(run, "resumed", "Retry it instead." if run.state in ("failed", "cancelled") else "")
        return self.get(run_id, owner)

    def retry(self, run_id: str, owner: str | None = None) -> RunRow:
        """Queue a failed or cancelled run again; it goes on from its last checkpoint, if it has one."""
        with self._changing(run_id, owner) as (db, run):
            if run.state in ("failed", "cancelled"):
                enqueue_last(db, run_id)
            elif run.state != "queued":
                refuse(run, "retried")
        return self.get(run_id, owner)

    def rename(self, run_id: str, name: str, owner: str | None = None) -> RunRow:
        name = " ".join(name.split())
        if not 1 <= len(name) <= 200:
            raise StudioError("The name is empty or longer than 200 characters.", "Give one of 1 to 200 characters.")
        with self._changing(run_id, owner) as (db, _):
            db.execute("UPDATE runs SET name = ? WHERE id = ?", (name, run_id))
        return self.get(run_id, owner)

    def delete(self, run_id: str, owner: str | None = None) -> None:
        """Remove the run and its folder, adapter and checkpoints included. Refused while it runs."""
        with self._changing(run_id, owner) as (db, run):
            if run.state == "running":
                refuse(run, "deleted", "Cancel it first.")
            db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        shutil.rmtree(run.folder, ignore_errors=True)

    # What the supervisor and its attempts do

    def running(self) -> builtins.list[RunRow]:
        return self._select("WHERE state = 'running'")

    def has_queued(self) -> bool:
        return self._db.execute("SELECT 1 FROM runs WHERE state = 'queued' LIMIT 1").fetchone() is not None

    def claim(self, device: str) -> RunRow | None:
        """Give the free `device` to the next run and return it with its new attempt's number; None: nothing waits."""
        with self._writing() as db:
            rows = db.execute(
                """UPDATE runs SET state = 'running', device = ?1, attempt = attempt + 1, pid = NULL,
                       pid_created = NULL, request = '', requested = NULL, started = coalesce(started, ?2), ended = NULL
                   WHERE id = (SELECT id FROM runs WHERE state = 'queued' ORDER BY place LIMIT 1)
                     AND NOT EXISTS (SELECT 1 FROM runs WHERE state = 'running' AND device = ?1)
                   RETURNING *, NULL AS position""",
                (device, time.time()),
            ).fetchall()
            if not rows:
                return None
            run = self._row(rows[0])
            (run.folder / REQUEST).unlink(missing_ok=True)  # left from an attempt that ended before it was read
            return run

    def register(self, run_id: str, attempt: int, pid: int, pid_created: float) -> bool:
        """The attempt's first act once it holds the folder's lock. False: it has been superseded and must not work."""
        return self._settle(run_id, attempt, "pid = ?, pid_created = ?", pid, pid_created)

    def finish(self, run_id: str, attempt: int, state: str, error: str = "", category: str = "") -> bool:
        """Write the state that `attempt` ended in: finished, failed or cancelled. False: it is not its to write."""
        assignments = "state = ?, ended = ?, error = ?, category = ?, request = ''"
        return self._settle(run_id, attempt, assignments, state, time.time(), error, category)

    def stop(self, run_id: str, attempt: int) -> str | None:
        """The attempt has ended as it was asked to. Returns the new state, or None: nobody had asked."""
        with self._writing() as db:
            rows = db.execute(
                """UPDATE runs SET state = iif(request = 'cancel', 'cancelled', 'paused'),
                       ended = iif(request = 'cancel', ?, NULL), request = ''
                   WHERE id = ? AND attempt = ? AND state = 'running' AND request <> '' RETURNING state""",
                (time.time(), run_id, attempt),
            ).fetchall()
            return rows[0]["state"] if rows else None

    def requeue(self, run_id: str, attempt: int, pid: int | None) -> bool:
        """The attempt was interrupted by no fault of its own: the run keeps its place, which is at the front.

        pid: as it was when the attempt was found dead. False when that has changed: it lives after all, or it was
        asked to stop; look again.
        """
        changed = self._db.execute(
            """UPDATE runs SET state = 'queued'
               WHERE id = ? AND attempt = ? AND state = 'running' AND pid IS ? AND request = ''""",
            (run_id, attempt, pid),
        )
        return changed.rowcount == 1

    def crash(self, run_id: str, attempt: int, checkpoint: int, error: str, category: str) -> str | None:
        """The attempt died by itself. The run is queued again, or fails at its third crash without getting further.

        checkpoint: the newest checkpoint's step, -1 for none; a newer one than at the last crash starts the count
        afresh. Returns the new state, or None when the attempt was asked to stop, or superseded: look again.
        """
        with self._writing() as db:
            row = db.execute(
                """SELECT crashes, coalesce(crash_step, -1) AS step FROM runs
                   WHERE id = ? AND attempt = ? AND state = 'running' AND request = ''""",
                (run_id, attempt),
            ).fetchone()
            if row is None:
                return None
            crashes = 1 if checkpoint > row["step"] else row["crashes"] + 1
            db.execute("UPDATE runs SET crashes = ?, crash_step = ? WHERE id = ?", (crashes, checkpoint, run_id))
            if crashes < MAX_CRASHES:
                db.execute("UPDATE runs SET state = 'queued' WHERE id = ?", (run_id,))
                return "queued"
            db.execute(
                "UPDATE runs SET state = 'failed', ended = ?, error = ?, category = ? WHERE id = ?",
                (time.time(), error, category, run_id),
            )
            return "failed"

    # One row, one transaction

    def _settle(self, run_id: str, attempt: int, assignments: str, *values: object) -> bool:
        """One fenced write: only the latest attempt, and only while its run is running."""
        changed = self._db.execute(
            f"UPDATE runs SET {assignments} WHERE id = ? AND attempt = ? AND state = 'running'",  # noqa: S608 - ours
            (*values, run_id, attempt),
        )
        return changed.rowcount == 1

    @contextmanager
    def _changing(self, run_id: str, owner: str | None) -> Iterator[tuple[sqlite3.Connection, RunRow]]:
        """A transaction and the run as it is inside it."""
        with self._writing() as db:
            yield db, self.get(run_id, owner)

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        return writing(self._db)

    def _insert(self, run_id: str, recipe: Recipe, owner: str, key: str | None) -> None:
        text = recipe.to_yaml()
        with self._writing() as db:
            db.execute(
                """INSERT INTO runs (id, name, owner, submission, recipe_yaml, state, place, created)
                   SELECT ?, ?, ?, ?, ?, 'queued', coalesce(max(place), 0) + 1, ? FROM runs""",
                (run_id, recipe.name or default_name(recipe), owner, key, text, time.time()),
            )

    def _submitted(self, owner: str, key: str) -> str | None:
        row = self._db.execute("SELECT id FROM runs WHERE owner = ? AND submission = ?", (owner, key)).fetchone()
        return row["id"] if row else None

    def _select(self, where: str, *values: object) -> builtins.list[RunRow]:
        return [self._row(row) for row in self._db.execute(f"{SELECT} {where}", values)]

    def _row(self, row: sqlite3.Row) -> RunRow:
        return RunRow(**{name: row[name] for name in COLUMNS}, folder=self.settings.runs / row["id"])

    @property
    def _db(self) -> sqlite3.Connection:
        """This thread's connection: the page calls from many threads, and SQLite's are one thread's own."""
        if not hasattr(self._local, "db"):
            self._local.db = connect(self.settings.database)
        return self._local.db


def ask(db: sqlite3.Connection, run: RunRow, request: str) -> None:
    """Ask a running attempt for something: in the table, which outlives it, and in a file, which it looks for.

    The file is written inside the transaction, as `claim` removes it inside one: so it never reaches a later attempt.
    """
    if run.request != request:
        db.execute("UPDATE runs SET request = ?, requested = ? WHERE id = ?", (request, time.time(), run.id))
    write_atomically(run.folder / REQUEST, request)


def withdraw(db: sqlite3.Connection, run: RunRow) -> None:
    """Take a request back. An attempt that has read it already pauses, is found unasked, and is queued again."""
    db.execute("UPDATE runs SET request = '', requested = NULL WHERE id = ?", (run.id,))
    (run.folder / REQUEST).unlink(missing_ok=True)


def enqueue_last(db: sqlite3.Connection, run_id: str) -> None:
    db.execute(
        """UPDATE runs SET state = 'queued', place = (SELECT max(place) + 1 FROM runs), ended = NULL, crashes = 0,
               crash_step = NULL, error = '', category = '' WHERE id = ?""",
        (run_id,),
    )


def check_sources(recipe: Recipe) -> None:
    """Raises StudioError when a file or sample that the recipe names is not there. The Hub's are not looked for."""
    named = {"data.source": recipe.data.source, "data.validation": recipe.data.validation}
    for name, source in named.items():
        if not isinstance(source, str) or source.startswith("hub:"):
            continue
        sample = source.removeprefix("sample:")
        if source != sample and ("/" in sample or not (SAMPLES / sample / "meta.yaml").is_file()):
            raise StudioError(f"{name}: there is no sample {sample!r}.", "Choose one from the list.", "data")
        if source == sample and not Path(source).expanduser().is_file():
            raise StudioError(f"{name}: there is no file {source}.", "Check the path, or drop the file in.", "data")


def default_name(recipe: Recipe) -> str:
    source = recipe.data.source.removeprefix("sample:")
    return source.removeprefix("hub:") if source.startswith("hub:") else Path(source).stem


def refuse_unknown(run_id: str) -> NoReturn:
    raise StudioError(f"There is no run {run_id!r}.", "Look at the Runs tab for those that are there.")


def refuse(run: RunRow, done: str, hint: str = "") -> NoReturn:
    raise StudioError(f"The run {run.name} is {run.state} and cannot be {done}.", hint)
