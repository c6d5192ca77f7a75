"""The Runs tab: the queue, and the chosen run as it goes. Handlers above, wiring below.

One timer looks at the queue once a second and sends a browser only what has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from prefix_studio.ui.downloads import servable
from prefix_studio.ui.fragments import PICKED, heading
from prefix_studio.ui.runs_view import RunsView, changes, look
from prefix_studio.ui.studio import Studio, owner_of
from prefix_studio.ui.toasts import told

QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
TOLD = {**QUIET, "queue": True}
# Label and look of each action; what is asked of the queue is the action's own name.
BUTTONS = {
    "play": ("Open in Playground", "primary"),
    "download": ("Download adapter", "secondary"),
    "pause": ("Pause", "secondary"),
    "resume": ("Resume", "primary"),
    "retry": ("Retry", "primary"),
    "cancel": ("Cancel", "secondary"),
    "delete": ("Delete", "secondary"),
}
QUEUE_ACTIONS = ("pause", "resume", "retry", "cancel")


@dataclass
class RunsTab:
    """What the page needs of this tab. chosen: holds the run's id; look: the refreshing event's arguments."""

    chosen: gr.Textbox
    timer: gr.Timer
    play: gr.Button
    refresh: dict[str, Any]
    refresh_all: dict[str, Any]
    changed: list[Any]


def build_runs(studio: Studio) -> RunsTab:
    chosen = gr.Textbox("", visible=False)
    last = gr.State({})
    timer = gr.Timer(1.0, active=False)
    with gr.Row(elem_classes="ps-runs"):
        with gr.Column(scale=2, min_width=260, elem_classes="ps-card"):
            gr.HTML(heading("Runs"))
            runs = gr.HTML(js_on_load=PICKED, elem_id="run-list")
        with gr.Column(scale=5, min_width=320, elem_classes="ps-card", visible=False) as detail:
            head = gr.HTML(elem_id="run-head")
            with gr.Row(elem_classes="ps-actions"):
                buttons = {name: action_button(name, *style) for name, style in BUTTONS.items()}
            with gr.Row(visible=False, elem_classes="ps-confirm") as confirm:
                gr.HTML("<p>Delete this run with its adapter and checkpoints, for good?</p>")
                really = gr.Button("Delete for good", variant="stop", size="sm", elem_id="really-delete")
                keep = gr.Button("Keep it", size="sm")
            curve = gr.HTML(elem_id="loss-curve")
            with gr.Accordion(
                "Answers on held-back rows, before and after", open=False, visible=False, elem_classes="ps-expert"
            ) as answers:
                samples = gr.HTML(elem_id="samples")
            with gr.Accordion("Log", open=False, elem_classes="ps-expert"):
                log = gr.Code(language=None, interactive=False, show_label=False, max_lines=16, show_line_numbers=False)
            with gr.Accordion("Recipe", open=False, elem_classes="ps-expert"):
                recipe = gr.Code(language="yaml", interactive=False, show_label=False, max_lines=24, wrap_lines=True)

    names = list(buttons)

    # Handlers

    def updates(view: RunsView, news: dict[str, Any], marks: dict[str, str]) -> list[Any]:
        def sent(name: str, make: Callable[[Any], Any] = lambda value: value) -> Any:
            return make(news[name]) if name in news else gr.skip()

        shown = [sent("actions", lambda actions, name=name: gr.update(visible=name in actions)) for name in names]
        return [
            sent("list_html"),
            sent("head_html"),
            sent("curve_html"),
            sent("samples_html"),
            sent("samples_html", lambda table: gr.update(visible=bool(table))),
            sent("log"),
            sent("recipe"),
            sent("chosen"),
            sent("chosen", lambda run_id: gr.update(visible=bool(run_id))),
            *shown,
            marks,
        ]

    def tick(run_id: str, marks: dict[str, str], request: gr.Request) -> Any:
        view = look(studio, owner_of(request), run_id)
        news, marks = changes(view, marks)
        return updates(view, news, marks) if news else gr.skip()

    def show_all(run_id: str, request: gr.Request) -> list[Any]:
        return tick(run_id, {}, request)

    def pick(marks: dict[str, str], event: gr.EventData, request: gr.Request) -> Any:
        return tick(str(event.id), marks, request)

    def act(action: str) -> Callable[..., Any]:
        @told
        def do(run_id: str, marks: dict[str, str], request: gr.Request) -> Any:
            getattr(studio.runs, action)(run_id, owner_of(request))
            return tick(run_id, marks, request)

        return do

    @told
    def delete(run_id: str, marks: dict[str, str], request: gr.Request) -> Any:
        studio.runs.delete(run_id, owner_of(request))
        return tick("", marks, request)

    @told
    def offer(run_id: str, request: gr.Request) -> Any:
        """A finished run's adapter, zipped when the run is looked at, so that one click downloads it."""
        owner = owner_of(request)
        run = studio.runs.get(run_id, owner) if run_id else None
        zipped = servable(studio.shelf.zip(run_id, owner)) if run and run.state == "finished" else None
        return gr.update(value=zipped, interactive=bool(zipped))

    # Wiring

    shown = [runs, head, curve, samples, answers, log, recipe, chosen, detail, *buttons.values(), last]
    refresh = {"fn": tick, "inputs": [chosen, last], "outputs": shown, **QUIET}
    timer.tick(**refresh)
    runs.click(pick, last, shown, **QUIET)
    for name in QUEUE_ACTIONS:
        buttons[name].click(act(name), [chosen, last], shown, **TOLD)
    buttons["delete"].click(lambda: gr.update(visible=True), None, confirm, **QUIET)
    gr.on([keep.click, chosen.change], lambda: gr.update(visible=False), None, confirm, **QUIET)
    really.click(delete, [chosen, last], shown, **TOLD).then(lambda: gr.update(visible=False), None, confirm, **QUIET)
    gr.on([chosen.change, head.change], offer, chosen, buttons["download"], trigger_mode="always_last", **QUIET)
    refresh_all = {"fn": show_all, "inputs": chosen, "outputs": shown, **QUIET}
    return RunsTab(chosen, timer, buttons["play"], refresh, refresh_all, shown)


def action_button(name: str, label: str, variant: Any) -> gr.Button | gr.DownloadButton:
    make = gr.DownloadButton if name == "download" else gr.Button
    return make(label, variant=variant, size="md", visible=False, elem_id=f"run-{name}", min_width=90)
