"""Where a prefix starts: the keys and values that the frozen model computes for a text.

Putting that prefix in front of a prompt is the same as putting the text there (up to the text's own length), so
training starts from what a prompt can do. Knows models and tokenizers; knows nothing of what is learned.
"""

from __future__ import annotations

from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import empty_cache, max_positions


def text_prefix(
    model: PreTrainedModel,
    tokenizer: Any,
    text: str,
    num_virtual_tokens: int | None = None,
    *,
    use_chat_template: bool = False,
) -> Prefix:
    """The keys and values of a text's tokens, as a prefix of `num_virtual_tokens`.

    A shorter text is repeated, a longer one is cut; None means as long as the text.
    use_chat_template: the text stands as a system message, where the model's template allows one.
    Raises StudioError (input) for a text without tokens, or one longer than the model's positions.
    """
    ids = text_ids(tokenizer, text, num_virtual_tokens, use_chat_template=use_chat_template)
    limit = max_positions(model.config)
    if limit is not None and len(ids) >= limit:
        raise StudioError(
            f"The initial text gives {len(ids)} virtual tokens, and the model has {limit} positions in all.",
            f"Shorten the text, or set num_virtual_tokens well below {limit}.",
        )
    return prefix_of(model, torch.tensor([ids]))


def text_ids(
    tokenizer: Any, text: str, num_virtual_tokens: int | None, *, use_chat_template: bool = False
) -> list[int]:
    """The tokens whose keys and values become the prefix: the start token, if the tokenizer has one, only once."""
    ids = chat_ids(tokenizer, text) if use_chat_template else None
    if ids is None:
        ids = list(tokenizer(text)["input_ids"])
        if ids and ids[-1] == tokenizer.eos_token_id != tokenizer.bos_token_id:
            ids = ids[:-1]  # a text that goes on does not end here
    body = ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids
    if not body:
        raise StudioError("The initial text has no tokens.", "Write a few words, or choose random or zero.")
    if num_virtual_tokens is None:
        return ids
    repeats = -(-num_virtual_tokens // len(body))
    return (ids + body * repeats)[:num_virtual_tokens]


def chat_ids(tokenizer: Any, text: str) -> list[int] | None:
    """The text as a system message; None where the model has no chat template or its template has no such role."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    message = [{"role": "system", "content": text}]
    try:
        return list(tokenizer.apply_chat_template(message, tokenize=True, return_dict=False))
    except TemplateError:
        return None


@torch.no_grad()
def prefix_of(model: PreTrainedModel, input_ids: Tensor) -> Prefix:
    """The keys and values that the model computes for input_ids [1, m]."""
    cache = empty_cache(model)
    # Sliding layers would keep the last tokens of the window only: have them keep all.
    cache.activate_past_recording()
    input_ids = input_ids.to(model.device)
    model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), past_key_values=cache, use_cache=True)
    # [1, heads, m, head_dim] -> [heads, m, head_dim]
    return Prefix(
        tuple(layer.keys[0].clone() for layer in cache.layers), tuple(layer.values[0].clone() for layer in cache.layers)
    )
