"""Base models in 4 and 8 bits: smaller, and learned through, written with and saved for like any other."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, FalconConfig, LlamaConfig, LlamaForCausalLM, MixtralConfig

from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.models import load, quantize
from prefix_studio.models.load import bytes_per_parameter, fingerprint, load_model
from prefix_studio.prefix.checkpointing import gradient_checkpointing
from prefix_studio.prefix.files import load_prefix, save_adapter
from prefix_studio.prefix.inject import compute_dtype, forward_with_prefix
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape
from prefix_studio.recipe import ModelPart

KINDS = ["8bit", "4bit"]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    """A tiny Llama with weights large enough that a prefix matters, and sizes that are no powers of two."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def part(request, llama_folder):
    pytest.importorskip("bitsandbytes")
    return ModelPart(id=str(llama_folder), quantization=request.param)


@pytest.fixture
def model(part):
    return load_model(part)


def texts(rows: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(1))


def random_prefix(model, length: int = 5) -> Prefix:
    generator = torch.Generator().manual_seed(2)

    def states(shape):
        heads, width = shape
        return torch.randn(heads, length, width, generator=generator, requires_grad=True)

    shapes = prefix_shape(model)
    return Prefix(tuple(states(shape.key) for shape in shapes), tuple(states(shape.value) for shape in shapes))


def loss_of(model, prefix: Prefix) -> torch.Tensor:
    ids = texts()
    logits = forward_with_prefix(model, prefix, ids, torch.ones_like(ids))
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def loss_and_gradients(model, prefix: Prefix, *, checkpointing: bool = False) -> list[torch.Tensor]:
    with gradient_checkpointing(model) if checkpointing else nullcontext():
        loss = loss_of(model, prefix)
        return [loss.detach(), *torch.autograd.grad(loss, [*prefix.keys, *prefix.values])]


def dequantised(part: ModelPart):
    """The same weights in float32, computed with by ordinary linear layers."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    plain = AutoModelForCausalLM.from_pretrained(part.id, dtype=torch.float32).eval().requires_grad_(False)
    for name, layer in load_model(part).named_modules():
        if type(layer).__name__ in ("Linear4bit", "Linear8bitLt"):
            weight = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
            plain.get_submodule(name).weight.data = weight.float()
    return plain


def assert_equal(ones, others, tolerance: float = 1e-5) -> None:
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_only_the_weights_of_linear_layers_are_quantised(model, part):
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters() if parameter.dtype != torch.float32}
    assert set(kinds.values()) == {torch.int8 if part.quantization == "8bit" else torch.uint8}
    assert len(kinds) == 2 * 7  # of each layer, and neither the embeddings nor the output layer
    assert model.dtype == compute_dtype(model) == torch.float32
    assert model.device.type == "cpu"
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_gradients_are_those_of_the_dequantised_weights(model, part):
    prefix = random_prefix(model)
    assert_equal(loss_and_gradients(model, prefix), loss_and_gradients(dequantised(part), prefix))


def test_a_pass_without_gradients_leaves_later_gradients_right(model):
    prefix = random_prefix(model)
    before = loss_and_gradients(model, prefix)
    with torch.inference_mode():
        model(texts())
    assert_equal(loss_and_gradients(model, prefix), before, tolerance=0)


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(model):
    prefix = random_prefix(model)
    assert_equal(loss_and_gradients(model, prefix, checkpointing=True), loss_and_gradients(model, prefix))


@pytest.mark.parametrize("training_path", [True, False], ids=["on the CPU", "as on GPUs"])
def test_frozen_layers_hold_no_inputs(model, training_path):
    inputs = []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.train(training_path)
            layer.register_forward_pre_hook(lambda _, given: inputs.append(weakref.ref(given[0])))
    prefix = random_prefix(model)
    inputs.clear()
    loss = loss_of(model, prefix)
    gc.collect()
    assert len(inputs) == 15
    assert not any(reference() is not None for reference in inputs)
    loss.backward()
    assert all(key.grad.any() for key in prefix.keys)


def test_a_prefix_is_learned(model):
    prefix = random_prefix(model)
    optimizer = torch.optim.AdamW([*prefix.keys, *prefix.values], lr=0.1)
    losses = []
    for _ in range(20):
        loss = loss_of(model, prefix)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_what_is_written_equals_repeated_full_passes(model):
    prefix = random_prefix(model).detach()
    settings = Sampling(max_new_tokens=6, temperature=0)
    steps = list(generate(model, [Row([5, 6, 7], prefix, settings), Row([8, 9], None, settings)], eos_ids=set()))
    for row, (prompt, given) in enumerate([([5, 6, 7], prefix), ([8, 9], None)]):
        text = torch.tensor([prompt])
        with torch.no_grad():
            for _ in steps:
                last = forward_with_prefix(model, given, text, torch.ones_like(text))[0, -1]
                text = torch.cat([text, last.argmax()[None, None]], dim=1)
        assert [dict(step)[row] for step in steps] == text[0, len(prompt) :].tolist()


def test_an_adapter_made_with_a_quantised_model_loads(model, part, tmp_path):
    prefix = random_prefix(model).detach()
    save_adapter(tmp_path / "adapter", prefix, model, base_model=part.id)
    loaded = load_prefix(tmp_path / "adapter", model)
    assert_equal([*loaded.keys, *loaded.values], [*prefix.keys, *prefix.values], tolerance=0)


def test_bytes_are_those_that_the_loaded_weights_take(model, part):
    parameters = 2 * 97 * 64 + 5 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 72)
    taken = sum(parameter.nbytes for parameter in model.parameters())
    told = bytes_per_parameter(part, "cpu", parameters) * parameters
    assert taken <= told <= 1.03 * taken  # 4 bit: the scales, which are no parameters
    assert bytes_per_parameter(ModelPart(id=part.id), "cpu", parameters) == 4
    assert bytes_per_parameter(ModelPart(id=part.id, dtype="bfloat16"), "cpu", parameters) == 2


def test_an_automatic_device_map_keeps_quantised_layers_whole(part, monkeypatch):
    automatic = part.model_copy(update={"device_map": "auto"})
    assert load_model(automatic).device.type == "cpu"
    monkeypatch.setattr(load.psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000))
    with pytest.raises(StudioError, match="memory is too small") as caught:
        load_model(automatic)
    assert caught.value.hint == "Choose a smaller model."


def test_quantised_and_plain_weights_are_different_models(part):
    assert fingerprint(part) != fingerprint(ModelPart(id=part.id))


def test_weights_that_are_stored_quantised_load_as_they_are(model, part, tmp_path):
    model.save_pretrained(tmp_path / "stored")
    prefix = random_prefix(model)
    expected = loss_and_gradients(model, prefix)
    for wanted in ("none", part.quantization):
        stored = load_model(ModelPart(id=str(tmp_path / "stored"), quantization=wanted))
        assert_equal(loss_and_gradients(stored, prefix), expected, tolerance=1e-4)
    other = "4bit" if part.quantization == "8bit" else "8bit"
    with pytest.raises(StudioError, match=rf"already quantised \({part.quantization}\)") as caught:
        load_model(ModelPart(id=str(tmp_path / "stored"), quantization=other))
    assert caught.value.category == "model"


def test_experts_in_one_tensor_are_counted_as_they_are_loaded():
    config = MixtralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    attention = 2 * 32 * 32 + 2 * 32 * 16
    others = skeleton.num_parameters() - attention
    assert others > 4 * 3 * 32 * 48
    assert quantize.weight_bytes(skeleton, "8bit", torch.bfloat16) == attention + 2 * others


def test_a_model_without_layers_to_quantise_is_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    config = FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(StudioError, match="bitsandbytes cannot quantise falcon models") as caught:
        load_model(ModelPart(id=str(tmp_path), quantization="4bit"))
    assert caught.value.hint == "Set model.quantization to none."


def test_without_bitsandbytes_the_message_says_what_to_install(llama_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(StudioError, match=r"in 4bit needs bitsandbytes, which is not installed") as caught:
        load_model(ModelPart(id=str(llama_folder), quantization="4bit"))
    assert "pip install bitsandbytes" in caught.value.hint

    stored = shutil.copytree(llama_folder, tmp_path / "stored")
    fields = json.loads((stored / "config.json").read_text())
    fields["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (stored / "config.json").write_text(json.dumps(fields))
    assert quantize.own_quantization(AutoConfig.from_pretrained(stored)) == "8bit"
    with pytest.raises(StudioError, match=r"in 8bit needs bitsandbytes"):
        load_model(ModelPart(id=str(stored)))
