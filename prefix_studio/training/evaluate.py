"""What base and tuned model write for held-back prompts, and how good it is.

Both versions of a prompt are rows of one batch on the untouched base model. Knows examples, a prefix and metrics;
knows nothing of optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prefix_studio.data.examples import Example, load_examples, with_samples_own
from prefix_studio.data.tokens import prompt_ids, tokenize_all
from prefix_studio.generation.engine import Row, Sampling
from prefix_studio.generation.metrics import METRICS
from prefix_studio.generation.text import complete
from prefix_studio.models.load import load_model, load_tokenizer
from prefix_studio.prefix.files import load_prefix
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.recipe import ModelPart, Recipe
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.training.checks import check_lengths, usable
from prefix_studio.training.device import choose_device
from prefix_studio.training.step import batch_losses, mean_loss

Written = dict[str, Any]


def evaluate_adapter(
    model_part: ModelPart,
    adapter_dir: Path | str,
    data_file: Path | str,
    recipe: Recipe,
    on_progress: Callable[[float], None] | None = None,
    *,
    device: str = "auto",
) -> dict[str, Any]:
    """Base and tuned model on every row of a file, greedily, as `evaluate --json` prints it.

    Loss is the mean over the learned tokens of all rows, in nats; exact_match (0 to 1) and bleu (0 to 100) are taken
    on every distinct prompt, against all its completions. data_file is read as the recipe reads its own data.
    on_progress: told the share done, 0 to 1. Raises StudioError for data, model or adapter that cannot be used.
    """
    model = load_model(model_part, choose_device(device))
    tokenizer = load_tokenizer(model_part)
    prefix = load_prefix(adapter_dir, model)
    data = with_samples_own(recipe.data).model_copy(update={"source": str(data_file), "validation": 0})
    examples = load_examples(data, tokenizer).train
    rows = tokenize_all(examples, tokenizer, data.max_length, encoder_decoder=model.config.is_encoder_decoder)
    check_lengths(rows, prefix.length, model.config)
    pad_id = tokenizer.pad_token_id or 0
    size = BatchSize(recipe.training, "per_device_eval_batch_size")
    base, tuned = ({"loss": mean_loss(batch_losses(model, some, rows, pad_id, size))} for some in (None, prefix))
    prompts = one_a_prompt(usable(examples, rows))
    predictions = compare_outputs(model, tokenizer, prefix, prompts, recipe, size, on_progress=on_progress)
    base |= text_metrics(predictions, "base", METRICS)
    tuned |= text_metrics(predictions, "tuned", METRICS)
    return {"rows": len(rows), "base": base, "tuned": tuned, "predictions": predictions}


def one_a_prompt(examples: Iterable[Example]) -> list[Example]:
    """The first example of every distinct prompt."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.prompt, example)
    return list(first.values())


def compare_outputs(
    model: PreTrainedModel,
    tokenizer: Any,
    prefix: Prefix,
    examples: Sequence[Example],
    recipe: Recipe,
    size: BatchSize,
    *,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Written]:
    """What both versions write, greedily, in the examples' order: {"prompt", "references", "base", "tuned"}.

    size: how many prompts are written for at once, each by both versions.
    """
    sampling = Sampling(max_new_tokens=recipe.evaluation.max_new_tokens)
    encoder_decoder = model.config.is_encoder_decoder
    prompts = [prompt_ids(example.input, tokenizer, encoder_decoder=encoder_decoder) for example in examples]
    order = sorted(range(len(examples)), key=lambda index: -len(prompts[index]))

    def write(some: Sequence[int]) -> dict[int, tuple[str, str]]:
        rows = [Row(prompts[index], version, sampling) for version in (None, prefix) for index in some]
        done = complete(model, tokenizer, rows, batch_size=len(rows), should_stop=should_stop)
        written = [completion.text.strip() for completion in done]
        return {index: (written[i], written[i + len(some)]) for i, index in enumerate(some)}

    texts: dict[int, tuple[str, str]] = {}
    for written in size.each(order, write):
        texts |= written
        if on_progress:
            on_progress(len(texts) / len(order))
    return [
        {
            "prompt": example.prompt,
            "references": list(example.references),
            "base": texts[index][0],
            "tuned": texts[index][1],
        }
        for index, example in enumerate(examples)
    ]


def text_metrics(written: Sequence[Written], version: str, names: Iterable[str]) -> dict[str, float]:
    """Metrics of one version's texts ("base" or "tuned") against the references."""
    predictions = [row[version] for row in written]
    references = [row["references"] for row in written]
    return {name: METRICS[name](predictions, references) for name in names}
