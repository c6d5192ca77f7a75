"""Shapes come from a real cache, and what cannot take a prefix is refused with its reason."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from prefix_studio.errors import StudioError
from prefix_studio.prefix.shape import prefix_shape, refuse_unsupported, warnings_for
from tests.prefix.tiny import FAMILIES, random_ids
from tests.prefix.zoo import GROUPED, REFUSED, WINDOW, config_of, model_of

REASONS = {
    "recurrent_gemma": "recurrent_gemma models cannot take a prefix: its recurrent layers keep",
    "minimax": "minimax models cannot take a prefix: its linear-attention layers",
    "mamba": "mamba models cannot take a prefix: it has no attention",
    "mamba2": "mamba2 models cannot take a prefix: it has no attention",
    "qwen4_exp": "cannot take a prefix",
    "bert": "bert is an encoder without a decoder",
    "vit": "vit models do not generate text",
    "whisper": "whisper models do not",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_the_cache_that_the_model_fills_itself(family):
    model = model_of(family)
    with torch.no_grad():
        cache = model(input_ids=random_ids(1, 4), use_cache=True).past_key_values
    filled = [(index, layer) for index, layer in enumerate(cache.layers) if getattr(layer, "keys", None) is not None]
    assert [
        (index, *(tuple(states.shape[1::2]) for states in (layer.keys, layer.values))) for index, layer in filled
    ] == [(shape.index, shape.key, shape.value) for shape in prefix_shape(model)]


def test_layers_that_keep_nothing_of_their_own_are_left_out():
    assert [shape.index for shape in prefix_shape(model_of("jamba"))] == [1], "the first keeps a running state"
    assert [shape.index for shape in prefix_shape(model_of("gemma3n"))] == [0, 1], "the last two look at others' keys"


def test_latents_and_layers_of_different_widths_are_as_they_are():
    assert {(shape.key, shape.value) for shape in prefix_shape(model_of("deepseek_v2"))} == {((1, 16), (1, 4))}
    assert [shape.key for shape in prefix_shape(model_of("gemma4_31b"))] == [(2, 8), (1, 16)]


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_families_that_cannot_take_a_prefix_are_refused_by_name(family):
    with pytest.raises(StudioError, match=REASONS[family]) as caught:
        refuse_unsupported(config_of(family))
    assert caught.value.category == "model"


def test_nothing_to_warn_of_where_all_fits():
    assert warnings_for(model_of("llama"), 20, 76) == []


def test_texts_that_pass_the_models_positions_are_warned_of():
    (warning,) = warnings_for(model_of("llama"), 20, 77)
    assert "lower max_length to 76" in warning


def test_sliding_windows_are_warned_of():
    (warning,) = warnings_for(model_of("gemma3"), 4, 40)
    assert warning.startswith(f"1 of 2 layers look back {WINDOW} tokens only: in texts longer than 12 tokens")
    assert warnings_for(model_of("gemma3"), 4, 12) == []


def test_a_prefix_as_long_as_every_window_is_refused():
    with pytest.raises(StudioError, match="could never be read whole"):
        warnings_for(model_of("mistral"), WINDOW, 10)
    assert warnings_for(model_of("gemma3"), WINDOW, 10), "one layer sees all of it, so it is only warned of"


def test_a_prefix_as_long_as_the_model_is_refused():
    with pytest.raises(StudioError, match="has 96 positions, and 96 virtual tokens fill them all"):
        warnings_for(model_of("llama"), 96, 10)


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
