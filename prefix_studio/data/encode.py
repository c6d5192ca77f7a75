"""Text to token ids: the few questions a tokenizer must answer before prompts and completions can be put together.

Knows tokenizers only.
"""

from __future__ import annotations

from typing import Any


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's tokens without any the tokenizer would add."""
    return encode(tokenizer, [text])[0]


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """`plain_ids` of many texts in one call, which fast tokenizers spread over the cores."""
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def own_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens by itself, without the space that some tokenizers put in front of every text."""
    ids = plain_ids(tokenizer, text)
    if not ids or not tokenizer.convert_ids_to_tokens(ids[0]).startswith("▁") or text.startswith((" ", "▁")):
        return ids
    anchor = plain_ids(tokenizer, "\n")
    anchored = plain_ids(tokenizer, f"\n{text}")
    return anchored[len(anchor) :] if anchored[: len(anchor)] == anchor else ids


def added_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that this tokenizer puts in front of a text and behind it."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for index in range(len(full) - len(bare) + 1):
        if full[index : index + len(bare)] == bare:
            return full[:index], full[index + len(bare) :]
    return [], []


def with_start(start: list[int], ids: list[int]) -> list[int]:
    """The ids behind the start tokens, once: a text may spell them out itself."""
    return ids if start and ids[: len(start)] == start else start + ids
