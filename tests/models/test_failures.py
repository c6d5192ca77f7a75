"""What goes wrong while a model is loaded is told in plain words, with the way out."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.models import load
from prefix_studio.models.load import load_model
from prefix_studio.recipe import ModelPart


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


def test_weights_that_do_not_fit_are_refused(folder):
    edit_config(folder, num_hidden_layers=3)
    message = refusal(load_model, folder)
    assert re.match(
        r"The weights of the folder .* are incomplete: 9 tensors are missing, such as model\.layers\.2\.", message
    )

    edit_config(folder, num_hidden_layers=2, vocab_size=31)
    assert refusal(load_model, folder) == (
        f"The weights of the folder {folder} do not fit its configuration: 2 tensors have other shapes, such as "
        "lm_head.weight, 30 x 32 and not 31 x 32."
    )

    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert "is damaged: it is not a safetensors file" in refusal(load_model, folder)


def test_configurations_that_cannot_be_used_are_refused(folder):
    edit_config(folder, architectures=["BertForMaskedLM"], model_type="bert")
    assert refusal(load_model, folder) == f"This is not a text generation model: the folder {folder} (BertForMaskedLM)."

    edit_config(folder, architectures=["NovelForCausalLM"], model_type="novel")
    assert refusal(load_model, folder) == (
        f"The architecture of the folder {folder}, novel, is not one that this version of transformers knows."
    )

    edit_config(folder, auto_map={"AutoConfig": "code.NovelConfig", "AutoModelForCausalLM": "code.Novel"})
    (folder / "code.py").write_text("raise SystemExit('this must never run')")
    assert refusal(load_model, folder) == f"There is code of its own in the folder {folder}, which is not run here."

    (folder / "config.json").write_text("{not json")
    assert refusal(load_model, folder).startswith(f"The configuration of the folder {folder} cannot be used: ")


def test_impossible_configurations_are_refused_with_the_reason(folder):
    edit_config(folder, num_attention_heads=5)
    assert refusal(load_model, folder).endswith(
        "The hidden size (32) is not a multiple of the number of attention heads (5)."
    )
    edit_config(folder, num_attention_heads=0)  # a division by zero in the family's own check
    assert refusal(load_model, folder).startswith(f"The configuration of the folder {folder} cannot be used: ")
    edit_config(folder, num_attention_heads=4, hidden_act="swoosh")
    assert refusal(load_model, folder) == f"The weights of the folder {folder} cannot be read: KeyError 'swoosh'"


def test_a_package_that_is_missing_is_named(folder):
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(StudioError, match="requires optimum") as caught:
        load_model(ModelPart(id=str(folder)))
    assert caught.value.hint == "Install it, or choose a model that needs none."


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        OSError("Cannot allocate memory (os error 12)"),
        ValueError("Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM"),
        ValueError("The current `device_map` had weights offloaded to the disk, which needed to be re-saved."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_told_with_the_ways_out(folder, monkeypatch, error):
    class Auto:
        @staticmethod
        def from_pretrained(*_, **__):
            raise error

    monkeypatch.setattr(load, "model_class", lambda *_: Auto)
    with pytest.raises(StudioError) as caught:
        load_model(ModelPart(id=str(folder)))
    assert caught.value.category == "memory"
    assert caught.value.message == f"This machine's memory is too small for the folder {folder}."
    assert caught.value.hint == (
        "Choose a smaller model, or set model.quantization to 4bit, or set model.device_map to auto, which is slower."
    )
