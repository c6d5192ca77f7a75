"""The Tune tab: a form that becomes a recipe, and Start.

The quick half (draft, words, YAML, what is wrong) answers every keystroke without asking a model. The slow half
(preview, the model's check, the estimate) asks the model process once a value has settled. Handlers above, wiring
below.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.uploads import store_upload
from prefix_studio.ui import tune_view as view
from prefix_studio.ui.form import (
    LEARNING_RATE,
    LENGTH,
    STARTS,
    defaults_for,
    learning_rate_after,
    readable_part,
    recipe_of,
    restored,
    values_of,
    visible_fields,
)
from prefix_studio.ui.fragments import busy_notice, error_notice
from prefix_studio.ui.model_html import LOOKING
from prefix_studio.ui.queueing import queue_run
from prefix_studio.ui.studio import Studio, owner_of
from prefix_studio.ui.tune_form import LONGEST_OFFERED, Form, build_form

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
TYPED = (gr.Textbox, gr.Number)


@dataclass
class TuneTab:
    """What the page needs of this tab. started: the event after which `run_id` holds the new run's id."""

    load: Callable[[gr.Blocks], None]
    started: Any
    run_id: gr.State


class Newest:
    """The number of the newest look at one page's form: older ones see by it that nobody waits for their answers."""

    number = 0

    def begin(self) -> int:
        self.number += 1
        return self.number


def build_tune(studio: Studio) -> TuneTab:
    form = build_form(view.model_choices(), view.sample_choices(), view.opening_values())
    keys, fields, parts = list(form.fields), list(form.fields.values()), form.parts
    notices = [form.notices[step] for step in view.STEPS]
    key = gr.State("")
    settled = gr.State(None)
    newest = gr.State(Newest())
    source_before = gr.State("")
    run_id = gr.State("")

    def values_from(given: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(keys, given, strict=True))

    def show(values: dict[str, Any]) -> list[Any]:
        """Updates for every field: its value, and whether it is shown."""
        visible = visible_fields(values)
        updates = {name: gr.update(value=values[name]) for name in keys}
        for name in visible:
            updates[name]["visible"] = visible[name]
        updates[LENGTH]["maximum"] = max(LONGEST_OFFERED, values[LENGTH] or 0)
        return list(updates.values())

    # Handlers

    def open_form(request: gr.Request) -> list[Any]:
        values = restored(studio.drafts.load(owner_of(request)), view.opening_values())
        source = values["data.source"]
        sample = source if source in dict(map(reversed, view.sample_choices())) else None
        return [*show(values), sample, new_key()]

    def edit(request: gr.Request, *given: Any) -> list[Any]:
        values = values_from(given)
        studio.drafts.save(owner_of(request), values)
        summary = view.summarise(values)
        visible = visible_fields(values)
        shown = [gr.update(visible=visible[name]) for name in visible]
        said = [summary.notices[step] for step in view.STEPS]
        return [summary.words, summary.yaml or gr.skip(), summary.command, *said, *shown]

    def settle(newest: Newest, last: dict[str, Any] | None, *given: Any) -> Iterator[list[Any]]:
        """Asks the model process what it takes the form for; only when the recipe has changed since `last`."""
        values = values_from(given)
        now = {name: value for name, value in values.items() if name != "name"}
        if now != last:
            mine = newest.begin()
            yield slow(settled=now)
            for news in answers_to(values, new_model=not last or model_of(now) != model_of(last)):
                if newest.number != mine:  # another look has begun meanwhile, and nobody waits for this one
                    break
                yield slow(**news)
        yield slow()  # Gradio shows what came last once more when all has come

    def answers_to(values: dict[str, Any], *, new_model: bool) -> Iterator[dict[str, Any]]:
        """What the slow half shows, by name, as it comes. A model that is new is looked at before the rows are."""
        if new_model:
            yield {"model_card": LOOKING, "estimate": view.MEASURING}
        if studio.models.state() != "ready":
            yield {"preview": view.STARTING}
        if not new_model:
            yield preview_of(values)
        card, check = view.check_of(studio, values)
        # Where the prefix goes is asked of encoder-decoder models alone.
        asked = values[SUBMODULES] != "decoder" or bool(check and check.get("encoder_decoder"))
        yield {"model_card": card, "submodules": gr.update(visible=asked)}
        if new_model:
            yield preview_of(values)
        yield {"estimate": view.estimate_html(studio, values, check)}

    def preview_of(values: dict[str, Any]) -> dict[str, Any]:
        columns, preview = view.data_preview(studio, values)
        return {"columns": columns or gr.skip(), "preview": preview}

    def slow(**news: Any) -> list[Any]:
        """Updates for what the slow half shows; what is not named stays as it is."""
        return [news.get(name, gr.skip()) for name in SLOW]

    def choose_model(*given: Any) -> list[Any]:
        values = values_from(given)
        defaults = defaults_for(values["model.id"] or "bundled", values)
        return [*(defaults.get(name, gr.skip()) for name in keys), LOOKING, view.MEASURING, None]

    def choose_start(changed: str) -> Callable[..., float | None]:
        return lambda *given: learning_rate_after(changed, values_from(given))

    def choose_sample(source: str, *given: Any) -> list[Any]:
        return show(values_from(given) | view.values_for_sample(source))

    def adopt_upload(path: str | None, *given: Any) -> Iterator[list[Any]]:
        if path is None:
            yield [gr.skip()] * (len(keys) + 3)
            return
        yield [*[gr.skip()] * len(keys), gr.skip(), gr.skip(), busy_notice("Reading the file …")]
        try:
            source = str(store_upload(studio.settings, path))
            values = values_from(given) | view.values_for_source(studio.models.inspect(source), source)
        except StudioError as error:
            yield [*[gr.skip()] * len(keys), None, gr.skip(), error_notice(error)]
            return
        yield [*show(values), None, None, gr.skip()]

    def adopt_source(before: str, *given: Any) -> list[Any]:
        """A source typed in: its columns are guessed like a file's, unless it is what stood there before."""
        values = values_from(given)
        source = str(values["data.source"]).strip()
        if not source or source == before:
            return [gr.skip()] * (len(keys) + 1)
        try:
            if source.startswith(view.SAMPLE):
                return [*show(values | view.values_for_sample(source)), source]
            studio.permitted(readable_part(values))
            return [*show(values | view.values_for_source(studio.models.inspect(source), source)), source]
        except StudioError:
            return [*[gr.skip()] * len(keys), source]  # the preview says what is wrong

    def load_yaml(text: str) -> list[Any]:
        try:
            return [*show(values_of(studio.permitted(Recipe.from_yaml(text)))), ""]
        except StudioError as error:
            return [*[gr.skip()] * len(keys), error_notice(error)]

    def start(request: gr.Request, submission: str, *given: Any) -> list[Any]:
        try:
            run = queue_run(studio, recipe_of(values_from(given)), owner_of(request), submission)
        except StudioError as error:
            return [gr.skip(), gr.skip(), error_notice(error)]
        return [run, new_key(), ""]

    # Wiring

    quick = [parts["words"], parts["yaml"], parts["command"], *notices, *(form.fields[name] for name in SHOWN_OR_NOT)]
    answers = {**parts, "submodules": form.fields[SUBMODULES], "settled": settled}
    edits: dict[str, Any] = {"fn": edit, "inputs": fields, "outputs": quick, "queue": False, **QUIET}
    settles: dict[str, Any] = {
        "fn": settle,
        "inputs": [newest, settled, *fields],
        "outputs": [answers[name] for name in SLOW],
        **QUIET,
    }
    settles |= {"concurrency_limit": 8, "concurrency_id": "settle", "trigger_mode": "multiple"}

    typed_in = [component.input for name, component in form.fields.items() if name not in FILL_IN_OTHERS]
    gr.on(typed_in, trigger_mode="always_last", **edits)
    gr.on(settling_triggers(form), **settles)

    def and_then(event: Any) -> None:
        """After values were filled in by the page: both halves."""
        event.then(**edits)
        event.then(**settles)

    model, rate = form.fields["model.id"], form.fields[LEARNING_RATE]
    looked_at = [*fields, parts["model_card"], parts["estimate"], settled]
    and_then(model.input(choose_model, fields, looked_at, trigger_mode="always_last", queue=False, **QUIET))
    for name in STARTS:
        and_then(form.fields[name].input(choose_start(name), fields, rate, queue=False, **QUIET))
    sample, upload, source = parts["sample"], parts["upload"], form.fields["data.source"]
    and_then(sample.input(choose_sample, [sample, *fields], fields, queue=False, **QUIET))
    and_then(upload.upload(adopt_upload, [upload, *fields], [*fields, upload, sample, parts["preview"]], **QUIET))
    source.focus(lambda text: text, source, source_before, queue=False, **QUIET)
    adopted = [*fields, source_before]
    and_then(gr.on([source.submit, source.blur], adopt_source, [source_before, *fields], adopted, **QUIET))
    and_then(parts["load_yaml"].click(load_yaml, parts["yaml"], [*fields, parts["yaml_notice"]], **QUIET))
    and_then(parts["reset"].click(lambda: show(view.opening_values()), None, fields, queue=False, **QUIET))

    button = parts["start"]
    button.click(lambda: gr.update(interactive=False, value="Starting …"), None, button, queue=False, **QUIET)
    started = button.click(start, [key, *fields], [run_id, key, form.notices[0]], trigger_mode="once", **QUIET)
    started.then(lambda: gr.update(interactive=True, value="Start"), None, button, queue=False, **QUIET)

    def load(page: gr.Blocks) -> None:
        and_then(page.load(open_form, None, [*fields, sample, key], queue=False, **QUIET))

    return TuneTab(load=load, started=started, run_id=run_id)


SUBMODULES = "prefix.submodules"
SHOWN_OR_NOT = tuple(visible_fields(view.opening_values()))
# What the slow half answers with, in the order of its outputs.
SLOW = ("columns", "preview", "model_card", "submodules", "estimate", "settled")
# Fields whose change fills in others before anything is said or asked.
FILL_IN_OTHERS = ("model.id", *STARTS)


def model_of(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the form's first step."""
    return {name: value for name, value in values.items() if name.startswith("model.")}


def settling_triggers(form: Form) -> list[Any]:
    """The events after which a value is taken as settled: leaving a field, Enter, a choice, letting a slider go."""
    triggers: list[Any] = []
    for name, component in form.fields.items():
        if name in ("name", "data.source", *FILL_IN_OTHERS):
            continue
        if isinstance(component, TYPED):
            triggers += [component.blur, component.submit]
        else:
            triggers.append(component.release if name == LENGTH else component.input)
    return triggers


def new_key() -> str:
    """Names one submission, so that pressing Start twice makes one run."""
    return secrets.token_urlsafe(16)
