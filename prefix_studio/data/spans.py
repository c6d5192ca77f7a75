"""Which tokens of a chat the assistant said: the label mask of conversations.

The model's chat template knows: where it marks the assistant's words with {% generation %}, that mark is used; else a
turn is what the text gains from "the assistant is to speak" to "the assistant has spoken". Either way the tokens begin
with exactly the prompt that generation uses, and a turn ends with the token that ends it.
Knows tokenizers; neither examples nor files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prefix_studio.data.chat import Message, render_chat, template_messages
from prefix_studio.data.encode import continuations, encode
from prefix_studio.errors import StudioError

IGNORED = -100  # what PyTorch's cross-entropy leaves out
GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

Chat = Sequence[Message]
PromptOf = Callable[[list[int]], list[int]]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Labelled:
    """One example's tokens and labels. turns_left_out: assistant turns before the last that could not be told apart."""

    input_ids: list[int]
    labels: list[int]
    turns_left_out: int = 0


def label_chats(chats: Sequence[Chat], tokenizer: Any, prompt_of: PromptOf) -> list[Labelled | StudioError]:
    """Each chat's tokens and labels, equal in length, or why the template refuses it. Texts are tokenised together.

    chats: each up to and with its last assistant turn. prompt_of: what generation gets, from the tokens of the text
    that the template makes of all messages before that turn.
    """
    special = special_ids(tokenizer)
    done: dict[int, Labelled | StudioError] = {}
    befores = tried(range(len(chats)), lambda index: render_chat(chats[index][:-1], tokenizer, generate=True), done)
    if has_marks(tokenizer):
        bares = dict(zip(befores, encode(tokenizer, list(befores.values())), strict=True))
        marked = tried(
            befores, lambda index: from_marks(chats[index], tokenizer, prompt_of(bares[index]), special), done
        )
        done |= {index: labelled for index, labelled in marked.items() if labelled is not None}
    left = [index for index in befores if index not in done]
    answers = tried(left, lambda index: answer_text(chats[index], befores[index], tokenizer), done)
    pairs = [(befores[index], answer) for index, answer in answers.items()]
    tokens = dict(zip(answers, continuations(tokenizer, pairs), strict=True))

    def put_together(index: int) -> Labelled:
        bare, learned = tokens[index]
        prompt, learned = prompt_of(bare), ended(learned, tokenizer, special)
        shift = len(prompt) - len(bare)  # the start token of a chat without a template
        labels = [IGNORED] * len(prompt) + learned
        said, left_out = earlier_turns(chats[index][:-1], befores[index], tokenizer)
        for place in said:
            labels[place + shift] = prompt[place + shift]
        return Labelled(prompt + learned, labels, left_out)

    done |= tried(tokens, put_together, done)
    return [done[index] for index in range(len(chats))]


def tried(indices: Iterable[int], work: Callable[[int], Found], errors: dict[int, Any]) -> dict[int, Found]:
    """What the work gives for each index; where it raises StudioError, that stands in `errors`."""
    found: dict[int, Found] = {}
    for index in indices:
        try:
            found[index] = work(index)
        except StudioError as error:
            errors[index] = error
    return found


def has_marks(tokenizer: Any) -> bool:
    return isinstance(tokenizer.chat_template, str) and GENERATION_MARK.search(tokenizer.chat_template) is not None


def from_marks(chat: Chat, tokenizer: Any, prompt: list[int], special: set[int]) -> Labelled | None:
    """By the template's own {% generation %} marks; None where they do not fit the prompt."""
    encoded = tokenizer.apply_chat_template(
        template_messages(chat, tokenizer), return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(encoded["input_ids"]), list(encoded["assistant_masks"])
    if ids[: len(prompt)] != prompt or 1 not in mask[len(prompt) :]:
        return None
    for index in range(1, len(ids)):  # many templates leave the end of a turn outside their mark; it must be learned
        if mask[index - 1] and not mask[index] and ids[index - 1] not in special and ids[index] in special:
            mask[index] = 1
    stop = max(index for index, said in enumerate(mask) if said) + 1
    learned = ended(ids[len(prompt) : stop], tokenizer, special)
    labels = [token if said else IGNORED for token, said in zip(ids[:stop], mask, strict=False)]
    labels += learned[stop - len(prompt) :]
    return Labelled(prompt + learned, labels)


def answer_text(chat: Chat, before: str, tokenizer: Any) -> str:
    """The last answer as the template writes it, with the end of the turn and without the space after that."""
    after = render_chat(chat, tokenizer, generate=False)
    if after.startswith(before):
        return after[len(before) :].rstrip()
    content = chat[-1]["content"].strip()  # a template that opens with more than it keeps, such as a thought
    return after[after.rindex(content) :].rstrip() if content in after else content


def earlier_turns(chat: Chat, before: str, tokenizer: Any) -> tuple[list[int], int]:
    """(indices, in the tokens of `before`, of what the assistant said earlier; turns that could not be found)."""
    answers = [index for index, message in enumerate(chat) if message["role"] == "assistant"]
    if not answers:
        return [], 0
    if not tokenizer.is_fast:  # only fast tokenizers know which characters a token stands for
        return [], len(answers)
    spans = []
    for index in answers:
        opened = render_chat(chat[:index], tokenizer, generate=True) if index else ""
        closed = opened + answer_text(chat[: index + 1], opened, tokenizer)
        if index and before.startswith(closed):
            spans.append((len(opened), len(closed)))
    offsets = tokenizer(before, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    said = [
        index
        for index, (first, last) in enumerate(offsets)
        if last > first and any(start <= first and last <= stop for start, stop in spans)
    ]
    return said, len(answers) - len(spans)


def ended(ids: list[int], tokenizer: Any, special: set[int]) -> list[int]:
    """The ids with an end: the template's own token, or the tokenizer's where the template has none."""
    if tokenizer.eos_token_id is None or (ids and ids[-1] in special):
        return ids
    return [*ids, tokenizer.eos_token_id]


def special_ids(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
