"""What a finished run leaves in its folder: the adapter, texts written with it, and its figures.

    adapter/  samples.json  result.json

Knows files, models and prefixes; knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prefix_studio.data.examples import Example
from prefix_studio.disk import write_json
from prefix_studio.models.load import resolve
from prefix_studio.prefix.files import save_adapter
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.recipe import Recipe
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.training.evaluate import compare_outputs, one_a_prompt, text_metrics
from prefix_studio.training.plan import METRIC_PROMPTS

ADAPTER = "adapter"
SAMPLES = "samples.json"
RESULT = "result.json"

Metrics = dict[str, float]


def write_adapter(folder: Path, recipe: Recipe, prefix: Prefix, model: PreTrainedModel) -> None:
    save_adapter(folder / ADAPTER, prefix, model, base_model=resolve(recipe.model), revision=recipe.model.revision)


def prompts_to_write_for(recipe: Recipe, validation: Sequence[Example]) -> list[Example]:
    """As many distinct prompts as the samples need, or the metrics of texts, where the recipe asks for any."""
    for_metrics = METRIC_PROMPTS if text_metrics_of(recipe) else 0
    return one_a_prompt(validation)[: max(recipe.evaluation.samples, for_metrics)]


def write_samples(
    folder: Path,
    recipe: Recipe,
    prefix: Prefix,
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Example],
    size: BatchSize,
    should_stop: Callable[[], bool],
) -> tuple[Metrics, Metrics]:
    """samples.json, and the metrics of texts that the recipe asks for, of the tuned model and of the base."""
    names = text_metrics_of(recipe) if prompts else []
    written = compare_outputs(model, tokenizer, prefix, prompts, recipe, size, should_stop=should_stop)
    write_json(folder / SAMPLES, written[: recipe.evaluation.samples])
    return text_metrics(written, "tuned", names), text_metrics(written, "base", names)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    write_json(folder / RESULT, result)


def text_metrics_of(recipe: Recipe) -> list[str]:
    """The metrics that take written texts, each once."""
    return [name for name in dict.fromkeys(recipe.evaluation.metrics) if name != "loss"]
