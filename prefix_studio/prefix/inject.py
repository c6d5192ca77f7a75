"""A prefix goes in front of an untouched model, as the past of its cache.

The model is called as it is: with a cache that already holds the prefix, a mask that counts it, and positions that
start after it. Nothing of the model is patched or wrapped. Knows no files, no optimizer and no sampling.

Two caches: `shared_cache` puts one prefix in front of every row without copying it (training), `batch_cache` gives
every row its own prefix, or none (generation).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from prefix_studio.errors import StudioError
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import empty_cache, max_positions


class KeepsNothing:
    """A cache layer that hands out its past with what is new behind it, and stores nothing of what is new.

    So a layer of the model may run twice on the same cache, which is what gradient checkpointing does.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class SharedLayer(KeepsNothing, DynamicLayer):
    pass


class SharedSlidingLayer(KeepsNothing, DynamicSlidingWindowLayer):
    pass


def shared_cache(model: PreTrainedModel, prefix: Prefix, batch: int) -> DynamicCache:
    """A cache with one prefix in front of `batch` rows, for one forward pass and its backward pass.

    `expand` makes no copies, so the gradients of all rows meet in the prefix itself.
    """
    prefix = prefix.to(model.device, compute_dtype(model))
    cache = empty_cache(model)
    for index, (key, value) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
        window = getattr(cache.layers[index], "sliding_window", None)
        cache.layers[index] = layer = SharedLayer() if window is None else SharedSlidingLayer(window)
        # [heads, m, head_dim] -> [B, heads, m, head_dim]
        fill(layer, key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1))
    return cache


def batch_cache(model: PreTrainedModel, prefixes: Sequence[Prefix | None]) -> tuple[DynamicCache, Tensor]:
    """A cache with a prefix of its own, or none, in front of every row; lengths may differ.

    Shorter prefixes stand at the right, against the text; the slots before them are zeros and masked.
    Returns the cache and its mask [B, m], 1 where a prefix is, m the longest prefix. With no prefix at all, m is 0.
    """
    mask = prefix_mask(prefixes).to(model.device)
    cache = empty_cache(model)
    longest = mask.shape[1]
    if longest == 0:
        return cache, mask
    some = next(prefix for prefix in prefixes if prefix is not None)
    dtype = compute_dtype(model)
    for index in range(some.num_layers):
        heads, _, width = some.keys[index].shape
        key = torch.zeros(len(prefixes), heads, longest, width, device=model.device, dtype=dtype)
        value = torch.zeros_like(key)
        for row, prefix in enumerate(prefixes):
            if prefix is not None:
                key[row, :, longest - prefix.length :] = prefix.keys[index]
                value[row, :, longest - prefix.length :] = prefix.values[index]
        fill(cache.layers[index], key, value)
    return cache, mask


def prefix_mask(prefixes: Sequence[Prefix | None]) -> Tensor:
    """[B, m]: 1 where a row's prefix is, right-aligned; m the longest prefix."""
    lengths = torch.tensor([0 if prefix is None else prefix.length for prefix in prefixes])
    longest = int(lengths.max())
    return (torch.arange(longest) >= longest - lengths[:, None]).long()


def fill(layer: DynamicLayer, key: Tensor, value: Tensor) -> None:
    """Puts key and value, each [B, heads, m, head_dim], into an empty cache layer, as if the model had done so."""
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
) -> Tensor:
    """The logits of a batch with one prefix in front of all rows; None is the untuned model. Differentiable.

    input_ids, attention_mask: [B, T], padded on either side.
    keep: boolean [B, T]; only these positions go through the output layer, which is the larger part of the work
        where the vocabulary is large. None keeps all.
    Returns [B, T, vocabulary], or [N, vocabulary] with `keep`, N its true entries in reading order.
    Raises StudioError (category data) where prefix and text pass the model's positions.
    """
    batch, text = input_ids.shape
    length = 0 if prefix is None else prefix.length
    limit = max_positions(model.config)
    if limit is not None and length + text > limit:
        raise StudioError(
            f"A text of {text} tokens behind {length} virtual tokens passes the model's {limit} positions.",
            f"Lower max_length to {limit - length}.",
            "data",
        )
    cache = None if prefix is None else shared_cache(model, prefix, batch)
    mask = torch.cat([attention_mask.new_ones(batch, length), attention_mask], dim=1)  # [B, m + T]
    arguments = {"input_ids": input_ids, "attention_mask": mask, "past_key_values": cache, "use_cache": False}
    if accepts(model, "position_ids"):
        # Positions go on after the prefix; explicit ones, because not every family derives them from the mask.
        arguments["position_ids"] = positions(mask)[:, length:]
    if keep is None:
        return model(**arguments).logits
    if accepts(model, "logits_to_keep"):
        # The model itself picks the positions, so that its own scaling and capping of logits stay in force.
        return model(**arguments, logits_to_keep=keep).logits
    return model(**arguments).logits[keep]


def completion_loss(
    model: PreTrainedModel,
    prefix: Prefix | None,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    *,
    reduction: str = "mean",
) -> tuple[Tensor, int]:
    """Cross-entropy of the labelled tokens, and how many there are.

    input_ids, attention_mask, labels: [B, T]; labels are -100 where nothing is learned, and the token itself elsewhere.
    reduction: `mean` over the labelled tokens, or `sum`.
    Returns a scalar in nats and the count. Without any label the loss is 0 and the count 0.
    """
    targets = torch.full_like(labels, -100)
    targets[:, :-1] = labels[:, 1:]  # position t speaks about token t + 1
    keep = targets != -100
    count = int(keep.sum())
    if count == 0:
        return torch.zeros((), device=input_ids.device, requires_grad=torch.is_grad_enabled()), 0
    logits = forward_with_prefix(model, prefix, input_ids, attention_mask, keep=keep)
    return functional.cross_entropy(logits.float(), targets[keep], reduction=reduction), count
