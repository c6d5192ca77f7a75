"""Whole runs on families of every kind: recipe to adapter, resumed to the bit, evaluated, and loaded again."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from prefix_studio.generation.engine import Sampling
from prefix_studio.models.load import load_model
from prefix_studio.prefix.files import load_prefix
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.layout import is_own, read_config
from prefix_studio.server.engine import compare_once
from prefix_studio.settings import BUNDLED_MODEL
from prefix_studio.training.evaluate import evaluate_adapter
from tests.prefix.zoo import config_of
from tests.training.conftest import Run

DECODERS = ["jamba", "deepseek_v2", "gemma4", "falcon_h1", "mixtral"]
PAIRS = [("t5", "decoder"), ("t5", "all"), ("bart", "decoder"), ("bart", "all"), ("led", "decoder")]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Saves a family's tiny model, with the bundled model's tokenizer and vocabulary, and returns its folder."""
    made = {}

    def make(family: str):
        if family not in made:
            tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
            config = config_of(family)
            ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
            for name, value in {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **ids}.items():
                setattr(config, name, value)
            if hasattr(config, "vocab_size_per_layer_input"):
                config.vocab_size_per_layer_input = len(tokenizer)
            auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            torch.manual_seed(0)
            folder = made[family] = tmp_path_factory.mktemp(family)
            auto.from_config(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return made[family]

    return make


def falls(run: Run) -> bool:
    """Whether the loss on held-back rows is lower at the end than before the first step."""
    losses = [event["eval_loss"] for event in run.events if event["event"] == "eval"]
    return losses[-1] < losses[0]


@pytest.mark.parametrize("family", DECODERS)
def test_a_run_on_any_decoder_learns_and_its_adapter_works_everywhere(family, folder_of, make_recipe, tmp_path):
    check_run(make_recipe(model={"id": str(folder_of(family))}), tmp_path)


@pytest.mark.parametrize(("family", "submodules"), PAIRS)
def test_a_run_on_an_encoder_decoder_learns_and_its_adapter_works_everywhere(
    family, submodules, folder_of, make_recipe, tmp_path
):
    recipe = make_recipe(model={"id": str(folder_of(family))}, prefix={"submodules": submodules})
    adapter = check_run(recipe, tmp_path)
    assert is_own(read_config(adapter)) == (submodules == "all")
    if submodules == "decoder":
        model = load_model(recipe.model)
        stock = PeftModel.from_pretrained(load_model(recipe.model), adapter).eval()
        ids, written = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[2, 9, 10]])
        expected = stock(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=written).logits
        ours = forward_with_prefix(
            model, load_prefix(adapter, model), ids, torch.ones_like(ids), decoder_input_ids=written
        )
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def check_run(recipe, tmp_path):
    """Trains whole, and in two halves, to the same adapter; then evaluates and compares with it."""
    whole, halves = Run(recipe, tmp_path / "whole"), Run(recipe, tmp_path / "halves")
    assert whole.go() == "finished"
    assert falls(whole)
    assert halves.go(pause_after=4) == "pause"
    assert halves.go() == "finished"
    adapter = whole.folder / "adapter"
    one, other = (
        safetensors.torch.load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (whole, halves)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    result = evaluate_adapter(recipe.model, adapter, recipe.data.source, recipe)
    assert result["tuned"]["loss"] < result["base"]["loss"]
    answer = compare_once(recipe.model, [adapter], "Ada has 3 apples =>", "Question: ", Sampling(max_new_tokens=4))
    assert {answer["base"]["tokens"], answer["init_text"]["tokens"], answer["adapters"][0]["tokens"]} <= {1, 2, 3, 4}
    return adapter
