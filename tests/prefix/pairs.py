"""What tests over the zoo's encoder-decoders share: prefixes of all their parts, and batches of inputs and targets."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import submodule_shapes
from tests.prefix.tiny import random_ids
from tests.prefix.zoo import ENCODER_DECODERS

PAIRS = list(ENCODER_DECODERS)
# LED's encoder looks at a window of neighbours by code of its own, which takes no keys and values from outside.
WHOLE = [family for family in PAIRS if family != "led"]
# Each family with every form of prefix that fits it.
FORMS = [(family, "decoder") for family in PAIRS] + [(family, "all") for family in WHOLE]


class Pairs(NamedTuple):
    """A batch: what the encoder reads, its mask, and the targets, each padded on the right."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def random_pairs(inputs: list[int], targets: list[int], seed: int = 0) -> Pairs:
    """Inputs and targets of these lengths."""
    ids, labels = random_ids(len(inputs), max(inputs), seed=seed), random_ids(len(inputs), max(targets), seed=seed + 1)
    seen, learned = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None] for lengths in (inputs, targets))
    return Pairs(ids * seen, seen.long(), torch.where(learned, labels, -100))


def random_parts(model: PreTrainedModel, length: int, submodules: str, seed: int = 0) -> Prefix:
    generator = torch.Generator().manual_seed(seed)
    parts = {
        name: Prefix.unflatten(torch.randn(length, sum(shape.size for shape in shapes), generator=generator), shapes)
        for name, shapes in submodule_shapes(model, submodules).items()
    }
    return replace(parts.pop("decoder"), **parts)


def tensors_of(prefix: Prefix) -> dict[str, torch.Tensor]:
    """Every key and value of every part, by name."""
    parts = {"decoder": prefix, "encoder": prefix.encoder, "cross": prefix.cross}
    return {
        f"{name}.{index}.{kind}": tensor
        for name, part in parts.items()
        if part is not None
        for index, *pair in part
        for kind, tensor in zip(("key", "value"), pair, strict=True)
    }
