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
from typing import Any

import numpy as np

from prefix_studio.data.chat import Message, render_chat
from prefix_studio.data.encode import added_ids, continuations, encode, plain_ids, with_start
from prefix_studio.data.examples import Example, Report
from prefix_studio.data.spans import IGNORED, Labelled, PromptOf, label_chats, tried
from prefix_studio.data.token_rows import TokenRow, TokenRows, TokenRowsWriter
from prefix_studio.errors import StudioError

# What is tokenised together: lists of tokens are short-lived, and there are never more of them than of so much text.
CHUNK_CHARACTERS = 500_000
EXAMPLE_CHARACTERS = 100  # what an example takes besides its text, in characters
LONG_TOKENS, LONG_TIMES = 256, 8  # a row is long beyond both: tokens, and times the median


def prompt_ids(prompt: str | Sequence[Message], tokenizer: Any, *, encoder_decoder: bool = False) -> list[int]:
    """A prompt, or a chat up to where the assistant is to speak, as the model's input: never empty.

    A text gets the start token where the tokenizer adds one (once, even if the text spells it out); a chat goes
    through the model's chat template, which writes its own. An empty prompt is the start token, or the end token for
    models without one. encoder_decoder: the encoder's input, which also ends as the tokenizer ends it.
    Raises StudioError (category data) when the chat template refuses the chat.
    """
    text = input_text(prompt, tokenizer)
    return prompt_rule(tokenizer, not isinstance(prompt, str), encoder_decoder)(plain_ids(tokenizer, text))


def tokenize(example: Example, tokenizer: Any, max_length: int, *, encoder_decoder: bool = False) -> TokenRow:
    """One example as a token row, by the rule above.

    Raises StudioError (category data) when it is longer than max_length, has nothing to learn, or is refused by the
    chat template.
    """
    (labelled,) = label([example], tokenizer, encoder_decoder)
    if isinstance(labelled, StudioError):
        raise labelled
    problem = unusable(labelled, max_length)
    if problem:
        raise StudioError(f"Row {example.row}: {problem}.", "Raise data.max_length, or shorten the row.", "data")
    writer = TokenRowsWriter()
    writer.add(labelled.input_ids, labelled.labels, example.row)
    return writer.finish()[0]


def tokenize_all(
    examples: Sequence[Example],
    tokenizer: Any,
    max_length: int,
    report: Report | None = None,
    *,
    encoder_decoder: bool = False,
    may_be_empty: bool = False,
) -> TokenRows:
    """Token rows of all examples that fit.

    Rows that do not are dropped, with the reason in the report (whose rows_used falls by as many).
    may_be_empty: for held-back rows; when none of them can be used, that is a warning in the report.
    Raises StudioError (category data) when there were examples and none can be used, unless may_be_empty.
    """
    report = report if report is not None else Report(rows_used=len(examples))
    writer = TokenRowsWriter()
    dropped: list[tuple[int, str]] = []
    unlearned_turns = 0
    for chunk in chunks(examples):
        for example, labelled in zip(chunk, label(chunk, tokenizer, encoder_decoder), strict=True):
            refused = isinstance(labelled, StudioError)
            problem = labelled.message.rstrip(".") if refused else unusable(labelled, max_length)
            if problem:
                dropped.append((example.row, problem))
                continue
            writer.add(labelled.input_ids, labelled.labels, example.row)
            unlearned_turns += labelled.turns_left_out > 0
    rows = writer.finish()
    for number, why in dropped:
        report.drop(number, why)
    report.rows_used -= len(dropped)
    if examples and not rows:
        tell_of_no_rows(len(examples), dropped[0], report if may_be_empty else None)
    if unlearned_turns:
        report.warn(
            f"In {unlearned_turns} chats some earlier answers are not learned: the model's chat template rewrites them."
        )
    warn_of_long_rows(rows, report)
    return rows


# Chunks of examples


def chunks(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """The examples in order, in stretches of about CHUNK_CHARACTERS, at least one in each."""
    first = size = 0
    for index, example in enumerate(examples):
        size += EXAMPLE_CHARACTERS + len(example.prompt) + len(example.completion)
        if size >= CHUNK_CHARACTERS:
            yield examples[first : index + 1]
            first, size = index + 1, 0
    if first < len(examples):
        yield examples[first:]


def label(examples: Sequence[Example], tokenizer: Any, encoder_decoder: bool) -> list[Labelled | StudioError]:
    """Each example's tokens and labels, or what is wrong with it; the texts of all of them in a few large calls."""
    if encoder_decoder:
        return label_pairs(examples, tokenizer)
    chats = [example.messages for example in examples if example.messages is not None]
    labelled_chats = iter(label_chats(chats, tokenizer, prompt_rule(tokenizer, True)) if chats else ())
    labelled_texts = iter(label_texts([example for example in examples if example.messages is None], tokenizer))
    return [next(labelled_texts if example.messages is None else labelled_chats) for example in examples]


def label_texts(examples: Sequence[Example], tokenizer: Any) -> Iterator[Labelled]:
    prompt_of = prompt_rule(tokenizer, False)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for bare, learned in continuations(tokenizer, [(example.prompt, example.completion) for example in examples]):
        prompt = prompt_of(bare)
        learned = learned if learned[-1:] == end else learned + end
        yield Labelled(prompt + learned, [IGNORED] * len(prompt) + learned)


def label_pairs(examples: Sequence[Example], tokenizer: Any) -> list[Labelled | StudioError]:
    """For encoder-decoders: what the encoder reads, and the target."""
    done: dict[int, Labelled | StudioError] = {}
    prompt_of = {chat: prompt_rule(tokenizer, chat, encoder_decoder=True) for chat in (False, True)}
    texts = tried(range(len(examples)), lambda index: input_text(examples[index].input, tokenizer), done)
    bare = dict(zip(texts, encode(tokenizer, list(texts.values())), strict=True))
    targets = dict(zip(texts, target_ids([examples[index].completion for index in texts], tokenizer), strict=True))

    def put_together(index: int) -> Labelled:
        return Labelled(prompt_of[examples[index].messages is not None](bare[index]), targets[index])

    done |= tried(texts, put_together, done)
    return [done[index] for index in range(len(examples))]


def target_ids(completions: list[str], tokenizer: Any) -> list[list[int]]:
    """What the decoder of an encoder-decoder is to write: each completion as a target, and an end."""
    if not completions:
        return []
    end = tokenizer.eos_token_id
    targets = tokenizer(text_target=completions, verbose=False)["input_ids"]
    # Some tokenizers close a target with its language, behind the end.
    return [ids if end is None or end in ids[-2:] else [*ids, end] for ids in targets]


def input_text(prompt: str | Sequence[Message], tokenizer: Any) -> str:
    return prompt if isinstance(prompt, str) else render_chat(prompt, tokenizer, generate=True)


def prompt_rule(tokenizer: Any, chat: bool, encoder_decoder: bool = False) -> PromptOf:
    """What makes the model's input of the bare tokens of an `input_text`, as `prompt_ids` says."""
    start, end = ([], []) if chat and tokenizer.chat_template else added_ids(tokenizer)
    behind = end if encoder_decoder else []

    def prompt_of(bare: list[int]) -> list[int]:
        return with_start(start, bare) + behind or [first_token(tokenizer)]

    return prompt_of


def first_token(tokenizer: Any) -> int:
    """What an empty prompt is made of."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise StudioError(
            "The prompt is empty, and this tokenizer has no start token.", "Give at least one word.", "data"
        )
    return first


# What does not fit


def unusable(labelled: Labelled, max_length: int) -> str:
    longest = max(len(labelled.input_ids), len(labelled.labels))
    if longest > max_length:
        return f"{longest:,} tokens, more than max_length {max_length:,}"
    if labelled.labels.count(IGNORED) == len(labelled.labels):
        return "no token to learn: all labels are masked"
    return ""


def tell_of_no_rows(count: int, first: tuple[int, str], report: Report | None) -> None:
    """As a warning in the report; raises StudioError where there is none."""
    number, why = first
    if report is None:
        raise StudioError(
            f"None of the {count} examples can be used (row {number}: {why}).",
            "Raise data.max_length, or shorten the rows.",
            "data",
        )
    report.warn(
        f"None of the {count} held-back rows can be used (row {number}: {why}), "
        "so nothing will be measured on held-back rows."
    )


def warn_of_long_rows(rows: TokenRows, report: Report) -> None:
    if not rows:
        return
    middle = float(np.median(rows.lengths))
    limit = max(LONG_TOKENS, LONG_TIMES * middle)
    count = int((rows.lengths > limit).sum())
    if count:
        longest = rows[int(rows.lengths.argmax())]
        report.warn(
            f"{count} rows are very long (row {longest.row} has {len(longest.input_ids):,} tokens, "
            f"half of the rows at most {middle:,.0f}): they slow training and take memory; data.max_length drops them."
        )
