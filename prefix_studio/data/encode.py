"""Text to token ids: the few questions a tokenizer must answer before prompts and completions can be put together.

Knows tokenizers only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

TEXTS_PER_THREAD = 200  # fewer are not worth a thread


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's tokens without any the tokenizer would add."""
    return encode(tokenizer, [text])[0]


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """`plain_ids` of many texts in one call, which fast tokenizers spread over the cores.

    Asks a fast tokenizer's own backend, which makes no masks and offsets that nobody reads. The threads are Python's,
    since the backend's own are off wherever TOKENIZERS_PARALLELISM is false; it lets go of the interpreter's lock.
    """
    if not texts:
        return []
    if not tokenizer.is_fast:
        return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    backend = tokenizer.backend_tokenizer
    # Only where it must be: a backend refuses to be changed while another thread reads it.
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    if backend.encode_special_tokens != tokenizer.split_special_tokens:
        backend.encode_special_tokens = tokenizer.split_special_tokens

    def ids_of(some: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in backend.encode_batch_fast(some, add_special_tokens=False)]

    threads = min(os.cpu_count() or 1, len(texts) // TEXTS_PER_THREAD)
    if threads < 2:
        return ids_of(texts)
    size = -(-len(texts) // threads)
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(ids_of, [texts[first : first + size] for first in range(0, len(texts), size)])
        return list(chain.from_iterable(parts))


def own_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Each text's tokens by itself, without the space that some tokenizers put in front of every text."""
    found = encode(tokenizer, texts)
    spaced = [
        index
        for index, (text, ids) in enumerate(zip(texts, found, strict=True))
        if ids and not text.startswith((" ", "▁")) and tokenizer.convert_ids_to_tokens(ids[0]).startswith("▁")
    ]
    if spaced:
        anchor = plain_ids(tokenizer, "\n")
        for index, ids in zip(spaced, encode(tokenizer, [f"\n{texts[index]}" for index in spaced]), strict=True):
            if ids[: len(anchor)] == anchor:
                found[index] = ids[len(anchor) :]
    return found


def continuations(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Of each (text, what follows): the text's own tokens, and those that follow.

    They follow as in the whole; by themselves where a token would span the border. A text that comes again is
    tokenised once.
    """
    texts = list(dict.fromkeys(text for text, _ in pairs))
    own = dict(zip(texts, encode(tokenizer, texts), strict=True))
    wholes = encode(tokenizer, [text + following for text, following in pairs])
    found = [(own[text], whole[len(own[text]) :]) for (text, _), whole in zip(pairs, wholes, strict=True)]
    spanned = [
        index
        for index, ((text, _), whole) in enumerate(zip(pairs, wholes, strict=True))
        if whole[: len(own[text])] != own[text]
    ]
    for index, ids in zip(spanned, own_ids(tokenizer, [pairs[index][1] for index in spanned]), strict=True):
        found[index] = found[index][0], ids
    return found


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
