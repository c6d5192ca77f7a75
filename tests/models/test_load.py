"""Base models from folders: frozen, in the right precision, and refused in plain words when something is wrong."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.models import load
from prefix_studio.models.load import choose_dtype, fingerprint, is_offloaded, load_model, load_tokenizer, resolve
from prefix_studio.prefix.checkpointing import gradient_checkpointing
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape
from prefix_studio.recipe import ModelPart
from prefix_studio.settings import BUNDLED_MODEL


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_what_was_asked_for(folder, dtype):
    model = load_model(ModelPart(id=str(folder), dtype=dtype))
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    logits = model(torch.tensor([[4, 5, 6]])).logits
    assert logits.dtype == getattr(torch, dtype)
    assert torch.isfinite(logits).all()


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


def test_a_folder_with_an_adapter_is_no_base_model(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert refusal(load_model, folder).startswith(f"There is an adapter in the folder {folder}, which would change")


def test_what_cannot_fit_is_refused_before_it_is_read(folder, monkeypatch):
    free_memory(monkeypatch, 20_000)
    with pytest.raises(StudioError, match=r"too small for .*: it needs 0\.0 GB, and 0\.0 GB are free\.") as caught:
        load_model(ModelPart(id=str(folder)))
    assert caught.value.category == "memory"


def free_memory(monkeypatch, size: int) -> None:
    monkeypatch.setattr(load.psutil, "virtual_memory", lambda: SimpleNamespace(available=size))


def gpus(monkeypatch, *free: int) -> None:
    """As many GPUs as there are sizes, with so many bytes free."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[int(str(device)[-1])], 10**12))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


def test_weights_go_to_the_one_device_they_fit_on(monkeypatch):
    free_memory(monkeypatch, 100)
    gpus(monkeypatch, 1000, 1000)
    part = ModelPart()
    assert load.placement(part, "cpu", 25) == {"device_map": {"": "cpu"}}
    assert load.placement(part, "cuda:1", 400) == {"device_map": {"": "cuda:1"}}  # two bytes each
    gpus(monkeypatch, 1000)
    assert load.placement(part, "cuda:0", 500) == {"device_map": {"": "cuda:0"}}
    with pytest.raises(StudioError, match="memory is too small"):
        load.placement(part, "cuda:0", 501)


def test_a_model_larger_than_one_gpu_is_spread_over_all(monkeypatch, caplog):
    free_memory(monkeypatch, 100)
    gpus(monkeypatch, 1000, 2000)
    spread = {"device_map": "auto", "max_memory": {0: 800, 1: 1600, "cpu": 80}}
    assert load.placement(ModelPart(), "cuda:0", 600) == spread
    assert caplog.messages == ["One GPU is too small for the bundled model, so its layers are spread over all of them."]
    assert load.placement(ModelPart(device_map="auto"), "cuda:0", 1) == spread
    assert load.placement(ModelPart(device_map="auto"), "cpu", 1) == {"device_map": "auto", "max_memory": {"cpu": 80}}
    quantised = load.placement(ModelPart(device_map="auto", quantization="8bit"), "cuda:0", 1)
    assert quantised == {"device_map": "auto", "max_memory": {0: 800, 1: 1600}}


@pytest.fixture
def offloaded(tiny_folder, monkeypatch):
    """The tiny model with its second layer left on the disk, by accelerate's hooks."""
    with monkeypatch.context() as small:
        free_memory(small, 65_000)
        return load_model(ModelPart(id=str(tiny_folder), device_map="auto"))


def loss_and_gradients(model, *, checkpointing: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 5, 8, generator=generator, requires_grad=True) for _ in range(4)]
    ids = torch.randint(3, 30, (3, 7), generator=generator)
    with gradient_checkpointing(model) if checkpointing else nullcontext():
        logits = forward_with_prefix(model, Prefix(tuple(states[:2]), tuple(states[2:])), ids, torch.ones_like(ids))
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        return [loss.detach(), *torch.autograd.grad(loss, states)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_larger_than_the_memory_learns_the_same(offloaded, tiny_folder, checkpointing):
    assert set(offloaded.hf_device_map.values()) == {"cpu", "disk"}
    assert is_offloaded(offloaded)
    assert offloaded.device.type == "cpu"
    assert not any(parameter.requires_grad for parameter in offloaded.parameters())
    plain = load_model(ModelPart(id=str(tiny_folder)))
    assert not is_offloaded(plain)
    assert prefix_shape(offloaded) == prefix_shape(plain)
    expected = loss_and_gradients(plain)
    for _ in range(2):
        for mine, its in zip(loss_and_gradients(offloaded, checkpointing=checkpointing), expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6)


def test_a_model_larger_than_the_memory_writes_the_same(offloaded, tiny_folder):
    plain = load_model(ModelPart(id=str(tiny_folder)))
    rows = [Row([5, 6, 7], settings=Sampling(max_new_tokens=6, temperature=0))]
    assert list(generate(offloaded, rows, eos_ids=set())) == list(generate(plain, rows, eos_ids=set()))


def test_a_memory_without_room_for_the_embeddings_is_refused(tiny_folder, monkeypatch):
    monkeypatch.setattr(load, "room_for_weights", lambda *_, **__: {"cpu": 100})
    with pytest.raises(StudioError, match="memory is too small"):
        load_model(ModelPart(id=str(tiny_folder), device_map="auto"))


@pytest.fixture
def t5_folder(tmp_path):
    words = ["<pad>", "</s>", "<unk>", "▁the", "▁river", "▁is", "▁wide", "."]
    tokenizer = T5Tokenizer(vocab=[(word, -float(rank)) for rank, word in enumerate(words)], extra_ids=2)
    tokenizer.save_pretrained(tmp_path)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def bart_folder(tmp_path):
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz.", "Ġ"]
    tokenizer = BartTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    config = BartConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_position_embeddings=64,
    )
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("family", "kind"), [("t5", T5ForConditionalGeneration), ("bart", BartForConditionalGeneration)]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_encoder_decoders_load_with_their_tokenizers(family, kind, dtype, request):
    part = ModelPart(id=str(request.getfixturevalue(f"{family}_folder")), dtype=dtype)
    model, tokenizer = load_model(part), load_tokenizer(part)
    assert type(model) is kind
    assert model.dtype == getattr(torch, dtype)
    ids = tokenizer("the river is wide.", return_tensors="pt")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "the river is wide."
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)
