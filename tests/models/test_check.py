"""The pre-flight check: right without weights, plain about what cannot be."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, GPT2Config, MistralConfig, T5Config

from prefix_studio.errors import StudioError
from prefix_studio.models import check, hub
from prefix_studio.models.check import check_model, estimate_memory
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.recipe import ModelPart, PrefixPart


@pytest.fixture
def tokenizer_and(tiny_folder, tmp_path):
    """A folder with a given configuration, the tiny tokenizer, and (unless it must be absent) a weights file."""

    def make(config, weights=True):
        folder = tmp_path / "configured"
        folder.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_folder / name, folder)
        config.save_pretrained(folder)
        if weights:
            (folder / "model.safetensors").touch()
        return ModelPart(id=str(folder))

    return make


def test_the_bundled_model_can_be_tuned(bundled):
    model, tokenizer = bundled
    answer = check_model(ModelPart(), PrefixPart(num_virtual_tokens=8))
    assert set(answer) == {
        "supported", "reason", "family", "layers", "trainable_parameters", "all_parameters", "memory_bytes", "warnings"
    }  # fmt: skip
    assert answer["supported"] is True
    assert answer["reason"] == ""
    assert answer["family"] == "llama"
    assert answer["all_parameters"] == model.num_parameters()
    heads = model.config.num_key_value_heads
    width = model.config.hidden_size // model.config.num_attention_heads
    assert [layer["index"] for layer in answer["layers"]] == list(range(model.config.num_hidden_layers))
    assert all(layer["key_shape"] == layer["value_shape"] == [heads, width] for layer in answer["layers"])
    json.dumps(answer)


@pytest.mark.parametrize(
    "part",
    [
        PrefixPart(num_virtual_tokens=7),
        PrefixPart(num_virtual_tokens=None, init_text="a b c d e"),
        PrefixPart(num_virtual_tokens=7, prefix_projection=True),
        PrefixPart(num_virtual_tokens=7, prefix_projection=True, encoder_hidden_size=24, init="random"),
    ],
    ids=["plain", "as-long-as-the-text", "projection", "projection-width"],
)
def test_trainable_parameters_are_those_of_the_real_prefix(bundled, part):
    learned = sum(parameter.numel() for parameter in PrefixModule.build(*bundled, part, seed=0).parameters())
    assert check_model(ModelPart(), part)["trainable_parameters"] == learned


def test_a_large_model_is_checked_without_its_weights(tokenizer_and, monkeypatch):
    monkeypatch.setattr(hub, "has_safetensors", lambda *_: None)
    monkeypatch.setattr(check, "available_memory", lambda: 8 * 10**9)
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "num_key_value_heads": 8, "intermediate_size": 14336}
    model = tokenizer_and(AutoConfig.for_model("llama", **shape, vocab_size=128256))
    answer = check_model(model, max_length=64)
    assert answer["all_parameters"] == 8_030_261_248  # the published count of this architecture
    assert answer["memory_bytes"] > 2 * 8_030_261_248
    assert any("8.0 GB are free" in warning for warning in answer["warnings"])


def test_positions_and_sliding_windows_are_warned_about(tokenizer_and):
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 30,
    }
    model = tokenizer_and(MistralConfig(**small, intermediate_size=48, sliding_window=100, max_position_embeddings=128))
    quiet = check_model(model, PrefixPart(num_virtual_tokens=20), max_length=64)
    assert quiet["warnings"] == []
    loud = check_model(model, PrefixPart(num_virtual_tokens=20), max_length=512)
    assert any("128 positions" in warning for warning in loud["warnings"])
    assert any("100 tokens" in warning for warning in loud["warnings"])
    too_long = check_model(model, PrefixPart(num_virtual_tokens=128), max_length=64)
    assert too_long["supported"] is False
    assert "128" in too_long["reason"]


def test_gated_models_are_told(tokenizer_and, monkeypatch):
    model = tokenizer_and(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=30))
    entry = check.find("meta-llama/Llama-3.2-1B")
    monkeypatch.setattr(check, "find", lambda _: entry)
    assert any("is gated: accept its licence" in warning for warning in check_model(model, max_length=64)["warnings"])


def test_what_takes_no_prefix_is_refused_by_name(tokenizer_and):
    answer = check_model(tokenizer_and(T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=30)))
    assert answer["supported"] is False
    assert answer["family"] == "t5"
    assert "encoder-decoder" in answer["reason"]


def test_pickled_weights_are_refused_before_the_queue(tokenizer_and):
    answer = check_model(tokenizer_and(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=30), weights=False))
    assert answer["supported"] is False
    assert answer["reason"].startswith("There are no safetensors weights")


def test_a_configuration_that_builds_no_model_is_refused(tokenizer_and):
    model = tokenizer_and(GPT2Config(n_embd=9, n_layer=1, n_head=2, vocab_size=30))
    answer = check_model(model)
    assert answer["supported"] is False
    assert answer["reason"].startswith("No gpt2 model can be built from the configuration of the folder")


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StudioError, match="does not exist"):
        check_model(ModelPart(id=str(tmp_path / "nowhere")))


def test_memory_grows_with_batch_length_and_prefix():
    config = GPT2Config()
    base = estimate_memory(ModelPart(), config, parameters=10**8, trainable=10**5, tokens=1000)
    assert base > 4 * 10**8 * (0.5 if torch.cuda.is_available() else 1)
    assert estimate_memory(ModelPart(), config, 10**8, 10**5, tokens=2000) > base
    assert estimate_memory(ModelPart(), config, 10**8, 10**7, tokens=1000) > base
