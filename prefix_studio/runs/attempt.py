"""One attempt at a run: the process that trains, and what it leaves behind.

`execute` does the work and writes exit.json last; the queue calls it through `main` in a process of its own, the
command line through `run_recipe`. Both hold the folder's lock for as long as they work, so that a run is never worked
on twice at once. Stopping is graceful: the file `request`, SIGTERM and Ctrl-C all let training write a checkpoint.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs import processes
from prefix_studio.runs.folder import (
    ADAPTER,
    EXIT,
    LOCK,
    PROGRESS,
    RECIPE,
    REQUEST,
    Exit,
    write_atomically,
    write_log,
)
from prefix_studio.runs.locks import hold
from prefix_studio.runs.progress import ProgressWriter
from prefix_studio.runs.table import RunTable
from prefix_studio.settings import Settings

Event = dict[str, Any]
Word = Literal["cancel", "pause"]
Train = Callable[..., str]

STATES = {"finished": "finished", "cancel": "cancelled", "pause": "paused"}
LOCK_SECONDS = 30


def main(arguments: Sequence[str] | None = None, *, train: Train | None = None) -> int:
    """`python -m prefix_studio.runs.attempt FOLDER --attempt N --device D`, as the supervisor starts it."""
    parser = argparse.ArgumentParser(prog="prefix_studio.runs.attempt", description="One attempt at a queued run.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    processes.be_nice()
    with stop_requests(folder) as should_stop, hold(folder / LOCK, timeout=LOCK_SECONDS):
        started = processes.start_time(os.getpid())
        if not RunTable(Settings.from_environment()).register(folder.name, options.attempt, os.getpid(), started):
            write_log(folder, f"Attempt {options.attempt} has been superseded and does nothing.")
            return 0
        execute(folder, attempt=options.attempt, device=options.device, should_stop=should_stop, train=train)
    return 0


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    on_event: Callable[[Event], None] | None = None,
    train: Train | None = None,
) -> str:
    """Run a recipe here and now, in the folder `out`; the same call again goes on from its last checkpoint.

    Of several processes that a launcher started on one run, the first keeps the folder; the others train along.
    Returns "finished", "paused" (Ctrl-C) or "cancelled". Raises StudioError when the run fails, when `out` holds
    another recipe, or when another process works in it.
    """
    if not is_first():
        return "finished" if is_finished(out) else train_along(recipe, out, device, train)
    make_folder(out)
    with stop_requests(out) as should_stop, hold(out / LOCK):
        keep_recipe(recipe, out)
        before = Exit.read(out)
        if is_finished(out):
            if on_event:
                on_event({"event": "state", "state": "finished"})
            return "finished"
        attempt = before.attempt + 1 if before else 1
        (out / REQUEST).unlink(missing_ok=True)
        end = execute(out, attempt=attempt, device=device, should_stop=should_stop, train=train, on_event=on_event)
    if end.state == "failed":
        raise StudioError(end.error, category=end.category)  # type: ignore[arg-type]
    return end.state


def is_first() -> bool:
    """Whether this process speaks for the run: it is the only one, or the first that torchrun or accelerate started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def is_finished(out: Path) -> bool:
    before = Exit.read(out)
    return before is not None and before.state == "finished" and (out / ADAPTER).is_dir()


def train_along(recipe: Recipe, out: Path, device: str, train: Train | None) -> str:
    """A process that is not the first: it writes and decides nothing, and leaves Ctrl-C and SIGTERM to the first."""
    if train is None:
        from prefix_studio.training.run import train
    with stop_requests(out):
        return STATES[train(recipe, out, lambda event: None, lambda: None, device=device)]


def execute(
    folder: Path,
    *,
    attempt: int,
    device: str,
    should_stop: Callable[[], Word | None],
    train: Train | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Exit:
    """Train the recipe in `folder` and write exit.json, whatever comes; the caller holds the folder's lock.

    train: what trains, by default training.run.train. on_event: is told every event, also those that the progress
    file leaves out.
    """
    (folder / EXIT).unlink(missing_ok=True)
    write_log(folder, f"Attempt {attempt} on {device} starts as process {os.getpid()}.")
    with ProgressWriter(folder / PROGRESS) as progress:

        def report(event: Event) -> None:
            progress.write(event)
            if event["event"] != "step":
                write_log(folder, describe(event))
            if on_event:
                on_event(event)

        report({"event": "state", "state": "starting", "attempt": attempt, "device": device})
        end = train_to_the_end(folder, attempt, device, should_stop, train, report)
        report({"event": "state", "state": end.state} | ({"error": end.error} if end.error else {}))
    end.write(folder)
    return end


def train_to_the_end(
    folder: Path,
    attempt: int,
    device: str,
    should_stop: Callable[[], Word | None],
    train: Train | None,
    report: Callable[[Event], None],
) -> Exit:
    try:
        recipe = Recipe.from_yaml((folder / RECIPE).read_text(encoding="utf-8"))
        if train is None:
            from prefix_studio.training.run import train
        word = train(recipe, folder, report, should_stop, device=device)
        return Exit(STATES[word], attempt)
    except Exception as error:
        write_log(folder, traceback.format_exc().rstrip())
        message, category = explain(error)
        return Exit("failed", attempt, message, category)


def explain(error: Exception) -> tuple[str, str]:
    """What went wrong in a sentence for a person, and its category."""
    if isinstance(error, StudioError):
        return str(error), error.category
    if ran_out_of_memory(error):
        hint = "Try a smaller per_device_train_batch_size or max_length, or gradient_checkpointing."
        return f"The run needed more memory than there is. {hint}", "memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full. Make room and retry the run; it goes on from its last checkpoint.", "disk"
    return traceback.format_exception_only(error)[-1].strip(), "internal"


def ran_out_of_memory(error: Exception) -> bool:
    """Python's, CUDA's (known by name, so that torch need not be imported) and the CPU allocator's way to say so."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


@contextmanager
def stop_requests(folder: Path) -> Iterator[Callable[[], Word | None]]:
    """A function that says what the attempt is asked for: "cancel", "pause" or None.

    Asked by the file `request`, or by SIGTERM or Ctrl-C, which mean pause. A second Ctrl-C stops at once.
    """
    asked = threading.Event()

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT and asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    def should_stop() -> Word | None:
        if asked.is_set():
            return "pause"
        try:
            word = (folder / REQUEST).read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return word if word in get_args(Word) else None  # type: ignore[return-value]

    # Only the main thread may set handlers; called from another, Ctrl-C is its caller's to handle.
    catching = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT) if catching}
    try:
        yield should_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudioError(f"The folder {out} cannot be made: {error.strerror}.", "Give another --out.") from error


def keep_recipe(recipe: Recipe, out: Path) -> None:
    """Write the recipe into its folder, or see that the one there is the same; StudioError names a difference."""
    path = out / RECIPE
    if not path.exists():
        write_atomically(path, recipe.to_yaml())
        return
    there = Recipe.from_yaml(path.read_text(encoding="utf-8"))
    if there == recipe:
        return
    field = first_difference(there.model_dump(), recipe.model_dump())
    raise StudioError(
        f"{out} holds a run of another recipe ({field} differs).", "Give another --out, or delete that folder."
    )


def first_difference(there: Any, here: Any, path: str = "") -> str:
    """The first field, as `part.name`, in which two recipes' plain data differ."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return path
    name = next(name for name in here if there[name] != here[name])
    return first_difference(there[name], here[name], f"{path}.{name}" if path else name)


def describe(event: Event) -> str:
    """An event as a line of the log."""
    if event["event"] == "eval":
        return f"Step {event.get('step')}: eval_loss {event.get('eval_loss')}"
    extra = ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("event", "state", "time"))
    return f"{str(event.get('state', event['event'])).capitalize()}{f': {extra}' if extra else ''}"


if __name__ == "__main__":
    sys.exit(main())
