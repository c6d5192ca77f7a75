"""An adapter on disk, in PEFT's format: adapter_config.json beside adapter_model.safetensors.

The one tensor is `prompt_embeddings` [m, layers * 2 * kv_heads * head_dim]; a projection is folded into it. Stock
`PeftModel.from_pretrained` loads what is written here, and what stock PEFT writes is read here. Knows no training.
Never reads a pickle.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PrefixTuningConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
TENSOR_NAME = "prompt_embeddings"
PICKLE_NAME = "adapter_model.bin"


class AdapterFile(NamedTuple):
    """An adapter's folder: the flattened prefix, float32 [m, L * 2 * token_dim], and PEFT's configuration."""

    prompt_embeddings: Tensor
    config: dict[str, Any]


def save_adapter(folder: Path | str, prefix: Prefix, *, base_model: str, revision: str | None = None) -> None:
    """Writes a prefix as a PEFT adapter. base_model is the Hub id or path that a person would load it on.

    Each file appears whole or not at all; the configuration comes last. Raises StudioError (numbers) for a prefix
    that is not finite.
    """
    flat = prefix.flatten().detach().float().cpu().contiguous()
    if not torch.isfinite(flat).all():
        raise StudioError(
            "The prefix holds numbers that are not finite, so it was not saved.", "Lower the learning rate.", "numbers"
        )
    heads, length, width = prefix.keys[0].shape
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model,
        revision=revision,
        inference_mode=True,
        num_virtual_tokens=length,
        num_layers=prefix.num_layers,
        token_dim=heads * width,
        num_attention_heads=heads,
        num_transformer_submodules=1,
        encoder_hidden_size=heads * width,
        # The file holds what a projection gave, not the projection, so whoever loads it needs none.
        prefix_projection=False,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS_NAME, save({TENSOR_NAME: flat}, metadata={"format": "pt"}))
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    write_whole(folder / CONFIG_NAME, text.encode() + b"\n")


def load_adapter(folder: Path | str) -> AdapterFile:
    """Reads an adapter's folder. Raises StudioError that names what is missing or wrong in it."""
    folder = Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        if (folder / PICKLE_NAME).exists():
            raise StudioError(
                f"The adapter in {folder} is a pickle ({PICKLE_NAME}), which could run any code when opened.",
                "Save it again with PEFT's safe_serialization=True.",
            )
        raise StudioError(f"The adapter in {folder} has no {WEIGHTS_NAME}.", "Copy the whole folder.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StudioError(f"{path} is not a whole safetensors file: {error}.", "Copy or download it again.") from error
    if TENSOR_NAME not in tensors:
        raise StudioError(f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, and no {TENSOR_NAME}.")
    flat = tensors[TENSOR_NAME].float()
    wanted = (config["num_virtual_tokens"], config["num_layers"] * 2 * config["token_dim"])
    if tuple(flat.shape) != wanted:
        raise StudioError(
            f"{path} holds {shape_text(flat.shape)} numbers, but {CONFIG_NAME} beside it says {shape_text(wanted)}.",
            "The two files belong to different adapters: copy both from one place.",
        )
    if not torch.isfinite(flat).all():
        raise StudioError(f"{path} holds numbers that are not finite.", "Train it again.", "numbers")
    return AdapterFile(flat, config)


def load_prefix(folder: Path | str, model: PreTrainedModel) -> Prefix:
    """An adapter's prefix for this model, float32 on its device. Raises StudioError where the two do not fit."""
    flat, config = load_adapter(folder)
    layers = prefix_shape(model)
    heads, width = layers[0].key
    if (config["num_layers"], config["token_dim"]) != (len(layers), heads * width):
        raise StudioError(
            f"The adapter in {folder} has {config['num_layers']} layers of {config['token_dim']} numbers a token, "
            f"the model has {len(layers)} of {heads * width}.",
            f"It was made for {config.get('base_model_name_or_path') or 'another model'}: choose that one.",
        )
    return Prefix.unflatten(flat.to(model.device), heads, width)


def read_config(folder: Path) -> dict[str, Any]:
    """PEFT's configuration of a prefix-tuning adapter, checked."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise StudioError(f"There is no adapter in {folder}: it has no {CONFIG_NAME}.", "Give the adapter's folder.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudioError(f"{path} cannot be read as JSON: {error}.", "Copy or download it again.") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PREFIX_TUNING":
        raise StudioError(f"{path} is of PEFT type {kind}, not PREFIX_TUNING.", "Choose a prefix-tuning adapter.")
    if config.get("num_transformer_submodules") not in (None, 1):
        raise StudioError(
            f"The adapter in {folder} was made for an encoder-decoder model, which is not supported yet.", "", "model"
        )
    for name in ("num_virtual_tokens", "num_layers", "token_dim", "num_attention_heads"):
        if type(config.get(name)) is not int or config[name] < 1:
            raise StudioError(f"{path} says {name}: {config.get(name)!r}, which is not a whole number above 0.")
    return config


def shape_text(shape: tuple[int, ...] | torch.Size) -> str:
    return " x ".join(str(size) for size in shape)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole, on the disk, or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
