"""Stock PEFT is the reference: same gradients, and our files give the same logits and the same text in it."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM, T5Config

from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.encoder import PrefixModule, trainable_parameters
from prefix_studio.prefix.files import load_adapter, load_prefix, peft_can_load, save_adapter
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.layout import TENSOR_NAME
from prefix_studio.prefix.loss import completion_loss
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape, submodule_shapes
from prefix_studio.recipe import PrefixPart
from tests.prefix.tiny import OWN, STOCK, random_ids, random_prefix, relative_difference, right_padded
from tests.prefix.zoo import model_of

# What stock PEFT cannot read off these configurations, its user has to say.
EXPLICIT = {"falcon", "mpt", "gpt_bigcode"}


def stock(family: str, prefix: Prefix) -> PeftModel:
    """A model of this family under stock PEFT, with this prefix, ready to train."""
    heads, length, width = prefix.keys[0].shape
    sizes = {"token_dim": heads * width, "num_attention_heads": heads, "num_layers": prefix.num_layers}
    explicit = sizes if family in EXPLICIT else {"num_layers": prefix.num_layers}
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length, **explicit)
    model = get_peft_model(model_of(family), config).eval()
    model.prompt_encoder["default"].load_prompt_embeddings(prefix.flatten())
    return model


@pytest.mark.parametrize("family", STOCK)
def test_gradients_equal_stock_pefts(family):
    model = model_of(family)
    prefix = random_prefix(model, 5)
    ids, mask, labels = right_padded([9, 6, 7], learned=3)

    flat = prefix.flatten().requires_grad_()
    loss, count = completion_loss(model, Prefix.unflatten(flat, prefix_shape(model)), ids, mask, labels)
    loss.backward()

    reference = stock(family, prefix)
    logits = reference(input_ids=ids, attention_mask=mask).logits
    # torch's own loss over all positions, so that nothing of ours stands on this side.
    expected = functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum"
    )
    expected.backward()

    assert count == 9
    torch.testing.assert_close(loss, expected)
    gradient = reference.prompt_encoder["default"].embedding.weight.grad
    assert relative_difference(flat.grad, gradient) <= 1e-5


@pytest.mark.parametrize("family", STOCK)
def test_our_file_in_stock_peft_gives_our_logits_and_our_text(family, tmp_path):
    model = model_of(family)
    prefix = random_prefix(model, 5)
    save_adapter(tmp_path, prefix, model, base_model="tiny")
    ids = random_ids(1, 7)

    loaded = PeftModel.from_pretrained(model_of(family), tmp_path).eval()
    with torch.no_grad():
        expected = loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        # Without end tokens, so that the texts are long.
        written = loaded.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None
        )
    torch.testing.assert_close(
        forward_with_prefix(model, prefix, ids, torch.ones_like(ids)), expected, rtol=0, atol=1e-4
    )
    row = Row(ids[0].tolist(), prefix, Sampling(max_new_tokens=12))
    assert [step[0][1] for step in generate(model, [row], eos_ids=())] == written[0, 7:].tolist()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_stock_pefts_file_is_read_exactly(family, tmp_path):
    model = model_of(family)
    prefix = random_prefix(model, 4)
    stock(family, prefix).save_pretrained(tmp_path)
    read = load_prefix(tmp_path, model)
    assert torch.equal(read.flatten(), prefix.flatten())
    assert [key.shape for key in read.keys] == [key.shape for key in prefix.keys]


@pytest.mark.parametrize("projected", [False, True])
def test_stock_peft_saves_again_what_we_saved(projected, tmp_path):
    """Trained in stock PEFT with or without projection, ours or theirs: a second round trip loses nothing."""
    torch.manual_seed(1)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=projected)
    get_peft_model(model_of("llama"), config).save_pretrained(tmp_path / "theirs")
    model = model_of("llama")
    save_adapter(tmp_path / "ours", load_prefix(tmp_path / "theirs", model), model, base_model="tiny")
    PeftModel.from_pretrained(model_of("llama"), tmp_path / "ours").save_pretrained(tmp_path / "again")
    (_, first), (_, again) = (load_adapter(tmp_path / name) for name in ("theirs", "again"))
    assert torch.equal(again[TENSOR_NAME], first[TENSOR_NAME])


@pytest.mark.parametrize("family", sorted(OWN))
def test_what_stock_peft_cannot_load_is_saved_in_our_own_format(family, tmp_path):
    model = model_of(family)
    prefix = random_prefix(model, 5)
    assert not peft_can_load(prefix, model)
    save_adapter(tmp_path, prefix, model, base_model="tiny")
    with pytest.raises(KeyError, match="PREFIX_STUDIO"):
        PeftModel.from_pretrained(model_of(family), tmp_path)
    read = load_prefix(tmp_path, model)
    assert read.layers == prefix.layers
    assert torch.equal(read.flatten(), prefix.flatten())


# The examples of PEFT's documentation: 30 virtual tokens, alone and through a projection 512 wide.
@pytest.mark.parametrize("fields", [{}, {"prefix_projection": True, "encoder_hidden_size": 512}])
def test_the_documented_examples(fields, tmp_path):
    model = model_of("llama")
    module = PrefixModule.build(model, None, PrefixPart(init="random", num_virtual_tokens=30, **fields), 0)
    theirs = get_peft_model(
        model_of("llama"), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30, **fields)
    )
    learned = sum(parameter.numel() for parameter in module.parameters())
    assert learned == sum(parameter.numel() for parameter in theirs.prompt_encoder.parameters())
    save_adapter(tmp_path, module(), model, base_model="some/model", revision="v1")
    config = PrefixTuningConfig.from_pretrained(tmp_path)
    assert config.to_dict() | {"peft_version": None} == PrefixTuningConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path="some/model",
        revision="v1",
        inference_mode=True,
        num_virtual_tokens=30,
        token_dim=16,
        num_transformer_submodules=1,
        num_attention_heads=2,
        num_layers=2,
        encoder_hidden_size=16,
        prefix_projection=False,
        init_weights=None,
    ).to_dict() | {"peft_version": None}
    assert PeftModel.from_pretrained(model_of("llama"), tmp_path) is not None


def test_the_documented_encoder_decoder_example(tmp_path):
    """20 virtual tokens in front of a decoder of 12 layers and 12 heads, 768 wide; half of PEFT's table is in use."""
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(T5Config(d_model=768, num_heads=12, num_layers=12, vocab_size=97))
    part = PrefixPart(
        init="random", num_virtual_tokens=20, prefix_projection=True, encoder_hidden_size=768, submodules="decoder"
    )
    learned = trainable_parameters(submodule_shapes(model), part, 20)
    assert learned == 20 * 768 + (768 + 1) * 768 + (768 + 1) * 12 * 2 * 768
    prefix = Prefix.unflatten(torch.randn(20, 12 * 2 * 768), prefix_shape(model))
    save_adapter(tmp_path, prefix, model, base_model="some/t5")
    config, tensors = load_adapter(tmp_path)
    wanted = {"num_virtual_tokens": 20, "token_dim": 768, "num_attention_heads": 12, "encoder_hidden_size": 768}
    wanted |= {"task_type": "SEQ_2_SEQ_LM", "num_transformer_submodules": 2, "num_layers": 24}
    assert wanted.items() <= config.items()
    assert tensors[TENSOR_NAME].shape == (20, 24 * 2 * 768)
