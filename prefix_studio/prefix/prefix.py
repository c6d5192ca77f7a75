"""A prefix: for the attention layers of a model, the keys and values of m virtual tokens.

Knows tensors and the order in which PEFT flattens them; knows no model, no files and how nothing is learned.
A Prefix is a value: nothing in this program changes one in place, so one may be shared by any number of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class LayerShape(NamedTuple):
    """One layer that takes a prefix: its number in the cache, (heads, width) of its keys and of its values, and its
    window in tokens, if it slides. Keys and values differ in width where the cache holds latents."""

    index: int
    key: tuple[int, int]
    value: tuple[int, int]
    window: int | None = None

    @property
    def size(self) -> int:
        """Numbers a virtual token has in this layer."""
        return self.key[0] * self.key[1] + self.value[0] * self.value[1]


@dataclass(frozen=True)
class Prefix:
    """Keys and values, one tensor a layer, each [heads, m, width]; heads and width may differ between the layers.

    layers: their numbers in the cache; the layers between keep no keys and values. None means 0, 1, 2, ...
    encoder, cross: for encoder-decoder models, the prefixes of the encoder's attention and of the decoder's attention
        to the encoder (Li and Liang, section 4.2), where there are any.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    layers: tuple[int, ...] | None = None
    encoder: Prefix | None = None
    cross: Prefix | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "layers", tuple(range(len(self.keys)) if self.layers is None else self.layers))
        if not self.keys or not len(self.keys) == len(self.values) == len(self.layers):
            raise ValueError(f"a prefix of {len(self.keys)} keys, {len(self.values)} values, {len(self.layers)} layers")

    @property
    def length(self) -> int:
        """m, the number of virtual tokens."""
        return self.keys[0].shape[1]

    @property
    def num_layers(self) -> int:
        return len(self.keys)

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        """The layers' shapes, windows unknown."""
        return tuple(
            LayerShape(index, (key.shape[0], key.shape[2]), (value.shape[0], value.shape[2]))
            for index, key, value in self
        )

    def __iter__(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(layer's number, key, value), layer by layer."""
        return iter(zip(self.layers, self.keys, self.values, strict=True))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Prefix:
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def detach(self) -> Prefix:
        return self.map(Tensor.detach)

    def map(self, change: Callable[[Tensor], Tensor]) -> Prefix:
        """The prefix with every tensor changed."""
        return replace(
            self,
            keys=tuple(map(change, self.keys)),
            values=tuple(map(change, self.values)),
            encoder=self.encoder and self.encoder.map(change),
            cross=self.cross and self.cross.map(change),
        )

    def flatten(self) -> Tensor:
        """PEFT's `prompt_embeddings`, [m, sum of the layers' sizes], of the decoder's own attention.

        Along the last axis: the first layer's key, its value, the next layer's key, ..., each as (head, channel).
        Differentiable.
        """
        tensors = [tensor for _, *pair in self for tensor in pair]
        return torch.cat([tensor.transpose(0, 1).flatten(1) for tensor in tensors], dim=1)

    @classmethod
    def unflatten(cls, prompt_embeddings: Tensor, shapes: Sequence[LayerShape]) -> Prefix:
        """The inverse of `flatten`. The tensors are views of `prompt_embeddings`. Differentiable."""
        sizes = [heads * width for shape in shapes for heads, width in (shape.key, shape.value)]
        parts = iter(prompt_embeddings.split(sizes, dim=1))

        def tensor(size: tuple[int, int]) -> Tensor:
            return next(parts).unflatten(1, size).transpose(0, 1)  # [m, heads * width] -> [heads, m, width]

        pairs = [(tensor(shape.key), tensor(shape.value)) for shape in shapes]
        keys, values = zip(*pairs, strict=True)
        return cls(keys, values, tuple(shape.index for shape in shapes))
