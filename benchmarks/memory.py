"""Memory of training: what is estimated before the start against what a run takes at its peak.

    python -m benchmarks.memory [--model bundled llama gpt2 sample] [--batches 4 16 32] [--lengths 64 128]

Each measurement is a run of its own (`training.run.train`) in a process of its own, on rows of one length, with
validation rows and samples as any run has; its peak is the resident set's high-water mark. `llama` and `gpt2` are
random models with a vocabulary of 32000; `sample` is the bundled model on the sample `restaurants`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

WORDS = 32000
MODELS = {
    "llama": {"hidden_size": 288, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 768},
    "gpt2": {"n_embd": 384, "n_layer": 8, "n_head": 6, "bos_token_id": 1, "eos_token_id": 2},
}
NAMES = ("bundled", *MODELS, "sample")
STEPS = 6
VIRTUAL_TOKENS = 20
ROWS = 64
UNIT = 1 << 10 if sys.platform != "darwin" else 1  # of the high-water mark


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--batches", nargs="+", type=int, default=[4, 16, 32])
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child)))
        return 0
    print("| model | rows | tokens | checkpointing | estimated MB | measured MB | estimated / measured |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name, fields in cases(options, Path(folder)):
            estimated, measured = compare(fields, Path(folder))
            ratios.append(estimated / measured)
            training = fields["training"]
            checkpointing = "yes" if training["gradient_checkpointing"] else "no"
            print(
                f"| {name} | {training['per_device_train_batch_size']} | {fields['data']['max_length']} "
                f"| {checkpointing} | {estimated / 1e6:.0f} | {measured / 1e6:.0f} | {ratios[-1]:.2f} |",
                flush=True,
            )
    print(f"\nestimated / measured: {min(ratios):.2f} to {max(ratios):.2f}")
    return 0


def cases(options: argparse.Namespace, folder: Path) -> Any:
    """(name, recipe's fields) of every row of the table."""
    for name in options.model:
        model = make_model(folder / name, name) if name in MODELS else "bundled"
        for length in [512] if name == "sample" else options.lengths:
            source = "sample:restaurants" if name == "sample" else make_rows(folder / f"{name}-{length}", model, length)
            for rows in options.batches:
                for checkpointing in (False, True):
                    yield (
                        name,
                        {
                            "model": {"id": model},
                            "data": {
                                "source": source,
                                "format": "prompt-completion" if name == "sample" else "text",
                                "validation": 0.1 if name == "sample" else 8,
                                "max_length": length,
                            },
                            "prefix": {"num_virtual_tokens": VIRTUAL_TOKENS, "init": "random"},
                            "training": {
                                "max_steps": STEPS,
                                "per_device_train_batch_size": rows,
                                "gradient_checkpointing": checkpointing,
                            },
                            "evaluation": {"samples": 2, "max_new_tokens": 8},
                        },
                    )


def make_model(folder: Path, name: str) -> str:
    """A random model and a tokenizer of as many words, `w3` and on."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    words = [*special.values(), *(f"w{number}" for number in range(len(special), WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = AutoConfig.for_model(name, **MODELS[name], vocab_size=WORDS)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def make_rows(path: Path, model: str, length: int) -> str:
    """A file of texts that are `length` tokens each."""
    from prefix_studio.models.load import load_tokenizer
    from prefix_studio.recipe import ModelPart

    tokenizer = load_tokenizer(ModelPart(id=model))
    words = ("the", "and") if model == "bundled" else ("w7", "w8")  # a token each
    # What is written around a text is the same for every length: found on short ones.
    around = tokens_of(write_rows(path.with_suffix(".probe.jsonl"), words, 8), tokenizer) - 8
    return write_rows(path.with_suffix(".jsonl"), words, length - around)


def write_rows(path: Path, words: tuple[str, str], length: int) -> str:
    """Texts of so many words, no two alike."""
    texts = [" ".join(words[number >> place & 1] for place in range(length)) for number in range(ROWS)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def tokens_of(source: str, tokenizer: Any) -> int:
    from prefix_studio.data.examples import load_examples
    from prefix_studio.data.tokens import tokenize_all
    from prefix_studio.recipe import DataPart

    rows = tokenize_all(load_examples(DataPart(source=source, format="text"), tokenizer).train, tokenizer, 512)
    return len(rows[0].input_ids)


def compare(fields: dict[str, Any], folder: Path) -> tuple[int, int]:
    """Bytes: estimated here, and measured in a process of its own."""
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(fields))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--child", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return estimate(fields, answer["longest"]), answer["peak"]


def estimate(fields: dict[str, Any], longest: int) -> int:
    from prefix_studio.models.check import check_model
    from prefix_studio.recipe import ModelPart, PrefixPart

    training = fields["training"]
    return check_model(
        ModelPart(**fields["model"]),
        PrefixPart(**fields["prefix"]),
        batch_size=training["per_device_train_batch_size"],
        max_length=longest,
        gradient_checkpointing=training["gradient_checkpointing"],
    )["memory_bytes"]


def measure(path: Path) -> dict[str, int]:
    """Runs the recipe. {"peak": the process's high-water mark in bytes, "longest": tokens of the longest row}"""
    from prefix_studio.models.load import load_tokenizer
    from prefix_studio.recipe import Recipe
    from prefix_studio.training.run import train

    recipe = Recipe.from_fields(json.loads(path.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        state = train(recipe, Path(folder), lambda event: None, lambda: None, device="cpu")
    if state != "finished":
        raise SystemExit(f"the run is {state}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    if not recipe.data.source.startswith("sample:"):
        return {"peak": peak, "longest": recipe.data.max_length}
    return {"peak": peak, "longest": longest_row(recipe, load_tokenizer(recipe.model))}


def longest_row(recipe: Any, tokenizer: Any) -> int:
    from prefix_studio.data.examples import load_examples
    from prefix_studio.data.tokens import tokenize_all

    rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, recipe.data.max_length)
    return max(len(row.input_ids) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
