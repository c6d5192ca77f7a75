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

    input_ids, attention_mask: [B, T], padded on the left. num_beams: the same as in `generate`.
    The virtual tokens stand in input_ids as m placeholders, which come first in what `generate` returns: cut them off
    with `output[:, prefix.length:]`. The inputs serve one call, because `generate` writes into the cache.
    """
    batch = len(input_ids)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    cache, virtual = batch_cache(model, [prefix] * batch * num_beams)
    # Placeholders are never looked at: the cache says that so many tokens were read. The first id is one that exists.
    placeholders = input_ids[:, :1].expand(batch, prefix.length)
    return {
        "input_ids": torch.cat([placeholders, input_ids], dim=1),
        "attention_mask": torch.cat([virtual[:batch].to(mask), mask], dim=1),
        "past_key_values": cache,
        "use_cache": True,  # some families' configurations say no
        "num_beams": num_beams,
    }
