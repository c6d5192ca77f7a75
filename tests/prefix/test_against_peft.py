"""Stock PEFT is the reference: same gradients, and our files give the same logits and the same text in it."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from torch.nn import functional

from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.files import load_adapter, load_prefix, save_adapter
from prefix_studio.prefix.inject import completion_loss, forward_with_prefix
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape
from tests.prefix.tiny import (
    CONFIGS,
    FAMILIES,
    random_ids,
    random_prefix,
    relative_difference,
    right_padded,
    tiny_model,
)


def stock(family: str, prefix: Prefix) -> PeftModel:
    """A model of this family under stock PEFT, with this prefix, ready to train."""
    heads, length, width = prefix.keys[0].shape
    # What stock PEFT cannot read off these configurations, its user has to say.
    explicit = {"token_dim": heads * width, "num_attention_heads": heads} if family in ("falcon", "mpt") else {}
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length, **explicit)
    model = get_peft_model(tiny_model(family), config).eval()
    model.prompt_encoder["default"].load_prompt_embeddings(prefix.flatten())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_stock_pefts(family):
    model = tiny_model(family)
    prefix = random_prefix(model, 5)
    ids, mask, labels = right_padded([9, 6, 7], learned=3)

    flat = prefix.flatten().requires_grad_()
    loss, count = completion_loss(
        model, Prefix.unflatten(flat, *prefix_shape(model)[0].key), ids, mask, labels, reduction="sum"
    )
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
    layers = flat.grad.view(5, -1, prefix_shape(model)[0].key[0] * prefix_shape(model)[0].key[1])
    assert (layers.abs().amax(dim=(0, 2)) > 0).all(), "every layer's keys and values take part"


@pytest.mark.parametrize("family", FAMILIES)
def test_our_file_in_stock_peft_gives_our_logits_and_our_text(family, tmp_path):
    model = tiny_model(family)
    prefix = random_prefix(model, 5)
    save_adapter(tmp_path, prefix, base_model="tiny")
    ids = random_ids(1, 7)

    loaded = PeftModel.from_pretrained(tiny_model(family), tmp_path).eval()
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
    model = tiny_model(family)
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
    get_peft_model(tiny_model("llama"), config).save_pretrained(tmp_path / "theirs")
    model = tiny_model("llama")
    save_adapter(tmp_path / "ours", load_prefix(tmp_path / "theirs", model), base_model="tiny")
    PeftModel.from_pretrained(tiny_model("llama"), tmp_path / "ours").save_pretrained(tmp_path / "again")
    first = load_adapter(tmp_path / "theirs").prompt_embeddings
    assert torch.equal(load_adapter(tmp_path / "again").prompt_embeddings, first)


def test_every_wanted_family_is_among_the_tested():
    wanted = {"gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"}
    assert wanted <= set(CONFIGS)
