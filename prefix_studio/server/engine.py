"""What the model process does with models: compare base and adapters, complete prompts, estimate a run.

Base, init text and adapters are rows of one batch on one frozen model. Everything that touches a model is work for
the one worker; `compare_once` does the same in the caller's own thread, for the command line. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefix_studio.data.examples import load_examples
from prefix_studio.data.tokens import tokenize_all
from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling
from prefix_studio.generation.text import Completion, stream_text
from prefix_studio.models.load import describe
from prefix_studio.prefix.files import load_prefix
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.recipe import ModelPart, Recipe
from prefix_studio.server.bases import Base, Bases
from prefix_studio.server.worker import Work, Worker

Prompt = str | list[dict[str, Any]]
ShouldStop = Callable[[], bool]
BASE, INIT_TEXT = "base", "init_text"


class Piece(NamedTuple):
    """Some text of prompt `index`; `done` is None until the piece that ends it."""

    index: int
    text: str
    prompt_tokens: int
    done: Completion | None


class Engine:
    """The worker and its models. Methods give work for `worker.submit`; nothing happens before it runs there."""

    def __init__(self, bases: Bases | None = None):
        self.bases = bases or Bases()
        self.worker = Worker(when_idle=self.bases.unload_idle)

    def compare(
        self,
        part: ModelPart,
        adapters: Sequence[Path | str],
        prompt: Prompt,
        init_text: str | None,
        sampling: Sampling,
    ) -> Work:
        """Gives {"row", "text"} as the rows are written, then {"done": what `compare --json` prints}."""

        def work(should_stop: ShouldStop) -> Iterator[dict[str, Any]]:
            yield from compare(self.bases.get(part), adapters, prompt, init_text, sampling, should_stop)

        return work

    def complete(
        self, part: ModelPart, adapter: Path | None, prompts: Sequence[Prompt], samplings: Sequence[Sampling]
    ) -> Work:
        """Gives the Pieces of every prompt's completion, all prompts in one batch."""

        def work(should_stop: ShouldStop) -> Iterator[Piece]:
            yield from complete(self.bases.get(part), adapter, prompts, samplings, should_stop)

        return work

    def estimate(self, recipe: Recipe) -> Work:
        """Gives one dictionary: what the recipe's run will take."""

        def work(should_stop: ShouldStop) -> Iterator[dict[str, Any]]:
            from prefix_studio.training.estimate import estimate

            base = self.bases.get(recipe.model)
            split = load_examples(recipe.data, base.tokenizer)
            both = base.model.config.is_encoder_decoder
            rows = tokenize_all(split.train, base.tokenizer, recipe.data.max_length, split.report, encoder_decoder=both)
            yield estimate(recipe, base.model, rows, validation_rows=len(split.validation))

        return work

    def check(self, part: ModelPart, adapters: Sequence[Path]) -> None:
        """Load the base and try its adapters on it, before the worker has anything to do.

        Raises StudioError for what is wrong with them.
        """
        base = self.bases.get(part)
        for adapter in adapters:
            fitting_prefix(adapter, base)


def compare_once(
    part: ModelPart, adapters: Sequence[Path | str], prompt: Prompt, init_text: str | None, sampling: Sampling
) -> dict[str, Any]:
    """What `compare --json` prints: base, init text (or None) and adapters answer one prompt in one batch.

    Raises StudioError: model, adapter or prompt cannot be used, or an adapter was made for another model.
    """
    *_, last = compare(Bases().get(part), adapters, prompt, init_text, sampling)
    return last["done"]


def compare(
    base: Base,
    adapters: Sequence[Path | str],
    prompt: Prompt,
    init_text: str | None,
    sampling: Sampling,
    should_stop: ShouldStop = lambda: False,
) -> Iterator[dict[str, Any]]:
    """{"row", "text"} as texts grow, then {"done": {...}}. Rows are "base", "init_text", adapters as named."""
    prefixes: dict[str, Prefix | None] = {BASE: None}
    if init_text:
        prefixes[INIT_TEXT] = text_prefix(base.model, base.tokenizer, init_text)
    folders = list(dict.fromkeys(str(adapter) for adapter in adapters))
    prefixes |= {folder: fitting_prefix(folder, base) for folder in folders}

    ids = base.prompt_ids(prompt)
    names = list(prefixes)
    rows = [Row(ids, prefix, sampling) for prefix in prefixes.values()]
    written: dict[str, dict[str, Any]] = {}
    stream = stream_text(base.model, base.tokenizer, rows, eos_ids=base.eos_ids, should_stop=should_stop)
    for index, text, done in stream:
        if text:
            yield {"row": names[index], "text": text}
        if done:
            written[names[index]] = {"text": done.text, "tokens": done.tokens}
    yield {
        "done": {
            "prompt": prompt if isinstance(prompt, str) else prompt[-1]["content"],
            "base": written[BASE],
            "init_text": written.get(INIT_TEXT),
            "adapters": [{"adapter": folder, **written[folder]} for folder in folders],
        }
    }


def complete(
    base: Base,
    adapter: Path | None,
    prompts: Sequence[Prompt],
    samplings: Sequence[Sampling],
    should_stop: ShouldStop,
) -> Iterator[Piece]:
    prefix = fitting_prefix(adapter, base) if adapter else None
    ids = [base.prompt_ids(prompt) for prompt in prompts]
    rows = [Row(row, prefix, sampling) for row, sampling in zip(ids, samplings, strict=True)]
    stream = stream_text(base.model, base.tokenizer, rows, eos_ids=base.eos_ids, should_stop=should_stop)
    for index, text, done in stream:
        yield Piece(index, text, len(ids[index]), done)


def fitting_prefix(folder: Path | str, base: Base) -> Prefix:
    """The adapter's prefix. Raises StudioError that names adapter and base where they do not fit."""
    try:
        return load_prefix(folder, base.model)
    except StudioError as error:
        raise StudioError(
            f"The adapter {folder} cannot be used with {describe(base.part)}: {error.message}",
            error.hint,
            error.category,
        ) from error
