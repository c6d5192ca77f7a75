"""What a run works on, made from its recipe: model, prefix and token rows that fit together.

Knows the rooms they come from; knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from prefix_studio.data.examples import Example, load_examples
from prefix_studio.data.token_rows import TokenRows, concatenate
from prefix_studio.data.tokens import tokenize_all
from prefix_studio.errors import StudioError
from prefix_studio.models.load import load_model, load_tokenizer
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.recipe import Recipe
from prefix_studio.training.checks import check_early_stopping, check_lengths, usable
from prefix_studio.training.parallel import Ranks

Report = Callable[[dict[str, Any]], None]


class Material(NamedTuple):
    """What a run works on. held_out: the validation rows; validation: the examples they came from."""

    model: PreTrainedModel
    tokenizer: Any
    module: PrefixModule
    rows: TokenRows
    held_out: TokenRows
    validation: list[Example]


def prepare(recipe: Recipe, report: Report, device: str, ranks: Ranks) -> Material:
    """Model, prefix and rows. Raises StudioError where they do not fit together."""
    if ranks.world > 1 and recipe.model.device_map:
        raise StudioError(
            f"model.device_map {recipe.model.device_map} spreads one model over all GPUs, but {ranks.world} processes "
            "were started, each with a model of its own.",
            "Set device_map to null, or start one process.",
        )
    report({"event": "state", "state": "loading"})
    with ranks.first_goes_first():
        tokenizer = load_tokenizer(recipe.model)
        model = load_model(recipe.model, device)
        report({"event": "state", "state": "preparing data"})
        split = load_examples(recipe.data, tokenizer)
    longest, both = recipe.data.max_length, model.config.is_encoder_decoder
    rows = tokenize_all(split.train, tokenizer, longest, split.report, encoder_decoder=both)
    held_out = tokenize_all(split.validation, tokenizer, longest, split.report, encoder_decoder=both, may_be_empty=True)
    module = PrefixModule.build(model, tokenizer, recipe.prefix, recipe.training.seed)
    check_lengths(concatenate([rows, held_out]), module.num_virtual_tokens, model.config)
    check_early_stopping(recipe, held_out)
    report(
        {
            "event": "state",
            "state": "preparing data",
            "rows": len(rows),
            "validation_rows": len(held_out),
            "dropped": len(split.report.dropped),
            "warnings": split.report.warnings,
        }
    )
    return Material(model, tokenizer, module, rows, held_out, usable(split.validation, held_out))
