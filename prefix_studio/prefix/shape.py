"""What a model's cache looks like, and which models a prefix cannot be put in front of.

The shapes are read off a real cache, filled by running one token through the model, so that a new decoder family
works by itself: grouped heads, latents, layers that share another's keys and values and layers that keep a running
state instead need no table. Works on the meta device too, where nothing is computed. Knows models and their
configurations; knows no weights and no files. (An encoder has no cache: its shapes are in `encoder_decoder`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder_decoder import encoder_shapes, one_token_mask
from prefix_studio.prefix.prefix import LayerShape

WAY_OUT = "Choose a language model with attention, for example one of the catalogue's."

# Families whose layers keep something else than keys and values of the past, so that a prefix has nowhere to go.
IMPOSSIBLE = {
    "recurrent_gemma": "its recurrent layers keep a running state outside of any cache that could be filled",
    "mamba": "it has no attention, so there are no keys and values to put in front",
    "mamba2": "it has no attention, so there are no keys and values to put in front",
    "falcon_mamba": "it has no attention, so there are no keys and values to put in front",
    "rwkv": "it has no attention, so there are no keys and values to put in front",
    "xlstm": "it has no attention, so there are no keys and values to put in front",
    "paligemma": "it reads a prompt in both directions, so what stands in front cannot be read beforehand",
    "moshi": "it speaks and listens in audio beside its text",
    "minimax": "its linear-attention layers cannot start from a cache that was filled by hand",
    "qwen4_exp": "its layers cannot start from a cache that was filled by hand",
    "prophetnet": "its decoder reads no more than one token after a past",
}
# The layers of a cache whose keys and values are those of every past token. Exact types: a subclass may keep more.
FILLABLE = (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)


def refuse_unsupported(config: PreTrainedConfig) -> None:
    """Raises StudioError (category model) where the configuration alone tells that no prefix fits."""
    family = config.model_type
    reason = IMPOSSIBLE.get(family.removesuffix("_text"))
    if reason:
        raise StudioError(f"{family} models cannot take a prefix: {reason}.", WAY_OUT, "model")
    if config.is_encoder_decoder:
        if family not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            raise StudioError(f"{family} models do not read and write text, so there is nothing to tune.", "", "model")
        return
    text_family = config.get_text_config(decoder=True).model_type
    # Models that also look at pictures are taken for the text that they write.
    writers = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    if not {family, text_family} & writers:
        raise StudioError(f"{family} models do not generate text, so there is nothing to tune.", WAY_OUT, "model")
    if family in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise StudioError(f"{family} is an encoder without a decoder: it does not generate text.", WAY_OUT, "model")


def empty_cache(model: PreTrainedModel) -> Cache:
    """The cache that the model would build for itself, with nothing in it."""
    if not model.config.is_encoder_decoder:
        return DynamicCache(config=model.config)
    # The decoder's own configuration: T5's as a whole counts the encoder's layers.
    cache = DynamicCache(config=getattr(model.get_decoder(), "config", model.config))
    cross = DynamicCache()
    # Whole layers, whatever the decoder's own are: its attention to the encoder has no window.
    cross.layers = [DynamicLayer() for _ in cache.layers]
    return EncoderDecoderCache(cache, cross)


def own_cache(cache: Cache) -> Cache:
    """The cache of the decoder's own attention, which every model here has."""
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


def has_recurrent_layers(model: PreTrainedModel) -> bool:
    """Whether some layers keep a running state, which no prefix holds and which padding would disturb."""
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in own_cache(empty_cache(model)).layers)


def prefix_shape(model: PreTrainedModel) -> tuple[LayerShape, ...]:
    """The shape of keys and values of every layer that keeps its own, from a cache that one token went through.

    Left out are layers without any (recurrent ones, and those that use another layer's). Of encoder-decoder models,
    the decoder's own attention. Raises StudioError (category model) where no prefix fits.
    """
    refuse_unsupported(model.config)
    return layer_shapes(model, own_cache(cache_of_one_token(model)))


def layer_shapes(model: PreTrainedModel, cache: Cache) -> tuple[LayerShape, ...]:
    """The shapes of what the model filled this cache with. Raises StudioError as `prefix_shape` does."""
    family = model.config.model_type
    layers = []
    for index, layer in enumerate(cache.layers):
        if not isinstance(layer, DynamicLayer):
            continue
        if type(layer) not in FILLABLE:
            raise StudioError(
                f"{family} models cannot take a prefix: layer {index} keeps a {type(layer).__name__}, which is more "
                "than the keys and values of past tokens.",
                WAY_OUT,
                "model",
            )
        if layer.keys is None or layer.keys.dim() != 4:
            continue  # never filled: this layer looks at another's
        heads, _, width = layer.keys.shape[1:]  # [1, heads, 1, width]
        value_heads, _, value_width = layer.values.shape[1:]
        window = layer.sliding_window if layer.is_sliding else None
        layers.append(LayerShape(index, (heads, width), (value_heads, value_width), window))
    if not layers:
        raise StudioError(f"{family} models cannot take a prefix: no layer keeps keys and values.", WAY_OUT, "model")
    return tuple(layers)


def submodule_shapes(model: PreTrainedModel, submodules: str = "decoder") -> dict[str, tuple[LayerShape, ...]]:
    """The shapes of every attention that takes a part of the prefix, by its name; `decoder` is always there.

    submodules: `all` adds the `encoder` and `cross` of encoder-decoder models; other models have no more to add.
    Raises StudioError (category model) where no prefix fits.
    """
    if submodules == "decoder" or not model.config.is_encoder_decoder:
        return {"decoder": prefix_shape(model)}
    refuse_unsupported(model.config)
    cache = cache_of_one_token(model)
    return {
        "decoder": layer_shapes(model, own_cache(cache)),
        "encoder": encoder_shapes(model),
        "cross": layer_shapes(model, cache.cross_attention_cache),
    }


def cache_of_one_token(model: PreTrainedModel) -> Cache:
    """The model's own cache after one token."""
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    error: Exception | None = None
    # As an embedding, because some families look whether an id is padding, which the meta device cannot; as an id,
    # because others look an embedding's id up again.
    for embedded in (True, False):
        cache = empty_cache(model)
        try:
            with torch.no_grad():
                run_token(model, token, cache, embedded)
            return cache
        except Exception as caught:  # whatever an unknown family's own code may raise: the answer is the same
            error = error or caught
    raise StudioError(
        f"{model.config.model_type} models cannot take a prefix: one token through a fresh cache failed ({error}).",
        WAY_OUT,
        "model",
    ) from error


def run_token(model: PreTrainedModel, token: Tensor, cache: Cache, embedded: bool) -> None:
    name = "inputs_embeds" if embedded else "input_ids"
    if model.config.is_encoder_decoder:
        reader = model.get_decoder()
        value = reader.get_input_embeddings()(token) if embedded else token
        arguments = {f"decoder_{name}": value, "decoder_attention_mask": one_token_mask(model)}
        # Not by the encoder: some are not to hear of a cache, and LED's does not run on the meta device.
        arguments["encoder_outputs"] = EncoderOutput(model.get_input_embeddings()(token))
    else:
        arguments = {name: model.get_input_embeddings()(token) if embedded else token}
    model(**arguments, past_key_values=cache, use_cache=True)


@dataclass
class EncoderOutput(BaseModelOutput):
    """What any family's encoder gives, as far as its decoder asks for it."""

    router_logits: None = None
    router_probs: None = None


def max_positions(config: PreTrainedConfig) -> int | None:
    """How many tokens, prefix included, the model has positions for; None where it has no such limit.

    Of encoder-decoder models, the decoder.
    """
    text = config.get_text_config(decoder=True)
    return first_of(text, "max_decoder_position_embeddings", "max_position_embeddings", "max_seq_len")


def max_encoder_positions(config: PreTrainedConfig) -> int | None:
    """How many tokens the encoder of an encoder-decoder model reads; None where it has no such limit."""
    own = getattr(config, "encoder", None)
    text = own if isinstance(own, PreTrainedConfig) else config
    return first_of(text, "max_encoder_position_embeddings", "max_position_embeddings")


def first_of(config: PreTrainedConfig, *names: str) -> int | None:
    return next((value for name in names if (value := getattr(config, name, None))), None)


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
    read = max_encoder_positions(model.config) if model.config.is_encoder_decoder else None
    if read is not None and max_length > read:
        warnings.append(
            f"Texts of up to {max_length} tokens pass the {read} positions of the model's encoder: "
            f"lower max_length to {read}."
        )
    if limit is not None and total > limit and model.config.is_encoder_decoder:
        warnings.append(
            f"{num_virtual_tokens} virtual tokens and targets of up to {max_length} tokens pass the {limit} positions "
            f"of the model's decoder: keep targets within {limit - num_virtual_tokens} tokens."
        )
    elif limit is not None and total > limit:
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
