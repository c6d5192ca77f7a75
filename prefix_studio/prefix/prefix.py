"""A prefix: for every layer of a decoder, the keys and values of m virtual tokens.

Knows tensors and the order in which PEFT flattens them; knows no model, no files and how nothing is learned.
A Prefix is a value: nothing in this program changes one in place, so one may be shared by any number of batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """Keys and values, one tensor a layer, each [kv_heads, m, head_dim]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "values", tuple(self.values))
        if not self.keys or len(self.keys) != len(self.values):
            raise ValueError(f"a prefix of {len(self.keys)} keys and {len(self.values)} values")

    @property
    def length(self) -> int:
        """m, the number of virtual tokens."""
        return self.keys[0].shape[1]

    @property
    def num_layers(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Prefix:
        return Prefix(
            tuple(key.to(device=device, dtype=dtype) for key in self.keys),
            tuple(value.to(device=device, dtype=dtype) for value in self.values),
        )

    def detach(self) -> Prefix:
        return Prefix(tuple(key.detach() for key in self.keys), tuple(value.detach() for value in self.values))

    def flatten(self) -> Tensor:
        """PEFT's `prompt_embeddings`, [m, layers * 2 * kv_heads * head_dim].

        Along the last axis: layer 0's key, layer 0's value, layer 1's key, ..., each as (head, channel).
        Needs keys and values of one shape in all layers. Differentiable.
        """
        pairs = [tensor for pair in zip(self.keys, self.values, strict=True) for tensor in pair]
        stacked = torch.stack(pairs)  # [2L, heads, m, head_dim]
        return stacked.permute(2, 0, 1, 3).reshape(self.length, -1)

    @classmethod
    def unflatten(cls, prompt_embeddings: Tensor, kv_heads: int, head_dim: int) -> Prefix:
        """The inverse of `flatten`. The tensors are views of `prompt_embeddings`. Differentiable."""
        length = prompt_embeddings.shape[0]
        split = prompt_embeddings.view(length, -1, 2, kv_heads, head_dim)  # [m, L, key|value, heads, head_dim]
        keys, values = split.permute(2, 1, 3, 0, 4)  # each [L, heads, m, head_dim]
        return cls(keys.unbind(0), values.unbind(0))
