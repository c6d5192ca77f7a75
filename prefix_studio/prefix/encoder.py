"""What is learned: PEFT's PrefixEncoder, which gives the prefix directly or through a two-layer projection.

Knows the encoder, its three ways to start (text, random, zero) and its parameters; knows no files, and nothing of
how the prefix is put in front of a model or trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PrefixEncoder, PrefixTuningConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import LayerShape, prefix_shape, refuse_length
from prefix_studio.recipe import PrefixPart


class PrefixModule(nn.Module):
    """The learned prefix. Call it for the Prefix of this moment, differentiable down to its parameters.

    Its parameters are float32 whatever the model's dtype, as in PEFT. `state_dict` holds all that is learned, the
    projection's weights too, which PEFT's own adapter file leaves out.
    """

    def __init__(self, config: PrefixTuningConfig):
        super().__init__()
        self.config = config
        self.encoder = PrefixEncoder(config)

    @classmethod
    def build(cls, model: PreTrainedModel, tokenizer: Any, part: PrefixPart, seed: int) -> PrefixModule:
        """A fresh prefix for this model, as the recipe says, on the model's device.

        Equal seeds give equal prefixes, and the program's own random state is left alone.
        Raises StudioError where the model cannot take it, or the text cannot fill it.
        """
        layers = prefix_shape(model)
        start = None
        if part.init == "text":
            start = text_prefix(model, tokenizer, part.init_text, part.num_virtual_tokens).flatten().float().cpu()
        length = part.num_virtual_tokens if start is None else start.shape[0]
        refuse_length(model.config, layers, length)
        config = encoder_config(layers, part, length)
        if start is not None and part.prefix_projection and config.encoder_hidden_size < length:
            raise StudioError(
                f"encoder_hidden_size {config.encoder_hidden_size} is below the {length} virtual tokens: text "
                "initialisation through the projection needs it at least as wide.",
                f"Set encoder_hidden_size to {length} or more, or leave it out.",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = cls(config)
        if start is not None:
            module.start_from(start)
        return module.to(model.device)

    @property
    def num_virtual_tokens(self) -> int:
        return self.config.num_virtual_tokens

    def forward(self) -> Prefix:
        table = self.encoder.embedding.weight  # [m, L * 2 * token_dim], or [m, token_dim] with projection
        flat = self.encoder.transform(table) if self.encoder.prefix_projection else table
        heads = self.config.num_attention_heads
        return Prefix.unflatten(flat, heads, self.config.token_dim // heads)

    @torch.no_grad()
    def start_from(self, prompt_embeddings: Tensor) -> None:
        """Makes the encoder give `prompt_embeddings` [m, L * 2 * token_dim].

        Through a projection: its last layer is solved by least squares, so that the random first half stays as it is.
        Exact (to rounding) while encoder_hidden_size is at least m.
        """
        if not self.encoder.prefix_projection:
            self.encoder.load_prompt_embeddings(prompt_embeddings)
            return
        first, activation, last = self.encoder.transform
        hidden = activation(first(self.encoder.embedding.weight)).double()  # [m, H]
        target = prompt_embeddings.double()  # [m, L * 2 * token_dim]
        bias = target.mean(dim=0)
        weight = torch.linalg.lstsq(hidden, target - bias, driver="gelsd").solution  # [H, L * 2 * token_dim]
        last.weight.copy_(weight.T)
        last.bias.copy_(bias)


def encoder_config(layers: Sequence[LayerShape], part: PrefixPart, num_virtual_tokens: int) -> PrefixTuningConfig:
    """PEFT's configuration of the encoder for these layers, every size resolved."""
    heads, width = layers[0].key
    token_dim = heads * width
    return PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=num_virtual_tokens,
        num_layers=len(layers),
        token_dim=token_dim,
        num_attention_heads=heads,
        num_transformer_submodules=1,
        prefix_projection=part.prefix_projection,
        encoder_hidden_size=part.encoder_hidden_size or max(token_dim, num_virtual_tokens),
        init_weights="zero" if part.init == "zero" else None,
    )


def trainable_parameters(layers: Sequence[LayerShape], part: PrefixPart, num_virtual_tokens: int) -> int:
    """How many numbers are learned, without building them."""
    config = encoder_config(layers, part, num_virtual_tokens)
    outputs = config.num_layers * 2 * config.token_dim
    if not part.prefix_projection:
        return num_virtual_tokens * outputs
    hidden = config.encoder_hidden_size
    return num_virtual_tokens * config.token_dim + (config.token_dim + 1) * hidden + (hidden + 1) * outputs
