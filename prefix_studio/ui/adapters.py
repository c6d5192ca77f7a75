"""The Adapters tab: what has been tuned here or brought along, to rename, take home or delete.

Handlers above, wiring below.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from prefix_studio.adapters.files import read_facts
from prefix_studio.ui.adapters_view import about_html, shelf_html
from prefix_studio.ui.downloads import servable
from prefix_studio.ui.fragments import PICKED, heading
from prefix_studio.ui.studio import Studio, owner_of
from prefix_studio.ui.toasts import told

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass
class AdaptersTab:
    """What the page needs of this tab. chosen: holds the adapter's id; refresh: the event that reads the shelf anew."""

    chosen: gr.Textbox
    play: gr.Button
    refresh: dict[str, Any]


def build_adapters(studio: Studio) -> AdaptersTab:
    chosen = gr.Textbox("", visible=False)
    with gr.Row(elem_classes="ps-shelf"):
        with gr.Column(scale=5, min_width=320, elem_classes="ps-card"):
            gr.HTML(heading("Adapters", "Small files that go in front of their base model."))
            shelf = gr.HTML(js_on_load=PICKED, elem_id="shelf")
        with gr.Column(scale=3, min_width=280):
            with gr.Column(elem_classes="ps-card", visible=False) as detail:
                gr.HTML(heading("Chosen adapter"))
                about = gr.HTML(elem_classes="ps-slot", elem_id="adapter-about")
                name = gr.Textbox(label="Name", max_lines=1, interactive=True, elem_id="adapter-name")
                with gr.Row(elem_classes="ps-actions"):
                    rename = gr.Button("Rename", size="md", min_width=90, elem_id="rename")
                    play = gr.Button("Open in Playground", size="md", variant="primary", min_width=90)
                    download = gr.DownloadButton("Download zip", size="md", min_width=90, elem_id="shelf-download")
                    delete = gr.Button("Delete", size="md", min_width=90, elem_id="shelf-delete")
                with gr.Row(visible=False, elem_classes="ps-confirm") as confirm:
                    gr.HTML("<p>Delete this adapter's files, for good?</p>")
                    really = gr.Button("Delete for good", variant="stop", size="sm")
                    keep = gr.Button("Keep it", size="sm")
            with gr.Column(elem_classes="ps-card"):
                gr.HTML(heading("Bring one along", "A zip made here, or any prefix tuning adapter of PEFT."))
                upload = gr.File(show_label=False, file_types=[".zip"], height=120, elem_id="import-zip")

    # Handlers

    def show(adapter_id: str, request: gr.Request) -> list[Any]:
        owner = owner_of(request)
        rows = studio.shelf.list(owner)
        row = next((row for row in rows if row.id == adapter_id), rows[0] if rows else None)
        zipped = servable(studio.shelf.zip(row.id, owner)) if row else None
        return [
            shelf_html(rows, row.id if row else ""),
            row.id if row else "",
            row.name if row else "",
            about_html(read_facts(row.folder)) if row else "",
            zipped,
            gr.update(visible=bool(row)),
            gr.update(visible=False),
        ]

    @told
    def pick(event: gr.EventData, request: gr.Request) -> Any:
        return show(str(event.id), request)

    @told
    def give_name(adapter_id: str, text: str, request: gr.Request) -> Any:
        studio.shelf.rename(adapter_id, text, owner_of(request))
        return show(adapter_id, request)

    @told
    def remove(adapter_id: str, request: gr.Request) -> Any:
        studio.shelf.delete(adapter_id, owner_of(request))
        return show("", request)

    @told
    def bring(path: str | None, request: gr.Request) -> Any:
        if path is None:
            return gr.skip()
        adapter_id = studio.shelf.import_zip(Path(path), owner_of(request))
        return show(adapter_id, request)

    # Wiring

    shown = [shelf, chosen, name, about, download, detail, confirm]
    shelf.click(pick, None, shown, **QUIET)
    gr.on([rename.click, name.submit], give_name, [chosen, name], shown, **QUIET)
    delete.click(lambda: gr.update(visible=True), None, confirm, queue=False, **QUIET)
    keep.click(lambda: gr.update(visible=False), None, confirm, queue=False, **QUIET)
    really.click(remove, chosen, shown, **QUIET)
    upload.upload(bring, upload, shown, **QUIET).then(lambda: None, None, upload, queue=False, **QUIET)
    refresh = {"fn": told(show), "inputs": chosen, "outputs": shown, **QUIET}
    return AdaptersTab(chosen, play, refresh)
