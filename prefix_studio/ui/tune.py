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
from prefix_studio.ui.form import LENGTH, defaults_for, readable_part, recipe_of, restored, values_of, visible_fields
from prefix_studio.ui.fragments import busy_notice, error_notice
from prefix_studio.ui.queueing import queue_run
from prefix_studio.ui.studio import Studio, owner_of
from prefix_studio.ui.tune_form import Form, build_form

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
TYPED = (gr.Textbox, gr.Number)


@dataclass
class TuneTab:
    """What the page needs of this tab. started: the event after which `run_id` holds the new run's id."""

    load: Callable[[gr.Blocks], None]
    started: Any
    run_id: gr.State


def build_tune(studio: Studio) -> TuneTab:
    form = build_form(view.model_choices(), view.sample_choices(), view.opening_values())
    keys, fields, parts = list(form.fields), list(form.fields.values()), form.parts
    notices = [form.notices[step] for step in view.STEPS]
    key = gr.State("")
    settled = gr.State("")
    source_before = gr.State("")
    run_id = gr.State("")

    def values_from(given: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(keys, given, strict=True))

    def show(values: dict[str, Any]) -> list[Any]:
        """Updates for every field: its value, and whether it is shown."""
        visible = visible_fields(values)
        return [gr.update(value=values[name], visible=visible.get(name, True)) for name in keys]

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

    def settle(last: str, *given: Any) -> Iterator[list[Any]]:
        """Asks the model process what it takes the form for; only when the recipe has changed since."""
        values = values_from(given)
        try:
            recipe = studio.permitted(readable_part(values))
        except StudioError:  # the quick half has said what is wrong, and where
            yield [gr.skip()] * 5 if last else ["", view.NOT_READABLE, "", "", gr.skip()]
            return
        text = repr({**values, "name": ""})
        if text == last:
            yield [gr.skip()] * 5
            return
        waiting = gr.skip()
        if studio.models.state() != "ready":
            waiting = busy_notice("Starting the model process; the first time takes a few seconds …")
        yield [gr.skip(), waiting, gr.skip(), gr.skip(), text]
        columns, preview = view.data_preview(studio, recipe)
        yield [columns, preview, gr.skip(), gr.skip(), gr.skip()]
        check = view.check_of(studio, recipe)
        yield [gr.skip(), gr.skip(), view.model_card(recipe, check), gr.skip(), gr.skip()]
        yield [gr.skip(), gr.skip(), gr.skip(), view.estimate_html(studio, values, check), gr.skip()]

    def choose_model(model_id: str) -> list[Any]:
        defaults = defaults_for(model_id or "bundled")
        return [defaults.get(name, gr.skip()) for name in keys]

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
    slow = [parts["columns"], parts["preview"], parts["model_card"], parts["estimate"], settled]
    edits: dict[str, Any] = {"fn": edit, "inputs": fields, "outputs": quick, "queue": False, **QUIET}
    settles: dict[str, Any] = {"fn": settle, "inputs": [settled, *fields], "outputs": slow, **QUIET}
    settles |= {"concurrency_limit": 8, "concurrency_id": "settle"}

    gr.on([component.input for component in fields], trigger_mode="always_last", **edits)
    gr.on(settling_triggers(form), trigger_mode="always_last", **settles)

    def and_then(event: Any) -> Any:
        """After values were filled in by the page: both halves."""
        event.then(**edits)
        return event.then(**settles)

    model = form.fields["model.id"]
    and_then(model.input(choose_model, model, fields, queue=False, **QUIET))
    sample, upload, source = parts["sample"], parts["upload"], form.fields["data.source"]
    and_then(sample.input(choose_sample, [sample, *fields], fields, queue=False, **QUIET))
    and_then(upload.upload(adopt_upload, [upload, *fields], [*fields, upload, sample, parts["preview"]], **QUIET))
    source.focus(lambda text: text, source, source_before, queue=False, **QUIET)
    typed = [*fields, source_before]
    and_then(gr.on([source.submit, source.blur], adopt_source, [source_before, *fields], typed, **QUIET))
    and_then(parts["load_yaml"].click(load_yaml, parts["yaml"], [*fields, parts["yaml_notice"]], **QUIET))
    and_then(parts["reset"].click(lambda: show(view.opening_values()), None, fields, queue=False, **QUIET))

    button = parts["start"]
    button.click(lambda: gr.update(interactive=False, value="Starting …"), None, button, queue=False, **QUIET)
    started = button.click(start, [key, *fields], [run_id, key, form.notices[0]], trigger_mode="once", **QUIET)
    started.then(lambda: gr.update(interactive=True, value="Start"), None, button, queue=False, **QUIET)

    def load(page: gr.Blocks) -> None:
        and_then(page.load(open_form, None, [*fields, sample, key], queue=False, **QUIET))

    return TuneTab(load=load, started=started, run_id=run_id)


SHOWN_OR_NOT = tuple(visible_fields(view.opening_values()))


def settling_triggers(form: Form) -> list[Any]:
    """The events after which a value is taken as settled: leaving a field, Enter, a choice, letting a slider go."""
    triggers: list[Any] = []
    for name, component in form.fields.items():
        if name in ("name", "data.source", "model.id"):
            continue
        if isinstance(component, TYPED):
            triggers += [component.blur, component.submit]
        else:
            triggers.append(component.release if name == LENGTH else component.input)
    return triggers


def new_key() -> str:
    """Names one submission, so that pressing Start twice makes one run."""
    return secrets.token_urlsafe(16)
