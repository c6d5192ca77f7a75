"""The pre-flight check: can this model be tuned, what will be trained, and does it fit this machine?

Everything is derived from the configuration on the meta device, where tensors have shapes and no storage: no weights
are downloaded and nothing is computed. The answer's keys are `check --json`'s.
"""

from __future__ import annotations

import psutil
import torch
from transformers import PretrainedConfig, PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.models import hub
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
from prefix_studio.models.weights import no_safetensors, weight_files
from prefix_studio.prefix.encoder import trainable_parameters
from prefix_studio.prefix.initialise import text_ids
from prefix_studio.prefix.shape import prefix_shape, refuse_unsupported, warnings_for
from prefix_studio.recipe import ModelPart, PrefixPart

FLOAT32_BYTES = 4
ADAM_COPIES = 4  # the parameter, its gradient, two moments, each float32
LOGIT_COPIES = 3  # logits, their float32 copy, their gradient
PROCESS_BYTES = 500_000_000  # Python with torch, transformers and peft loaded, before any model


def check_model(
    model: ModelPart, prefix: PrefixPart | None = None, *, batch_size: int = 8, max_length: int = 512
) -> dict:
    """What `check --json` shows.

    {"supported", "reason" (empty when supported), "family", "layers": [{"index", "key_shape", "value_shape"}] with
    shapes as [kv_heads, head_dim], "trainable_parameters", "all_parameters" (the base's), "memory_bytes" (of training
    with batches of `batch_size` rows of `max_length` tokens), "warnings"}

    Raises StudioError where there is no model to check: not found, gated, offline, no usable configuration.
    """
    prefix = prefix or PrefixPart()
    config = load_config(model)
    answer = {
        "supported": False,
        "reason": "",
        "family": config.model_type,
        "layers": [],
        "trainable_parameters": 0,
        "all_parameters": 0,
        "memory_bytes": 0,
        "warnings": [],
    }
    try:
        refuse_unsupported(config)
        skeleton = build_skeleton(model, config)
        layers = prefix_shape(skeleton)
        length = virtual_tokens(model, prefix)
        warnings = warnings_for(skeleton, length, max_length)
        refuse_pickle(model)
    except StudioError as refusal:
        if refusal.category == "network":
            raise
        return {**answer, "reason": str(refusal)}

    trainable = trainable_parameters({"decoder": layers}, prefix, length)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())  # tied embeddings count once
    memory = estimate_memory(model, config, parameters, trainable, tokens=batch_size * (length + max_length))
    return {
        **answer,
        "supported": True,
        "layers": [
            {"index": layer.index, "key_shape": list(layer.key), "value_shape": list(layer.value)} for layer in layers
        ],
        "trainable_parameters": trainable,
        "all_parameters": parameters,
        "memory_bytes": memory,
        "warnings": warnings + other_warnings(model, memory),
    }


def build_skeleton(model: ModelPart, config: PretrainedConfig) -> PreTrainedModel:
    """The model without storage, on the meta device."""
    auto = model_class(config, describe(model))
    try:
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False).eval()
    except Exception as error:  # a configuration may be wrong in any way its family's code can stumble over
        raise StudioError(
            f"No {config.model_type} model can be built from the configuration of {describe(model)}: {error}.",
            "Check its config.json.",
            "model",
        ) from error


def virtual_tokens(model: ModelPart, prefix: PrefixPart) -> int:
    """The prefix's length; with none given, the length of its initial text."""
    if prefix.num_virtual_tokens is not None:
        return prefix.num_virtual_tokens
    return len(text_ids(load_tokenizer(model), prefix.init_text, None))


def estimate_memory(model: ModelPart, config: PretrainedConfig, parameters: int, trainable: int, tokens: int) -> int:
    """Bytes that training takes at its peak, with `tokens` tokens in the largest batch: an upper estimate.

    The base is frozen, so its linear layers keep no inputs for the backward pass; what stays per token and layer are
    the norms' inputs (3 widths each), queries, keys, values and output of the attention, and the MLP's three products.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    number = choose_dtype(model, device, parameters).itemsize
    text = config.get_text_config(decoder=True)
    width = text.hidden_size
    heads = text.num_attention_heads
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * width
    attention = heads * (getattr(text, "head_dim", None) or width // heads)
    kept = (6 * width + 4 * attention + 3 * inner) * text.num_hidden_layers * tokens * number
    logits = text.vocab_size * tokens * FLOAT32_BYTES * LOGIT_COPIES
    learned = trainable * FLOAT32_BYTES * ADAM_COPIES
    return parameters * number + kept + logits + learned + PROCESS_BYTES


def available_memory() -> int:
    """Bytes free for a new process: the GPU's where there is one, otherwise the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def refuse_pickle(model: ModelPart) -> None:
    """Raises StudioError when it is certain that the model has no safetensors weights."""
    name = resolve(model)
    folder = locate(model)
    if all((folder / file).is_file() for file in weight_files(folder)):
        return
    if str(folder) == name or hub.has_safetensors(name, model.revision) is False:
        raise no_safetensors(describe(model))


def other_warnings(model: ModelPart, memory: int) -> list[str]:
    warnings = []
    entry = find(model.id)
    if entry and entry.gated:
        warnings.append(f"{model.id} is gated: accept its licence on the Hub, and log in, before the download.")
    free = available_memory()
    if memory > free:
        warnings.append(
            f"Training may need up to {memory / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: choose a "
            "smaller batch, shorter rows or a smaller model."
        )
    return warnings
