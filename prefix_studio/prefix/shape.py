"""What a model's cache looks like, and which models a prefix cannot be put in front of.

The shapes are read off a real cache, filled by running one token through the model, so that a new decoder family
works by itself and grouped or multi-query attention needs no table. Works on the meta device too, where nothing is
computed. Knows models and their configurations; knows no weights and no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prefix_studio.errors import StudioError

WAY_OUT = "Choose a decoder-only model with ordinary attention, for example one of the catalogue's."

# Families whose layers keep something else than keys and values of the past, so that a prefix has nowhere to go.
IMPOSSIBLE = {
    "recurrent_gemma": "its recurrent layers keep a running state instead of keys and values",
    "mamba": "it has no attention, so there are no keys and values to put in front",
    "mamba2": "it has no attention, so there are no keys and values to put in front",
    "falcon_mamba": "it has no attention, so there are no keys and values to put in front",
    "rwkv": "it has no attention, so there are no keys and values to put in front",
    "xlstm": "it has no attention, so there are no keys and values to put in front",
    "minimax": "its linear-attention layers cannot start from a cache that was filled by hand",
    "qwen4_exp": "its layers cannot start from a cache that was filled by hand",
}


class LayerShape(NamedTuple):
    """One layer's cache: (kv_heads, head_dim) of its keys and of its values, and its window in tokens, if it slides."""

    index: int
    key: tuple[int, int]
    value: tuple[int, int]
    window: int | None = None


def refuse_unsupported(config: PreTrainedConfig) -> None:
    """Raises StudioError (category model) where the configuration alone tells that no prefix fits."""
    family = config.model_type
    if family in IMPOSSIBLE:
        raise StudioError(f"{family} models cannot take a prefix: {IMPOSSIBLE[family]}.", WAY_OUT, "model")
    if config.is_encoder_decoder:
        raise StudioError(f"{family} is an encoder-decoder model, which is not supported yet.", WAY_OUT, "model")
    text_family = config.get_text_config(decoder=True).model_type
    if not {family, text_family} & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        raise StudioError(f"{family} models do not generate text, so there is nothing to tune.", WAY_OUT, "model")
    if family in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise StudioError(f"{family} is an encoder without a decoder: it does not generate text.", WAY_OUT, "model")


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """The cache that the model would build for itself, with nothing in it."""
    return DynamicCache(config=model.config)


def prefix_shape(model: PreTrainedModel) -> tuple[LayerShape, ...]:
    """The shape of every layer's keys and values, from a cache that one token went through.

    Raises StudioError (category model) for what a prefix in PEFT's format cannot hold.
    """
    refuse_unsupported(model.config)
    family = model.config.model_type
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    try:
        cache = empty_cache(model)
        with torch.no_grad():
            # As an embedding, because some families look whether an id is padding, which the meta device cannot.
            model(inputs_embeds=model.get_input_embeddings()(token), past_key_values=cache, use_cache=True)
    except Exception as error:  # whatever an unknown family's own code may raise: the answer is the same
        raise StudioError(
            f"{family} models cannot take a prefix: one token through a fresh cache failed ({error}).", WAY_OUT, "model"
        ) from error

    layers = []
    for index, layer in enumerate(cache.layers):
        # Exact types: the subclasses are latents, indexed or recurrent states.
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise StudioError(
                f"{family} models are not supported yet: layer {index} keeps a {type(layer).__name__}, "
                "not the keys and values of ordinary attention.",
                WAY_OUT,
                "model",
            )
        if not layer.is_initialized or layer.keys.dim() != 4:
            raise StudioError(
                f"{family} models are not supported yet: layer {index} keeps no keys and values of its own.",
                WAY_OUT,
                "model",
            )
        heads, _, width = layer.keys.shape[1:]  # [1, heads, 1, head_dim]
        value_heads, _, value_width = layer.values.shape[1:]
        window = layer.sliding_window if layer.is_sliding else None
        layers.append(LayerShape(index, (heads, width), (value_heads, value_width), window))

    different = {shape for layer in layers for shape in (layer.key, layer.value)}
    if len(different) != 1:
        shapes = " and ".join(f"{heads} x {width}" for heads, width in sorted(different))
        raise StudioError(
            f"{family} models are not supported yet: their keys and values have different shapes ({shapes}), "
            "which PEFT's prefix file cannot hold.",
            WAY_OUT,
            "model",
        )
    return tuple(layers)


def max_positions(config: PreTrainedConfig) -> int | None:
    """How many tokens, prefix included, the model has positions for; None where it has no such limit."""
    text = config.get_text_config(decoder=True)
    return getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)


def refuse_length(config: PreTrainedConfig, layers: Sequence[LayerShape], num_virtual_tokens: int) -> None:
    """Raises StudioError (category model) where so long a prefix leaves no position, or could never be read whole."""
    limit = max_positions(config)
    if limit is not None and num_virtual_tokens >= limit:
        raise StudioError(
            f"The model has {limit} positions, and {num_virtual_tokens} virtual tokens fill them all.",
            f"Lower num_virtual_tokens well below {limit}.",
            "model",
        )
    windows = [layer.window for layer in layers if layer.window is not None]
    if len(windows) == len(layers) and num_virtual_tokens >= min(windows):
        raise StudioError(
            f"All layers look back {min(windows)} tokens only, so {num_virtual_tokens} virtual tokens "
            "could never be read whole.",
            f"Lower num_virtual_tokens well below {min(windows)}.",
            "model",
        )


def warnings_for(model: PreTrainedModel, num_virtual_tokens: int, max_length: int) -> list[str]:
    """What a person should know before tuning `num_virtual_tokens` in front of texts of up to `max_length` tokens.

    Raises StudioError as `prefix_shape` and `refuse_length` do.
    """
    layers = prefix_shape(model)
    refuse_length(model.config, layers, num_virtual_tokens)
    limit = max_positions(model.config)
    windows = [layer.window for layer in layers if layer.window is not None]
    total = num_virtual_tokens + max_length
    warnings = []
    if limit is not None and total > limit:
        warnings.append(
            f"{num_virtual_tokens} virtual tokens and texts of up to {max_length} tokens pass the model's {limit} "
            f"positions: lower max_length to {limit - num_virtual_tokens}."
        )
    if windows and total > min(windows):
        warnings.append(
            f"{len(windows)} of {len(layers)} layers look back {min(windows)} tokens only: in texts longer than "
            f"{max(min(windows) - num_virtual_tokens, 0)} tokens the prefix fades from their sight."
        )
    return warnings
