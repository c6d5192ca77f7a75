"""Token rows kept in flat arrays: eight bytes a token, where Python lists would take a hundred.

`TokenRows` reads like a list of `TokenRow`: it has a length, is indexed, sliced and iterated, and gives rows whose
arrays are views into the flat ones. A selection of rows (`select`, a slice) shares those arrays and copies no token.
A decoder-only row's labels are as long as its input; an encoder-decoder's are its target, with a length of its own.
Knows numpy only: neither tokenizers nor torch.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, overload

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Tokens(np.ndarray):
    """An int32 array that, gone through, gives Python's own ints: what becomes JSON or a dictionary's key."""

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """One example in tokens. labels: as long as input_ids (decoder-only), or the target (encoder-decoder).

    row: the data row's number in its file. `TokenRows` gives views into its arrays; lists are taken as well.
    """

    input_ids: Tokens
    labels: Tokens
    row: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TokenRow)
            and self.row == other.row
            and np.array_equal(self.input_ids, other.input_ids)
            and np.array_equal(self.labels, other.labels)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Stretches of one flat array: number i is flat[starts[i] : starts[i] + lengths[i]]."""

    flat: Array  # [tokens], int32; other selections may share it
    starts: Array  # [n], int64
    lengths: Array  # [n], int64

    @classmethod
    def of(cls, flat: Array, lengths: Array) -> Ragged:
        """Stretches that lie one behind the other."""
        return cls(flat, np.cumsum(lengths) - lengths, lengths)

    def select(self, indices: slice | Array) -> Ragged:
        return Ragged(self.flat, self.starts[indices], self.lengths[indices])

    def packed(self) -> Array:
        """All stretches in order, one behind the other: a view where they lie so already."""
        if not len(self.starts):
            return self.flat[:0]
        ends = self.starts + self.lengths
        if np.array_equal(self.starts[1:], ends[:-1]):
            return self.flat[self.starts[0] : ends[-1]]
        pairs = zip(self.starts.tolist(), ends.tolist(), strict=True)
        return np.concatenate([self.flat[start:end] for start, end in pairs])

    def padded(self, value: int) -> Array:
        """[n, longest], int64: every stretch from the left, then `value`."""
        inside = self.inside()
        table = np.full(inside.shape, value, dtype=np.int64)
        table[inside] = self.packed()
        return table

    def inside(self) -> Array:
        """[n, longest], bool: where `padded` holds a stretch."""
        return np.arange(self.lengths.max(initial=0)) < self.lengths[:, None]


class TokenRows(Sequence[TokenRow]):
    """Rows of tokens in flat arrays. inputs, labels: their stretches; numbers: the rows' numbers in their file [n]."""

    def __init__(self, inputs: Ragged, labels: Ragged, numbers: Array):
        self.inputs = inputs
        self.labels = labels
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> TokenRow | TokenRows:
        if isinstance(index, slice):
            return TokenRows(self.inputs.select(index), self.labels.select(index), self.numbers[index])
        return self.row(*(part[index] for part in self.columns()))

    def __iter__(self) -> Iterator[TokenRow]:
        return starmap(self.row, zip(*(part.tolist() for part in self.columns()), strict=True))

    def columns(self) -> tuple[Array, ...]:
        return self.inputs.starts, self.inputs.lengths, self.labels.starts, self.labels.lengths, self.numbers

    def row(self, start: int, length: int, label_start: int, label_length: int, number: int) -> TokenRow:
        ids = self.inputs.flat[start : start + length]
        labels = self.labels.flat[label_start : label_start + label_length]
        return TokenRow(ids.view(Tokens), labels.view(Tokens), int(number))

    @property
    def lengths(self) -> Array:
        """[n]: the tokens of each row's input."""
        return self.inputs.lengths

    @property
    def target_lengths(self) -> Array:
        """[n]: the labels of each row; of decoder-only rows the same as `lengths`."""
        return self.labels.lengths

    @property
    def sizes(self) -> Array:
        """[n]: the tokens a model works on for each row; input and target together where they are two sequences."""
        same = np.array_equal(self.lengths, self.target_lengths)
        return self.lengths if same else self.lengths + self.target_lengths

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, those shared with other selections included."""
        return self.inputs.flat.nbytes + self.labels.flat.nbytes + sum(part.nbytes for part in self.columns())

    def select(self, indices: Sequence[int] | Array) -> TokenRows:
        """These rows in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return TokenRows(self.inputs.select(chosen), self.labels.select(chosen), self.numbers[chosen])

    def digest(self) -> str:
        """The same for the same tokens and labels in the same order, however they are kept."""
        digest = hashlib.sha256()
        for part in (self.lengths, self.target_lengths, self.inputs.packed(), self.labels.packed()):
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()


class TokenRowsWriter:
    """Takes rows as lists, one at a time, and keeps none of the lists."""

    def __init__(self) -> None:
        self.ids, self.labels = array("i"), array("i")
        self.lengths, self.label_lengths, self.numbers = array("q"), array("q"), array("q")

    def add(self, input_ids: list[int], labels: list[int], number: int) -> None:
        self.ids.fromlist(input_ids)
        self.labels.fromlist(labels)
        self.lengths.append(len(input_ids))
        self.label_lengths.append(len(labels))
        self.numbers.append(number)

    def finish(self) -> TokenRows:
        """The rows, in the writer's own memory: nothing can be added any more."""
        ids, labels = (np.frombuffer(part, dtype=np.int32) for part in (self.ids, self.labels))
        lengths, label_lengths, numbers = (
            np.frombuffer(part, dtype=np.int64) for part in (self.lengths, self.label_lengths, self.numbers)
        )
        return TokenRows(Ragged.of(ids, lengths), Ragged.of(labels, label_lengths), numbers)


def token_rows(rows: Sequence[TokenRow]) -> TokenRows:
    """The rows in flat arrays: themselves where they are, a copy of a list's."""
    if isinstance(rows, TokenRows):
        return rows
    inputs, labels = flattened(row.input_ids for row in rows), flattened(row.labels for row in rows)
    return TokenRows(inputs, labels, np.array([row.row for row in rows], dtype=np.int64))


def flattened(parts: Iterable[Sequence[int] | Array]) -> Ragged:
    several = list(parts)
    lengths = np.array([len(part) for part in several], dtype=np.int64)
    flat = np.concatenate([np.empty(0, dtype=np.int32), *several], dtype=np.int32, casting="unsafe")
    return Ragged.of(flat.view(np.ndarray), lengths)


def concatenate(parts: Iterable[Sequence[TokenRow]]) -> TokenRows:
    """The rows of all parts, in order, in arrays of their own."""
    several = [token_rows(part) for part in parts]
    return TokenRows(
        joined([part.inputs for part in several]),
        joined([part.labels for part in several]),
        np.concatenate([np.empty(0, dtype=np.int64), *(part.numbers for part in several)]),
    )


def joined(parts: list[Ragged]) -> Ragged:
    flat = np.concatenate([np.empty(0, dtype=np.int32), *(part.packed() for part in parts)])
    return Ragged.of(flat, np.concatenate([np.empty(0, dtype=np.int64), *(part.lengths for part in parts)]))
