"""Where a prefix starts: the keys and values that the frozen model computes for a text.

Putting that prefix in front of a prompt is the same as putting the text there (up to the text's own length), so
training starts from what a prompt can do. Knows models and tokenizers; knows nothing of what is learned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import Cache, PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder_decoder import Recorder, encode, encoder_attentions, start_token
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import (
    empty_cache,
    layer_shapes,
    max_encoder_positions,
    max_positions,
    own_cache,
    refuse_unsupported,
)


def text_prefix(
    model: PreTrainedModel,
    tokenizer: Any,
    text: str,
    num_virtual_tokens: int | None = None,
    *,
    use_chat_template: bool = False,
    submodules: str = "decoder",
) -> Prefix:
    """The keys and values of a text's tokens, as a prefix of `num_virtual_tokens`.

    A shorter text is repeated, a longer one is cut; None means as long as the text.
    use_chat_template: the text stands as a system message, where the model's template allows one.
    submodules: `all` gives encoder-decoder models all three parts.
    Raises StudioError (input) for a text without tokens, or one longer than the model's positions.
    """
    ids = text_ids(tokenizer, text, num_virtual_tokens, use_chat_template=use_chat_template)
    limits = [max_positions(model.config)]
    if model.config.is_encoder_decoder:
        limits.append(max_encoder_positions(model.config))
    limit = min((limit for limit in limits if limit is not None), default=None)
    if limit is not None and len(ids) >= limit:
        raise StudioError(
            f"The initial text gives {len(ids)} virtual tokens, and the model has {limit} positions in all.",
            f"Shorten the text, or set num_virtual_tokens well below {limit}.",
        )
    return prefix_of(model, torch.tensor([ids]), submodules)


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
def prefix_of(model: PreTrainedModel, input_ids: Tensor, submodules: str = "decoder") -> Prefix:
    """The keys and values that the model computes for input_ids [1, m].

    An encoder-decoder reads the text on both sides: its decoder, after the start token, writes what its encoder reads
    (and so gets one token less of it). The encoder's part is what the encoder computes for the text, the cross part
    what the decoder's attention makes of the encoder's output.
    """
    refuse_unsupported(model.config)
    cache = empty_cache(model)
    # Sliding layers would keep the last tokens of the window only: have them keep all.
    own_cache(cache).activate_past_recording()
    input_ids = input_ids.to(model.device)
    if not model.config.is_encoder_decoder:
        model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        return taken(model, cache)
    recorders = [Recorder() for _ in encoder_attentions(model)] if submodules == "all" else None
    seen = torch.ones_like(input_ids)
    outputs = encode(model, input_ids, seen, recorders)
    start = torch.full_like(input_ids[:, :1], start_token(model))
    model(
        encoder_outputs=outputs,
        attention_mask=seen,
        decoder_input_ids=torch.cat([start, input_ids[:, :-1]], dim=1),
        past_key_values=cache,
        use_cache=True,
    )
    prefix = taken(model, own_cache(cache))
    if recorders is None:
        return prefix
    keys, values = zip(*(recorder.states for recorder in recorders), strict=True)
    encoder = Prefix([key[0] for key in keys], [value[0] for value in values])
    return replace(prefix, encoder=encoder, cross=taken(model, cache.cross_attention_cache))


def taken(model: PreTrainedModel, cache: Cache) -> Prefix:
    """The keys and values that a cache of one row holds. Raises StudioError (category model) where it holds more."""
    layers = [shape.index for shape in layer_shapes(model, cache)]
    filled = [cache.layers[index] for index in layers]
    # [1, heads, m, width] -> [heads, m, width]
    return Prefix([layer.keys[0].clone() for layer in filled], [layer.values[0].clone() for layer in filled], layers)
