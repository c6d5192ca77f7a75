"""What the chosen model is, and what its check found: can a prefix be trained on it, on which layers, does it fit.

Pure: a recipe and the check's answer in, escaped HTML out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefix_studio.errors import StudioError
from prefix_studio.models.catalogue import find
from prefix_studio.recipe import Recipe
from prefix_studio.ui.fragments import badge, busy_notice, error_notice, escape, notice
from prefix_studio.ui.words import say_bytes, say_count, say_share

Check = Mapping[str, Any]

LOOKING = busy_notice("Looking at the model …")


def model_card(recipe: Recipe, check: Check | StudioError) -> str:
    """The model's licence and note, whether it is supported or why not, and what training it takes."""
    entry = find(recipe.model.id)
    about = f"<p>{escape(entry.note)}</p>" if entry and entry.note else ""
    marks = badge(f"licence: {entry.licence}") if entry and entry.licence else ""
    marks += badge("asks for access on the Hub", "warm") if entry and entry.gated else ""
    if isinstance(check, StudioError):
        return f'<div class="ps-model">{marks}{about}</div>{error_notice(check)}'
    if not check["supported"]:
        refused = badge("takes no prefix", "bad") + badge(check["family"])
        return f'<div class="ps-model">{refused}{marks}{about}</div>{notice(check["reason"])}'
    marks = badge("takes a prefix", "good") + badge(check["family"]) + marks
    found = " ".join([say_layers(check), say_trained(check), say_memory(recipe, check)])
    warnings = "".join(notice(warning, "", "warm") for warning in check["warnings"])
    return f'<div class="ps-model">{marks}{about}<p id="preflight">{escape(found.strip())}</p></div>{warnings}'


def say_layers(check: Check) -> str:
    """`2 of 8 layers take a prefix`, and what the others do instead."""
    taking, everything = len(check["layers"]), check.get("num_layers") or 0
    if taking > everything:
        return f"{taking} layers take a prefix."
    others = ": the others keep a running state, or look at another layer's keys." if taking < everything else "."
    return f"{taking} of {everything} layers take a prefix{others}"


def say_trained(check: Check) -> str:
    trained, everything = check["trainable_parameters"], check["all_parameters"]
    share = say_share(trained, everything)
    return f"{say_count(trained)} numbers are trained, {share} of the model's {say_count(everything)}."


def say_memory(recipe: Recipe, check: Check) -> str:
    """What a batch of the longest rows takes, against what there is and how many would fit."""
    there, largest = check.get("memory_available_bytes"), check.get("largest_batch_size")
    rows, tokens = recipe.training.per_device_train_batch_size, recipe.data.max_length
    needed = f"{rows} rows of {tokens:,} tokens would take about {say_bytes(check['memory_bytes'])} of memory"
    if there is None:
        return f"{needed}."
    if largest is None:
        enough = ""
    elif largest == 0:
        enough = ", too little for a single row"
    else:
        enough = f", enough for {largest:,} {'row' if largest == 1 else 'rows'}"
    return f"{needed}; {say_bytes(there)} are free{enough}."
