"""An adapter on disk: written in PEFT's format where that can hold the prefix, in our own (`layout`) where it cannot.

Stock `PeftModel.from_pretrained` loads what is written in PEFT's format, and what stock PEFT writes is read here; a
projection is folded into the prefix. Knows no training. Never reads a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PrefixTuningConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel

from prefix_studio.disk import write_whole
from prefix_studio.errors import StudioError
from prefix_studio.prefix.layout import (
    CONFIG_NAME,
    FORMAT,
    NOTE,
    OWN_TYPE,
    PARTS,
    TENSOR_NAME,
    WEIGHTS_NAME,
    check_tensors,
    check_weights,
    is_own,
    read_config,
)
from prefix_studio.prefix.prefix import LayerShape, Prefix
from prefix_studio.prefix.shape import has_recurrent_layers, submodule_shapes


def save_adapter(
    folder: Path | str, prefix: Prefix, model: PreTrainedModel, *, base_model: str, revision: str | None = None
) -> None:
    """Writes a prefix of `model` as an adapter. base_model is the Hub id or path that a person would load it on.

    Each file appears whole or not at all; the configuration comes last. Raises StudioError (numbers) for a prefix
    that is not finite.
    """
    prefix = prefix.detach().to("cpu", torch.float32)
    common = {
        "task_type": "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "num_virtual_tokens": prefix.length,
    }
    config, tensors = peft_file(prefix, common) if peft_can_load(prefix, model) else own_file(prefix, common)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise StudioError(
            "The prefix holds numbers that are not finite, so it was not saved.", "Lower the learning rate.", "numbers"
        )
    folder = Path(folder)
    form = FORMAT if is_own(config) else "pt"
    write_whole(
        folder / WEIGHTS_NAME, save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": form})
    )
    write_whole(folder / CONFIG_NAME, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")


def peft_can_load(prefix: Prefix, model: PreTrainedModel) -> bool:
    """Whether stock PEFT puts this prefix where it belongs: one shape in all layers, from the first, and no more."""
    if prefix.encoder is not None or prefix.cross is not None or has_recurrent_layers(model):
        return False
    sizes = {size for shape in prefix.shapes for size in (shape.key, shape.value)}
    return len(sizes) == 1 and prefix.layers == tuple(range(prefix.num_layers))


def peft_file(prefix: Prefix, common: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's configuration, every field resolved, and its tensor."""
    heads, _, width = prefix.keys[0].shape
    table = prefix.flatten().unflatten(1, (prefix.num_layers, -1))  # [m, L, 2 * token_dim]
    submodules = 1
    if common["task_type"] == "SEQ_2_SEQ_LM":
        # Of two submodules' table, stock PEFT reads every other layer (its entry 2i for layer i): the rest stays zero.
        submodules = 2
        table = torch.stack([table, torch.zeros_like(table)], dim=2).flatten(1, 2)  # [m, 2L, 2 * token_dim]
    config = PrefixTuningConfig(
        **common,
        num_layers=table.shape[1],
        token_dim=heads * width,
        num_attention_heads=heads,
        num_transformer_submodules=submodules,
        encoder_hidden_size=heads * width,
        # The file holds what a projection gave, not the projection, so whoever loads it needs none.
        prefix_projection=False,
    )
    return config.to_dict(), {TENSOR_NAME: table.flatten(1)}


def own_file(prefix: Prefix, common: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and tensors of our own format."""
    parts = {name: prefix if name == "decoder" else getattr(prefix, name) for name in PARTS}
    parts = {name: part for name, part in parts.items() if part is not None}
    layers = {
        name: [[shape.index, list(shape.key), list(shape.value)] for shape in part.shapes]
        for name, part in parts.items()
    }
    config = {
        **common,
        "format": FORMAT,
        "peft_type": OWN_TYPE,
        "note": NOTE,
        "num_layers": prefix.num_layers,
        "layers": layers,
    }
    tensors = {}
    for name, part in parts.items():
        for index, key, value in part:
            tensors |= {f"{name}.{index}.key": key, f"{name}.{index}.value": value}
    return config, tensors


def load_prefix(folder: Path | str, model: PreTrainedModel) -> Prefix:
    """An adapter's prefix for this model, float32 on its device.

    Reads both formats, and what stock PEFT wrote. Raises StudioError that names what is missing or wrong in the
    folder, or where the two do not fit.
    """
    folder = Path(folder)
    config, tensors = load_adapter(folder)
    whole = is_own(config) and len(config["layers"]) > 1
    shapes = submodule_shapes(model, "all" if whole else "decoder")
    layers = shapes["decoder"]
    prefix = from_own_file(config, tensors) if is_own(config) else from_peft_file(config, tensors, layers)
    made_for = config.get("base_model_name_or_path") or "another model"
    if prefix is None or not fits(prefix, shapes):
        heads, width = layers[0].key
        of = f" of {config['token_dim']} numbers a token" if "token_dim" in config else ""
        raise StudioError(
            f"The adapter in {folder.name} has {config['num_layers']} layers{of}, the model has {len(layers)} of "
            f"{heads * width}.",
            f"It was made for {made_for}: choose that one.",
        )
    return prefix.to(model.device)


def load_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of an adapter's folder, the tensors float32, as promised, and finite."""
    config = read_config(folder)
    path = check_weights(folder)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StudioError(
            f"{WEIGHTS_NAME} of {folder.name} is not a whole safetensors file: {error}.", "Copy or download it again."
        ) from error
    check_tensors({name: tuple(tensor.shape) for name, tensor in tensors.items()}, config)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise StudioError(
            f"{WEIGHTS_NAME} of {folder.name} holds numbers that are not finite.", "Train it again.", "numbers"
        )
    return config, {name: tensor.float() for name, tensor in tensors.items()}


def from_peft_file(config: dict[str, Any], tensors: dict[str, Tensor], layers: Sequence[LayerShape]) -> Prefix | None:
    """The prefix in PEFT's table, as stock PEFT would put it into these layers; None where it would not fit."""
    table = tensors[TENSOR_NAME].unflatten(1, (config["num_layers"], -1))  # [m, L, 2 * token_dim]
    if config.get("num_transformer_submodules") == 2:
        # Stock PEFT gives layer i the entry 2i, counted round and round, whatever the table's length.
        table = table[:, [2 * number % config["num_layers"] for number in range(len(layers))]]
    if table.shape[1:] != (len(layers), layers[0].size) or len({shape.size for shape in layers}) != 1:
        return None
    return Prefix.unflatten(table.flatten(1), layers)


def from_own_file(config: dict[str, Any], tensors: dict[str, Tensor]) -> Prefix:
    def part(name: str) -> Prefix:
        indexes = [index for index, *_ in config["layers"][name]]
        keys, values = ([tensors[f"{name}.{index}.{kind}"] for index in indexes] for kind in ("key", "value"))
        return Prefix(keys, values, indexes)

    return replace(part("decoder"), **{name: part(name) for name in config["layers"] if name != "decoder"})


def fits(prefix: Prefix, shapes: dict[str, tuple[LayerShape, ...]]) -> bool:
    """Whether a model of these shapes has just the layers that the prefix is for."""
    return all(
        sizes(part.shapes) == sizes(shapes.get(name, ()))
        for name, part in (("decoder", prefix), ("encoder", prefix.encoder), ("cross", prefix.cross))
        if part is not None
    )


def sizes(shapes: Sequence[LayerShape]) -> list[tuple]:
    """What must be equal: windows change nothing about the numbers."""
    return [(shape.index, shape.key, shape.value) for shape in shapes]
