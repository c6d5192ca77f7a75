"""Adapters on disk: exact, whole, and refused by name where something is wrong."""

from __future__ import annotations

import errno
import json

import pytest
import safetensors.torch
import torch

from prefix_studio.errors import StudioError
from prefix_studio.prefix.files import load_adapter, load_prefix, save_adapter
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape
from tests.prefix.tiny import random_prefix
from tests.prefix.zoo import model_of


@pytest.fixture
def adapter(tmp_path):
    """The folder of a good adapter for the tiny llama."""
    save_adapter(
        tmp_path, random_prefix(model_of("llama"), 4), model_of("llama"), base_model="some/model", revision="main"
    )
    return tmp_path


def change(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_prefix_comes_back_as_it_was(adapter):
    model = model_of("llama")
    read = load_prefix(adapter, model)
    expected = random_prefix(model, 4)
    assert all(torch.equal(a, b) for a, b in zip(read.keys + read.values, expected.keys + expected.values, strict=True))


def test_the_folder_holds_the_two_files_and_no_more(adapter):
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = load_adapter(adapter)[0]
    assert config["peft_type"] == "PREFIX_TUNING"
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/model", "main")
    assert (config["num_virtual_tokens"], config["num_layers"], config["token_dim"]) == (4, 2, 16)


def test_a_bfloat16_prefix_is_saved_in_float32(tmp_path):
    model = model_of("llama")
    save_adapter(tmp_path, random_prefix(model, 4).to(dtype=torch.bfloat16), model, base_model="m")
    assert (
        safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"].dtype == torch.float32
    )


def test_numbers_that_are_not_finite_are_neither_saved_nor_loaded(adapter, tmp_path):
    model = model_of("llama")
    broken = random_prefix(model, 4).flatten()
    broken[0, 0] = float("nan")
    with pytest.raises(StudioError, match="not finite, so it was not saved"):
        save_adapter(tmp_path / "new", Prefix.unflatten(broken, prefix_shape(model)), model, base_model="m")
    safetensors.torch.save_file({"prompt_embeddings": broken}, adapter / "adapter_model.safetensors")
    with pytest.raises(StudioError, match="not finite"):
        load_adapter(adapter)


def test_an_adapter_of_another_model_is_refused(adapter):
    with pytest.raises(StudioError, match="2 layers of 16 numbers a token, the model has 2 of 32") as caught:
        load_prefix(adapter, model_of("gpt2"))
    assert "some/model" in caught.value.hint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "LORA"}, "of PEFT type LORA, not PREFIX_TUNING"),
        ({"num_layers": None}, "says num_layers: None"),
        ({"num_virtual_tokens": True}, "says num_virtual_tokens: True"),
        ({"num_virtual_tokens": 5}, "holds 4 x 64 numbers, but adapter_config.json beside it says 5 x 64"),
        ({"peft_type": "PREFIX_STUDIO"}, "of format None, not prefix-studio-1"),
        ({"peft_type": "PREFIX_STUDIO", "format": "prefix-studio-1"}, "does not say which layers"),
    ],
)
def test_a_wrong_configuration_is_named(adapter, fields, message):
    change(adapter, **fields)
    with pytest.raises(StudioError, match=message):
        load_adapter(adapter)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(StudioError, match="There is no adapter in"):
        load_adapter(tmp_path / "nowhere")


def test_a_pickle_is_never_opened(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(StudioError, match="is a pickle"):
        load_adapter(adapter)


def test_missing_and_damaged_weights_are_named(adapter):
    weights = adapter / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(StudioError, match="is not a whole safetensors file"):
        load_adapter(adapter)
    safetensors.torch.save_file({"lora_A": torch.zeros(1)}, weights)
    with pytest.raises(StudioError, match="holds lora_A, and no prompt_embeddings"):
        load_adapter(adapter)
    weights.unlink()
    with pytest.raises(StudioError, match=r"has no adapter_model\.safetensors"):
        load_adapter(adapter)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_configuration_that_is_no_configuration_is_named(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(StudioError, match="cannot be read as JSON|of PEFT type None"):
        load_adapter(adapter)


def test_a_failed_write_leaves_the_old_file(adapter, monkeypatch):
    model = model_of("llama")
    before = (adapter / "adapter_model.safetensors").read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prefix_studio.disk.os.fsync", full)
    with pytest.raises(StudioError, match="No space left on device") as caught:
        save_adapter(adapter, random_prefix(model, 9), model, base_model="m")
    assert caught.value.category == "disk"
    assert (adapter / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize("family", ["jamba", "deepseek_v2"])
def test_our_own_format_names_what_does_not_fit(family, tmp_path):
    model = model_of(family)
    save_adapter(tmp_path, random_prefix(model, 4), model, base_model="some/model")
    config, tensors = load_adapter(tmp_path)
    assert config["format"] == "prefix-studio-1"
    assert "Stock PEFT cannot load" in config["note"]
    with safetensors.safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "prefix-studio-1"}
    with pytest.raises(StudioError, match="the model has 2 of 16"):
        load_prefix(tmp_path, model_of("llama"))
    name = sorted(tensors)[0]
    safetensors.torch.save_file(
        {**tensors, name: tensors[name][:, :2].contiguous()}, tmp_path / "adapter_model.safetensors"
    )
    with pytest.raises(StudioError, match="holds 1 x 2 x|holds 2 x 2 x"):
        load_prefix(tmp_path, model)
