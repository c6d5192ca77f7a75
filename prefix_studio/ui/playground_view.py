"""What the Playground offers and what it shows while models write.

Plain functions and one small class, without Gradio: which adapters there are, which prompts their held-back rows give,
and how the model process's stream of pieces becomes panes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prefix_studio.adapters.shelf import AdapterRow
from prefix_studio.errors import StudioError
from prefix_studio.recipe import EvaluationPart, ModelPart, Recipe
from prefix_studio.ui.compare_html import Pane
from prefix_studio.ui.studio import Studio

PROMPTS = 20
SHOWN_PROMPT = 90
# Panes are sent this often at most: the eye sees no more, and a browser keeps up.
SECONDS_BETWEEN_FRAMES = 0.06
BASE, INIT_TEXT = "base", "init_text"


def adapter_choices(studio: Studio, owner: str) -> list[tuple[str, str]]:
    """Label and id of every adapter of this owner, newest first."""
    return [(f"{row.name} · {row.num_virtual_tokens} virtual tokens", row.id) for row in studio.shelf.list(owner)]


def recipe_of_adapter(studio: Studio, row: AdapterRow, owner: str) -> Recipe | None:
    """The recipe an adapter was trained by, or None for an imported one."""
    return Recipe.from_yaml(studio.runs.get(row.run_id, owner).recipe_yaml) if row.run_id else None


def model_of(studio: Studio, rows: list[AdapterRow], owner: str) -> ModelPart:
    """The base model that all the adapters share. Raises StudioError when they do not share one."""
    bases = {row.base_model for row in rows}
    if len(bases) > 1:
        raise StudioError(
            f"The chosen adapters belong to different base models ({', '.join(sorted(bases))}).",
            "Choose adapters of one base model.",
            "model",
        )
    for row in rows:
        recipe = recipe_of_adapter(studio, row, owner)
        if recipe:
            return recipe.model
    return ModelPart(id=rows[0].base_model)


def held_back_prompts(studio: Studio, adapter_ids: list[str], owner: str) -> list[dict[str, Any]]:
    """Prompts with references, and the messages where they are chats, that the first adapter's training never saw.

    [] for an imported adapter, whose rows are not here.
    """
    if not adapter_ids:
        return []
    recipe = recipe_of_adapter(studio, studio.shelf.get(adapter_ids[0], owner), owner)
    return studio.models.validation_prompts(recipe, PROMPTS) if recipe else []


def longest_answer(studio: Studio, adapter_ids: list[str], owner: str) -> int:
    """How many tokens an answer may have: as many as when the first adapter was evaluated."""
    recipe = recipe_of_adapter(studio, studio.shelf.get(adapter_ids[0], owner), owner) if adapter_ids else None
    return (recipe.evaluation if recipe else EvaluationPart()).max_new_tokens


def prompt_choices(prompts: Iterable[Mapping[str, str]]) -> list[tuple[str, int]]:
    """Short labels for the prompts, by their place in the list."""
    return [(shorten(prompt["prompt"]), index) for index, prompt in enumerate(prompts)]


def shorten(text: str, length: int = SHOWN_PROMPT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def panes_for(rows: list[AdapterRow], init_text: str) -> dict[str, Pane]:
    """The empty panes, by the name of their row in the stream."""
    panes = {BASE: Pane("base", "Base model")}
    if init_text:
        panes[INIT_TEXT] = Pane("init-text", "Starting text alone")
    return panes | {str(row.folder): Pane("tuned", f"Tuned: {row.name}") for row in rows}


def start_comparison(
    studio: Studio,
    owner: str,
    adapter_ids: list[str],
    prompt: str,
    init_text: str = "",
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    messages: list[dict[str, Any]] | None = None,
) -> tuple[Iterator[dict[str, Any]], dict[str, Pane]]:
    """The model process's stream for one prompt, and the panes to write it into.

    messages: the turns that the prompt stands for, where it is a chat's. Raises StudioError.
    """
    if not adapter_ids:
        raise StudioError("No adapter is chosen.", "Choose one, or tune one first.")
    if not prompt.strip():
        raise StudioError("The prompt is empty.", "Write one, or choose a held-back row.")
    rows = [studio.shelf.get(adapter_id, owner) for adapter_id in adapter_ids]
    stream = studio.models.compare(
        model_of(studio, rows, owner),
        [row.folder for row in rows],
        **asked(studio, rows, owner, prompt, messages),
        init_text=init_text or None,
        max_new_tokens=int(max_new_tokens),
        temperature=temperature,
        top_p=top_p,
        seed=int(seed or 0),
    )
    return stream, panes_for(rows, init_text)


def asked(
    studio: Studio, rows: list[AdapterRow], owner: str, prompt: str, messages: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """The prompt as the adapters learned to read it: a text, or the turns of a chat where one was trained on chats."""
    recipes = [recipe_of_adapter(studio, row, owner) for row in rows]
    if any(recipe and recipe.data.format == "chat" for recipe in recipes):
        return {"messages": messages or [{"role": "user", "content": prompt}]}
    return {"prompt": prompt}


def starting_text(studio: Studio, owner: str, adapter_ids: list[str]) -> str:
    """The text that the first chosen adapter with one started from. Raises StudioError when none has."""
    for adapter_id in adapter_ids:
        recipe = recipe_of_adapter(studio, studio.shelf.get(adapter_id, owner), owner)
        if recipe and recipe.prefix.init == "text":
            return recipe.prefix.init_text
    raise StudioError("None of the chosen adapters started from a text.", "Switch off “the starting text alone”.")


def frames(events: Iterable[Mapping[str, Any]], panes: dict[str, Pane], clock=time.monotonic) -> Iterator[None]:
    """Writes the stream into the panes and yields when they are worth showing again."""
    shown = float("-inf")
    for event in events:
        if "done" in event:
            finish(panes, event["done"])
            yield
            return
        panes[event["row"]].text += event["text"]
        if clock() - shown >= SECONDS_BETWEEN_FRAMES:
            shown = clock()
            yield


def finish(panes: dict[str, Pane], result: Mapping[str, Any]) -> None:
    """Puts the final texts and token counts in: what is shown at the end is what the API would return."""
    final = {BASE: result["base"], INIT_TEXT: result.get("init_text")}
    final |= {answer["adapter"]: answer for answer in result["adapters"]}
    for name, pane in panes.items():
        if answer := final.get(name):
            pane.text, pane.tokens = answer["text"], answer["tokens"]
        pane.finished = True
