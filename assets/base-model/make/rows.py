"""Documents to training rows: tokenised piece by piece, packed whole.

Contract: `token_rows(tokenizer, seed, count)` gives the first `count` documents of a seed as `Rows`. A document is
never cut; one that does not fit into a row is left out. The same seed and tokenizer give the same rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from corpus import documents
from groups import Document
from transformers import PreTrainedTokenizerFast

ROW = 320  # tokens a training row


@dataclass(frozen=True)
class Rows:
    """Packed training rows. tokens [rows, ROW + 1] uint16, weights [rows, ROW + 1] uint8 in hundredths."""

    tokens: np.ndarray
    weights: np.ndarray


def token_rows(tokenizer: PreTrainedTokenizerFast, seed: int, count: int, row: int = ROW, batch: int = 2000) -> Rows:
    """The first `count` documents of a seed, tokenised and packed."""
    rng = Random(seed)
    packer = _Packer(row + 1, tokenizer.pad_token_id)
    stream = itertools.islice(documents(seed), count)
    while chunk := list(itertools.islice(stream, batch)):
        for tokens, weights in _encode(tokenizer, chunk, rng):
            packer.add(tokens, weights)
    return packer.rows()


def _encode(
    tokenizer: PreTrainedTokenizerFast, chunk: list[Document], rng: Random
) -> Iterator[tuple[list[int], list[int]]]:
    """Piece by piece, so that each piece keeps its loss weight. Half of the documents begin with the start token."""
    pieces = [text for document in chunk for text, _ in document]
    encoded = iter(tokenizer(pieces, add_special_tokens=False)["input_ids"])
    for document in chunk:
        starts = rng.random() < 0.5
        tokens, weights = [tokenizer.bos_token_id] * starts, [0] * starts
        for _, weight in document:
            ids = next(encoded)
            tokens += ids
            weights += [round(100 * weight)] * len(ids)
        yield [*tokens, tokenizer.eos_token_id], [*weights, 100]


class _Packer:
    """Best fit from a small pool: whole documents in every row, little padding, and no document cut."""

    def __init__(self, row: int, pad: int, pool: int = 64):
        self.row, self.pad, self.pool_size = row, pad, pool
        self.pool: list[tuple[list[int], list[int]]] = []
        self.done: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, tokens: list[int], weights: list[int]) -> None:
        if len(tokens) <= self.row:
            self.pool.append((tokens, weights))
        if len(self.pool) > self.pool_size:
            self._make_row()

    def rows(self) -> Rows:
        while self.pool:
            self._make_row()
        tokens, weights = zip(*self.done, strict=True)
        return Rows(np.stack(tokens), np.stack(weights))

    def _make_row(self) -> None:
        tokens, weights = np.full(self.row, self.pad, np.uint16), np.zeros(self.row, np.uint8)
        filled, chosen = 0, 0  # the oldest first, then whatever fills the rest best
        while chosen is not None:
            ids, shares = self.pool.pop(chosen)
            tokens[filled : filled + len(ids)], weights[filled : filled + len(ids)] = ids, shares
            filled += len(ids)
            fitting = [index for index, (ids, _) in enumerate(self.pool) if len(ids) <= self.row - filled]
            chosen = max(fitting, key=lambda index: len(self.pool[index][0]), default=None)
        self.done.append((tokens, weights))
