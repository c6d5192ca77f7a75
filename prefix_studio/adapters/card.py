"""The model card that travels with an adapter: what it is, how it was made, how good it is, how to load it.

Pure text from plain data: no torch, no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from prefix_studio.prefix.layout import NOTE, is_own
from prefix_studio.recipe import Recipe

BUNDLED_NOTE = "the small model bundled with Prefix Studio, in its folder `assets/base-model`"


def model_card(
    name: str,
    *,
    base_model: str,
    config: Mapping[str, Any],
    recipe: Recipe | None = None,
    result: Mapping[str, Any] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
) -> str:
    """README.md of an adapter, with the front-matter the Hub reads.

    config: the adapter's adapter_config.json. result: the run's result.json. samples: prompt, references, base and
    tuned texts.
    """
    bundled = base_model == "bundled"
    base = BUNDLED_NOTE if bundled else f"`{base_model}`"
    library = "prefix-studio" if is_own(config) else "peft"
    header: dict[str, Any] = {
        "library_name": library,
        "tags": list(dict.fromkeys(["prefix-tuning", library, "prefix-studio"])),
    }
    if not bundled:
        header["base_model"] = base_model
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"A prefix of {config['num_virtual_tokens']} virtual tokens for {base}, "
        "made by prefix tuning (Li and Liang 2021, arXiv 2101.00190): the base model is unchanged, "
        "and only keys and values in front of the text were learned.",
        "## Load it",
        loading_lines(base_model, config),
    ]
    if result:
        parts += ["## How good it is", result_table(result)]
    if samples:
        parts += ["## Samples", *map(sample_block, samples)]
    if recipe:
        parts += ["## How it was made", f"```yaml\n{recipe.to_yaml()}```"]
    return "\n\n".join(parts) + "\n"


def loading_lines(base_model: str, config: Mapping[str, Any]) -> str:
    """How to load it: with stock PEFT where that can, and on a plain transformers model."""
    source = "path/to/prefix-studio/assets/base-model" if base_model == "bundled" else base_model
    auto = "AutoModelForSeq2SeqLM" if config.get("task_type") == "SEQ_2_SEQ_LM" else "AutoModelForCausalLM"
    base = (
        f"from transformers import {auto}, AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained("{source}", dtype="float32")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{source}")\n'
    )
    plain = (
        f"```python\nimport prefix_studio\n{base}\n"
        'prefix = prefix_studio.load_prefix("path/to/this/folder", model)\n'
        'inputs = prefix_studio.generation_inputs(model, prefix, **tokenizer("Hello", return_tensors="pt"))\n'
        "print(tokenizer.decode(model.generate(**inputs)[0, prefix.length :]))\n```"
    )
    if is_own(config):
        return f"{NOTE}\n\n{plain}"
    stock = (
        f"```python\nfrom peft import PeftModel\n{base}\n"
        'model = PeftModel.from_pretrained(model, "path/to/this/folder")\n```'
    )
    return f"{stock}\n\nWithout PEFT, on a plain transformers model:\n\n{plain}"


def result_table(result: Mapping[str, Any]) -> str:
    """One row a figure; names are those of the run's result.json."""
    rows = [f"| {key.replace('_', ' ')} | {format_figure(value)} |" for key, value in flatten(result)]
    return "\n".join(["| figure | value |", "|---|---|", *rows])


def flatten(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in figures.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key} ")
        elif value is not None:
            rows.append((f"{prefix}{key}", value))
    return rows


def format_figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sample_block(sample: Mapping[str, Any]) -> str:
    lines = {"Prompt": sample["prompt"], "Reference": "; ".join(sample.get("references") or ())}
    lines |= {"Base": sample.get("base"), "Tuned": sample.get("tuned")}
    return fenced("\n".join(f"{label}: {text}" for label, text in lines.items() if text))


def fenced(text: str) -> str:
    """The text as a code block whose fence it cannot close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
