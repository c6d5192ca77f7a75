"""The small pieces of HTML that every tab is built from.

Everything that comes from a person, a file or a model goes through `escape` here and nowhere else; what these
functions return is safe to hand to `gr.HTML`. Pure functions from values to text.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from prefix_studio.errors import StudioError

TONES_OF_STATES = {
    "queued": "quiet",
    "running": "busy",
    "paused": "warm",
    "finished": "good",
    "failed": "bad",
    "cancelled": "quiet",
}


def escape(value: Any) -> str:
    """Any value as text that HTML shows as it is."""
    return html.escape(str(value), quote=True)


def badge(text: str, tone: str = "quiet") -> str:
    """A small label. tone: quiet, busy, warm, good or bad."""
    return f'<span class="ps-badge ps-{tone}">{escape(text)}</span>'


def state_badge(state: str) -> str:
    return badge(state, TONES_OF_STATES.get(state, "quiet"))


def notice(message: str, hint: str = "", tone: str = "bad") -> str:
    """One sentence beside what it is about, with the way out after it; nothing for an empty message."""
    if not message:
        return ""
    way_out = f" <span>{escape(hint)}</span>" if hint else ""
    return f'<div class="ps-notice ps-{tone}" role="status"><b>{escape(message)}</b>{way_out}</div>'


def error_notice(error: StudioError) -> str:
    return notice(error.message, error.hint)


def busy_notice(message: str) -> str:
    return f'<div class="ps-notice ps-waiting" role="status"><i class="ps-spinner"></i>{escape(message)}</div>'


def empty(title: str, advice: str) -> str:
    """What stands where there is nothing yet: what is missing, and what to do next."""
    return f'<div class="ps-empty"><b>{escape(title)}</b><p>{escape(advice)}</p></div>'


def facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Label, value and small print, as a grid of figures."""
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd>"
        + (f"<small>{escape(small)}</small>" if small else "")
        + "</div>"
        for label, value, small in pairs
    )
    return f'<dl class="ps-facts">{cells}</dl>'


def bar(share: float, label: str) -> str:
    """A progress bar. share: 0 to 1."""
    percent = max(0.0, min(100.0, 100 * share))
    return (
        f'<div class="ps-bar" role="progressbar" aria-label="{escape(label)}" aria-valuenow="{percent:.0f}"'
        f' aria-valuemin="0" aria-valuemax="100"><i style="width:{percent:.1f}%"></i></div>'
    )


def step_heading(number: int, title: str, line: str) -> str:
    """The heading of one numbered step of the Tune page."""
    return (
        f'<div class="ps-step"><span aria-hidden="true">{number}</span>'
        f"<div><h2>{escape(title)}</h2><p>{escape(line)}</p></div></div>"
    )


def field_label(title: str, line: str) -> str:
    """A label and its small print, looking like those of Gradio's own fields."""
    return f'<div class="ps-label"><b>{escape(title)}</b><small>{escape(line)}</small></div>'


def heading(title: str, line: str = "") -> str:
    return f'<div class="ps-heading"><h2>{escape(title)}</h2>' + (f"<p>{escape(line)}</p>" if line else "") + "</div>"


def picker(rows: Iterable[tuple[str, str]], chosen: str | None) -> str:
    """A list to choose one row from: pairs of an id and the row's inner HTML (already escaped).

    A click on a row is told to the page by `PICKED`, the script to give `gr.HTML(js_on_load=...)`.
    """
    items = "".join(
        f'<li><button type="button" data-id="{escape(key)}" class="ps-row{" ps-chosen" if key == chosen else ""}"'
        f' aria-pressed="{str(key == chosen).lower()}">{inner}</button></li>'
        for key, inner in rows
    )
    return f'<ul class="ps-picker">{items}</ul>'


PICKED = """
element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-id]');
  if (row) trigger('click', {id: row.dataset.id});
});
"""


def header(version: str, machine: str, hub: tuple[str, str], who: str = "") -> str:
    """The top of the page. hub: the state in words and its tone."""
    person = badge(who) if who else ""
    return (
        '<div class="ps-header"><div class="ps-brand">'
        '<svg viewBox="0 0 32 32" width="34" height="34" aria-hidden="true"><rect width="32" height="32" rx="8" '
        'fill="var(--ps-ink)"/><g fill="var(--ps-prefix)"><rect x="6" y="7" width="4" height="18" rx="2"/>'
        '<rect x="12" y="7" width="4" height="18" rx="2"/></g><g fill="var(--ps-paper)" opacity=".9">'
        '<rect x="19" y="9" width="7" height="3" rx="1.5"/><rect x="19" y="14.5" width="7" height="3" rx="1.5"/>'
        '<rect x="19" y="20" width="5" height="3" rx="1.5"/></g></svg>'
        "<div><h1>Prefix Studio</h1><p>Teach a language model from a file, without code.</p></div></div>"
        f'<div class="ps-chips">{person}{badge(machine)}{badge(hub[0], hub[1])}{badge(f"v{version}")}</div></div>'
    )
