"""The model card: its lines run as they stand, and it says plainly where stock PEFT is of no use."""

from __future__ import annotations

import re
import subprocess
import sys

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_studio.adapters.card import model_card
from prefix_studio.generation.engine import Row, Sampling
from prefix_studio.generation.text import complete
from prefix_studio.prefix.files import save_adapter
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.prefix.layout import read_config
from prefix_studio.settings import BUNDLED_MODEL, PROJECT
from tests.prefix.tiny import random_prefix
from tests.prefix.zoo import model_of


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_the_cards_lines_run_as_they_stand(tmp_path):
    """Both of them: on a plain transformers model, and with stock PEFT."""
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    prefix = text_prefix(model, tokenizer, "Answer: ", 6)
    save_adapter(tmp_path, prefix, model, base_model="bundled")
    stock, plain = snippets(model_card("mine", base_model=str(BUNDLED_MODEL), config=read_config(tmp_path)))
    code = (
        stock + plain.replace("generate(**inputs)", "generate(**inputs, max_new_tokens=8, do_sample=False)")
    ).replace("path/to/this/folder", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    row = Row(tokenizer("Hello")["input_ids"], prefix, Sampling(max_new_tokens=8))
    expected = complete(model, tokenizer, [row])[0].text
    assert expected.strip() in done.stdout


def test_what_stock_peft_cannot_load_is_said_and_tagged(tmp_path):
    model = model_of("jamba")
    save_adapter(tmp_path, random_prefix(model, 3), model, base_model="some/jamba")
    card = model_card("mine", base_model="some/jamba", config=read_config(tmp_path))
    assert "Stock PEFT cannot load this prefix" in card
    assert "PeftModel" not in card
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "prefix-studio"
    assert "peft" not in header["tags"]


def test_encoder_decoder_models_are_loaded_as_such():
    config = {"peft_type": "PREFIX_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 3}
    assert "AutoModelForSeq2SeqLM.from_pretrained" in model_card("mine", base_model="some/t5", config=config)
