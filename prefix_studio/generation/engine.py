"""Rows of (prompt, prefix or none, settings) through one frozen model, in one batch, token by token.

Base, tuned and prompted versions of a model are rows with different prefixes: the prompts are read in one forward
pass and every later token of all rows in one more. A row gives the tokens that it would give alone. Knows token ids
only: no text, no files, no queue, and nothing of how a prefix came about.

How a batch of unequal rows stays exact: the prompts are read padded on the right, where no token sees the padding;
then every row's cache is rotated so that its padding comes first. From there on each row is one unbroken stretch at
the right end of the cache, `[padding | prefix | prompt | new tokens]`, so masks, ALiBi distances and sliding windows
count what they would count for the row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.generation.sampling import Chooser, Sampling, choose_all
from prefix_studio.prefix.inject import accepts, batch_cache, positions
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import max_positions

__all__ = ["Row", "Sampling", "generate"]


@dataclass(frozen=True)
class Row:
    """One text to write: token ids of the prompt, the prefix in front of it, and how tokens are chosen."""

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
    cache: DynamicCache
    mask: Tensor  # [B, S], 1 where the cache holds a token, real or virtual
    next_position: Tensor  # [B]
    logits: Tensor  # [B, vocabulary], about the next token

    def keep(self, chosen: list[int]) -> None:
        """Drops all rows but those at the indices `chosen`, and the slots that only dropped rows used."""
        self.rows, self.choosers, self.left = (
            [values[i] for i in chosen] for values in (self.rows, self.choosers, self.left)
        )
        indices = torch.tensor(chosen, device=self.mask.device)
        self.cache.batch_select_indices(indices)
        self.mask, self.next_position = self.mask[indices], self.next_position[indices]
        used = int(self.next_position.max())
        self.mask = self.mask[:, -used:]
        for layer in self.cache.layers:
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
    batch = read_prompts(model, rows, left)
    while not should_stop():
        tokens = choose_all(batch.logits, batch.choosers)
        ended = (yield list(zip(batch.rows, tokens, strict=True))) or ()
        batch.left = [left - 1 for left in batch.left]
        going = [
            i
            for i, token in enumerate(tokens)
            if token not in eos_ids and batch.left[i] > 0 and batch.rows[i] not in ended
        ]
        if not going:
            return
        if len(going) < len(tokens):
            batch.keep(going)
        step(model, batch, [tokens[i] for i in going])


def room(model: PreTrainedModel, row: Row) -> int:
    """How many tokens this row may write: its max_new_tokens, or what the model has positions for.

    Raises StudioError where that is nothing, or where there is no prompt.
    """
    limit = max_positions(model.config)
    if not row.prompt_ids:
        raise StudioError("The prompt has no tokens.", "Write something for the model to go on from.")
    if limit is not None and row.length >= limit:
        virtual = "" if row.prefix is None else f" and {row.prefix.length} virtual tokens in front"
        raise StudioError(
            f"The prompt has {len(row.prompt_ids)} tokens{virtual}, which leaves nothing of the model's {limit} "
            "positions to write in.",
            "Shorten the prompt.",
        )
    return row.settings.max_new_tokens if limit is None else min(row.settings.max_new_tokens, limit - row.length)


def read_prompts(model: PreTrainedModel, rows: Sequence[Row], left: list[int]) -> Batch:
    """One forward pass over all prompts, each behind its own prefix. left: how many tokens each may write."""
    cache, virtual = batch_cache(model, [row.prefix for row in rows])
    cache.activate_past_recording()  # sliding layers keep all until the rows are aligned
    lengths = torch.tensor([len(row.prompt_ids) for row in rows], device=model.device)
    longest = int(lengths.max())
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long, device=model.device)  # [B, T]
    for index, row in enumerate(rows):
        input_ids[index, : len(row.prompt_ids)] = torch.tensor(row.prompt_ids)
    columns = torch.arange(longest, device=model.device)
    mask = torch.cat([virtual, (columns < lengths[:, None]).long()], dim=1)  # [B, m + T]
    last = columns == lengths[:, None] - 1  # [B, T], one true a row
    logits = forward(model, input_ids, mask, positions(mask)[:, virtual.shape[1] :], cache, last)
    mask = align_right(cache, mask, longest - lengths)
    choosers = [Chooser(row.settings, row.prompt_ids) for row in rows]
    return Batch(list(range(len(rows))), choosers, left, cache, mask, mask.sum(dim=1), logits)


def step(model: PreTrainedModel, batch: Batch, tokens: list[int]) -> None:
    """One forward pass over one new token a row."""
    input_ids = torch.tensor(tokens, device=model.device)[:, None]  # [B, 1]
    batch.mask = torch.cat([batch.mask, batch.mask.new_ones(len(tokens), 1)], dim=1)
    every = torch.ones_like(input_ids, dtype=torch.bool)
    batch.logits = forward(model, input_ids, batch.mask, batch.next_position[:, None], batch.cache, every)
    batch.next_position = batch.next_position + 1


def forward(
    model: PreTrainedModel, input_ids: Tensor, mask: Tensor, position_ids: Tensor, cache: DynamicCache, keep: Tensor
) -> Tensor:
    """The logits [B, vocabulary] at the one position a row that is true in keep [B, T]."""
    arguments = {"input_ids": input_ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
    if accepts(model, "position_ids"):
        arguments["position_ids"] = position_ids
    if accepts(model, "logits_to_keep"):
        return model(**arguments, logits_to_keep=keep).logits
    return model(**arguments).logits[keep]


def align_right(cache: DynamicCache, mask: Tensor, padding: Tensor) -> Tensor:
    """Rotates every row of the cache by its own padding [B] on the right, which so comes first. Returns the new mask.

    Sliding layers, which kept all until now, are cut to their window afterwards.
    """
    for layer in cache.layers:
        layer.keys, layer.values = rotate(layer.keys, padding), rotate(layer.values, padding)
        if layer.is_sliding:
            layer.crop(0)
            layer.record_past = False
    return rotate(mask[:, None, :, None], padding)[:, 0, :, 0]


def rotate(states: Tensor, shift: Tensor) -> Tensor:
    """Row b of states [B, heads, S, width] rolled by shift[b] along S."""
    if not shift.any():
        return states
    size = states.shape[2]
    source = (torch.arange(size, device=states.device) - shift[:, None]) % size  # [B, S]
    return states.gather(2, source[:, None, :, None].expand_as(states))
