"""What a process takes from the system for blocks it asks for and gives back: more than it holds at any moment.

The rules are those of glibc's malloc. Blocks above a threshold, which grows with what is given back, are pages of their
own. The others lie in one heap, where a block goes into the smallest gap it fits, or else at the end. Tensors are
aligned, so a block takes a little more than its size to find room and leaves a remainder behind it; small things
settle in some of these and keep gaps from growing together again. Only numbers here: nothing is allocated.
"""

from __future__ import annotations

import bisect
from collections import deque
from typing import NamedTuple

PAGE = 4096
HEADER = 16
ALIGNMENT = 96  # bytes more that a block asks for, so that its start can be moved to a multiple of 64
TOP_PAD = 128 * 1024  # bytes more that the heap grows by than it must, and keeps when it shrinks
FIRST_THRESHOLD = 128 * 1024
LAST_THRESHOLD = 32 * 2**20
# Small things settle in one of so many remainders, and the oldest of so many gives way. Both are fitted to what runs
# took (benchmarks/memory.py).
SETTLED = 4
SETTLERS = 32


class Block(NamedTuple):
    """start: its address in the heap; None for pages of its own."""

    start: int | None
    size: int


class Heap:
    """peak: the most bytes that were ever taken from the system."""

    def __init__(self) -> None:
        self.peak = 0
        self.pages = 0  # of blocks with pages of their own
        self.threshold = FIRST_THRESHOLD
        self.trim = FIRST_THRESHOLD
        self.top = self.end = self.touched = 0  # nothing lies behind `top`; the heap reaches to `end`
        self.gaps: list[tuple[int, int]] = []  # (size, start), smallest first
        self.size_at: dict[int, int] = {}  # gaps by where they start
        self.start_of: dict[int, int] = {}  # and by where they end
        self.remainders = 0
        self.settled: deque[Block] = deque()

    def take(self, size: int) -> Block:
        start, found = self.find(whole(size + ALIGNMENT, HEADER))
        size = whole(size + HEADER, HEADER)
        if start is None:
            return Block(None, found)
        remainder = Block(start + size, found - size)
        self.remainders += 1
        if self.remainders % SETTLED == 0:
            self.settled.append(remainder)
            remainder = self.settled.popleft() if len(self.settled) > SETTLERS else None
        if remainder is not None:
            self.give_back(remainder)
        return Block(start, size)

    def find(self, size: int) -> Block:
        """Room for at least `size` bytes."""
        index = bisect.bisect_left(self.gaps, (size, 0))
        if index < len(self.gaps):
            return Block(self.gaps[index][1], self.close(self.gaps[index][1]))
        if self.end - self.top < size:
            if size >= self.threshold:
                pages = whole(size, PAGE)
                self.pages += pages
                self.note()
                return Block(None, pages)
            self.end = whole(self.top + size + TOP_PAD, PAGE)
        start, self.top = self.top, self.top + size
        self.touched = max(self.touched, self.top)
        self.note()
        return Block(start, size)

    def give_back(self, block: Block) -> None:
        start, size = block
        if start is None:
            self.pages -= size
            if self.threshold < size <= LAST_THRESHOLD:
                self.threshold, self.trim = size, 2 * size
            return
        if start + size in self.size_at:
            size += self.close(start + size)
        if start in self.start_of:
            start = self.start_of[start]
            size += self.close(start)
        if start + size < self.top:
            bisect.insort(self.gaps, (size, start))
            self.size_at[start], self.start_of[start + size] = size, start
            return
        self.top = start
        if self.end - self.top >= self.trim:
            self.end = whole(self.top + TOP_PAD, PAGE)
            self.touched = min(self.touched, self.end)

    def close(self, start: int) -> int:
        """Takes the gap out of the lists. Returns its size."""
        size = self.size_at.pop(start)
        del self.start_of[start + size]
        del self.gaps[bisect.bisect_left(self.gaps, (size, start))]
        return size

    def note(self) -> None:
        self.peak = max(self.peak, self.touched + self.pages)


def whole(size: int, unit: int) -> int:
    """`size` rounded up to a multiple of `unit`."""
    return -(-size // unit) * unit
