"""Shapes come from a real cache, and what cannot take a prefix is refused with its reason."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    DeepseekV2Config,
    Gemma3TextConfig,
    JambaConfig,
    MambaConfig,
    RecurrentGemmaConfig,
    T5Config,
    ViTConfig,
)

from prefix_studio.errors import StudioError
from prefix_studio.prefix.shape import prefix_shape, refuse_unsupported, warnings_for
from tests.prefix.tiny import CONFIGS, FAMILIES, GROUPED, WINDOW, tiny_model

EXPECTED = {"falcon": (1, 8), "qwen3": (2, 12), "gemma2": (2, 12), "gemma3": (2, 12)}
MANY_HEADS = {"gpt2", "gpt_neox", "opt", "bloom", "mpt", "cohere"}


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_the_real_caches_and_need_no_weights(family):
    with torch.device("meta"):
        weightless = AutoModelForCausalLM.from_config(CONFIGS[family])
    layers = prefix_shape(weightless)
    assert layers == prefix_shape(tiny_model(family))
    heads = 4 if family in MANY_HEADS - {"cohere"} else 2
    assert [layer.index for layer in layers] == [0, 1]
    assert {layer.key for layer in layers} == {layer.value for layer in layers} == {EXPECTED.get(family, (heads, 8))}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(), "mamba models cannot take a prefix: it has no attention"),
        (RecurrentGemmaConfig(), "recurrent_gemma models cannot take a prefix: its recurrent layers"),
        (T5Config(), "t5 is an encoder-decoder model, which is not supported yet"),
        (BertConfig(), "bert is an encoder without a decoder"),
        (ViTConfig(), "vit models do not generate text"),
    ],
)
def test_families_that_cannot_take_a_prefix_are_refused_by_name(config, reason):
    with pytest.raises(StudioError, match=reason) as caught:
        refuse_unsupported(config)
    assert caught.value.category == "model"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            JambaConfig(**GROUPED, attn_layer_offset=0, attn_layer_period=2, mamba_d_state=4, num_experts=2),
            "layer 1 keeps a LinearAttentionLayer",
        ),
        (
            DeepseekV2Config(
                **{**GROUPED, "num_key_value_heads": 4},
                kv_lora_rank=16,
                q_lora_rank=None,
                qk_rope_head_dim=8,
                qk_nope_head_dim=8,
                v_head_dim=16,
                moe_intermediate_size=16,
                n_routed_experts=4,
                num_experts_per_tok=2,
                first_k_dense_replace=2,
            ),
            "keys and values have different shapes",
        ),
    ],
    ids=["jamba", "deepseek_v2"],
)
def test_caches_that_the_file_cannot_hold_are_refused_after_a_look(config, reason):
    with pytest.raises(StudioError, match=reason) as caught:
        prefix_shape(AutoModelForCausalLM.from_config(config))
    assert caught.value.category == "model"
    assert "not supported yet" in caught.value.message


def test_nothing_to_warn_of_where_all_fits():
    assert warnings_for(tiny_model("llama"), 20, 76) == []


def test_texts_that_pass_the_models_positions_are_warned_of():
    (warning,) = warnings_for(tiny_model("llama"), 20, 77)
    assert "lower max_length to 76" in warning


def test_sliding_windows_are_warned_of():
    (warning,) = warnings_for(tiny_model("gemma3"), 4, 40)
    assert warning.startswith(f"1 of 2 layers look back {WINDOW} tokens only: in texts longer than 12 tokens")
    assert warnings_for(tiny_model("gemma3"), 4, 12) == []


def test_a_prefix_as_long_as_every_window_is_refused():
    with pytest.raises(StudioError, match="could never be read whole"):
        warnings_for(tiny_model("mistral"), WINDOW, 10)
    assert warnings_for(tiny_model("gemma3"), WINDOW, 10), "one layer sees all of it, so it is only warned of"


def test_a_prefix_as_long_as_the_model_is_refused():
    with pytest.raises(StudioError, match="has 96 positions, and 96 virtual tokens fill them all"):
        warnings_for(tiny_model("llama"), 96, 10)


def test_the_warning_speaks_of_the_layers_that_slide():
    config = Gemma3TextConfig(
        **{**GROUPED, "num_hidden_layers": 3},
        head_dim=12,
        sliding_window=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert warnings_for(model, 2, 20)[0].startswith("2 of 3 layers look back 8 tokens only")
