"""Rows of (prompt, prefix or none, settings) through one frozen model, in one batch, token by token.

Base, tuned and prompted versions of a model are rows with different prefixes: the prompts are read in one forward
pass and every later token of all rows in one more. A row gives the tokens that it would give alone. Knows token ids
only: no text, no files, no queue, and nothing of how a prefix came about.

How a batch of unequal rows stays exact: the prompts are read padded on the right, where no token sees the padding;
then every row's cache is rotated so that its padding comes first. From there on each row is one unbroken stretch at
the right end of the cache, `[padding | prefix | prompt | new tokens]`, so masks, ALiBi distances and sliding windows
count what they would count for the row alone. Models with recurrent layers, whose running state padding would
disturb, read prompts of one length together and the others after them. What is different where an encoder reads the
prompts is in `encoder_decoder`; some of these models write in several batches side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from prefix_studio.errors import StudioError
from prefix_studio.generation.encoder_decoder import (
    Encoded,
    begin,
    by_length,
    first_ids,
    groups_of,
    never_written,
    only,
    refuse_prompt,
)
from prefix_studio.generation.sampling import Chooser, Sampling, choose_all
from prefix_studio.prefix.inject import accepts, batch_cache, positions
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import has_recurrent_layers, max_positions, own_cache

__all__ = ["Row", "Sampling", "generate"]


@dataclass(frozen=True)
class Row:
    """One text to write: token ids of the prompt, the prefix in front of it, and how tokens are chosen.

    Of encoder-decoder models, the prompt is what the encoder reads.
    """

    prompt_ids: Sequence[int]
    prefix: Prefix | None = None
    settings: Sampling = field(default_factory=Sampling)

    @property
    def length(self) -> int:
        """Tokens before the first new one, virtual ones included."""
        return len(self.prompt_ids) + (0 if self.prefix is None else self.prefix.length)


@dataclass
class Batch:
    """The rows still being written. Entry i of every list and tensor belongs to the row numbered rows[i]."""

    rows: list[int]
    choosers: list[Chooser]
    left: list[int]  # tokens that each may still write
    cache: Cache
    mask: Tensor  # [B, S], 1 where the cache holds a token, real or virtual
    next_position: Tensor  # [B]
    logits: Tensor  # [B, vocabulary], about the next token
    encoded: Encoded | None = None  # of encoder-decoder models

    def keep(self, chosen: list[int]) -> None:
        """Drops all rows but those at the indices `chosen`, and the slots that only dropped rows used."""
        self.rows, self.choosers, self.left = (
            [values[i] for i in chosen] for values in (self.rows, self.choosers, self.left)
        )
        indices = torch.tensor(chosen, device=self.mask.device)
        self.cache.reorder_cache(indices)
        self.mask, self.next_position = self.mask[indices], self.next_position[indices]
        if self.encoded is not None:
            self.encoded.keep(indices)
        used = int(self.next_position.max())
        self.mask = self.mask[:, -used:]
        for layer in attention_layers(self.cache):
            # A sliding layer keeps less than it counts: never more than its window, less one.
            layer.keys, layer.values = layer.keys[:, :, -used:], layer.values[:, :, -used:]
            if layer.is_sliding:
                layer.cumulative_length = used


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    rows: Sequence[Row],
    *,
    eos_ids: Collection[int],
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[list[tuple[int, int]], Collection[int] | None, None]:
    """Writes all rows together. Yields one list a step: (row's index, its next token), rows ending one by one.

    A row ends with a token of eos_ids (which is yielded too), after its max_new_tokens, or where the model's
    positions end. The consumer may end rows early with `generator.send({indices})`. should_stop is asked before every
    step and ends all. Raises StudioError for a prompt without tokens, or one that leaves no position free.
    """
    if not rows:
        return
    left = [room(model, row) for row in rows]
    batches = read_pairs(model, rows, left) if model.config.is_encoder_decoder else [read_prompts(model, rows, left)]
    while batches and not should_stop():
        tokens = [choose_all(batch.logits, batch.choosers) for batch in batches]
        made = [
            pair for batch, some in zip(batches, tokens, strict=True) for pair in zip(batch.rows, some, strict=True)
        ]
        ended = (yield made) or ()
        batches = [
            batch
            for batch, some in zip(batches, tokens, strict=True)
            if go_on(model, batch, some, eos_ids=eos_ids, ended=ended)
        ]


def go_on(
    model: PreTrainedModel, batch: Batch, tokens: list[int], *, eos_ids: Collection[int], ended: Collection[int]
) -> bool:
    """Has the model read the new tokens of all rows that have not ended. False when none is left."""
    batch.left = [left - 1 for left in batch.left]
    going = [
        i for i, token in enumerate(tokens) if token not in eos_ids and batch.left[i] > 0 and batch.rows[i] not in ended
    ]
    if not going:
        return False
    if len(going) < len(tokens):
        batch.keep(going)
    step(model, batch, [tokens[i] for i in going])
    return True


def room(model: PreTrainedModel, row: Row) -> int:
    """How many tokens this row may write: its max_new_tokens, or what the model has positions for.

    Raises StudioError where that is nothing, or where there is no prompt.
    """
    limit = max_positions(model.config)
    if not row.prompt_ids:
        raise StudioError("The prompt has no tokens.", "Write something for the model to go on from.")
    used = row.length
    if model.config.is_encoder_decoder:
        refuse_prompt(model, row.prompt_ids)
        used += 1 - len(row.prompt_ids)  # the decoder reads no more than its start token
    if limit is not None and used >= limit:
        virtual = "" if row.prefix is None else f" and {row.prefix.length} virtual tokens in front"
        raise StudioError(
            f"The prompt has {len(row.prompt_ids)} tokens{virtual}, which leaves nothing of the model's {limit} "
            "positions to write in.",
            "Shorten the prompt.",
        )
    return row.settings.max_new_tokens if limit is None else min(row.settings.max_new_tokens, limit - used)


def read_prompts(model: PreTrainedModel, rows: Sequence[Row], left: list[int]) -> Batch:
    """All prompts, each behind its own prefix. left: how many tokens each may write."""
    together = not has_recurrent_layers(model)
    groups = [list(range(len(rows)))] if together else by_length([len(row.prompt_ids) for row in rows])
    caches, masks, logits = zip(*(read_together(model, [rows[i] for i in group]) for group in groups), strict=True)
    mask = torch.cat([pad_left(some, max(some.shape[1] for some in masks), dim=1) for some in masks])
    order = [index for group in groups for index in group]
    choosers = [Chooser(rows[index].settings, rows[index].prompt_ids) for index in order]
    left = [left[index] for index in order]
    return Batch(order, choosers, left, merge(caches), mask, mask.sum(dim=1), torch.cat(logits))


def read_pairs(model: PreTrainedModel, rows: Sequence[Row], left: list[int]) -> list[Batch]:
    """As `read_prompts`, for encoder-decoder models: the encoder has read the prompts, the decoder its start token."""
    start, forced = first_ids(model)
    batches = []
    for group in groups_of(model, [row.prefix for row in rows]):
        some = [rows[index] for index in group]
        cache, mask, encoded = begin(model, [row.prompt_ids for row in some], [row.prefix for row in some])
        choosers = [Chooser(row.settings, [start]) for row in some]
        nothing = torch.empty(0, device=model.device)
        batch = Batch(group, choosers, [left[index] for index in group], cache, mask, mask.sum(dim=1), nothing, encoded)
        step(model, batch, [start] * len(group))
        if forced is not None:
            batch.logits = only(batch.logits, forced)
        batches.append(batch)
    return batches


def read_together(model: PreTrainedModel, rows: Sequence[Row]) -> tuple[Cache, Tensor, Tensor]:
    """One forward pass over some prompts: the cache, its mask [B, S] and the logits about the next tokens."""
    cache, virtual = batch_cache(model, [row.prefix for row in rows])
    lengths = torch.tensor([len(row.prompt_ids) for row in rows], device=model.device)
    longest = int(lengths.max())
    padded = bool((lengths < longest).any())
    if padded:
        cache.activate_past_recording()  # sliding layers keep all until the rows are aligned
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long, device=model.device)  # [B, T]
    for index, row in enumerate(rows):
        input_ids[index, : len(row.prompt_ids)] = torch.tensor(row.prompt_ids)
    columns = torch.arange(longest, device=model.device)
    mask = torch.cat([virtual, (columns < lengths[:, None]).long()], dim=1)  # [B, m + T]
    last = columns == lengths[:, None] - 1  # [B, T], one true a row
    logits = forward(model, input_ids, mask, positions(mask)[:, virtual.shape[1] :], cache, last)
    if padded:
        mask = align_right(cache, mask, longest - lengths)
    return cache, mask, logits


def step(model: PreTrainedModel, batch: Batch, tokens: list[int]) -> None:
    """One forward pass over one new token a row."""
    input_ids = torch.tensor(tokens, device=model.device)[:, None]  # [B, 1]
    batch.mask = torch.cat([batch.mask, batch.mask.new_ones(len(tokens), 1)], dim=1)
    every = torch.ones_like(input_ids, dtype=torch.bool)
    batch.logits = forward(
        model, input_ids, batch.mask, batch.next_position[:, None], batch.cache, every, batch.encoded
    )
    batch.next_position = batch.next_position + 1


def forward(
    model: PreTrainedModel,
    input_ids: Tensor,
    mask: Tensor,
    position_ids: Tensor,
    cache: Cache,
    keep: Tensor,
    encoded: Encoded | None = None,
) -> Tensor:
    """The logits [B, vocabulary] at the one position a row that is true in keep [B, T]."""
    arguments = {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids}
    if encoded is not None:
        arguments = {f"decoder_{name}": value for name, value in arguments.items()}
    arguments = {name: value for name, value in arguments.items() if "position" not in name or accepts(model, name)}
    arguments |= {"past_key_values": cache, "use_cache": True}
    if encoded is not None:
        arguments |= encoded.arguments
    if accepts(model, "logits_to_keep"):
        logits = model(**arguments, logits_to_keep=keep).logits
    else:
        logits = model(**arguments).logits[keep]
    if encoded is not None:
        logits[:, never_written(model)] = -torch.inf
    return logits


def attention_layers(cache: Cache) -> list[DynamicLayer]:
    """The layers that hold keys and values of what the rows wrote."""
    layers = own_cache(cache).layers
    return [layer for layer in layers if isinstance(layer, DynamicLayer) and layer.keys is not None]


def align_right(cache: Cache, mask: Tensor, padding: Tensor) -> Tensor:
    """Rotates every row of the cache by its own padding [B] on the right, which so comes first. Returns the new mask.

    Sliding layers, which kept all until now, are cut to their window afterwards.
    """
    for layer in attention_layers(cache):
        layer.keys, layer.values = rotate(layer.keys, padding), rotate(layer.values, padding)
        if layer.is_sliding:
            layer.crop(0)
            layer.record_past = False
    return rotate(mask[:, None, :, None], padding)[:, 0, :, 0]


def merge(caches: Sequence[Cache]) -> Cache:
    """The rows of several caches in one, the shorter ones padded on the left."""
    merged = caches[0]
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        first = layers[0]
        if isinstance(first, DynamicLayer) and first.keys is not None:
            longest = max(layer.keys.shape[2] for layer in layers)
            for name in ("keys", "values"):
                states = [pad_left(getattr(layer, name), longest, dim=2) for layer in layers]  # [B, heads, S, width]
                setattr(first, name, torch.cat(states))
            if first.is_sliding:
                first.cumulative_length = max(layer.cumulative_length for layer in layers)
        if isinstance(first, LinearAttentionCacheLayerMixin):
            for states in ("conv_states", "recurrent_states"):
                for number, state in getattr(first, states).items():
                    if state is not None:
                        getattr(first, states)[number] = torch.cat([getattr(layer, states)[number] for layer in layers])
    return merged


def pad_left(states: Tensor, size: int, dim: int) -> Tensor:
    """Zeros in front along `dim`, up to `size`."""
    return functional.pad(states, [0, 0] * (states.dim() - 1 - dim) + [size - states.shape[dim], 0])


def rotate(states: Tensor, shift: Tensor) -> Tensor:
    """Row b of states [B, heads, S, width] rolled by shift[b] along S."""
    size = states.shape[2]
    source = (torch.arange(size, device=states.device) - shift[:, None]) % size  # [B, S]
    return states.gather(2, source[:, None, :, None].expand_as(states))
