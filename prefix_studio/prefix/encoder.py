"""What is learned: a table of numbers that is the prefix, or that becomes one through a two-layer projection.

The tables are PEFT's `PrefixEncoder`, free of its one shape for all layers. Knows their three ways to start (text,
random, zero) and their parameters; knows no files, and nothing of how the prefix is put in front of a model or trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.prefix.prefix import LayerShape, Prefix
from prefix_studio.prefix.shape import refuse_length, submodule_shapes
from prefix_studio.recipe import PrefixPart


class PrefixTable(nn.Module):
    """One attention's part of the prefix: m rows, one for each virtual token.

    Without projection the rows are the prefix. With it, a row of token_dim numbers goes through Linear, Tanh, Linear
    (Li and Liang, section 4.3).
    """

    def __init__(self, shapes: Sequence[LayerShape], length: int, hidden_size: int | None):
        super().__init__()
        self.shapes = tuple(shapes)
        width = sum(shape.size for shape in self.shapes)
        self.embedding = nn.Embedding(length, width if hidden_size is None else token_dim(self.shapes))
        self.transform = None
        if hidden_size is not None:
            self.transform = nn.Sequential(
                nn.Linear(self.embedding.embedding_dim, hidden_size), nn.Tanh(), nn.Linear(hidden_size, width)
            )

    def forward(self) -> Tensor:
        """PEFT's `prompt_embeddings`, [m, sum of the layers' sizes]."""
        table = self.embedding.weight
        return table if self.transform is None else self.transform(table)

    @torch.no_grad()
    def start_from(self, prompt_embeddings: Tensor) -> None:
        """Makes the table give `prompt_embeddings`.

        Through a projection: its last layer is solved by least squares, so that the random first half stays as it is.
        Exact (to rounding) while the projection is at least as wide as there are tokens.
        """
        if self.transform is None:
            self.embedding.weight.copy_(prompt_embeddings)
            return
        first, activation, last = self.transform
        hidden = activation(first(self.embedding.weight)).double()  # [m, H]
        target = prompt_embeddings.double()
        bias = target.mean(dim=0)
        weight = torch.linalg.lstsq(hidden, target - bias, driver="gelsd").solution  # [H, width]
        last.weight.copy_(weight.T)
        last.bias.copy_(bias)

    @torch.no_grad()
    def start_from_zero(self) -> None:
        """A prefix of zeros, as PEFT's init_weights="zero": the table, or the projection's last layer."""
        for parameter in (self.embedding if self.transform is None else self.transform[-1]).parameters():
            parameter.zero_()


class PrefixModule(nn.Module):
    """The learned prefix. Call it for the Prefix of this moment, differentiable down to its parameters.

    Its parameters are float32 whatever the model's dtype, as in PEFT. `state_dict` holds all that is learned, the
    projection's weights too, which PEFT's own adapter file leaves out.
    """

    def __init__(self, shapes: dict[str, tuple[LayerShape, ...]], part: PrefixPart, num_virtual_tokens: int):
        super().__init__()
        self.num_virtual_tokens = num_virtual_tokens
        self.tables = nn.ModuleDict(
            {
                name: PrefixTable(some, num_virtual_tokens, hidden_size(some, part, num_virtual_tokens))
                for name, some in shapes.items()
            }
        )

    @classmethod
    def build(cls, model: PreTrainedModel, tokenizer: Any, part: PrefixPart, seed: int) -> PrefixModule:
        """A fresh prefix for this model, as the recipe says, on the model's device.

        Equal seeds give equal prefixes, and the program's own random state is left alone.
        Raises StudioError where the model cannot take it, or the text cannot fill it.
        """
        shapes = submodule_shapes(model, part.submodules)
        start = None
        if part.init == "text":
            start = text_prefix(
                model,
                tokenizer,
                part.init_text,
                part.num_virtual_tokens,
                use_chat_template=part.use_chat_template,
                submodules=part.submodules,
            ).to("cpu", torch.float32)
        length = part.num_virtual_tokens if start is None else start.length
        refuse_length(model.config, shapes["decoder"], length)
        refuse_part(part, length)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = cls(shapes, part, length)
        for name, table in module.tables.items():
            if start is not None:
                table.start_from((start if name == "decoder" else getattr(start, name)).flatten())
            elif part.init == "zero":
                table.start_from_zero()
        module.freeze(part.num_frozen_tokens)
        return module.to(model.device)

    def freeze(self, num_frozen_tokens: int) -> None:
        """Keeps the first virtual tokens as they are now, whatever the tables learn."""
        for name, table in self.tables.items():
            self.register_buffer(f"frozen_{name}", table().detach()[:num_frozen_tokens].clone())

    def forward(self) -> Prefix:
        prefixes = {}
        for name, table in self.tables.items():
            frozen, flat = getattr(self, f"frozen_{name}"), table()
            if len(frozen):
                flat = torch.cat([frozen, flat[len(frozen) :]])
            prefixes[name] = Prefix.unflatten(flat, table.shapes)
        return replace(prefixes.pop("decoder"), **prefixes)


def token_dim(shapes: Sequence[LayerShape]) -> int:
    """PEFT's token_dim: the width of a layer's keys over all heads, of the widest layer where they differ."""
    return max(heads * width for heads, width in (shape.key for shape in shapes))


def hidden_size(shapes: Sequence[LayerShape], part: PrefixPart, num_virtual_tokens: int) -> int | None:
    """The projection's width: PEFT's default, but never below the prefix's length. None without a projection."""
    if not part.prefix_projection:
        return None
    return part.encoder_hidden_size or max(token_dim(shapes), num_virtual_tokens)


def refuse_part(part: PrefixPart, num_virtual_tokens: int) -> None:
    """Raises StudioError for settings that so long a prefix does not allow."""
    width = part.encoder_hidden_size
    if part.init == "text" and part.prefix_projection and width is not None and width < num_virtual_tokens:
        raise StudioError(
            f"encoder_hidden_size {width} is below the {num_virtual_tokens} virtual tokens: text initialisation "
            "through the projection needs it at least as wide.",
            f"Set encoder_hidden_size to {num_virtual_tokens} or more, or leave it out.",
        )
    if part.num_frozen_tokens >= num_virtual_tokens:
        raise StudioError(
            f"num_frozen_tokens is {part.num_frozen_tokens}, so none of the {num_virtual_tokens} virtual tokens would "
            "be learned.",
            f"Set num_frozen_tokens below {num_virtual_tokens}; 1 is enough to keep the attention sink.",
        )


def trainable_parameters(shapes: dict[str, tuple[LayerShape, ...]], part: PrefixPart, num_virtual_tokens: int) -> int:
    """How many numbers are learned, without building them."""
    with torch.device("meta"):
        module = PrefixModule(shapes, part, num_virtual_tokens)
    total = sum(parameter.numel() for parameter in module.parameters())
    frozen = sum(part.num_frozen_tokens * table.embedding.embedding_dim for table in module.tables.values())
    return total - (0 if part.prefix_projection else frozen)
