"""Answers side by side: a pane for the base model, one for the starting text alone, one for each adapter.

Pure: texts as they stand by now in, escaped HTML out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prefix_studio.ui.fragments import badge, empty, escape

NOTHING_YET = empty(
    "Nothing generated yet.",
    "Pick an adapter and a prompt, then press Generate: base and tuned write side by side, from one batch.",
)


@dataclass
class Pane:
    """One answer being written. kind: base, init_text or adapter."""

    kind: str
    title: str
    text: str = ""
    tokens: int | None = None
    finished: bool = False


def panes_html(panes: Iterable[Pane], reference: str = "") -> str:
    """All panes, and under them what the data says."""
    shown = "".join(map(pane_html, panes))
    expected = (
        f'<div class="ps-reference"><b>What the held-back row says</b><p>{escape(reference.strip())}</p></div>'
        if reference
        else ""
    )
    return f'<div class="ps-panes">{shown}</div>{expected}'


def pane_html(pane: Pane) -> str:
    tokens = badge(f"{pane.tokens} tokens") if pane.tokens is not None else ""
    if pane.text:
        body = escape(pane.text.lstrip())
    else:
        body = '<span class="ps-faint">(an empty answer)</span>' if pane.finished else ""
    cursor = "" if pane.finished else '<i class="ps-cursor"></i>'
    return (
        f'<section class="ps-pane ps-pane-{escape(pane.kind)}"><header><b>{escape(pane.title)}</b>{tokens}</header>'
        f'<p data-pane="{escape(pane.kind)}">{body}{cursor}</p></section>'
    )
