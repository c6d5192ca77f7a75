"""What the Tune page shows for the values it holds: the recipe in words, the model's check, the preview, the estimate.

Plain functions from a studio and values to HTML, without Gradio; the tab only wires them. Each catches the StudioErrors
of its own question and answers with one sentence, so that a wrong value never empties the rest of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefix_studio.data.samples import list_samples, sample_meta
from prefix_studio.errors import StudioError
from prefix_studio.models.catalogue import Entry, catalogue, find
from prefix_studio.recipe import Recipe
from prefix_studio.ui.form import FIRST_SOURCE, checkable_part, first_values, readable_part, recipe_of, step_of
from prefix_studio.ui.fragments import badge, busy_notice, error_notice, escape, facts, notice
from prefix_studio.ui.model_html import model_card
from prefix_studio.ui.preview_html import preview_html
from prefix_studio.ui.studio import Studio, total_memory
from prefix_studio.ui.words import say_bytes, say_command, say_count, say_duration, say_recipe, say_share, say_source

STEPS = (0, 1, 2, 3, 4)
NOT_READABLE = notice("The rows are shown here once what is marked has been put right.", "", "waiting")
STARTING = busy_notice("Starting the model process; the first time takes a few seconds …")
MEASURING = busy_notice("Measuring a few steps on this machine …")
TOO_LARGE = notice(
    "This machine has too little memory for a single row.", "Choose a smaller model, or shorter rows.", "warm"
)
SAMPLE = "sample:"
# A training run wants about the weights twice over: themselves in 32 bits, activations and what the machine needs.
ROOM = 2.0


@dataclass(frozen=True)
class Summary:
    """The quick half of the page: no model is asked. notices: HTML by step, empty where all is well."""

    words: str
    yaml: str
    command: str
    notices: dict[int, str]
    recipe: Recipe | None


def summarise(values: Mapping[str, Any]) -> Summary:
    """The recipe in words, as YAML and as a command; or the sentence that says what is wrong, beside its step."""
    notices = dict.fromkeys(STEPS, "")
    try:
        recipe = recipe_of(values)
    except StudioError as error:
        step = step_of(error)
        notices[step] = error_notice(error)
        if step:
            notices[0] = notice(f"Step {step} needs a look.", "Nothing is lost: correct it there.", "warm")
        return Summary("", "", "", notices, None)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in say_recipe(recipe, model_title(recipe.model.id)))
    return Summary(
        words=f'<ol class="ps-words">{sentences}</ol>',
        yaml=recipe.to_yaml(),
        command=say_command(recipe),
        notices=notices,
        recipe=recipe,
    )


def model_choices() -> list[tuple[str, str]]:
    """The catalogue as label and id, each with its size and whether it fits this machine's memory."""
    memory = total_memory()
    return [
        (f"{entry.title} · {say_count(entry.parameters)} · {fit(entry, memory)}", entry.id) for entry in catalogue()
    ]


def fit(entry: Entry, memory: int) -> str:
    """Whether an entry of the catalogue fits into so many bytes, in words."""
    needed = entry.size_mb * 1e6 * ROOM
    if needed > memory:
        return "too large for this machine"
    return "a tight fit" if needed > 0.6 * memory else "fits"


def model_title(model_id: str) -> str:
    entry = find(model_id)
    return entry.title if entry else model_id


def check_of(studio: Studio, values: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The model's card, and its pre-flight check: None where something stands against asking."""
    try:
        recipe = checkable_part(values)
    except StudioError:  # the quick half has said what is wrong, and where
        return "", None
    try:
        check = studio.models.check(studio.permitted(recipe))
    except StudioError as error:
        return model_card(recipe, error), None
    return model_card(recipe, check), check


def data_preview(studio: Studio, values: Mapping[str, Any]) -> tuple[str, str]:
    """The file's columns, and the first rows as the model will see them or what is wrong with them."""
    try:
        recipe = readable_part(values)
    except StudioError:  # the quick half has said what is wrong, and where
        return "", NOT_READABLE
    try:
        inspection = studio.models.inspect(studio.permitted(recipe).data.source)
    except StudioError as error:
        return "", error_notice(error)
    columns = columns_html(inspection, recipe.data.source)
    try:
        return columns, preview_html(studio.models.preview(recipe), recipe.prefix.num_virtual_tokens)
    except StudioError as error:
        return columns, error_notice(error)


def columns_html(inspection: Mapping[str, Any], source: str) -> str:
    """The file's columns, named so that they can be put between double braces."""
    names = " ".join(f"<code>{escape(name)}</code>" for name in inspection["columns"])
    rows = f"{inspection['row_count']:,} rows"
    return f'<div class="ps-columns"><b>{escape(say_source(source))}</b> {badge(rows)} Columns: {names}</div>'


def estimate_html(studio: Studio, values: Mapping[str, Any], check: Mapping[str, Any] | None) -> str:
    """Parameters trained and their share, expected time, memory against what there is.

    Empty while there is no such run: no model that takes a prefix, or a wrong value, which is said where it stands.
    """
    if check is None or not check["supported"]:
        return ""
    if check["largest_batch_size"] == 0:
        return TOO_LARGE
    try:
        recipe = studio.permitted(recipe_of(values))
    except StudioError:
        return ""
    try:
        estimate = studio.models.estimate(recipe)
    except StudioError as error:
        return error_notice(error)
    trained, everything = estimate["trainable_parameters"], estimate["all_parameters"]
    needed, there = estimate["memory_bytes"], check["memory_available_bytes"]
    fits = f"more than the {say_bytes(there)} free here" if needed > there else f"of {say_bytes(there)} free here"
    return facts(
        [
            ("Trained", say_count(trained), f"numbers, {say_share(trained, trained + everything)} of all"),
            ("Expected time", say_duration(estimate["seconds"]), f"{estimate['steps']:,} steps"),
            ("Memory", say_bytes(needed), fits),
        ]
    )


def opening_values() -> dict[str, Any]:
    """The form as a person first finds it: the bundled model and the first sample, with what that brings along."""
    return first_values() | values_for_sample(FIRST_SOURCE)


def sample_choices() -> list[tuple[str, str]]:
    """Title and source of every sample, the one the form opens with first."""
    choices = [(sample["title"], SAMPLE + sample["name"]) for sample in list_samples()]
    return sorted(choices, key=lambda choice: choice[1] != FIRST_SOURCE)


def values_for_sample(source: str) -> dict[str, Any]:
    """The form's values that a sample brings along: its templates and the starting text that suits it."""
    meta = sample_meta(source.removeprefix(SAMPLE))
    values = {
        "name": source.removeprefix(SAMPLE),
        "data.source": source,
        "data.format": meta.get("format") or "prompt-completion",
        "data.prompt": meta.get("prompt") or "",
        "data.completion": meta.get("completion") or "",
        "data.messages": meta.get("messages") or "",
    }
    if meta.get("init_text"):
        values |= {"prefix.init": "text", "prefix.init_text": meta["init_text"]}
    if meta.get("max_new_tokens"):
        values["evaluation.max_new_tokens"] = meta["max_new_tokens"]
    return values


def values_for_source(inspection: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The form's values for a file or data set: what its columns were guessed to be."""
    guess = inspection.get("mapping") or {}
    return {
        "name": say_source(source).rpartition(".")[0] or say_source(source).removeprefix("hub:"),
        "data.source": source,
        "data.format": guess.get("format") or "prompt-completion",
        "data.prompt": guess.get("prompt") or "",
        "data.completion": guess.get("completion") or "",
        "data.messages": guess.get("messages") or "",
    }
