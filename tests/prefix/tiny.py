"""What tests over the zoo share: prefixes, texts and padded batches for its models.

The zoo's weights are large on purpose: attention then matters, and a prefix in the wrong place shows.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape
from tests.prefix.zoo import DECODERS, LATENT, RECURRENT, VOCABULARY

FAMILIES = list(DECODERS)
# Running states are no keys and values: what stands before the prefix's text is lost on them.
WITHOUT_STATE = [family for family in FAMILIES if family not in RECURRENT]
# What stock PEFT cannot load: running states, latents, and layers of different widths.
OWN = RECURRENT | LATENT | {"gemma4", "gemma4_31b"}
STOCK = [family for family in FAMILIES if family not in OWN]


def random_prefix(model: PreTrainedModel, length: int, seed: int = 0) -> Prefix:
    layers = prefix_shape(model)
    generator = torch.Generator().manual_seed(seed)
    return Prefix.unflatten(torch.randn(length, sum(layer.size for layer in layers), generator=generator), layers)


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    """Ordinary tokens: none of the special ones."""
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def right_padded(lengths: list[int], learned: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask and labels [B, T] of rows of these lengths; the last `learned` tokens are labelled."""
    ids = random_ids(len(lengths), max(lengths), seed=seed)
    columns, ends = torch.arange(max(lengths)), torch.tensor(lengths)[:, None]
    mask = (columns < ends).long()
    labels = torch.where((columns < ends) & (columns >= ends - learned), ids, -100)
    return ids * mask, mask, labels


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())
