"""A saved prefix on a plain transformers model: `generate` writes what our engine and stock PEFT write."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

import prefix_studio
from prefix_studio.errors import StudioError
from prefix_studio.generation.encoder_decoder import first_ids
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.files import save_adapter
from prefix_studio.prefix.inject import forward_with_prefix
from tests.prefix.pairs import FORMS, PAIRS, random_pairs, random_parts
from tests.prefix.tiny import FAMILIES, STOCK, random_ids, random_prefix
from tests.prefix.zoo import SLIDING, model_of

SETTINGS = {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
# Padding on the left takes room in a window, in plain transformers and in stock PEFT alike; MPT counts it as distance.
PADDED = [family for family in FAMILIES if family not in SLIDING and family != "mpt"]


def padded_pair():
    """input_ids and attention_mask of two rows, the first with three tokens of padding in front."""
    ids, mask = random_ids(2, 7), torch.ones(2, 7, dtype=torch.long)
    ids[0, :3], mask[0, :3] = 0, 0
    return ids, mask


def written(model, prefix, ids, mask, **settings):
    torch.manual_seed(0)
    inputs = prefix_studio.generation_inputs(model, prefix, ids, mask, num_beams=settings.pop("num_beams", 1))
    return model.generate(**inputs, **SETTINGS, **settings)[:, prefix.length :]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_prefix_writes_greedily_what_our_engine_writes(family, tmp_path):
    model = model_of(family)
    save_adapter(tmp_path, random_prefix(model, 5), model, base_model="tiny")
    prefix = prefix_studio.load_prefix(tmp_path, model)
    ids, mask = padded_pair()
    output = written(model, prefix, ids, mask, do_sample=False)
    for index in [0, 1] if family in PADDED else [1]:
        row = Row(ids[index][mask[index] == 1].tolist(), prefix, Sampling(max_new_tokens=6))
        assert output[index, 7:].tolist() == [step[0][1] for step in generate(model, [row], eos_ids=())]


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"do_sample": True}], ids=["beams", "sampled"])
@pytest.mark.parametrize("family", [family for family in STOCK if family in PADDED])
def test_beams_and_samples_are_stock_pefts(family, settings, tmp_path):
    model = model_of(family)
    prefix = random_prefix(model, 5)
    save_adapter(tmp_path, prefix, model, base_model="tiny")
    stock = PeftModel.from_pretrained(model_of(family), tmp_path).eval()
    ids, mask = padded_pair()
    torch.manual_seed(0)
    expected = stock.generate(input_ids=ids, attention_mask=mask, **SETTINGS, **{"do_sample": False} | settings)
    assert torch.equal(written(model, prefix, ids, mask, **{"do_sample": False} | settings), expected)


@pytest.mark.parametrize("family", ["qwen3_next", "deepseek_v2", "gemma4", "falcon_h1"])
def test_beams_find_what_is_likelier_than_greedy_text(family):
    """Where stock PEFT is no reference: what beams choose is at least as likely under full forward passes."""
    model = model_of(family)
    prefix, (ids, mask) = random_prefix(model, 5), padded_pair()

    def likelihood(output):
        ones = torch.ones_like(output[1:])
        logits = forward_with_prefix(model, prefix, output[1:], ones)
        chosen = logits.log_softmax(-1)[0, 6:-1].gather(1, output[1, 7:, None])
        return float(chosen.sum())

    greedy = written(model, prefix, ids, mask, do_sample=False)
    assert likelihood(written(model, prefix, ids, mask, do_sample=False, num_beams=4)) >= likelihood(greedy) - 1e-4


@pytest.mark.parametrize(("family", "submodules"), FORMS)
def test_encoder_decoder_models_write_greedily_what_our_engine_writes(family, submodules):
    model = model_of(family)
    prefix = random_parts(model, 5, submodules)
    ids, mask, _ = random_pairs([7, 5], [3, 3])
    if (family, submodules) == ("t5gemma", "all"):
        with pytest.raises(StudioError, match="cross-attention's cache anew"):
            prefix_studio.generation_inputs(model, prefix, ids, mask)
        return
    output = written(model, prefix, ids, mask, do_sample=False)
    begun = 1 if first_ids(model)[1] is None else 2
    for row, tokens in enumerate(output[:, begun:].tolist()):
        alone = Row(ids[row][mask[row] == 1].tolist(), prefix, Sampling(max_new_tokens=6 + begun - 1))
        assert tokens == [step[0][1] for step in generate(model, [alone], eos_ids=())][begun - 1 :]


@pytest.mark.parametrize("family", PAIRS)
def test_beams_of_encoder_decoder_models_are_stock_pefts(family, tmp_path):
    model = model_of(family)
    prefix = random_parts(model, 5, "decoder")
    save_adapter(tmp_path, prefix, model, base_model="tiny")
    stock = PeftModel.from_pretrained(model_of(family), tmp_path).eval()
    ids, mask, _ = random_pairs([7, 5], [3, 3])
    expected = stock.generate(input_ids=ids, attention_mask=mask, **SETTINGS, num_beams=3, do_sample=False)
    assert torch.equal(written(model, prefix, ids, mask, num_beams=3, do_sample=False), expected)


def test_the_package_offers_no_more():
    with pytest.raises(AttributeError, match="has no attribute 'load'"):
        _ = prefix_studio.load
