"""The queue's database: one SQLite file, its schema and its version.

WAL with synchronous FULL: a commit that returned survives a power cut. Meant for a local disk: network mounts have no
locks that SQLite can trust. Knows the shape of the table and nothing of what its rows mean.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefix_studio.errors import StudioError
from prefix_studio.runs.locks import hold

VERSION = 1
SCHEMA = """
CREATE TABLE runs (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    owner       TEXT NOT NULL,
    submission  TEXT,                          -- the submitter's own key: the same key is the same run
    recipe_yaml TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'finished', 'failed', 'cancelled')),
    place       INTEGER NOT NULL,              -- order in the queue; an interrupted run keeps its own, so it goes first
    created     REAL NOT NULL,                 -- this and all times: seconds since the epoch
    started     REAL,
    ended       REAL,
    attempt     INTEGER NOT NULL DEFAULT 0,    -- the fence: only the latest attempt may write
    crashes     INTEGER NOT NULL DEFAULT 0,    -- of its own, in a row, without a newer checkpoint between them
    crash_step  INTEGER,                       -- newest checkpoint at the last crash
    device      TEXT,
    pid         INTEGER,                       -- of the attempt, written by itself once it holds the folder's lock
    pid_created REAL,
    request     TEXT NOT NULL DEFAULT '' CHECK (request IN ('', 'cancel', 'pause')),
    requested   REAL,
    error       TEXT NOT NULL DEFAULT '',
    category    TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX one_run_a_device ON runs (device) WHERE state = 'running';
CREATE UNIQUE INDEX one_run_a_submission ON runs (owner, submission) WHERE submission IS NOT NULL;
CREATE INDEX queue ON runs (state, place);
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode, its schema made where the file is new.

    Raises StudioError when a newer program wrote the file, or when it cannot be opened.
    """
    try:
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves the data in the drive's cache
        if version(db) < VERSION:
            create(db, path)
    except sqlite3.Error as error:
        raise StudioError(
            f"The studio's database {path} cannot be opened: {error}.",
            "Check that its folder is on a local disk, is yours, and has room.",
            "disk",
        ) from error
    if version(db) > VERSION:
        found = version(db)
        db.close()
        raise StudioError(
            f"The studio's database {path} has version {found}; this program knows version {VERSION}.",
            "A newer Prefix Studio wrote it: update this one, or set PREFIX_STUDIO_HOME to another folder.",
        )
    return db


def create(db: sqlite3.Connection, path: Path) -> None:
    # Two processes may meet a new file at once, and SQLite's busy timeout does not cover the change to WAL.
    with hold(path.with_name(f".{path.name}.lock"), timeout=30):
        if version(db) == 0:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction that has the write lock from its start, so that what it reads stays true until it commits."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
