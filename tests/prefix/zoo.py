"""A zoo: one tiny random model for each family the engine must support, and for some that it must refuse.

The tables hold plain fields; a configuration is made only when `config_of` is asked for it, so importing is cheap.
Each model has fewer than 300k parameters and the fewest layers that show every kind of layer its family has.
Widths differ on purpose (heads against hidden size, keys against values) wherever a family lets them.
"""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
    PreTrainedModel,
)

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

OLD_HEADS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
FULL_LAST = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
LINEAR_LAST = {"layer_types": ["linear_attention", "full_attention"]}
DELTA_NET = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
# Multi-head latent attention: the cache keeps the 16 numbers that keys and values are made from, and 4 with positions.
MLA = {"num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
TWO_SIDES = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 96,
    "init_std": 0.2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    **TOKENS,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    **TOKENS,
}
T5GEMMA_SIDE = {**GROUPED, **FULL_LAST, "head_dim": 12, "query_pre_attn_scalar": 12}

# family -> (model type, fields)
DECODERS = {
    "gpt2": ("gpt2", {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}),
    "gpt_neo": (
        "gpt_neo",
        {
            **OLD,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 96,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
        },
    ),
    "gpt_neox": ("gpt_neox", SMALL),
    "gptj": ("gptj", {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "rotary_dim": 4}),
    "opt": ("opt", {**OLD, **OLD_HEADS, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": ("bloom", {**OLD, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", {**OLD, **OLD_HEADS, "multi_query": True, "alibi": False}),
    "falcon_40b": ("falcon", {**OLD, **OLD_HEADS, "num_kv_heads": 2, "new_decoder_architecture": True, "alibi": False}),
    "mpt": ("mpt", {**OLD, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 96}),
    "gpt_bigcode": ("gpt_bigcode", {**OLD, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}),
    "starcoder2": ("starcoder2", {**GROUPED, "sliding_window": WINDOW}),
    "llama": ("llama", GROUPED),
    # The second layer has no positions.
    "smollm3": ("smollm3", {**GROUPED, "no_rope_layers": [1, 0]}),
    "mistral": ("mistral", {**GROUPED, "sliding_window": WINDOW}),
    "ministral3": ("ministral3", {**GROUPED, "head_dim": 12}),
    "mixtral": ("mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", GROUPED),
    "qwen2_moe": ("qwen2_moe", {**GROUPED, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16}),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 12}),
    "qwen3_moe": ("qwen3_moe", {**GROUPED, **EXPERTS, "head_dim": 12, "num_experts": 4}),
    "qwen3_next": (
        "qwen3_next",
        {
            **GROUPED,
            **EXPERTS,
            **LINEAR_LAST,
            **DELTA_NET,
            "head_dim": 16,
            "num_experts": 4,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "qwen3_5": ("qwen3_5_text", {**GROUPED, **LINEAR_LAST, **DELTA_NET, "head_dim": 16}),
    "gemma": ("gemma", {**GROUPED, "head_dim": 12}),
    "gemma2": ("gemma2", {**GROUPED, **FULL_LAST, "head_dim": 12, "query_pre_attn_scalar": 12}),
    "gemma3": ("gemma3_text", {**GROUPED, **FULL_LAST, "head_dim": 12, "query_pre_attn_scalar": 12}),
    # The last two layers use the keys and values of the first two.
    "gemma3n": (
        "gemma3n_text",
        {
            **GROUPED,
            "head_dim": 12,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": WINDOW,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        },
    ),
    # Like E2B: shared layers, inputs of their own for each layer, wider heads in the full layers.
    "gemma4": (
        "gemma4_text",
        {
            **GROUPED,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "global_head_dim": 16,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": WINDOW,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "use_double_wide_mlp": True,
        },
    ),
    # Like 31B: full layers with heads of another width and number, whose values are made from their keys.
    "gemma4_31b": (
        "gemma4_text",
        {
            **GROUPED,
            **FULL_LAST,
            "head_dim": 8,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 0,
        },
    ),
    "phi": ("phi", SMALL),
    "phi3": ("phi3", GROUPED),
    "olmo2": ("olmo2", GROUPED),
    "olmo3": ("olmo3", {**GROUPED, **FULL_LAST}),
    "stablelm": ("stablelm", GROUPED),
    "cohere": ("cohere", {**GROUPED, "logit_scale": 0.3}),
    "cohere2": ("cohere2", {**GROUPED, **FULL_LAST, "logit_scale": 0.3}),
    "granite": ("granite", {**GROUPED, "logits_scaling": 3.0}),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **GROUPED,
            **LINEAR_LAST,
            **MAMBA2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 16,
        },
    ),
    "glm4": ("glm4", {**GROUPED, "head_dim": 8}),
    "exaone4": ("exaone4", {**GROUPED, **FULL_LAST}),
    "ernie4_5": ("ernie4_5", {**GROUPED, "head_dim": 12}),
    "gpt_oss": ("gpt_oss", {**GROUPED, **FULL_LAST, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    # Attention in chunks with positions, then everywhere without.
    "llama4": (
        "llama4_text",
        {
            **GROUPED,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "interleave_moe_layer_step": 2,
            "no_rope_layers": [1, 0],
            "attention_chunk_size": WINDOW,
        },
    ),
    "nemotron": ("nemotron", {**GROUPED, "head_dim": 8}),
    "nemotron_h": (
        "nemotron_h",
        {
            **{name: value for name, value in GROUPED.items() if name != "num_hidden_layers"},
            **EXPERTS,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "head_dim": 12,
            "ssm_state_size": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "n_routed_experts": 4,
            "moe_shared_expert_intermediate_size": 16,
        },
    ),
    "deepseek_v2": (
        "deepseek_v2",
        {**SMALL, **EXPERTS, **MLA, "q_lora_rank": 12, "n_routed_experts": 4, "first_k_dense_replace": 1},
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **SMALL,
            **EXPERTS,
            **MLA,
            "q_lora_rank": 12,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "minicpm3": ("minicpm3", {**SMALL, **MLA, "q_lora_rank": 12, "dim_model_base": 16, "scale_emb": 1}),
    "lfm2": ("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "jamba": (
        "jamba",
        {
            **GROUPED,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
    ),
    "bamba": ("bamba", {**GROUPED, **MAMBA2, "attn_layer_indices": [1]}),
    # Every layer has both attention and a recurrent state.
    "falcon_h1": ("falcon_h1", {**GROUPED, **MAMBA2, "mamba_d_ssm": 64}),
    "kimi_linear": (
        "kimi_linear",
        {**SMALL, **EXPERTS, **MLA, **LINEAR_LAST, "num_local_experts": 4, "linear_head_dim": 8, "linear_num_heads": 4},
    ),
    # The hybrid layers share one attention block.
    "zamba2": (
        "zamba2",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "chunk_size": 8,
            "adapter_rank": 4,
            "use_mem_rope": True,
            "use_mamba_kernels": False,
        },
    ),
}

# Text alone goes through models that also look at pictures.
EYES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
EYES |= {"image_size": 28, "patch_size": 14}
DECODERS |= {
    "gemma3_vision": ("gemma3", {"text_config": {**DECODERS["gemma3"][1], **TOKENS}, "vision_config": EYES, **TOKENS}),
    "mistral3": (
        "mistral3",
        {
            "text_config": {"model_type": "mistral", **GROUPED},
            "vision_config": {"model_type": "pixtral", **EYES},
            **TOKENS,
        },
    ),
}

ENCODER_DECODERS = {
    "t5": ("t5", T5),
    # Its heads together are wider than the hidden size.
    "t5_odd": ("t5", {**T5, "d_kv": 12, "feed_forward_proj": "gated-gelu"}),
    # Fewer layers in the decoder than in the encoder.
    "byt5": ("t5", {**T5, "feed_forward_proj": "gated-gelu", "num_layers": 3, "num_decoder_layers": 2}),
    "umt5": ("umt5", T5),
    "bart": ("bart", TWO_SIDES),
    "mbart": ("mbart", TWO_SIDES),
    "pegasus": ("pegasus", {**TWO_SIDES, "decoder_start_token_id": 0}),
    "marian": ("marian", {**TWO_SIDES, "decoder_start_token_id": 0}),
    "m2m_100": ("m2m_100", TWO_SIDES),
    "led": (
        "led",
        {
            **TWO_SIDES,
            "max_encoder_position_embeddings": 96,
            "max_decoder_position_embeddings": 96,
            "attention_window": WINDOW,
        },
    ),
    "t5gemma": (
        "t5gemma",
        {
            "encoder": T5GEMMA_SIDE,
            "decoder": T5GEMMA_SIDE,
            "vocab_size": VOCABULARY,
            "decoder_start_token_id": 1,
            **TOKENS,
        },
    ),
}

REFUSED = {
    "recurrent_gemma": ("recurrent_gemma", {**GROUPED, "num_hidden_layers": 3, "attention_window_size": WINDOW}),
    "minimax": ("minimax", {**GROUPED, **LINEAR_LAST, "num_local_experts": 4, "block_size": 8}),
    "mamba": ("mamba", {**OLD, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": (
        "mamba2",
        {
            **OLD,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
        },
    ),
    "qwen4_exp": (
        "qwen4_exp_text",
        {
            **GROUPED,
            **EXPERTS,
            **DELTA_NET,
            "layer_types": ["linear_attention", "indexed_attention"],
            "head_dim": 16,
            "num_experts": 4,
            "shared_expert_intermediate_size": 16,
            "hc_count": 2,
            "hc_lowrank": 4,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 32,
            "indexer_compress_ratio": 4,
        },
    ),
    "bert": ("bert", SMALL),
    "vit": (
        "vit",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 8,
        },
    ),
    "whisper": (
        "whisper",
        {
            **TWO_SIDES,
            "num_mel_bins": 8,
            "max_source_positions": 48,
            "max_target_positions": 96,
            "begin_suppress_tokens": None,
        },
    ),
}

# Families with a recurrent or convolutional state beside their keys and values.
RECURRENT = {
    "qwen3_next",
    "qwen3_5",
    "granitemoehybrid",
    "nemotron_h",
    "lfm2",
    "jamba",
    "bamba",
    "falcon_h1",
    "kimi_linear",
    "zamba2",
}
# Families here with a layer that sees only the last WINDOW positions, or (llama4) its own chunk of them.
SLIDING = {
    "gpt_neo",
    "starcoder2",
    "mistral",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4_31b",
    "olmo3",
    "cohere2",
    "exaone4",
    "gpt_oss",
    "llama4",
    "t5gemma",
}
# Families with multi-head latent attention.
LATENT = {"deepseek_v2", "deepseek_v3", "minicpm3", "kimi_linear"}

OTHER_CLASSES = {
    "bert": AutoModelForMaskedLM,
    "vit": AutoModelForImageClassification,
    "whisper": AutoModelForSpeechSeq2Seq,
    "mistral3": AutoModelForImageTextToText,
}


def config_of(name: str) -> PreTrainedConfig:
    model_type, fields = {**DECODERS, **ENCODER_DECODERS, **REFUSED}[name]
    # A configuration may keep or change the lists it is given: hand it copies.
    return AutoConfig.for_model(model_type, **_copy(fields))


def model_of(name: str, seed: int = 0) -> PreTrainedModel:
    """The family's model with random weights; the same seed gives the same weights."""
    config = config_of(name)
    kind = OTHER_CLASSES.get(name, AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config).eval().requires_grad_(False)


def _copy(fields):
    if isinstance(fields, dict):
        return {name: _copy(value) for name, value in fields.items()}
    return [_copy(value) for value in fields] if isinstance(fields, list) else fields
