"""Which tokens of a chat the assistant said: the label mask of conversations.

The model's chat template knows: where it marks the assistant's words with {% generation %}, that mark is used; else a
turn is what the text gains from "the assistant is to speak" to "the assistant has spoken". Either way the tokens begin
with exactly the prompt that generation uses, and a turn ends with the token that ends it.
Knows tokenizers; neither examples nor files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefix_studio.data.chat import Message, render_chat, template_messages
from prefix_studio.data.encode import own_ids, plain_ids

IGNORED = -100  # what PyTorch's cross-entropy leaves out
GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Labelled:
    """Equal in length. turns_left_out: assistant turns before the last whose tokens could not be told apart."""

    input_ids: list[int]
    labels: list[int]
    turns_left_out: int


def label_chat(messages: Sequence[Message], tokenizer: Any, prompt: list[int]) -> Labelled:
    """The chat's tokens and labels.

    messages: up to and with the last assistant turn. prompt: the ids generation gets for all messages before it.
    """
    marked = from_marks(messages, tokenizer, prompt)
    if marked is not None:
        return marked
    before = render_chat(messages[:-1], tokenizer, generate=True)
    answer = answer_text(messages, before, tokenizer)
    bare = plain_ids(tokenizer, before)
    whole = plain_ids(tokenizer, before + answer)
    stable = whole[: len(bare)] == bare
    learned = ended(whole[len(bare) :] if stable else own_ids(tokenizer, answer), tokenizer)
    said, left_out = earlier_turns(messages[:-1], before, tokenizer)
    shift = len(prompt) - len(bare)  # the start token of a chat without a template
    labels = [IGNORED] * len(prompt)
    for index in said:
        labels[index + shift] = prompt[index + shift]
    return Labelled(prompt + learned, labels + learned, left_out)


def from_marks(messages: Sequence[Message], tokenizer: Any, prompt: list[int]) -> Labelled | None:
    """By the template's own {% generation %} marks; None where it has none, or where they do not fit the prompt."""
    if not isinstance(tokenizer.chat_template, str) or not GENERATION_MARK.search(tokenizer.chat_template):
        return None
    encoded = tokenizer.apply_chat_template(
        template_messages(messages, tokenizer), return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(encoded["input_ids"]), list(encoded["assistant_masks"])
    if ids[: len(prompt)] != prompt or 1 not in mask[len(prompt) :]:
        return None
    special = special_ids(tokenizer)
    for index in range(1, len(ids)):  # many templates leave the end of a turn outside their mark; it must be learned
        if mask[index - 1] and not mask[index] and ids[index - 1] not in special and ids[index] in special:
            mask[index] = 1
    stop = max(index for index, said in enumerate(mask) if said) + 1
    learned = ended(ids[len(prompt) : stop], tokenizer)
    labels = [token if said else IGNORED for token, said in zip(ids[:stop], mask, strict=False)]
    labels += learned[stop - len(prompt) :]
    return Labelled(prompt + learned, labels, 0)


def answer_text(messages: Sequence[Message], before: str, tokenizer: Any) -> str:
    """The last answer as the template writes it, with the end of the turn and without the space after that."""
    after = render_chat(messages, tokenizer, generate=False)
    if after.startswith(before):
        return after[len(before) :].rstrip()
    content = messages[-1]["content"].strip()  # a template that opens with more than it keeps, such as a thought
    return after[after.rindex(content) :].rstrip() if content in after else content


def earlier_turns(messages: Sequence[Message], before: str, tokenizer: Any) -> tuple[list[int], int]:
    """(indices, in the tokens of `before`, of what the assistant said earlier; turns that could not be found)."""
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        return [], 0
    if not tokenizer.is_fast:  # only fast tokenizers know which characters a token stands for
        return [], len(answers)
    spans = []
    for index in answers:
        opened = render_chat(messages[:index], tokenizer, generate=True) if index else ""
        closed = opened + answer_text(messages[: index + 1], opened, tokenizer)
        if index and before.startswith(closed):
            spans.append((len(opened), len(closed)))
    offsets = tokenizer(before, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    said = [
        index
        for index, (first, last) in enumerate(offsets)
        if last > first and any(start <= first and last <= stop for start, stop in spans)
    ]
    return said, len(answers) - len(spans)


def ended(ids: list[int], tokenizer: Any) -> list[int]:
    """The ids with an end: the template's own token, or the tokenizer's where the template has none."""
    if tokenizer.eos_token_id is None or (ids and ids[-1] in special_ids(tokenizer)):
        return ids
    return [*ids, tokenizer.eos_token_id]


def special_ids(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
