"""Numbers and recipes in words a person reads: durations, sizes, shares, what a recipe is going to do.

Pure text, not yet HTML. Knows recipes.
"""

from __future__ import annotations

import shlex
import time
from pathlib import PurePath

from prefix_studio.recipe import DataPart, ModelPart, PrefixPart, Recipe, TrainingPart

INITIALISATIONS = {"random": "random numbers", "zero": "zeros"}
QUANTIZATIONS = {"8bit": "8 bits", "4bit": "4 bits"}


def say_duration(seconds: float | None) -> str:
    """`95.2` as `1 min 35 s`; a dash for None."""
    if seconds is None or seconds < 0 or seconds != seconds:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds < 1 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def say_bytes(count: float | None) -> str:
    """`1536` as `1.5 kB`, in powers of 1000; a dash for None."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if count >= 99.5 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def say_count(count: float | None) -> str:
    """`65536` as `65,536`, `4300000` as `4.3 million`; a dash for None."""
    if count is None:
        return "–"
    if count < 100_000:
        return f"{count:,.0f}"
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if count >= size:
            return f"{count / size:.2f} {word}" if count < 10 * size else f"{count / size:.0f} {word}"
    return f"{count / 1e3:.0f} thousand"


def say_share(part: float | None, whole: float | None) -> str:
    """`0.0153` as `1.5%`; shares below a thousandth keep two digits."""
    if not whole or part is None:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.1f}%" if percent >= 0.1 else f"{percent:.2g}%"


def say_ago(moment: float | None, now: float | None = None) -> str:
    """How long ago a Unix time was."""
    if not moment:
        return "–"
    seconds = (time.time() if now is None else now) - moment
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h ago"
    return time.strftime("%d %b %Y", time.localtime(moment))


def say_source(source: str) -> str:
    """Where the rows come from, without the folders in front: `sample:restaurants`, `rows.csv`."""
    return source if source.startswith(("sample:", "hub:")) else PurePath(source).name


def say_recipe(recipe: Recipe, model_title: str) -> list[str]:
    """What the recipe is going to do: a sentence a step of the page, and one for what few people choose."""
    training, data = recipe.training, recipe.data
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    if training.max_steps:
        span = f"{training.max_steps:,} steps"
    else:
        passes = f"{training.num_train_epochs:g}"
        span = f"{passes} {'pass' if passes == '1' else 'passes'} over the rows"
    return [
        f"{model_title} stays as it is{say_loading(recipe.model)}; not one of its weights changes.",
        f"It sees the rows of {say_source(data.source)}, {say_validation(data)}.",
        say_prefix(recipe.prefix),
        f"They are trained for {span}, {rows} rows at a time, at a learning rate of {training.learning_rate:g}.",
        *say_choices(training),
    ]


def say_loading(model: ModelPart) -> str:
    """How the model is held in memory, where that is not as usual."""
    squeezed = f", squeezed to {QUANTIZATIONS[model.quantization]}" if model.quantization != "none" else ""
    return squeezed + (", spread over all GPUs" if model.device_map else "")


def say_prefix(prefix: PrefixPart) -> str:
    """What stands where, how it starts, and how it is learned."""
    length = f"{prefix.num_virtual_tokens} virtual tokens" if prefix.num_virtual_tokens else "virtual tokens"
    if prefix.init == "text":
        text = prefix.init_text if len(prefix.init_text) <= 60 else prefix.init_text[:59] + "…"
        start = f"that start from the text “{text.strip()}”"
        start += ", written as a system message," if prefix.use_chat_template else ""
        start += "" if prefix.num_virtual_tokens else " and are as many as its tokens"
    else:
        start = f"that start from {INITIALISATIONS[prefix.init]}"
    start = start.removesuffix(",")
    through = ", learned through a small network (projection)" if prefix.prefix_projection else ""
    frozen = prefix.num_frozen_tokens
    kept = "; the first stays as it starts" if frozen == 1 else f"; the first {frozen} stay as they start"
    where = "In front of every prompt" if prefix.submodules == "decoder" else "In encoder, decoder and between the two"
    return f"{where} stand {length} {start}{through}{kept if frozen else ''}."


def say_choices(training: TrainingPart) -> list[str]:
    """What few people choose, as one line of sentences; none where all is as usual."""
    chosen = []
    if training.loss_average == "example":
        chosen.append("Every example counts alike, however long.")
    if training.label_smoothing_factor:
        chosen.append(f"Labels are smoothed by {training.label_smoothing_factor:g}.")
    if training.gradient_checkpointing:
        chosen.append("Memory is saved at the price of time.")
    if not training.auto_find_batch_size:
        chosen.append("The run stops should memory run out.")
    return [" ".join(chosen)] if chosen else []


def say_validation(data: DataPart) -> str:
    """What the run is checked on while it learns."""
    validation = data.validation
    if isinstance(validation, str):
        return f"checked against {say_source(validation)}"
    if not validation:
        return "with none held back"
    if data.source.startswith("sample:") and validation == DataPart.model_fields["validation"].default:
        return "and is checked on rows that the sample holds back"
    share = f"{validation:.0%}" if validation < 1 else str(validation)
    return f"with {share} held back to check what was learned"


def say_command(recipe: Recipe) -> str:
    """The same run on the command line, with the recipe saved as `recipe.yaml`."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in recipe.name).strip("-")
    return f"python -m prefix_studio tune recipe.yaml --out {shlex.quote(name or 'my-run')}"
