"""What can be told of an adapter from its folder without torch: configuration and shapes, by the files' headers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from prefix_studio.errors import StudioError
from prefix_studio.prefix.layout import CONFIG_NAME, check_tensors, check_weights, is_own, read_config
from prefix_studio.settings import BUNDLED_MODEL


@dataclass(frozen=True)
class AdapterFacts:
    """What can be told of an adapter from its files.

    base_model: `bundled`, a Hub id, or a folder. size_bytes: of configuration and weights together.
    peft_loads: whether stock PEFT can load it; our own format needs `prefix_studio.load_prefix`.
    """

    base_model: str
    num_virtual_tokens: int
    num_layers: int
    size_bytes: int
    peft_loads: bool
    config: dict[str, Any]


def read_facts(folder: Path) -> AdapterFacts:
    """The facts of the adapter in `folder`. Raises StudioError that says which file is wrong and how."""
    config = read_config(folder)
    weights = check_weights(folder)
    check_tensors(read_shapes(weights), config)
    return AdapterFacts(
        base_model=base_id(str(config.get("base_model_name_or_path") or "unknown")),
        num_virtual_tokens=config["num_virtual_tokens"],
        num_layers=config["num_layers"],
        size_bytes=weights.stat().st_size + (folder / CONFIG_NAME).stat().st_size,
        peft_loads=not is_own(config),
        config=config,
    )


def base_id(name_or_path: str) -> str:
    """A base model's id: where the bundled one lies differs from machine to machine, so it goes by its name."""
    return "bundled" if name_or_path == str(BUNDLED_MODEL) else name_or_path


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StudioError(f"{path} cannot be read: {error}.", "The file is damaged: copy it again.") from error
