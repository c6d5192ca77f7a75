"""Rows become examples: a prompt and what the model should answer, split into two halves that share no prompt.

Knows recipes' data part, rows and templates. What an example looks like in tokens is `tokens`' business. Every row
that is left out stands in the report with its number and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from prefix_studio.data.chat import Malformed, Message, read_chat, transcript
from prefix_studio.data.mapping import chat_column, described, guess_mapping
from prefix_studio.data.read import read_rows, row_values
from prefix_studio.data.samples import sample_file, sample_meta
from prefix_studio.data.split import split_by_prompt
from prefix_studio.data.template import Template, require_column
from prefix_studio.errors import StudioError
from prefix_studio.recipe import DataPart

FEW_ROWS = 10
GUESSING_ROWS = 20
DEFAULT_VALIDATION = DataPart.model_fields["validation"].default


@dataclass(frozen=True)
class Example:
    """One prompt with its completion.

    row: the data row's number in its file, from 1. references: every completion of this prompt in this half.
    messages: the whole chat, up to and with the answer, where the format is chat; prompt is then its transcript.
    """

    prompt: str
    completion: str
    row: int
    references: tuple[str, ...] = ()
    messages: list[Message] | None = None

    @property
    def input(self) -> str | list[Message]:
        """What `tokens.prompt_ids` turns into the model's input: the prompt, or the messages before the answer."""
        return self.prompt if self.messages is None else self.messages[:-1]


@dataclass
class Report:
    """rows_read = rows_used + the dropped ones, in all files together; dropped: [{"row", "why"}]."""

    rows_read: int = 0
    rows_used: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def drop(self, row: int, why: str) -> None:
        self.dropped.append({"row": row, "why": why})

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True)
class Split:
    train: list[Example]
    validation: list[Example]
    report: Report


def load_examples(data: DataPart, tokenizer: Any = None) -> Split:
    """The examples of a recipe's data part, ready to be tokenised.

    tokenizer: only asked whether it has an end token; None skips that warning.
    Raises StudioError (category data or network): a bad file or template, or no row left to learn from.
    """
    data = with_samples_own(data)
    report = Report()
    rows = read_rows(data.source)
    recipe = fields_for(data, rows)
    examples = make_examples(rows, recipe, report)
    if not examples:
        first = report.dropped[0]
        raise StudioError(
            f"None of the {len(rows)} rows can be used (row {first['row']}: {first['why']}).",
            "Check which columns the prompt and the completion come from.",
            "data",
        )
    if isinstance(data.validation, str):
        train = examples
        validation = make_examples(read_rows(data.validation), recipe, report, " (validation file)")
        warn_of_leaks(train, validation, report)
    else:
        train, validation = split_by_prompt(examples, data.validation, key_of, report.warn)
    report.rows_used = len(train) + len(validation)
    warn_of_doubts(train, tokenizer, report)
    return Split(with_references(train), with_references(validation), report)


# Fields


def with_samples_own(data: DataPart) -> DataPart:
    """A sample's own templates and validation file, wherever the recipe leaves them at their defaults."""
    if not data.source.startswith("sample:"):
        return data
    name = data.source.removeprefix("sample:")
    meta = sample_meta(name)
    own: dict[str, Any] = {}
    if data.prompt is None and data.completion is None and data.messages is None:
        templates = () if meta["format"] == "chat" else ("prompt", "completion")
        own = {field: meta[field] for field in ("format", "messages", *templates) if meta.get(field)}
    if data.validation == DEFAULT_VALIDATION and meta.get("validation"):
        own["validation"] = str(sample_file(name, "validation"))
    return data.model_copy(update=own)


def fields_for(data: DataPart, rows: Dataset) -> DataPart:
    """The same part with format, templates and messages all decided: what the recipe leaves out is guessed."""
    columns, first = rows.column_names, list(row_values(rows, GUESSING_ROWS))
    guess = guess_mapping(columns, first)
    if data.messages is not None:
        require_column(data.messages, columns, "data.messages")
        return data.model_copy(update={"format": "chat"})
    if data.format == "text":
        return data.model_copy(update={"completion": data.completion or guess["completion"] or described(columns[-1:])})
    if data.prompt is None and data.completion is None:
        if data.format == "prompt-completion":
            return data.model_copy(update=guess)
        chat = chat_column(columns, first)
        if chat is not None:
            return data.model_copy(update={"messages": chat})
    return data.model_copy(update=guess_the_other(data, columns, guess))


def guess_the_other(data: DataPart, columns: list[str], guess: Mapping[str, str | None]) -> dict[str, str | None]:
    """Prompt and completion, where the recipe names one of them, or neither."""
    fields = {"prompt": data.prompt or guess["prompt"], "completion": data.completion or guess["completion"]}
    given = next((name for name in fields if getattr(data, name) is not None), None)
    other = next((name for name in fields if getattr(data, name) is None), None)
    if given and other:
        taken = Template(fields[given] or "", columns, name=f"data.{given}").columns
        guessed = Template(fields[other] or "", columns, name=f"data.{other}").columns
        if not guessed or set(guessed) & set(taken):
            left = [column for column in columns if column not in taken]
            fields[other] = described(left if other == "prompt" else left[-1:])
    missing = [name for name, template in fields.items() if not template]
    if missing:
        raise StudioError(
            f"No column is left for data.{missing[0]}.",
            f"Write it as a template. Known columns: {', '.join(columns)}.",
            "data",
        )
    return fields


# Rows


def make_examples(rows: Dataset, data: DataPart, report: Report, where: str = "") -> list[Example]:
    """One example a row; rows that cannot be learned from go to the report. where: added to the reasons."""
    make = chat_maker(data) if data.messages is not None else template_maker(data, rows.column_names)
    examples = []
    for number, row in enumerate(row_values(rows), start=1):
        try:
            examples.append(make(row, number))
        except Malformed as why:
            report.drop(number, f"{why}{where}")
    report.rows_read += len(rows)
    return examples


def chat_maker(data: DataPart) -> Callable[[Mapping[str, Any], int], Example]:
    def make(row: Mapping[str, Any], number: int) -> Example:
        messages = read_chat(row[data.messages])
        return Example(transcript(messages[:-1]), messages[-1]["content"], number, messages=messages)

    return make


def template_maker(data: DataPart, columns: list[str]) -> Callable[[Mapping[str, Any], int], Example]:
    prompt_template = Template(data.prompt or "", columns, name="data.prompt")
    completion_template = Template(data.completion or "", columns, name="data.completion")

    def make(row: Mapping[str, Any], number: int) -> Example:
        completion = completion_template.render(row, number)
        if not completion.strip():
            raise Malformed("empty completion")
        if data.format == "text":
            return Example("", completion, number)
        prompt = prompt_template.render(row, number)
        if not prompt.strip():
            raise Malformed("empty prompt")
        if data.format == "prompt-completion":
            return Example(prompt, completion, number)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        return Example(prompt, completion, number, messages=messages)

    return make


def key_of(example: Example) -> str:
    """What two halves must not share: the prompt, or the text itself where there are no prompts."""
    return example.prompt or example.completion


def with_references(examples: list[Example]) -> list[Example]:
    references: dict[str, dict[str, None]] = {}  # prompt -> its completions, each once, in order
    for example in examples:
        references.setdefault(key_of(example), {})[example.completion] = None
    return [
        Example(example.prompt, example.completion, example.row, tuple(references[key_of(example)]), example.messages)
        for example in examples
    ]


# Doubts


def warn_of_leaks(train: list[Example], validation: list[Example], report: Report) -> None:
    if not validation:
        report.warn("The validation file has no usable row, so nothing will be measured on held-back rows.")
    known = {key_of(example) for example in train}
    shared = sum(key_of(example) in known for example in validation)
    if shared:
        report.warn(
            f"{shared} of {len(validation)} validation prompts are also in the training rows: "
            "their results say little about new prompts."
        )


def warn_of_doubts(train: list[Example], tokenizer: Any, report: Report) -> None:
    repeated = len(train) - len({(example.prompt, example.completion) for example in train})
    if repeated:
        report.warn(f"{repeated} of {len(train)} training rows repeat an earlier row, prompt and completion.")
    if len(train) < FEW_ROWS:
        report.warn(f"Only {len(train)} rows to learn from: expect a weak result below {FEW_ROWS}.")
    if tokenizer is not None and tokenizer.eos_token_id is None:
        report.warn("The model's tokenizer has no end token, so the model cannot learn where to stop.")
