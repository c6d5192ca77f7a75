"""Token rows become batches: rows of like length together, in an order that only the seed and the step decide.

Because the order is a function of the step's number, a resumed run needs no memory of where it was in the data.
Knows token rows; knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefix_studio.data.tokens import TokenRow

IGNORED = -100
# Rows are sorted by length within pools of so many batches: little padding, and still other neighbours every epoch.
POOL = 16


@dataclass(frozen=True)
class Batch:
    """Right-padded rows; right, so that positions are the same as in generation.

    input_ids, attention_mask, labels: [B, T]. learned: tokens the loss is taken on. tokens: all that are not padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    learned: int
    tokens: int


def collate(rows: Sequence[TokenRow], pad_id: int, device: torch.device | str = "cpu") -> Batch:
    """One batch on `device`."""
    width = max(len(row.input_ids) for row in rows)

    def padded(sequences: list[list[int]], value: int) -> Tensor:
        return torch.tensor([sequence + [value] * (width - len(sequence)) for sequence in sequences])

    labels = padded([row.labels for row in rows], IGNORED)
    # The first token of a row is never predicted: nothing of the text stands before it.
    learned = int((labels[:, 1:] != IGNORED).sum())
    mask = padded([[1] * len(row.input_ids) for row in rows], 0)
    tokens = sum(len(row.input_ids) for row in rows)
    ids = padded([row.input_ids for row in rows], pad_id)
    return Batch(ids.to(device), mask.to(device), labels.to(device), learned, tokens)


class Order:
    """Which rows each optimizer step learns from."""

    def __init__(self, rows: Sequence[TokenRow], batch_size: int, accumulation: int, seed: int):
        self.lengths = [len(row.input_ids) for row in rows]
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
            self._batches = epoch_batches(self.lengths, self.batch_size, f"{self.seed} {epoch}")
            self._epoch = epoch
        return self._batches[index * self.accumulation : (index + 1) * self.accumulation]


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: str) -> list[list[int]]:
    """All row numbers once, in shuffled batches of like length; one of them may be smaller."""
    chance = random.Random(seed)
    numbers = list(range(len(lengths)))
    chance.shuffle(numbers)
    batches = []
    for start in range(0, len(numbers), POOL * batch_size):
        pool = sorted(numbers[start : start + POOL * batch_size], key=lengths.__getitem__)
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    chance.shuffle(batches)
    return batches


def longest_first(rows: Sequence[TokenRow], batch_size: int) -> list[list[TokenRow]]:
    """Rows in batches for an evaluation, longest first: if memory is too small, it shows at once."""
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def some_rows(rows: Sequence[TokenRow], count: int, seed: int) -> list[TokenRow]:
    """`count` of the rows, always the same ones for the same seed."""
    if count >= len(rows):
        return list(rows)
    return [rows[index] for index in sorted(random.Random(f"{seed} evaluation").sample(range(len(rows)), count))]
