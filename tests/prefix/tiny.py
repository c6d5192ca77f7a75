"""Tiny random models of many decoder families, and prefixes and texts for them.

Their weights are large on purpose: attention then matters, and a prefix in the wrong place shows.
"""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape

VOCABULARY = 97
WINDOW = 16

TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "initializer_range": 0.2,
    **TOKENS,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
OLD = {"vocab_size": VOCABULARY, "initializer_range": 0.2, **TOKENS}

CONFIGS = {
    "gpt2": GPT2Config(**OLD, n_embd=32, n_layer=2, n_head=4, n_positions=96),
    "gpt_neox": GPTNeoXConfig(**SMALL),
    "opt": OPTConfig(
        **OLD, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=96
    ),
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=12),
    "gemma2": Gemma2Config(**GROUPED, head_dim=12, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(
        **GROUPED, head_dim=12, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi3": Phi3Config(**GROUPED),
    # Beyond the ten: one key-value head for all, no positions at all (ALiBi), and logits that are scaled.
    "falcon": FalconConfig(
        **OLD, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=True, alibi=False
    ),
    "bloom": BloomConfig(**OLD, hidden_size=32, n_layer=2, n_head=4),
    "mpt": MptConfig(**OLD, d_model=32, n_layers=2, n_heads=4, max_seq_len=96),
    "cohere": CohereConfig(**GROUPED, logit_scale=0.3),
    "granite": GraniteConfig(**GROUPED, logits_scaling=3.0),
}
FAMILIES = list(CONFIGS)


def tiny_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[family]).eval().requires_grad_(False)


def random_prefix(model: PreTrainedModel, length: int, seed: int = 0) -> Prefix:
    layers = prefix_shape(model)
    heads, width = layers[0].key
    generator = torch.Generator().manual_seed(seed)
    return Prefix.unflatten(torch.randn(length, len(layers) * 2 * heads * width, generator=generator), heads, width)


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
