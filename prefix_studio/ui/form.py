"""The Tune form as plain values, and their way to a recipe and back.

A value's key is its place in the recipe, `training.learning_rate`, so the form, the draft and the recipe share one set
of names. Knows recipes and nothing of Gradio: the tab holds one component a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from prefix_studio.errors import StudioError
from prefix_studio.models.catalogue import find
from prefix_studio.recipe import PrefixPart, Recipe

# Which numbered step of the page a part of the recipe stands in.
STEP_OF_PART = {"model": 1, "data": 2, "prefix": 3, "training": 4, "evaluation": 4}
STEP_OF_CATEGORY = {"model": 1, "network": 1, "data": 2, "memory": 4}

# The form's one field that no recipe has: `num_virtual_tokens: null` means as long as the text.
AS_LONG_AS_TEXT = "prefix.as_long_as_text"
FIRST_SOURCE = "sample:restaurants"

NULL_WHEN_EMPTY = ("model.revision", "data.prompt", "data.completion", "data.messages")
LENGTH, LEARNING_RATE = "prefix.num_virtual_tokens", "training.learning_rate"
# A box to tick, where the recipe has `auto` or null.
SPREAD = "model.device_map"
DEPEND_ON_MODEL = (
    LENGTH,
    "prefix.submodules",
    "training.num_train_epochs",
    "training.per_device_train_batch_size",
    LEARNING_RATE,
)
# What else the learning rate that is filled in depends on, and what may stand there.
STARTS: dict[str, tuple[Any, ...]] = {
    "prefix.init": get_args(PrefixPart.model_fields["init"].annotation),
    "prefix.prefix_projection": (False, True),
}


def first_values() -> dict[str, Any]:
    """Every field at its default, over the first sample."""
    return values_of(Recipe.from_fields({"data": {"source": FIRST_SOURCE}}))


def values_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the form's values."""
    values: dict[str, Any] = {}
    for part, content in recipe.model_dump().items():
        if isinstance(content, dict):
            values.update({f"{part}.{name}": value for name, value in content.items()})
        else:
            values[part] = content
    values[AS_LONG_AS_TEXT] = values[LENGTH] is None
    values[LENGTH] = values[LENGTH] or defaults_for(recipe.model.id)[LENGTH]
    values[SPREAD] = values[SPREAD] == "auto"
    values["data.validation"] = str(values["data.validation"])
    return {key: "" if value is None and key in NULL_WHEN_EMPTY else value for key, value in values.items()}


def restored(draft: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A draft over the values that the form opens with: keys that the form no longer has are left out."""
    return {**values, **{key: value for key, value in draft.items() if key in values}}


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values as a recipe's fields, not yet validated: `Recipe.from_fields` says what is wrong."""
    fields: dict[str, Any] = {}
    for key, value in values.items():
        part, _, name = key.partition(".")
        if not name:
            fields[part] = value or ""
        elif key != AS_LONG_AS_TEXT:
            cleared = key in NULL_WHEN_EMPTY and not str(value or "").strip()
            fields.setdefault(part, {})[name] = None if cleared else value
    prefix, data = fields["prefix"], fields["data"]
    fields["model"]["device_map"] = "auto" if values.get(SPREAD) else None
    if values.get(AS_LONG_AS_TEXT) and prefix.get("init") == "text":
        prefix["num_virtual_tokens"] = None
    if not prefix.get("prefix_projection"):
        prefix["encoder_hidden_size"] = None
    if data.get("format") != "chat":
        data["messages"] = None
    elif data.get("messages"):
        data["prompt"] = data["completion"] = None
    data["source"] = str(data.get("source") or "").strip()
    data["validation"] = number_or_text(data.get("validation"))
    return fields


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe that the form describes. Raises StudioError that names the wrong fields."""
    fields = fields_of(values)
    if not fields["data"]["source"]:
        raise StudioError("data.source: no data is chosen.", "Pick a sample, or drop in a file.")
    return Recipe.from_fields(fields)


def readable_part(values: Mapping[str, Any]) -> Recipe:
    """The recipe as far as model, data and prefix go, so that rows can be shown while a training value is wrong."""
    fields = fields_of(values)
    return Recipe.from_fields({part: fields[part] for part in ("model", "data", "prefix")})


def checkable_part(values: Mapping[str, Any]) -> Recipe:
    """The recipe as far as the model's check asks for it; parts that are wrong, which is said elsewhere, by default.

    Raises StudioError where the model itself is wrong.
    """
    fields = fields_of(values)
    fields["data"] = {"source": FIRST_SOURCE, "max_length": fields["data"]["max_length"]}
    for parts in (("data", "prefix", "training"), ("prefix",)):
        try:
            return Recipe.from_fields(
                {"data": {"source": FIRST_SOURCE}} | {part: fields[part] for part in ("model", *parts)}
            )
        except StudioError:
            continue
    return Recipe.from_fields({"model": fields["model"], "data": {"source": FIRST_SOURCE}})


def defaults_for(model_id: str, starts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What learns well depends on the model: the prefix's length and the training values to fill in for it.

    starts: how the prefix starts, by the keys of STARTS, on which the learning rate depends as well.
    """
    entry = find(model_id)
    recommended = entry.recommended if entry else {}
    prefix = {key.partition(".")[2]: value for key, value in (starts or {}).items() if key in STARTS}
    recipe = Recipe.from_fields(
        {
            "model": {"id": model_id},
            "data": {"source": FIRST_SOURCE},
            **recommended,
            "prefix": {**recommended.get("prefix", {}), **prefix},
        }
    )
    values = recipe.model_dump()
    return {key: values[key.partition(".")[0]][key.partition(".")[2]] for key in DEPEND_ON_MODEL}


def learning_rate_after(changed: str, values: Mapping[str, Any]) -> float | None:
    """The learning rate once the value of `changed`, a key of STARTS, is another one.

    Where what stands there is the default of a value that `changed` had before, the new default; else it is the
    person's own and stays.
    """
    model, now = values["model.id"] or "bundled", {key: values[key] for key in STARTS}
    before = [now | {changed: value} for value in STARTS[changed] if value != values[changed]]
    rate = values[LEARNING_RATE]
    if rate in [defaults_for(model, starts)[LEARNING_RATE] for starts in before]:
        return defaults_for(model, now)[LEARNING_RATE]
    return rate


def number_or_text(value: Any) -> Any:
    """`"0.1"` as 0.1, `"40"` as 40, a path as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def visible_fields(values: Mapping[str, Any]) -> dict[str, bool]:
    """Which of the fields that depend on other fields are shown."""
    chat = values["data.format"] == "chat"
    by_column = chat and bool(str(values["data.messages"] or "").strip())
    from_text = values["prefix.init"] == "text"
    return {
        "data.prompt": values["data.format"] != "text" and not by_column,
        "data.completion": not by_column,
        "data.messages": chat,
        "prefix.init_text": from_text,
        AS_LONG_AS_TEXT: from_text,
        "prefix.use_chat_template": from_text,
        "prefix.encoder_hidden_size": bool(values["prefix.prefix_projection"]),
    }


def step_of(error: StudioError) -> int:
    """The step of the page where an error is to be shown: by the field it names, else by its category; 0 for none."""
    named = re.search(r"\b(model|data|prefix|training|evaluation)(\.\w+|:)", error.message)
    if named:
        return STEP_OF_PART[named[1]]
    return STEP_OF_CATEGORY.get(error.category, 0)
