"""What the peers are measured on: the bundled model, or models with random weights, and rows for them.

The rows are a CSV file with the columns `mr` and `ref`. A model with random weights comes with a tokenizer of its
vocabulary's size. Lengths are what matters there: the tokenizer cuts words into pieces of up to six letters, about as
many tokens as Llama's and GPT-2's own make of the same text.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "max_position_embeddings": 1024,
}
GPT2 = {"vocab_size": 50_257, "n_embd": 288, "n_layer": 12, "n_head": 6, "n_positions": 1024}
MODELS: dict[str, dict[str, Any]] = {"bundled": {}, "llama": LLAMA, "gpt2": GPT2}
RESTAURANTS = Path(__file__).resolve().parent.parent.parent / "assets" / "samples" / "restaurants"

PIECE = r"\w{1,6}|[^\w\s]"
SPECIAL = ["<pad>", "<s>", "</s>"]
# E2E NLG in pieces: mean, standard deviation, least and most of its prompts' and completions' lengths.
E2E = {"mr": (36, 8.5, 15, 56), "ref": (27, 8.8, 7, 64)}


def prepare(folder: Path, name: str, data: Path | None, rows: int) -> None:
    """Leaves rows in folder/rows.csv and, unless it is the bundled one, the model in folder/model."""
    fields = MODELS[name]
    source = data or (None if fields else RESTAURANTS)
    texts = read_texts(source, rows) if source else random_texts(rows)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(E2E), *texts])
    if fields:
        save_tokenizer(folder / "model", [text for row in texts for text in row], fields["vocab_size"])
        save_model(folder / "model", name, fields)


def read_texts(data: Path, rows: int) -> list[list[str]]:
    """Prompts and completions from the first two columns of data/train.csv, drawn from all of it."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as file:
        texts = [row[:2] for row in csv.reader(file)][1:]
    return random.Random(0).sample(texts, rows)


def random_texts(rows: int) -> list[list[str]]:
    chance = random.Random(0)
    words = [f"w{number}" for number in range(1000)]

    def text(mean: float, deviation: float, least: int, most: int) -> str:
        length = min(most, max(least, round(chance.gauss(mean, deviation))))
        return " ".join(chance.choices(words, k=length))

    return [[text(*E2E["mr"]), text(*E2E["ref"])] for _ in range(rows)]


def save_tokenizer(folder: Path, texts: Iterable[str], vocabulary: int) -> None:
    """One token for every piece in the texts, and tokens that never occur up to the vocabulary's size."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    pieces = dict.fromkeys(piece for text in texts for piece in re.findall(PIECE, text))
    tokens = [*SPECIAL, *pieces]
    tokens += [f"<{number}>" for number in range(vocabulary - len(tokens))]
    tokenizer = Tokenizer(WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = Split(Regex(PIECE), "removed", invert=True)
    pad, start, end = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=start, eos_token=end, unk_token=pad
    ).save_pretrained(folder)


def save_model(folder: Path, name: str, fields: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **fields, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
