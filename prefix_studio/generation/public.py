"""A tuned prefix on a plain transformers model, without this program's engine: `model.generate` and its strategies.

prefix = prefix_studio.load_prefix(folder, model)
inputs = prefix_studio.generation_inputs(model, prefix, **tokenizer("Hello", return_tensors="pt"))
output = model.generate(**inputs)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from prefix_studio.errors import StudioError
from prefix_studio.generation.encoder_decoder import begin, first_ids
from prefix_studio.prefix.inject import batch_cache
from prefix_studio.prefix.prefix import Prefix


def generation_inputs(
    model: PreTrainedModel,
    prefix: Prefix,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    num_beams: int = 1,
    **_: object,
) -> dict[str, Any]:
    """What `model.generate(**inputs)` needs to write behind the prefix: greedily, sampled, or with beams.

    input_ids, attention_mask: [B, T], padded on the left (encoder-decoder models: on the right). num_beams: the same
    as in `generate`.
    The virtual tokens stand in the ids as m placeholders, which come first in what `generate` returns: cut them off
    with `output[:, prefix.length:]`. The inputs serve one call, because `generate` writes into the cache.
    Raises StudioError (category model) for what plain `generate` cannot hold; this program's engine can.
    """
    batch = len(input_ids)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    inputs = {"use_cache": True, "num_beams": num_beams}  # some families' configurations say no cache
    if model.config.is_encoder_decoder:
        return inputs | decoder_side(model, prefix, batch) | encoder_side(model, prefix, input_ids, mask, num_beams)
    cache, virtual = batch_cache(model, [prefix] * batch * num_beams)
    # Placeholders are never looked at: the cache says that so many tokens were read. The first id is one that exists.
    placeholders = input_ids[:, :1].expand(batch, prefix.length)
    return inputs | {
        "input_ids": torch.cat([placeholders, input_ids], dim=1),
        "attention_mask": torch.cat([virtual[:batch].to(mask), mask], dim=1),
        "past_key_values": cache,
    }


def decoder_side(model: PreTrainedModel, prefix: Prefix, batch: int) -> dict[str, Tensor]:
    """Placeholders, the token that the decoder begins with, and the one that it must write first, if any."""
    start, forced = first_ids(model)
    row = [start] * (prefix.length + 1) + ([] if forced is None else [forced])
    ids = torch.tensor([row] * batch, device=model.device)
    return {"decoder_input_ids": ids, "decoder_attention_mask": torch.ones_like(ids)}


def encoder_side(
    model: PreTrainedModel, prefix: Prefix, input_ids: Tensor, mask: Tensor, num_beams: int
) -> dict[str, Any]:
    """The encoder's input, or where the prefix has a part in the encoder, what comes of it; and the cache."""
    if prefix.encoder is None and prefix.cross is None:
        cache, _ = batch_cache(model, [prefix] * len(input_ids) * num_beams)
        return {"input_ids": input_ids, "attention_mask": mask, "past_key_values": cache}
    if model.config.model_type == "t5gemma":
        raise StudioError(
            "T5Gemma's own generate makes its cross-attention's cache anew, and the prefix would be lost.",
            "Use Prefix Studio's compare or serve, or a prefix for the decoder alone.",
            "model",
        )
    prompts = [ids[seen.bool()].tolist() for ids, seen in zip(input_ids, mask, strict=True)]
    prompts = [prompt for prompt in prompts for _ in range(num_beams)]
    cache, _, encoded = begin(model, prompts, [prefix] * len(prompts))
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=encoded.states[::num_beams]),
        "attention_mask": encoded.mask[::num_beams],
        "past_key_values": cache,
    }
