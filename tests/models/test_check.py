"""The pre-flight check: right without weights, for every family, plain about what cannot be."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoConfig, BloomConfig, GPT2Config, MistralConfig

from prefix_studio.__main__ import main
from prefix_studio.errors import StudioError
from prefix_studio.models import check, hub
from prefix_studio.models.check import check_model
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.shape import submodule_shapes
from prefix_studio.recipe import ModelPart, PrefixPart, TrainingPart
from tests.prefix.zoo import DECODERS, ENCODER_DECODERS, REFUSED, config_of, model_of

KEYS = {
    "supported", "reason", "family", "layers", "trainable_parameters", "all_parameters", "trainable_share",
    "memory_bytes", "memory_available_bytes", "largest_batch_size", "warnings",
}  # fmt: skip
SMALL = PrefixPart(num_virtual_tokens=6, init="random")


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


def check_small(model, prefix=SMALL, **options):
    return check_model(model, prefix, batch_size=2, max_length=8, **options)


def as_listed(layers):
    return [{"index": layer.index, "key_shape": list(layer.key), "value_shape": list(layer.value)} for layer in layers]


def test_the_bundled_model_can_be_tuned(bundled):
    model, _ = bundled
    answer = check_model(ModelPart(), PrefixPart(num_virtual_tokens=8))
    assert set(answer) == KEYS
    assert answer["supported"] is True
    assert answer["reason"] == ""
    assert answer["family"] == "llama"
    assert answer["all_parameters"] == model.num_parameters()
    heads = model.config.num_key_value_heads
    width = model.config.hidden_size // model.config.num_attention_heads
    assert [layer["index"] for layer in answer["layers"]] == list(range(model.config.num_hidden_layers))
    assert all(layer["key_shape"] == layer["value_shape"] == [heads, width] for layer in answer["layers"])
    assert answer["warnings"] == []
    json.dumps(answer)


@pytest.mark.parametrize("name", [*DECODERS, *ENCODER_DECODERS])
def test_every_family_is_checked_from_its_configuration(name, tokenizer_and, monkeypatch):
    def no_fallback(*_):
        raise AssertionError("the memory was not rehearsed")

    monkeypatch.setattr(check.TrainingMemory, "bytes_by_width", no_fallback)
    monkeypatch.setattr(check.TrainingMemory, "largest_batch", lambda *_: 1)  # the time of four more rehearsals
    real = model_of(name)
    answer = check_small(tokenizer_and(config_of(name)))
    assert answer["supported"], answer["reason"]
    assert answer["family"] == real.config.model_type
    assert answer["layers"] == as_listed(submodule_shapes(real)["decoder"])
    assert answer["all_parameters"] == sum(parameter.numel() for parameter in real.parameters())
    assert answer["memory_bytes"] > 4 * answer["all_parameters"]
    json.dumps(answer)


@pytest.mark.parametrize("name", REFUSED)
def test_what_takes_no_prefix_is_refused_by_name(name, tokenizer_and):
    answer = check_small(tokenizer_and(config_of(name)))
    assert set(answer) == KEYS
    assert answer["supported"] is False
    assert answer["reason"].startswith(config_of(name).model_type)
    assert answer["layers"] == []


def test_all_three_attentions_of_an_encoder_decoder(tokenizer_and):
    prefix = SMALL.model_copy(update={"submodules": "all"})
    layers = check_small(tokenizer_and(config_of("byt5")), prefix)["layers"]
    shapes = submodule_shapes(model_of("byt5"), "all")
    assert [layer for layer in layers if "submodule" not in layer] == as_listed(shapes["decoder"])
    for name in ("encoder", "cross"):
        some = [{**layer, "submodule": name} for layer in as_listed(shapes[name])]
        assert [layer for layer in layers if layer.get("submodule") == name] == some


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gemma3n", "2 of 4 layers. Of the others, 2 have another layer's keys and values"),
        ("qwen3_next", "1 of 2 layers. Of the others, 1 has a running state instead of keys and values"),
        ("nemotron_h", "1 of 4 layers. Of the others, 1 has a running state instead of keys and values; 2 have no att"),
    ],
)
def test_layers_that_take_no_prefix_are_told(name, told, tokenizer_and):
    warnings = check_small(tokenizer_and(config_of(name)))["warnings"]
    assert any(told in warning for warning in warnings)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "t5", "byt5"])
def test_nothing_is_told_where_all_layers_take_a_prefix_that_peft_can_load(name, tokenizer_and):
    assert check_small(tokenizer_and(config_of(name)))["warnings"] == []


@pytest.mark.parametrize(("name", "submodules"), [("deepseek_v3", "decoder"), ("falcon_h1", "decoder"), ("t5", "all")])
def test_a_prefix_that_peft_cannot_load_is_told(name, submodules, tokenizer_and):
    prefix = SMALL.model_copy(update={"submodules": submodules})
    (warning,) = check_small(tokenizer_and(config_of(name)), prefix)["warnings"]
    assert "own format, because stock PEFT cannot load" in warning


def test_a_text_start_is_told_apart_where_states_run(tokenizer_and):
    text = PrefixPart(num_virtual_tokens=4, init="text", init_text="a b c d")
    warnings = check_small(tokenizer_and(config_of("falcon_h1")), text)["warnings"]
    assert any("only near to the text" in warning for warning in warnings)


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
    assert check_small(ModelPart(), part)["trainable_parameters"] == learned


def test_the_share_is_that_of_pefts_own_example(tokenizer_and):
    """PEFT's documentation: `trainable params: 983040 || all params: 560197632`, which is base and prefix together."""
    config = BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16)
    answer = check_small(tokenizer_and(config), PrefixPart(num_virtual_tokens=20, init="random"))
    assert answer["trainable_parameters"] == 983_040
    assert answer["all_parameters"] + answer["trainable_parameters"] == 560_197_632
    assert round(100 * answer["trainable_share"], 4) == 0.1755


def test_what_is_not_said_is_the_recipes_default(tokenizer_and, monkeypatch):
    monkeypatch.setattr(check, "available_memory", lambda: 8 * 10**9)
    said = check_model(ModelPart(), PrefixPart(num_virtual_tokens=48), batch_size=8, max_length=512)
    assert check_model(ModelPart()) == said
    llama = tokenizer_and(config_of("llama"))
    tokens = PrefixPart().num_virtual_tokens
    answer, layers = check_model(llama, max_length=8), submodule_shapes(model_of("llama"))["decoder"]
    assert answer["trainable_parameters"] == tokens * sum(layer.size for layer in layers)
    rows = TrainingPart().per_device_train_batch_size
    assert answer["memory_bytes"] == check_model(llama, batch_size=rows, max_length=8)["memory_bytes"]


def test_a_large_model_is_checked_without_its_weights(tokenizer_and, monkeypatch):
    monkeypatch.setattr(hub, "has_safetensors", lambda *_: None)
    monkeypatch.setattr(check, "available_memory", lambda: 8 * 10**9)
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "num_key_value_heads": 8, "intermediate_size": 14336}
    model = tokenizer_and(AutoConfig.for_model("llama", **shape, vocab_size=128256))
    answer = check_model(model, max_length=64)
    assert answer["all_parameters"] == 8_030_261_248  # the published count of this architecture
    assert answer["memory_bytes"] > 2 * 8_030_261_248
    assert answer["memory_available_bytes"] == 8 * 10**9
    assert answer["largest_batch_size"] == 0
    assert any("8.0 GB are free" in warning for warning in answer["warnings"])


def test_a_batch_that_is_too_large_comes_with_one_that_fits(tokenizer_and, monkeypatch):
    model = tokenizer_and(config_of("llama"))
    small = check_model(model, SMALL, batch_size=64, max_length=64)
    monkeypatch.setattr(check, "available_memory", lambda: small["memory_bytes"])
    answer = check_model(model, SMALL, batch_size=512, max_length=64)
    assert 16 <= answer["largest_batch_size"] < 512
    (warning,) = (text for text in answer["warnings"] if "GB are free" in text)
    assert f"lower the batch size from 512 to {answer['largest_batch_size']}" in warning
    assert check_model(model, SMALL, batch_size=64, max_length=64)["largest_batch_size"] >= 64


def test_precision_quantisation_and_checkpointing_count(tokenizer_and):
    config = AutoConfig.for_model("llama", hidden_size=512, num_hidden_layers=8, intermediate_size=1024)
    model = tokenizer_and(config)

    def memory(checkpointing=False, **fields):
        part = model.model_copy(update=fields)
        answer = check_model(part, SMALL, batch_size=16, max_length=64, gradient_checkpointing=checkpointing)
        return answer["memory_bytes"], answer["all_parameters"]

    plain, parameters = memory(dtype="float32")
    assert plain - memory(dtype="bfloat16")[0] > 2 * parameters
    assert plain - memory(checkpointing=True, dtype="float32")[0] > 5e7
    quantised, same = memory(dtype="float32", quantization="4bit")
    assert plain - quantised > 1e7
    assert same == parameters


def test_layers_that_cannot_be_checkpointed_are_refused(tokenizer_and, monkeypatch):
    model = tokenizer_and(config_of("llama"))
    monkeypatch.setattr(check.PreTrainedModel, "modules", lambda self: iter(()))
    answer = check_small(model, gradient_checkpointing=True)
    assert answer["supported"] is False
    assert "cannot trade time for memory" in answer["reason"]


def test_rows_longer_than_the_models_positions_take_no_memory(tokenizer_and):
    model = tokenizer_and(config_of("llama"))
    limit = config_of("llama").max_position_embeddings
    short, long = (check_model(model, SMALL, max_length=length) for length in (limit - 6, 10 * limit))
    assert short["memory_bytes"] == long["memory_bytes"]
    assert short["warnings"] == []
    assert len(long["warnings"]) == 1


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


def test_a_prefix_that_cannot_start_so_is_refused(tokenizer_and):
    answer = check_small(tokenizer_and(config_of("llama")), SMALL.model_copy(update={"num_frozen_tokens": 6}))
    assert answer["supported"] is False
    assert "num_frozen_tokens is 6" in answer["reason"]


def test_pickled_weights_are_refused_before_the_queue(tokenizer_and):
    answer = check_small(tokenizer_and(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=30), weights=False))
    assert answer["supported"] is False
    assert answer["reason"].startswith("There are no safetensors weights")


def test_a_configuration_that_builds_no_model_is_refused(tokenizer_and):
    answer = check_small(tokenizer_and(GPT2Config(n_embd=9, n_layer=1, n_head=2, vocab_size=30)))
    assert answer["supported"] is False
    assert answer["reason"].startswith("No gpt2 model can be built from the configuration of the folder")


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StudioError, match="does not exist"):
        check_model(ModelPart(id=str(tmp_path / "nowhere")))


def test_the_command_says_it_in_words(capsys):
    options = ["--virtual-tokens", "20", "--batch-size", "4", "--max-length", "64", "--gradient-checkpointing"]
    assert main(["check", "bundled", *options]) == 0
    said = capsys.readouterr().out
    answer = check_model(
        ModelPart(), PrefixPart(num_virtual_tokens=20), batch_size=4, max_length=64, gradient_checkpointing=True
    )
    assert said.startswith(
        "bundled can be tuned (llama).\nThe prefix goes into 4 layers, as keys and values of 4 heads"
    )
    assert f"It has 20,480 parameters, {answer['trainable_share']:.4%} of" in said
    assert f"about {answer['memory_bytes'] / 2**20:,.0f} MiB" in said


def test_the_command_names_every_shape(tokenizer_and, capsys):
    model = tokenizer_and(config_of("gemma4"))
    assert main(["check", model.id]) == 0
    said = capsys.readouterr().out
    assert "1 layer, as keys and values of 1 head x 8, and 1 layer, as keys and values of 1 head x 16." in said
    assert "Note: The prefix goes into 2 of 4 layers." in said


def test_the_command_says_why_not(tokenizer_and, capsys):
    model = tokenizer_and(config_of("mamba"))
    assert main(["check", model.id]) == 0
    assert "cannot be tuned: mamba models cannot take a prefix" in capsys.readouterr().out
