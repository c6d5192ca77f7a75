"""The page: header, four tabs, and what leads from one to another.

One page with `?tab=` and `?run=` in its address, so that a reload or a link comes back to the same place. Each tab is
built by its own module; here is only what crosses them. Handlers above, wiring below.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from prefix_studio import __version__
from prefix_studio.ui.adapters import build_adapters
from prefix_studio.ui.api import build_api
from prefix_studio.ui.fragments import header
from prefix_studio.ui.machine import hub_words, machine_words
from prefix_studio.ui.playground import build_playground
from prefix_studio.ui.runs import build_runs
from prefix_studio.ui.studio import Studio
from prefix_studio.ui.tune import build_tune

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
TABS = {"tune": "Tune", "runs": "Runs", "playground": "Playground", "adapters": "Adapters"}
UPLOAD_CHECKED_S, UPLOAD_KEPT_S = 3600, 86_400
# The address follows the tab and the run, without a new page in the history for each look.
FOLLOW = """(tab, run) => {
  const address = new URL(window.location);
  address.searchParams.set('tab', tab);
  if (run && tab === 'runs') address.searchParams.set('run', run); else address.searchParams.delete('run');
  window.history.replaceState(null, '', address);
}"""


def build(studio: Studio) -> gr.Blocks:
    """The whole page, ready to launch."""
    with gr.Blocks(title="Prefix Studio", fill_width=True, delete_cache=(UPLOAD_CHECKED_S, UPLOAD_KEPT_S)) as page:
        build_api(studio)  # first, so that no tab's handler takes one of its names
        machine = machine_words(studio.settings)
        top = gr.HTML(header(__version__, machine, ("Looking for the Hub …", "quiet")), elem_id="header")
        here = gr.Textbox("tune", visible=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(TABS["tune"], id="tune"):
                tune = build_tune(studio)
            with gr.Tab(TABS["runs"], id="runs"):
                runs = build_runs(studio)
            with gr.Tab(TABS["playground"], id="playground"):
                playground = build_playground(studio)
            with gr.Tab(TABS["adapters"], id="adapters"):
                adapters = build_adapters(studio)

        # Handlers

        def open_page(request: gr.Request) -> list[Any]:
            tab, run = request.query_params.get("tab", ""), request.query_params.get("run", "")
            tab = tab if tab in TABS else "tune"
            return [gr.update(selected=tab), tab, run, gr.update(active=tab == "runs")]

        def say_header(request: gr.Request) -> str:
            return header(__version__, machine, hub_words(), request.username or "")

        def come_to(event: gr.SelectData) -> list[Any]:
            tab = next((tab for tab, label in TABS.items() if label == event.value), "tune")
            return [tab, gr.update(active=tab == "runs")]

        def go_to_run(run_id: str) -> list[Any]:
            if not run_id:
                return [gr.skip()] * 4
            return [gr.update(selected="runs"), "runs", run_id, gr.update(active=True)]

        def go_to_playground(adapter_id: str) -> list[Any]:
            return [gr.update(selected="playground"), "playground", [adapter_id], gr.update(active=False)]

        # Wiring

        shown = [tabs, here, runs.chosen, runs.timer]
        page.load(open_page, None, shown, queue=False, **QUIET).then(**runs.refresh_all).then(
            **playground.refresh
        ).then(**adapters.refresh)
        tune.load(page)
        page.load(say_header, None, top, **QUIET)
        tabs.select(come_to, None, [here, runs.timer], queue=False, **QUIET)
        runs_tab, playground_tab, adapters_tab = (tab for tab in tabs.children[1:])
        runs_tab.select(**runs.refresh)
        playground_tab.select(**playground.refresh)
        adapters_tab.select(**adapters.refresh)
        gr.on([here.change, runs.chosen.change], None, [here, runs.chosen], None, js=FOLLOW, api_visibility="private")

        tune.started.then(go_to_run, tune.run_id, shown, queue=False, **QUIET).then(**runs.refresh)
        to_playground = [tabs, here, playground.adapters, runs.timer]
        for button, chosen in ((runs.play, runs.chosen), (adapters.play, adapters.chosen)):
            button.click(**playground.refresh).then(go_to_playground, chosen, to_playground, queue=False, **QUIET)
    return page
