"""Base models from folders: frozen, in the right precision, and refused in plain words when something is wrong."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.models import load
from prefix_studio.models.load import choose_dtype, fingerprint, load_model, load_tokenizer, resolve
from prefix_studio.recipe import ModelPart
from prefix_studio.settings import BUNDLED_MODEL


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(action, folder) -> str:
    with pytest.raises(StudioError) as caught:
        action(ModelPart(id=str(folder)))
    assert caught.value.category == "model"
    return caught.value.message


def test_the_bundled_model_is_frozen_and_float32_on_a_cpu():
    model = load_model(ModelPart())
    assert resolve(ModelPart()) == str(BUNDLED_MODEL)
    assert not model.training
    assert model.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())
    tokenizer = load_tokenizer(ModelPart())
    assert None not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (
        tokenizer.decode(tokenizer("The river is wide.", add_special_tokens=False)["input_ids"]) == "The river is wide."
    )


def test_dtype_is_what_was_asked_for(folder):
    assert load_model(ModelPart(id=str(folder), dtype="bfloat16")).dtype == torch.bfloat16


def test_auto_dtype_follows_hardware_and_size(monkeypatch):
    auto = ModelPart()
    monkeypatch.setattr(load, "cpu_computes_bfloat16", lambda: True)
    assert choose_dtype(auto, "cpu", 10**6) == torch.float32
    assert choose_dtype(auto, "cpu", 3 * 10**9) == torch.bfloat16
    monkeypatch.setattr(load, "cpu_computes_bfloat16", lambda: False)
    assert choose_dtype(auto, "cpu", 3 * 10**9) == torch.float32


def test_the_fingerprint_tells_models_apart(folder, tiny_folder):
    model = ModelPart(id=str(folder))
    before = fingerprint(model)
    assert fingerprint(model) == before
    assert fingerprint(ModelPart(id=str(tiny_folder))) != before
    assert fingerprint(ModelPart(id=str(folder), dtype="bfloat16")) != before
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert fingerprint(model) != before


def test_a_tokenizer_without_padding_pads_with_the_end_token(folder):
    settings = folder / "tokenizer_config.json"
    fields = json.loads(settings.read_text())
    del fields["pad_token"]
    settings.write_text(json.dumps(fields))
    tokenizer = load_tokenizer(ModelPart(id=str(folder)))
    assert tokenizer.pad_token == tokenizer.eos_token


def test_missing_things_are_named(folder):
    assert refusal(load_model, folder / "nowhere") == f"The model folder {folder}/nowhere does not exist."
    assert (
        refusal(load_model, folder / "config.json") == f"The model folder {folder}/config.json is a file, not a folder."
    )

    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert refusal(load_tokenizer, folder) == f"There is no usable tokenizer in the folder {folder}."

    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(load_model, folder).startswith(
        f"There are no safetensors weights (model.safetensors) in the folder {folder}; pickle files"
    )

    (folder / "config.json").unlink()
    assert refusal(load_model, folder) == f"There is no config.json in the folder {folder}."


def test_a_damaged_tokenizer_says_why(folder):
    (folder / "tokenizer.json").write_text("{")
    assert refusal(load_tokenizer, folder).startswith(f"There is no usable tokenizer in the folder {folder}: ")


def test_weights_that_do_not_fit_are_refused(folder):
    edit_config(folder, num_hidden_layers=3)
    message = refusal(load_model, folder)
    assert re.match(
        r"The weights of the folder .* are incomplete: 9 tensors are missing, such as model\.layers\.2\.", message
    )

    edit_config(folder, num_hidden_layers=2, hidden_size=64)
    assert refusal(load_model, folder).startswith(f"The weights of the folder {folder} cannot be read: ")

    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert "is damaged: it is not a safetensors file" in refusal(load_model, folder)


def test_configurations_that_cannot_be_used_are_refused(folder):
    edit_config(folder, architectures=["BertForMaskedLM"], model_type="bert")
    assert refusal(load_model, folder) == f"This is not a text generation model: the folder {folder} (BertForMaskedLM)."

    edit_config(folder, architectures=["NovelForCausalLM"], model_type="novel")
    assert "novel" in refusal(load_model, folder)

    edit_config(folder, auto_map={"AutoConfig": "code.NovelConfig", "AutoModelForCausalLM": "code.Novel"})
    (folder / "code.py").write_text("raise SystemExit('this must never run')")
    assert refusal(load_model, folder) == f"There is code of its own in the folder {folder}, which is not run here."

    (folder / "config.json").write_text("{not json")
    assert refusal(load_model, folder).startswith(f"The configuration of the folder {folder} cannot be used: ")


def test_quantization_is_refused_for_now(folder):
    with pytest.raises(StudioError, match=r"model\.quantization 4bit is not supported yet"):
        load_model(ModelPart(id=str(folder), quantization="4bit"))
