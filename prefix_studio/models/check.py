"""The pre-flight check: can this model be tuned, what will be trained, and does it fit this machine?

Everything is derived from the configuration, on a model without storage: no weights are downloaded and nothing is
computed. The answer's keys are `check --json`'s.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from prefix_studio.errors import StudioError
from prefix_studio.models import hub, quantize
from prefix_studio.models.catalogue import find
from prefix_studio.models.load import (
    choose_dtype,
    describe,
    load_config,
    load_tokenizer,
    locate,
    model_class,
    resolve,
)
from prefix_studio.models.memory import TrainingMemory, available_memory, device_type
from prefix_studio.models.rehearsal import META, rehearsal
from prefix_studio.models.weights import no_safetensors, weight_files
from prefix_studio.prefix.encoder import refuse_part, trainable_parameters
from prefix_studio.prefix.files import peft_can_load
from prefix_studio.prefix.initialise import text_ids
from prefix_studio.prefix.prefix import LayerShape, Prefix
from prefix_studio.prefix.shape import (
    empty_cache,
    has_recurrent_layers,
    max_positions,
    own_cache,
    refuse_unsupported,
    submodule_shapes,
    warnings_for,
)
from prefix_studio.recipe import BUNDLED_DEFAULTS, DataPart, ModelPart, PrefixPart, TrainingPart

Shapes = dict[str, tuple[LayerShape, ...]]


def check_model(
    model: ModelPart,
    prefix: PrefixPart | None = None,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    gradient_checkpointing: bool = False,
) -> dict[str, Any]:
    """What `check --json` shows. None means what a recipe for this model has by default.

    {"supported", "reason" (empty when supported), "family",
    "layers": [{"index", "key_shape", "value_shape"}] with shapes as [kv_heads, head_dim]; those of an encoder-decoder
        model's other attentions have a "submodule" too,
    "trainable_parameters", "all_parameters" (the base model's own, tied embeddings once),
    "trainable_share" (of the base and what is trained together, as PEFT counts),
    "memory_bytes" (of training with batches of `batch_size` rows of `max_length` tokens), "memory_available_bytes",
    "largest_batch_size" (that this memory allows for such rows; 0: not even one row),
    "warnings"}

    Raises StudioError where there is no model to check: not found, gated, offline, no usable configuration.
    """
    defaults = BUNDLED_DEFAULTS if model.id == "bundled" else {}
    prefix = prefix or PrefixPart(**defaults.get("prefix", {}))
    batch_size = batch_size or TrainingPart(**defaults.get("training", {})).per_device_train_batch_size
    max_length = max_length or DataPart(source="any").max_length
    training = TrainingPart(per_device_train_batch_size=batch_size, gradient_checkpointing=gradient_checkpointing)
    config = load_config(model)
    answer = {
        "supported": False,
        "reason": "",
        "family": config.model_type,
        "layers": [],
        "trainable_parameters": 0,
        "all_parameters": 0,
        "trainable_share": 0.0,
        "memory_bytes": 0,
        "memory_available_bytes": available_memory(),
        "largest_batch_size": 0,
        "warnings": [],
    }
    try:
        refuse_unsupported(config)
        skeleton = build_skeleton(model, config)
        length = virtual_tokens(model, prefix)
        with rehearsal(skeleton):
            shapes = submodule_shapes(skeleton, prefix.submodules)
            warnings = warnings_for(skeleton, length, max_length)
        refuse_part(prefix, length)
        refuse_pickle(model)
        # Longer rows than the model has positions for are warned of, and never trained on.
        longest = min(max_length, (max_positions(config) or sys.maxsize) - length)
        needed = TrainingMemory(skeleton, shapes, prefix, length, training, weight_bytes(model, skeleton))
        memory = needed.bytes(batch_size, longest)
    except StudioError as refusal:
        if refusal.category == "network":
            raise
        return {**answer, "reason": str(refusal)}

    trainable = trainable_parameters(shapes, prefix, length)
    parameters = count(skeleton)
    available = answer["memory_available_bytes"]
    largest = needed.largest_batch(longest, available)
    # Reckoned between other sizes, it may be a row or two off: this one is known.
    largest = max(largest, batch_size) if memory <= available else min(largest, batch_size - 1)
    return {
        **answer,
        "supported": True,
        "layers": describe_layers(shapes),
        "trainable_parameters": trainable,
        "all_parameters": parameters,
        "trainable_share": trainable / (parameters + trainable),
        "memory_bytes": memory,
        "largest_batch_size": largest,
        "warnings": [
            *warnings,
            *layer_warnings(skeleton, shapes["decoder"]),
            *start_warnings(skeleton, prefix),
            *format_warnings(skeleton, shapes),
            *gate_warnings(model),
            *memory_warnings(memory, available, batch_size, largest),
        ],
    }


def build_skeleton(model: ModelPart, config: PretrainedConfig) -> PreTrainedModel:
    """The model without storage, on the meta device, in the precision it would be loaded in."""
    auto = model_class(config, describe(model))
    try:
        with META:
            skeleton = auto.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception as error:  # a configuration may be wrong in any way its family's code can stumble over
        raise StudioError(
            f"No {config.model_type} model can be built from the configuration of {describe(model)}: {error}.",
            "Check its config.json.",
            "model",
        ) from error
    dtype = choose_dtype(model, device_type(), count(skeleton))
    return skeleton.to(dtype).eval().requires_grad_(False)


def count(skeleton: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in skeleton.parameters())  # tied embeddings count once


def weight_bytes(model: ModelPart, skeleton: PreTrainedModel) -> int:
    """Bytes that the base model's weights take, quantised as the recipe says or as they are stored."""
    stored = quantize.own_quantization(skeleton.config)
    return quantize.weight_bytes(
        skeleton, stored if model.quantization == "none" else model.quantization, skeleton.dtype
    )


def virtual_tokens(model: ModelPart, prefix: PrefixPart) -> int:
    """The prefix's length; with none given, the length of its initial text."""
    if prefix.num_virtual_tokens is not None:
        return prefix.num_virtual_tokens
    tokenizer = load_tokenizer(model)
    return len(text_ids(tokenizer, prefix.init_text, None, use_chat_template=prefix.use_chat_template))


def describe_layers(shapes: Shapes) -> list[dict[str, Any]]:
    return [
        {
            "index": layer.index,
            "key_shape": list(layer.key),
            "value_shape": list(layer.value),
            **({} if name == "decoder" else {"submodule": name}),
        }
        for name, layers in shapes.items()
        for layer in layers
    ]


def refuse_pickle(model: ModelPart) -> None:
    """Raises StudioError when it is certain that the model has no safetensors weights."""
    name = resolve(model)
    folder = locate(model)
    if all((folder / file).is_file() for file in weight_files(folder)):
        return
    if str(folder) == name or hub.has_safetensors(name, model.revision) is False:
        raise no_safetensors(describe(model))


def layer_warnings(skeleton: PreTrainedModel, layers: tuple[LayerShape, ...]) -> list[str]:
    """Which layers take no prefix, and why."""
    if skeleton.config.is_encoder_decoder:
        return []
    taking = {layer.index for layer in layers}
    states = own_cache(empty_cache(skeleton)).layers
    kinds = getattr(skeleton.config.get_text_config(decoder=True), "layer_types", None) or []
    reasons: dict[str, int] = {}
    for index, state in enumerate(states):
        if index in taking:
            continue
        if isinstance(state, LinearAttentionCacheLayerMixin):
            why = "a running state instead of keys and values"
        elif index < len(kinds) and "attention" not in kinds[index]:
            why = "no attention"
        else:
            why = "another layer's keys and values, and see the prefix there"
        reasons[why] = reasons.get(why, 0) + 1
    if not reasons:
        return []
    told = "; ".join(f"{number} {'has' if number == 1 else 'have'} {why}" for why, number in reasons.items())
    return [f"The prefix goes into {len(taking)} of {len(states)} layers. Of the others, {told}."]


def start_warnings(skeleton: PreTrainedModel, prefix: PrefixPart) -> list[str]:
    if prefix.init != "text" or not has_recurrent_layers(skeleton):
        return []
    return ["What a text leaves in running states is not in the prefix, so it starts only near to the text itself."]


def format_warnings(skeleton: PreTrainedModel, shapes: Shapes) -> list[str]:
    """Whether PEFT's format can hold the prefix."""
    parts = {
        name: Prefix.unflatten(torch.empty(1, sum(layer.size for layer in layers), device=META), layers)
        for name, layers in shapes.items()
    }
    if peft_can_load(replace(parts.pop("decoder"), **parts), skeleton):
        return []
    return ["The adapter will be in Prefix Studio's own format, because stock PEFT cannot load such a prefix."]


def gate_warnings(model: ModelPart) -> list[str]:
    entry = find(model.id)
    if not (entry and entry.gated):
        return []
    return [f"{model.id} is gated: accept its licence on the Hub, and log in, before the download."]


def memory_warnings(memory: int, available: int, batch_size: int, largest: int) -> list[str]:
    if memory <= available:
        return []
    way_out = (
        f"lower the batch size from {batch_size} to {largest}, shorten the rows or turn on gradient checkpointing"
        if largest
        else "choose shorter rows, gradient checkpointing, a quantised model or a smaller one"
    )
    return [f"Training takes about {memory / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free: {way_out}."]
