"""What the Runs tab shows: the list, the chosen run, its curves, its log, and what can be done with it.

`look` reads the queue and the progress files into one `RunsView` of plain values; `changes` tells which of them differ
from what a browser already has, so that a tick sends only news. Knows no Gradio.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

from prefix_studio.runs.table import RunRow
from prefix_studio.ui.curve_html import curve_html
from prefix_studio.ui.fragments import empty, picker
from prefix_studio.ui.live import log_tail
from prefix_studio.ui.runs_html import run_head_html, run_row_html
from prefix_studio.ui.samples_html import samples_html
from prefix_studio.ui.studio import Studio

NO_RUNS = empty(
    "No run yet.", "Go to Tune, keep what is filled in, and press Start: the first run takes a minute or two."
)
ACTIONS_OF_STATE = {
    "queued": ("cancel", "pause"),
    "running": ("cancel", "pause"),
    "paused": ("resume", "cancel", "delete"),
    "finished": ("play", "download", "delete"),
    "failed": ("retry", "delete"),
    "cancelled": ("retry", "delete"),
}


@dataclass(frozen=True)
class RunsView:
    """One look at the queue. actions: what the buttons may do now; chosen: the run that is shown."""

    list_html: str
    head_html: str
    curve_html: str
    samples_html: str
    log: str
    recipe: str
    actions: tuple[str, ...]
    chosen: str


def look(studio: Studio, owner: str, chosen: str) -> RunsView:
    """The queue as this owner sees it. chosen: a run's id; where there is none of that id, the newest run."""
    runs = studio.runs.list(owner)
    if not runs:
        return RunsView(NO_RUNS, "", "", "", "", "", (), "")
    run = next((run for run in runs if run.id == chosen), runs[0])
    seen = studio.progress.of(run.folder)
    rows = [(row.id, run_row_html(row, studio.progress.of(row.folder))) for row in runs]
    return RunsView(
        list_html=picker(rows, run.id),
        head_html=run_head_html(run, seen),
        curve_html=curve_html(seen),
        samples_html=samples_html(run.folder) if run.state == "finished" else "",
        log=log_tail(run.folder),
        recipe=run.recipe_yaml,
        actions=actions_of(run),
        chosen=run.id,
    )


def actions_of(run: RunRow) -> tuple[str, ...]:
    """What can be done with a run now; nothing more may be asked of one that was asked to stop."""
    if run.state == "running" and run.request:
        return ("resume", "cancel") if run.request == "pause" else ()
    return ACTIONS_OF_STATE.get(run.state, ())


def changes(view: RunsView, last: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The view's values that the browser does not have yet, and the marks to compare the next view with."""
    marks = {field.name: mark_of(getattr(view, field.name)) for field in fields(view)}
    news = {name: getattr(view, name) for name, mark in marks.items() if last.get(name) != mark}
    return news, marks


def mark_of(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
