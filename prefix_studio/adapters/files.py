"""What an adapter folder holds, read without torch: PEFT's configuration and the shape of the prefix.

An adapter is PEFT's prefix-tuning format: `adapter_config.json` and `adapter_model.safetensors` with one tensor
`prompt_embeddings` of shape [num_virtual_tokens, layers * 2 * token_dim]. This room reads headers, not weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prefix_studio.errors import StudioError
from prefix_studio.settings import BUNDLED_MODEL

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


@dataclass(frozen=True)
class AdapterFacts:
    """What can be told of an adapter from its files.

    base_model: `bundled`, a Hub id, or a folder. size_bytes: of configuration and weights together.
    """

    base_model: str
    num_virtual_tokens: int
    num_layers: int
    size_bytes: int
    config: dict[str, Any]


def read_facts(folder: Path) -> AdapterFacts:
    """The facts of the adapter in `folder`. Raises StudioError that says which file is wrong and how."""
    config = read_config(folder / CONFIG)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = any(path.suffix in PICKLES for path in folder.iterdir())
        instead = ", only a pickle, which can run code when it is opened" if pickled else ""
        raise StudioError(
            f"The adapter has no {WEIGHTS}{instead}.",
            "Save it with PEFT's save_pretrained(safe_serialization=True).",
        )
    shape = read_shape(weights)
    tokens, layers, width = (config.get(key) for key in ("num_virtual_tokens", "num_layers", "token_dim"))
    if not all(isinstance(number, int) and number > 0 for number in (tokens, layers, width)):
        raise StudioError(f"{CONFIG} lacks num_virtual_tokens, num_layers or token_dim.", "Save the adapter again.")
    if shape != (tokens, layers * 2 * width):
        raise StudioError(
            f"{WEIGHTS} holds a prefix of shape {list(shape)}, but {CONFIG} says [{tokens}, {layers * 2 * width}].",
            "The two files belong to different adapters.",
        )
    return AdapterFacts(
        base_model=base_id(str(config.get("base_model_name_or_path") or "unknown")),
        num_virtual_tokens=tokens,
        num_layers=layers,
        size_bytes=weights.stat().st_size + (folder / CONFIG).stat().st_size,
        config=config,
    )


def base_id(name_or_path: str) -> str:
    """A base model's id: where the bundled one lies differs from machine to machine, so it goes by its name."""
    return "bundled" if name_or_path == str(BUNDLED_MODEL) else name_or_path


def read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudioError(f"There is no {CONFIG} in the adapter.", "An adapter needs it beside its weights.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StudioError(f"{CONFIG} is not JSON: {error}.", "Save the adapter again.") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PREFIX_TUNING":
        raise StudioError(
            f"The adapter's peft_type is {kind!r}, not PREFIX_TUNING.", "Prefix Studio loads prefix-tuning adapters."
        )
    return config


def read_shape(path: Path) -> tuple[int, ...]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if "prompt_embeddings" not in names:
                raise StudioError(
                    f"{WEIGHTS} has no tensor prompt_embeddings, only {', '.join(names[:5]) or 'nothing'}."
                )
            return tuple(file.get_slice("prompt_embeddings").get_shape())
    except (SafetensorError, OSError) as error:
        raise StudioError(f"{WEIGHTS} cannot be read: {error}.", "The file is damaged; copy it again.") from error
