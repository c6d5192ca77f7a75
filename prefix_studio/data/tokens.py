"""Examples become labelled token rows, and prompts the model's input: one rule for training and generation.

The rule: the model's input is the prompt's own tokens (after the start token, where the tokenizer adds one), exactly
what `prompt_ids` gives to generation. The completion follows as the tokens it has in the whole text, where the prompt
tokenises the same with and without it; where a token would span the border, the completion is tokenised by itself, so
that training never sees a prompt that generation cannot produce. The end token comes last and is learned. Labels are
-100 on everything but the assistant's words and their end.

Knows tokenizers; no models and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from prefix_studio.data.chat import Message, render_chat
from prefix_studio.data.encode import added_ids, encode, own_ids, plain_ids, with_start
from prefix_studio.data.examples import Example, Report
from prefix_studio.data.spans import IGNORED, label_chat
from prefix_studio.errors import StudioError

CHUNK = 1000  # examples tokenised in one call
LONG_TOKENS, LONG_TIMES = 256, 8  # a row is long beyond both: tokens, and times the median


@dataclass(frozen=True)
class TokenRow:
    """One example in tokens. labels: as long as input_ids (decoder-only), or the target (encoder-decoder)."""

    input_ids: list[int]
    labels: list[int]
    row: int


def prompt_ids(prompt: str | Sequence[Message], tokenizer: Any, *, encoder_decoder: bool = False) -> list[int]:
    """A prompt, or a chat up to where the assistant is to speak, as the model's input: never empty.

    A text gets the start token where the tokenizer adds one (once, even if the text spells it out); a chat goes
    through the model's chat template, which writes its own. An empty prompt is the start token, or the end token for
    models without one. encoder_decoder: the encoder's input, which also ends as the tokenizer ends it.
    Raises StudioError (category data) when the chat template refuses the chat.
    """
    text, start, end = input_text(prompt, tokenizer)
    ids = with_start(start, plain_ids(tokenizer, text)) + (end if encoder_decoder else [])
    if ids:
        return ids
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise StudioError(
            "The prompt is empty, and this tokenizer has no start token.", "Give at least one word.", "data"
        )
    return [first]


def tokenize(example: Example, tokenizer: Any, max_length: int, *, encoder_decoder: bool = False) -> TokenRow:
    """One example as a token row, by the rule above.

    Raises StudioError (category data) when it is longer than max_length, has nothing to learn, or is refused by the
    chat template.
    """
    row, _ = tokenize_one(example, tokenizer, encoder_decoder)
    problem = unusable(row, max_length)
    if problem:
        raise StudioError(f"Row {example.row}: {problem}.", "Raise data.max_length, or shorten the row.", "data")
    return row


def tokenize_all(
    examples: Sequence[Example],
    tokenizer: Any,
    max_length: int,
    report: Report | None = None,
    *,
    encoder_decoder: bool = False,
) -> list[TokenRow]:
    """Token rows of all examples that fit.

    Rows that do not are dropped, with the reason in the report (whose rows_used falls by as many).
    Raises StudioError (category data) when there were examples and none can be used.
    """
    report = report if report is not None else Report(rows_used=len(examples))
    rows: list[TokenRow] = []
    dropped: list[tuple[int, str]] = []
    unlearned_turns = 0
    for example, outcome in tokenized(examples, tokenizer, encoder_decoder):
        if isinstance(outcome, StudioError):
            dropped.append((example.row, outcome.message.rstrip(".")))
            continue
        row, turns_left_out = outcome
        problem = unusable(row, max_length)
        if problem:
            dropped.append((example.row, problem))
            continue
        rows.append(row)
        unlearned_turns += turns_left_out > 0
    for number, why in dropped:
        report.drop(number, why)
    report.rows_used -= len(dropped)
    if examples and not rows:
        number, why = dropped[0]
        raise StudioError(
            f"None of the {len(examples)} examples can be used (row {number}: {why}).",
            "Raise data.max_length, or shorten the rows.",
            "data",
        )
    if unlearned_turns:
        report.warn(
            f"In {unlearned_turns} chats some earlier answers are not learned: the model's chat template rewrites them."
        )
    warn_of_long_rows(rows, report)
    return rows


def tokenized(
    examples: Sequence[Example], tokenizer: Any, encoder_decoder: bool
) -> Iterator[tuple[Example, tuple[TokenRow, int] | StudioError]]:
    """Each example with its row and count of unlearned turns, or with what is wrong; plain texts in large calls."""
    for first in range(0, len(examples), CHUNK):
        chunk = examples[first : first + CHUNK]
        plain = [] if encoder_decoder else [example for example in chunk if example.messages is None]
        rows = iter(tokenize_texts(plain, tokenizer))
        for example in chunk:
            if example.messages is None and not encoder_decoder:
                yield example, (next(rows), 0)
                continue
            try:
                yield example, tokenize_one(example, tokenizer, encoder_decoder)
            except StudioError as error:
                yield example, error


def tokenize_one(example: Example, tokenizer: Any, encoder_decoder: bool) -> tuple[TokenRow, int]:
    """(row, assistant turns of a chat that could not be learned)."""
    if encoder_decoder:
        ids = prompt_ids(example.input, tokenizer, encoder_decoder=True)
        return TokenRow(ids, target_ids(example.completion, tokenizer), example.row), 0
    if example.messages is None:
        return tokenize_texts([example], tokenizer)[0], 0
    prompt = prompt_ids(example.input, tokenizer)
    chat = label_chat(example.messages, tokenizer, prompt)
    return TokenRow(chat.input_ids, chat.labels, example.row), chat.turns_left_out


def tokenize_texts(examples: Sequence[Example], tokenizer: Any) -> list[TokenRow]:
    if not examples:
        return []
    start = added_ids(tokenizer)[0]
    prompts = encode(tokenizer, [example.prompt for example in examples])
    wholes = encode(tokenizer, [example.prompt + example.completion for example in examples])
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    rows = []
    for example, prompt, whole in zip(examples, prompts, wholes, strict=True):
        seen = with_start(start, prompt) or prompt_ids("", tokenizer)
        stable = whole[: len(prompt)] == prompt
        learned = whole[len(prompt) :] if stable else own_ids(tokenizer, example.completion)
        learned = learned if learned[-1:] == end else learned + end
        rows.append(TokenRow(seen + learned, [IGNORED] * len(seen) + learned, example.row))
    return rows


def target_ids(completion: str, tokenizer: Any) -> list[int]:
    """What the decoder of an encoder-decoder is to write: the completion as a target, and an end."""
    ids = list(tokenizer(text_target=completion)["input_ids"])
    end = tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def input_text(prompt: str | Sequence[Message], tokenizer: Any) -> tuple[str, list[int], list[int]]:
    """(text, ids in front of it, ids behind it where an encoder reads it)."""
    if not isinstance(prompt, str) and tokenizer.chat_template:
        return render_chat(prompt, tokenizer, generate=True), [], []
    start, end = added_ids(tokenizer)
    return prompt if isinstance(prompt, str) else render_chat(prompt, tokenizer, generate=True), start, end


# What does not fit


def unusable(row: TokenRow, max_length: int) -> str:
    longest = max(len(row.input_ids), len(row.labels))
    if longest > max_length:
        return f"{longest:,} tokens, more than max_length {max_length:,}"
    if all(label == IGNORED for label in row.labels):
        return "no token to learn: all labels are masked"
    return ""


def warn_of_long_rows(rows: list[TokenRow], report: Report) -> None:
    if not rows:
        return
    middle = median(len(row.input_ids) for row in rows)
    limit = max(LONG_TOKENS, LONG_TIMES * middle)
    long = [row for row in rows if len(row.input_ids) > limit]
    if long:
        longest = max(long, key=lambda row: len(row.input_ids))
        report.warn(
            f"{len(long)} rows are very long (row {longest.row} has {len(longest.input_ids):,} tokens, "
            f"half of the rows at most {middle:,.0f}): they slow training and take memory; data.max_length drops them."
        )
