"""How encoder-decoder models join the engine: their encoder reads the prompts once, their decoder writes.

A row's prompt is what the encoder reads; the decoder begins with its start token, behind the row's prefix. Decoders
that count their own positions (BART's learned ones) count them from the cache, one number for a whole batch: rows
whose prefixes differ in length then go in groups of one length. Knows token ids and prefixes; knows no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder_decoder import InFront, encode, start_token
from prefix_studio.prefix.inject import accepts, batch_cache, compute_dtype, fill_batch, prefix_mask
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import max_encoder_positions, max_positions


@dataclass
class Encoded:
    """What the decoder looks at, row by row."""

    states: Tensor  # [B, S, hidden size]
    mask: Tensor  # [B, m + S], 1 where there is a token, real or virtual
    kind: type[ModelOutput]  # what this family's encoder gives its states in

    @property
    def arguments(self) -> dict[str, Any]:
        """What the model's forward takes them as."""
        return {"encoder_outputs": self.kind(last_hidden_state=self.states), "attention_mask": self.mask}

    def keep(self, indices: Tensor) -> None:
        self.states, self.mask = self.states[indices], self.mask[indices]


def groups_of(model: PreTrainedModel, prefixes: Sequence[Prefix | None]) -> list[list[int]]:
    """Which rows may be written in one batch."""
    if max_positions(model.config) is None or accepts(model, "decoder_position_ids"):
        return [list(range(len(prefixes)))]
    return by_length([0 if prefix is None else prefix.length for prefix in prefixes])


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Which rows are equally long."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    return list(groups.values())


def begin(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefixes: Sequence[Prefix | None]
) -> tuple[Cache, Tensor, Encoded]:
    """Rows up to where their decoder reads its start token: the cache, its mask [B, m], and what the encoder says."""
    cache, virtual = batch_cache(model, prefixes)
    cross = [None if prefix is None else prefix.cross for prefix in prefixes]
    in_front = prefix_mask(cross).to(model.device)
    fill_batch(cache.cross_attention_cache, cross, in_front.shape[1], model)
    encoded = encode_all(model, prompts, [None if prefix is None else prefix.encoder for prefix in prefixes])
    encoded.mask = torch.cat([in_front, encoded.mask], dim=1)
    return cache, virtual, encoded


def encode_all(model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefixes: Sequence[Prefix | None]) -> Encoded:
    """The encoder's states of prompts behind their own prefixes, and the prompts' mask [B, S].

    Prefixes of one length go together, so that no slot in front of a text is empty.
    """
    longest = max(map(len, prompts))
    pad_id = model.config.get_text_config().pad_token_id or 0
    ids = torch.tensor([[*prompt, *[pad_id] * (longest - len(prompt))] for prompt in prompts], device=model.device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    mask = (torch.arange(longest, device=model.device) < lengths[:, None]).long()
    states, order = [], []
    for group in by_length([0 if prefix is None else prefix.length for prefix in prefixes]):
        outputs = encode(model, ids[group], mask[group], stacked(model, [prefixes[index] for index in group]))
        states.append(outputs.last_hidden_state)
        order += group
    back = torch.tensor(order, device=model.device).argsort()
    return Encoded(torch.cat(states)[back], mask, type(outputs))


def stacked(model: PreTrainedModel, prefixes: Sequence[Prefix | None]) -> list[InFront] | None:
    """Each layer's keys and values of some rows; prefixes of one length, or none at all."""
    if prefixes[0] is None:
        return None
    # zip gives each layer's tensors of all rows; [heads, m, width] of each -> [B, heads, m, width]
    layers = zip(*(zip(prefix.keys, prefix.values, strict=True) for prefix in prefixes), strict=True)
    place = {"device": model.device, "dtype": compute_dtype(model)}
    return [InFront(*(torch.stack(some).to(**place) for some in zip(*rows, strict=True))) for rows in layers]


def refuse_prompt(model: PreTrainedModel, prompt: Sequence[int]) -> None:
    """Raises StudioError for a prompt that the encoder has no positions for."""
    limit = max_encoder_positions(model.config)
    if limit is not None and len(prompt) > limit:
        raise StudioError(
            f"The prompt has {len(prompt)} tokens, and the model's encoder reads {limit}.", "Shorten the prompt."
        )


def first_ids(model: PreTrainedModel) -> tuple[int, int | None]:
    """The token that the decoder begins with, and the one that it must write first, if any (a language, often)."""
    forced = getattr(getattr(model, "generation_config", None), "forced_bos_token_id", None)
    return start_token(model), forced


def only(logits: Tensor, token: int) -> Tensor:
    """Logits [B, vocabulary] that leave no other token."""
    return torch.full_like(logits, -torch.inf).index_fill_(1, torch.tensor([token], device=logits.device), 0)


def never_written(model: PreTrainedModel) -> list[int]:
    """Tokens that the model's own generation settings forbid, such as Marian's padding."""
    settings = getattr(model, "generation_config", None)
    words = getattr(settings, "bad_words_ids", None) or []
    return [word[0] for word in words if len(word) == 1] + list(getattr(settings, "suppress_tokens", None) or [])
