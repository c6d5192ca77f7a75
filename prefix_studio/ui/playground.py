"""The Playground tab: base and tuned side by side, writing together from one batch. Handlers above, wiring below."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from prefix_studio.errors import StudioError
from prefix_studio.ui import playground_view as view
from prefix_studio.ui.compare_html import NOTHING_YET, panes_html
from prefix_studio.ui.fragments import empty, error_notice, heading
from prefix_studio.ui.studio import Studio, owner_of

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
NO_ADAPTERS = empty(
    "No adapter yet.", "Tune one first: on the Tune tab, press Start, and come back when it has finished."
)
MOST_ADAPTERS = 4


@dataclass
class PlaygroundTab:
    """What the page needs of this tab. adapters: the chosen ids; refresh: the event that reads the shelf anew."""

    adapters: gr.Dropdown
    refresh: dict[str, Any]


def build_playground(studio: Studio) -> PlaygroundTab:
    rows = gr.State([])
    row = gr.State({})
    nothing = gr.HTML(visible=False)
    with gr.Row(elem_classes="ps-play"):
        with gr.Column(scale=2, min_width=280, elem_classes="ps-card"):
            gr.HTML(heading("Ask", "Base and tuned answer the same prompt, at the same time."))
            adapters = gr.Dropdown(
                [], label="Adapters", multiselect=True, max_choices=MOST_ADAPTERS, interactive=True, elem_id="adapters"
            )
            held_back = gr.Dropdown(
                [],
                label="A held-back row",
                info="Rows the training never saw; what they say is shown below the answers.",
                interactive=True,
                elem_id="held-back",
            )
            prompt = gr.Textbox(label="Prompt", lines=4, max_lines=12, interactive=True, elem_id="prompt")
            with gr.Row():
                generate = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
                stop = gr.Button("Stop", elem_id="stop", interactive=False, min_width=80)
            with gr.Accordion("Settings", open=False, elem_classes="ps-expert"):
                init_text = gr.Checkbox(
                    False,
                    label="Also show the starting text alone",
                    info="What the words of the starting text do without training.",
                    interactive=True,
                )
                max_new_tokens = gr.Slider(
                    1, 1024, value=128, step=1, label="Longest answer, in tokens", interactive=True
                )
                temperature = gr.Slider(
                    0,
                    2,
                    value=0,
                    step=0.05,
                    label="Temperature",
                    info="0: the likeliest word.",
                    interactive=True,
                )
                top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", interactive=True)
                seed = gr.Number(0, label="Seed", precision=0, interactive=True)
        with gr.Column(scale=5, min_width=320, elem_classes="ps-card"):
            problem = gr.HTML(elem_classes="ps-slot")
            answers = gr.HTML(NOTHING_YET, elem_id="answers")

    # Handlers

    def refresh(chosen: list[str] | None, request: gr.Request) -> list[Any]:
        choices = view.adapter_choices(studio, owner_of(request))
        known = [value for _, value in choices]
        kept = [value for value in chosen or [] if value in known] or known[:1]
        return [gr.update(choices=choices, value=kept), gr.update(value=NO_ADAPTERS, visible=not choices)]

    def offer_prompts(chosen: list[str] | None, request: gr.Request) -> list[Any]:
        try:
            prompts = view.held_back_prompts(studio, chosen or [], owner_of(request))
        except StudioError as error:
            return [[], gr.update(choices=[], value=None), gr.skip(), error_notice(error)]
        first = 0 if prompts else None
        rows = gr.update(choices=view.prompt_choices(prompts), value=first, visible=bool(prompts))
        return [prompts, rows, view.longest_answer(studio, chosen or [], owner_of(request)), ""]

    def choose_prompt(prompts: list[dict[str, Any]], index: int | None) -> list[Any]:
        if index is None or index >= len(prompts):
            return [gr.skip(), {}]
        return [prompts[index]["prompt"], prompts[index]]

    def compare(
        request: gr.Request, chosen: list[str] | None, text: str, held: dict[str, Any], with_start: bool, *sampling: Any
    ) -> Iterator[list[Any]]:
        owner, chosen = owner_of(request), chosen or []
        try:
            init_text = view.starting_text(studio, owner, chosen) if with_start else ""
            stream, panes = view.start_comparison(
                studio, owner, chosen, text, init_text, *sampling, held.get("messages")
            )
            yield [panes_html(panes.values()), ""]
            with closing(stream):  # Stop closes this generator, and with it the model process's work
                for _ in view.frames(stream, panes):
                    yield [panes_html(panes.values()), gr.skip()]
            yield [panes_html(panes.values(), held.get("reference", "")), ""]
        except StudioError as error:
            yield [gr.skip(), error_notice(error)]

    # Wiring

    settings = [init_text, max_new_tokens, temperature, top_p, seed]
    running = generate.click(lambda: gr.update(interactive=True), None, stop, queue=False, **QUIET).then(
        compare, [adapters, prompt, row, *settings], [answers, problem], concurrency_limit=4, **QUIET
    )
    running.then(lambda: gr.update(interactive=False), None, stop, queue=False, **QUIET)
    stop.click(lambda: gr.update(interactive=False), None, stop, cancels=[running], queue=False, **QUIET)
    filled = {"fn": choose_prompt, "inputs": [rows, held_back], "outputs": [prompt, row], "queue": False, **QUIET}
    held_back.input(**filled)
    prompt.input(lambda: [{}, None], None, [row, held_back], queue=False, **QUIET)
    prompts = {"fn": offer_prompts, "inputs": adapters, "outputs": [rows, held_back, max_new_tokens, problem], **QUIET}
    adapters.change(**prompts).then(**filled)
    shelf = {"fn": refresh, "inputs": adapters, "outputs": [adapters, nothing], "queue": False, **QUIET}
    return PlaygroundTab(adapters, shelf)
