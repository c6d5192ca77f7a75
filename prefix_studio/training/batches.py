"""Token rows become batches: rows of like length together, in an order that only the seed and the step decide.

Because the order is a function of the step's number, a resumed run needs no memory of where it was in the data.
Knows token rows; knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prefix_studio.data.spans import IGNORED
from prefix_studio.data.token_rows import Array, TokenRow, TokenRows, token_rows

# Rows are sorted by length within pools of so many batches: little padding, and still other neighbours every epoch.
# Twice as many would save a hundredth or two of the tokens, and let twice as many neighbours meet again.
POOL = 16


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; right, so that positions are the same as in generation.

    input_ids, attention_mask: [B, T]. labels: [B, T], or an encoder-decoder's targets [B, S]. learned: tokens the loss
    is taken on. tokens: all that are not padding, targets among them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    learned: int
    tokens: int


def collate(
    rows: Sequence[TokenRow], pad_id: int, device: torch.device | str = "cpu", *, encoder_decoder: bool = False
) -> Batch:
    """One batch on `device`. encoder_decoder: the labels are targets, padded by themselves."""
    flat = token_rows(rows)
    ids, mask, labels = map(
        torch.from_numpy,
        (flat.inputs.padded(pad_id), flat.inputs.inside().astype(np.int64), flat.labels.padded(IGNORED)),
    )
    # Nothing stands before a decoder-only row's first token, so nothing predicts it.
    learned = int((labels if encoder_decoder else labels[:, 1:]).ne(IGNORED).sum())
    tokens = int(flat.lengths.sum() + (flat.target_lengths.sum() if encoder_decoder else 0))
    return Batch(ids.to(device), mask.to(device), labels.to(device), learned, tokens)


class Order:
    """Which rows each optimizer step learns from."""

    def __init__(self, rows: Sequence[TokenRow], batch_size: int, accumulation: int, seed: int):
        self.sizes = token_rows(rows).sizes
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.seed = seed
        self.steps_per_epoch = -(-len(rows) // (batch_size * accumulation))
        self._epoch = -1
        self._batches: list[list[int]] = []

    def step(self, step: int) -> list[list[int]]:
        """The row numbers of step `step`, counted from 0: one list for each batch that is accumulated."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._batches = epoch_batches(self.sizes, self.batch_size, f"{self.seed} {epoch}")
            self._epoch = epoch
        return self._batches[index * self.accumulation : (index + 1) * self.accumulation]


def epoch_batches(sizes: Array, batch_size: int, seed: str) -> list[list[int]]:
    """All row numbers once, in shuffled batches of like size; one of them may be smaller."""
    chance = random.Random(seed)
    numbers = list(range(len(sizes)))
    chance.shuffle(numbers)
    batches = []
    for start in range(0, len(numbers), POOL * batch_size):
        pool = np.array(numbers[start : start + POOL * batch_size])
        ordered = pool[np.argsort(sizes[pool], kind="stable")].tolist()
        batches += [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]
    chance.shuffle(batches)
    return batches


def longest_first(rows: Sequence[TokenRow]) -> TokenRows:
    """The rows in the order of an evaluation: those of like size together, and if memory is too small, it shows."""
    flat = token_rows(rows)
    return flat.select(np.argsort(-flat.sizes, kind="stable"))


def some_rows(rows: Sequence[TokenRow], count: int, seed: int) -> TokenRows:
    """`count` of the rows, always the same ones for the same seed."""
    flat = token_rows(rows)
    if count >= len(flat):
        return flat
    return flat.select(sorted(random.Random(f"{seed} evaluation").sample(range(len(flat)), count)))
