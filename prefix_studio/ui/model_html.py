"""What the chosen model is, and what its check found: can a prefix be trained on it, on which layers, does it fit.

Pure: a recipe and the check's answer in, escaped HTML out.
"""

from __future__ import annotations

from collections import Counter
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
    found = " ".join(filter(None, (say_layers(check), say_trained(check), say_memory(recipe, check))))
    warnings = "".join(notice(warning, "", "warm") for warning in check["warnings"])
    return f'<div class="ps-model">{marks}{about}<p id="preflight">{escape(found)}</p></div>{warnings}'


def say_layers(check: Check) -> str:
    """`12 of 12 layers take a prefix`; nothing where some take none, of which the check warns."""
    taking = Counter(layer.get("submodule", "decoder") for layer in check["layers"])
    if len(taking) > 1:
        return (
            f"A prefix goes into the encoder's {taking['encoder']} layers, the decoder's {taking['decoder']} and the "
            f"{taking['cross']} that join them."
        )
    everything = check.get("num_layers") or taking["decoder"]
    if taking["decoder"] < everything:
        return ""
    where = " of the decoder" if check.get("encoder_decoder") else ""
    return f"{taking['decoder']} of {everything} layers{where} take a prefix."


def say_trained(check: Check) -> str:
    trained, everything = check["trainable_parameters"], check["all_parameters"]
    share = say_share(trained, trained + everything)
    return f"{say_count(trained)} numbers are trained beside the model's {say_count(everything)}: {share} of all."


def say_memory(recipe: Recipe, check: Check) -> str:
    """What a batch of the longest rows takes and how many would fit; nothing where it does not, of which it warns."""
    needed, there = check["memory_bytes"], check["memory_available_bytes"]
    if needed > there:
        return ""
    rows, tokens = recipe.training.per_device_train_batch_size, recipe.data.max_length
    return (
        f"{rows} rows of {tokens:,} tokens would take about {say_bytes(needed)} of memory; {say_bytes(there)} are "
        f"free, enough for {check['largest_batch_size']:,}."
    )
