"""What must hold before a run's first step: rows that fit the model, settings that fit the rows, a folder of its own.

Each check says in one sentence what does not hold. Knows recipes, examples and token rows; no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from prefix_studio.data.examples import Example
from prefix_studio.data.token_rows import TokenRow, token_rows
from prefix_studio.errors import StudioError
from prefix_studio.prefix.shape import max_encoder_positions, max_positions
from prefix_studio.recipe import Recipe

# Settings that may differ between the attempts at one run: they change nothing of what is learned.
FREE_SETTINGS = {"save_steps", "per_device_eval_batch_size", "auto_find_batch_size"}


def check_lengths(rows: Sequence[TokenRow], num_virtual_tokens: int, config: PreTrainedConfig) -> None:
    """Raises StudioError (data) for the longest row when prefix and row together pass the model's positions.

    Of an encoder-decoder model the prefix stands in front of the target; its encoder reads the input alone.
    """
    flat = token_rows(rows)
    if config.is_encoder_decoder:
        refuse_longest(flat.numbers, flat.lengths, 0, max_encoder_positions(config))
    refuse_longest(flat.numbers, flat.target_lengths, num_virtual_tokens, max_positions(config))


def refuse_longest(numbers: np.ndarray, lengths: np.ndarray, num_virtual_tokens: int, limit: int | None) -> None:
    longest = int(lengths.argmax())
    if limit is not None and num_virtual_tokens + lengths[longest] > limit:
        raise StudioError(
            f"Row {numbers[longest]} has {lengths[longest]} tokens; with {num_virtual_tokens} virtual tokens in "
            f"front it passes the model's {limit} positions.",
            f"Set data.max_length to {limit - num_virtual_tokens} or less, so that such rows are left out.",
            "data",
        )


def usable(examples: list[Example], rows: Sequence[TokenRow]) -> list[Example]:
    """The examples that became token rows: what was too long to learn from is too long to write for."""
    numbers = set(token_rows(rows).numbers.tolist())
    return [example for example in examples if example.row in numbers]


def check_early_stopping(recipe: Recipe, held_out: Sequence[TokenRow]) -> None:
    if recipe.training.early_stopping_patience is not None and not held_out:
        raise StudioError(
            "training.early_stopping_patience is set, but there are no validation rows to watch.",
            "Set data.validation, for example to 0.1, or leave early_stopping_patience out.",
        )


def identify(recipe: Recipe, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """What must be equal for a checkpoint to be gone on from: settings, and a digest of every token."""
    return {
        "model": recipe.model.model_dump(),
        "prefix": recipe.prefix.model_dump(),
        "training": recipe.training.model_dump(exclude=FREE_SETTINGS),
        "data": token_rows(rows).digest(),
    }


def check_identity(there: dict[str, Any], here: dict[str, Any], folder: Path) -> None:
    """Raises StudioError that names the parts in which a checkpoint's run differs from this one."""
    different = [part for part in here if there.get(part) != here[part]]
    if different:
        verb = "differs" if len(different) == 1 else "differ"
        raise StudioError(
            f"{folder} holds checkpoints of another run: {' and '.join(different)} {verb}.",
            f"Choose another folder, or delete {folder / 'checkpoints'} to start afresh.",
        )
