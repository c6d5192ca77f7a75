"""Holding rows back: two halves that share no prompt, the same ones every time.

Knows only how many rows are asked for and which belong together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import TypeVar

from prefix_studio.errors import StudioError

SEED = 0
Item = TypeVar("Item")


def split_by_prompt(
    items: list[Item], wanted: float | int, key: Callable[[Item], Hashable], warn: Callable[[str], None]
) -> tuple[list[Item], list[Item]]:
    """(train, validation), each in the items' order; items of one key stay together.

    wanted: a share below 1 (at least one row is held back), or a count of rows; 0 holds none back. As keys are never
    torn apart, the held-back half may fall a little short of it. At least one key stays for training.
    warn: told when nothing can be held back. Raises StudioError when the count leaves no rows to learn from.
    """
    if wanted >= len(items) and wanted >= 1:
        raise StudioError(
            f"data.validation asks for {wanted} rows, but there are {len(items)} usable rows.",
            "Ask for fewer, or for a share such as 0.1.",
            "data",
        )
    if wanted == 0:
        return items, []
    groups: dict[Hashable, int] = {}
    for item in items:
        groups[key(item)] = groups.get(key(item), 0) + 1
    if len(groups) < 2:
        warn("All rows have the same prompt, so none could be held back for validation.")
        return items, []
    held = choose(groups, round(wanted) if wanted >= 1 else max(1, round(wanted * len(items))))
    return [item for item in items if key(item) not in held], [item for item in items if key(item) in held]


def choose(groups: dict[Hashable, int], target: int) -> set[Hashable]:
    """Keys of at most `target` items together, taken in a shuffled order; the smallest one when none fits."""
    keys = list(groups)
    random.Random(SEED).shuffle(keys)
    held: set[Hashable] = set()
    total = 0
    for key in keys:
        if total + groups[key] <= target and len(held) < len(groups) - 1:
            held.add(key)
            total += groups[key]
    return held or {min(keys, key=groups.__getitem__)}
