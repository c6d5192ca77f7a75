"""What an adapter's folder holds: the names of its files and tensors, and a configuration that is checked.

Two formats, both of `adapter_config.json` beside `adapter_model.safetensors`. PEFT's has one tensor
`prompt_embeddings` [m, num_layers * 2 * token_dim], all layers alike. Our own (`format: prefix-studio-1`) is for what
that cannot hold: keys and values of different widths, layers between that take no prefix, the three parts of an
encoder-decoder model. It has two tensors a layer, `decoder.3.key` and `decoder.3.value`, [heads, m, width], and says
that stock PEFT cannot load it. Page-safe: knows no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefix_studio.errors import StudioError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
TENSOR_NAME = "prompt_embeddings"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}

PEFT_TYPE = "PREFIX_TUNING"
OWN_TYPE = "PREFIX_STUDIO"
FORMAT = "prefix-studio-1"
NOTE = "Stock PEFT cannot load this prefix: use prefix_studio.load_prefix(folder, model)."
PARTS = ("decoder", "encoder", "cross")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the adapter in `folder`, checked. Raises StudioError that says what is wrong with it."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise StudioError(
            f"There is no adapter in {folder.name}: it has no {CONFIG_NAME}.", "Give the adapter's own folder."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudioError(
            f"{CONFIG_NAME} of {folder.name} cannot be read as JSON: {error}.", "Copy or download it again."
        ) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in (PEFT_TYPE, OWN_TYPE):
        raise StudioError(f"{folder.name} is of PEFT type {kind}, not {PEFT_TYPE}.", "Choose a prefix-tuning adapter.")
    for name in ("num_virtual_tokens", "num_layers", *(["token_dim"] if kind == PEFT_TYPE else [])):
        if not is_count(config.get(name)):
            raise StudioError(f"{CONFIG_NAME} says {name}: {config.get(name)!r}, which is not a whole number above 0.")
    if kind == OWN_TYPE:
        check_own(config)
    return config


def check_own(config: dict[str, Any]) -> None:
    if config.get("format") != FORMAT:
        raise StudioError(
            f"{CONFIG_NAME} is of format {config.get('format')}, not {FORMAT}.", "A newer Prefix Studio may read it."
        )
    layers = config.get("layers")
    whole = isinstance(layers, dict) and "decoder" in layers and set(layers) <= set(PARTS)
    if not (whole and all(isinstance(some, list) and some and all(map(is_layer, some)) for some in layers.values())):
        raise StudioError(f"{CONFIG_NAME} does not say which layers the prefix has.", "Copy or download it again.")


def is_layer(layer: Any) -> bool:
    """Whether this is [index, [heads, width] of the keys, [heads, width] of the values]."""
    if not (isinstance(layer, list) and len(layer) == 3 and type(layer[0]) is int and layer[0] >= 0):
        return False
    return all(isinstance(size, list) and len(size) == 2 and all(map(is_count, size)) for size in layer[1:])


def is_count(number: Any) -> bool:
    return type(number) is int and 0 < number < 2**31


def is_own(config: dict[str, Any]) -> bool:
    """Whether this is our own format, which stock PEFT cannot load."""
    return config["peft_type"] == OWN_TYPE


def expected_tensors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that a configuration promises, by name, with their shapes."""
    length = config["num_virtual_tokens"]
    if not is_own(config):
        return {TENSOR_NAME: (length, config["num_layers"] * 2 * config["token_dim"])}
    return {
        f"{part}.{index}.{name}": (heads, length, width)
        for part, layers in config["layers"].items()
        for index, *sizes in layers
        for name, (heads, width) in zip(("key", "value"), sizes, strict=True)
    }


def check_tensors(found: dict[str, tuple[int, ...]], config: dict[str, Any]) -> None:
    """Raises StudioError where a weights file holds something else than its configuration promises."""
    for name, wanted in expected_tensors(config).items():
        if name not in found:
            raise StudioError(f"{WEIGHTS_NAME} holds {', '.join(sorted(found)[:5]) or 'nothing'}, and no {name}.")
        if found[name] != wanted:
            raise StudioError(
                f"{WEIGHTS_NAME} holds {shape_text(found[name])} numbers, but {CONFIG_NAME} beside it says "
                f"{shape_text(wanted)}.",
                "The two files belong to different adapters: copy both from one place.",
            )


def check_weights(folder: Path) -> Path:
    """The path of the adapter's weights. Raises StudioError where there are none, or only a pickle."""
    path = folder / WEIGHTS_NAME
    if path.is_file():
        return path
    pickles = sorted(some.name for some in folder.iterdir() if some.suffix in PICKLES)
    if pickles:
        raise StudioError(
            f"The adapter in {folder.name} is a pickle ({pickles[0]}), which could run any code when opened.",
            "Save it again with PEFT's safe_serialization=True.",
        )
    raise StudioError(f"The adapter in {folder.name} has no {WEIGHTS_NAME}.", "Copy the whole folder.")


def shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
