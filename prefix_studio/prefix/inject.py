"""A prefix goes in front of an untouched model, as the past of its cache.

The model is called as it is: with a cache that already holds the prefix, a mask that counts it, and positions that
start after it. Nothing of the model is patched or wrapped. Knows no files, no optimizer and no sampling.

Two caches: `shared_cache` puts one prefix in front of every row without copying it (training), `batch_cache` gives
every row its own prefix, or none (generation). What an encoder needs, which has no cache, is in `encoder_decoder`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, LinearAttentionCacheLayerMixin

from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder_decoder import InFront, encode
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import empty_cache, max_encoder_positions, max_positions, own_cache


def shared_cache(model: PreTrainedModel, prefix: Prefix, batch: int) -> Cache:
    """A cache with one prefix in front of `batch` rows, for one forward pass and its backward pass.

    `expand` makes no copies, so the gradients of all rows meet in the prefix itself. The cache stores nothing of what
    is new, so that a layer of the model may run twice on it, which is what gradient checkpointing does.
    """
    prefix = prefix.to(dtype=compute_dtype(model))
    cache = empty_cache(model)
    fill_shared(own_cache(cache), prefix, batch)
    if isinstance(cache, EncoderDecoderCache):
        cache.is_updated = NeverUpdated()
        forget_new(cache.cross_attention_cache)
        if prefix.cross is not None:
            fill_shared(cache.cross_attention_cache, prefix.cross, batch)
    return cache


class NeverUpdated(dict):
    """For a cache that stores nothing: no layer may think that the encoder's keys and values are there already."""

    def __setitem__(self, layer: int, updated: bool) -> None:
        pass


def fill_shared(cache: Cache, prefix: Prefix, batch: int) -> None:
    for index, key, value in prefix:
        # [heads, m, width] -> [B, heads, m, width]
        fill(cache.layers[index], key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1))
    forget_new(cache)


def forget_new(cache: Cache) -> None:
    """Has the layers hand out their past with what is new behind it, and keep nothing of what is new.

    Their methods are shadowed on these instances, so that every kind of layer keeps its own idea of windows and masks.
    """
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer):
            layer.update = partial(past_and_new, layer)
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            layer.update_conv_state = partial(new_convolution_state, layer)
            layer.update_recurrent_state = new_recurrent_state


def past_and_new(
    layer: DynamicLayer, key_states: Tensor, value_states: Tensor, *_: object, **__: object
) -> tuple[Tensor, Tensor]:
    if not layer.is_initialized:
        return key_states, value_states
    # Where the model's layers are spread over devices, the prefix goes where this layer is.
    past = (states.to(key_states.device) for states in (layer.keys, layer.values))
    return tuple(torch.cat(pair, dim=-2) for pair in zip(past, (key_states, value_states), strict=True))


def new_convolution_state(
    layer: LinearAttentionCacheLayerMixin,
    conv_states: Tensor,
    state_idx: int = 0,
    conv_kernel_size: int | None = None,
    **_: object,
) -> Tensor:
    """What a first pass would get back: the states, padded on the left up to the kernel's size."""
    missing = (conv_kernel_size or conv_states.shape[-1]) - conv_states.shape[-1]
    return functional.pad(conv_states, (missing, 0)) if missing > 0 else conv_states


def new_recurrent_state(recurrent_states: Tensor, state_idx: int = 0, **_: object) -> Tensor:
    return recurrent_states


def batch_cache(model: PreTrainedModel, prefixes: Sequence[Prefix | None]) -> tuple[Cache, Tensor]:
    """A cache with a prefix of its own, or none, in front of every row; lengths may differ.

    Shorter prefixes stand at the right, against the text; the slots before them are zeros and masked.
    Returns the cache and its mask [B, m], 1 where a prefix is, m the longest prefix. With no prefix at all, m is 0.
    """
    mask = prefix_mask(prefixes).to(model.device)
    cache = empty_cache(model)
    fill_batch(own_cache(cache), prefixes, mask.shape[1], model)
    return cache, mask


def fill_batch(cache: Cache, prefixes: Sequence[Prefix | None], longest: int, model: PreTrainedModel) -> None:
    """Puts every row's prefix, or zeros, in the first `longest` slots."""
    some = next((prefix for prefix in prefixes if prefix is not None), None)
    if some is None:
        return
    for number, index in enumerate(some.layers):
        states = []
        for name in ("keys", "values"):
            heads, _, width = getattr(some, name)[number].shape
            state = torch.zeros(
                len(prefixes), heads, longest, width, device=model.device, dtype=compute_dtype(model)
            )  # [B, heads, m, width]
            for row, prefix in enumerate(prefixes):
                if prefix is not None:
                    state[row, :, longest - prefix.length :] = getattr(prefix, name)[number]
            states.append(state)
        fill(cache.layers[index], *states)


def prefix_mask(prefixes: Sequence[Prefix | None]) -> Tensor:
    """[B, m]: 1 where a row's prefix is, right-aligned; m the longest prefix."""
    lengths = torch.tensor([0 if prefix is None else prefix.length for prefix in prefixes])
    longest = int(lengths.max())
    return (torch.arange(longest) >= longest - lengths[:, None]).long()


def fill(layer: CacheLayerMixin, key: Tensor, value: Tensor) -> None:
    """Puts key and value, each [B, heads, m, width], into an empty cache layer, as if the model had done so."""
    layer.lazy_initialization(key, value)
    if layer.is_sliding:
        layer.cumulative_length = key.shape[-2]
        key, value = (states[:, :, -layer.sliding_window + 1 :] for states in (key, value))
    layer.keys, layer.values = key, value


def positions(mask: Tensor) -> Tensor:
    """Position ids from a mask of 1 (a token, real or virtual) and 0 (padding), [B, S]; padding gets any valid one."""
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def compute_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype that the model's own keys and values have here and now, autocast counted."""
    kind = model.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return model.dtype


def accepts(model: PreTrainedModel, argument: str) -> bool:
    """Whether the model's forward has this argument: not all have `position_ids` (ALiBi) or `logits_to_keep`."""
    return argument in inspect.signature(model.forward).parameters


def forward_with_prefix(
    model: PreTrainedModel,
    prefix: Prefix | None,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    keep: Tensor | None = None,
    decoder_input_ids: Tensor | None = None,
) -> Tensor:
    """The logits of a batch with one prefix in front of all rows; None is the untuned model. Differentiable.

    input_ids, attention_mask: [B, T], padded on the right; of encoder-decoder models, what the encoder reads.
    decoder_input_ids: [B, T], for encoder-decoder models only: what the decoder reads, padded on the right. The logits
        are the decoder's, and so are keep's positions.
    keep: boolean [B, T]; only these positions go through the output layer, which is the larger part of the work
        where the vocabulary is large. None keeps all.
    Returns [B, T, vocabulary], or [N, vocabulary] with `keep`, N its true entries in reading order.
    Raises StudioError (category data) where prefix and text pass the model's positions.
    """
    read = input_ids if decoder_input_ids is None else decoder_input_ids
    refuse_positions(model, read.shape[1], 0 if prefix is None else prefix.length)
    cache = None if prefix is None else shared_cache(model, prefix, len(read))
    arguments = after_prefix(model, prefix, read)
    if decoder_input_ids is not None:
        arguments = {f"decoder_{name}": value for name, value in arguments.items()}
        arguments |= encoded(model, prefix, input_ids, attention_mask)
    arguments |= {"past_key_values": cache, "use_cache": False}
    if keep is None:
        return model(**arguments).logits
    if accepts(model, "logits_to_keep"):
        # The model itself picks the positions, so that its own scaling and capping of logits stay in force.
        return model(**arguments, logits_to_keep=keep).logits
    return model(**arguments).logits[keep]


def after_prefix(model: PreTrainedModel, prefix: Prefix | None, input_ids: Tensor) -> dict[str, Tensor]:
    """What is read behind a shared prefix, [B, T].

    What stands behind a token never reaches it, so padding on the right needs no mask, and every row has the same
    positions; explicit ones, because not every family goes on after the prefix by itself.
    """
    batch, text = input_ids.shape
    arguments = {"input_ids": input_ids}
    if accepts(model, "decoder_position_ids" if model.config.is_encoder_decoder else "position_ids"):
        first = 0 if prefix is None else prefix.length
        arguments["position_ids"] = torch.arange(first, first + text, device=input_ids.device).expand(batch, -1)
    return arguments


def encoded(model: PreTrainedModel, prefix: Prefix | None, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
    """What the decoder is told of texts [B, T] that the encoder read behind its part of a shared prefix."""
    limit = max_encoder_positions(model.config)
    if limit is not None and input_ids.shape[1] > limit:
        raise StudioError(
            f"A text of {input_ids.shape[1]} tokens passes the {limit} positions of the model's encoder.",
            f"Lower max_length to {limit}.",
            "data",
        )
    batch, past = len(input_ids), None
    if prefix is not None and prefix.encoder is not None:
        # [heads, m, width] -> [B, heads, m, width]
        past = [InFront(*(states.expand(batch, -1, -1, -1) for states in pair)) for _, *pair in prefix.encoder]
    outputs = encode(model, input_ids, attention_mask, past)
    if prefix is not None and prefix.cross is not None:
        seen = attention_mask.new_ones(batch, prefix.cross.length)
        attention_mask = torch.cat([seen, attention_mask], dim=1)  # [B, m + T]
    return {"encoder_outputs": outputs, "attention_mask": attention_mask}


def refuse_positions(model: PreTrainedModel, text: int, virtual: int) -> None:
    limit = max_positions(model.config)
    if limit is not None and virtual + text > limit:
        raise StudioError(
            f"A text of {text} tokens behind {virtual} virtual tokens passes the model's {limit} positions.",
            f"Lower max_length to {limit - virtual}.",
            "data",
        )
