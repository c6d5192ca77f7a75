"""A model and a data set from elsewhere, through the whole command line, checked by stock PEFT.

    python -m benchmarks.outside MODEL_FOLDER TRAIN.csv VALID.csv --prompt "{{ mr }}\\n" --completion " {{ ref }}" \\
        [--steps 300] [--learning-rate 0.1] [--init-text "..."]

Tunes, then prints the loss before and after, five outputs of base and tuned, and whether stock
`PeftModel.from_pretrained` gives the same greedy text for them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_studio.data.tokens import prompt_ids


def tune(options: argparse.Namespace, folder: Path) -> list[dict]:
    """Run the recipe by the command line in `folder`. Returns its eval events."""
    recipe = {
        "model": {"id": str(options.model.resolve())},
        "data": {
            "source": str(options.train.resolve()),
            "validation": str(options.valid.resolve()),
            "prompt": options.prompt,
            "completion": options.completion,
        },
        "prefix": {"num_virtual_tokens": options.tokens, "init": "text", "init_text": options.init_text},
        "training": {"max_steps": options.steps, "learning_rate": options.learning_rate},
        "evaluation": {"samples": 5, "max_new_tokens": 60},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "prefix_studio", "tune", folder / "recipe.yaml", "--out", folder / "out"]
    subprocess.run(command, check=True)
    events = map(json.loads, (folder / "out" / "progress.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "eval"]


def stock_texts(options: argparse.Namespace, adapter: Path, prompts: list[str]) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype="float32").eval()
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt_ids(prompt, tokenizer)])
        out = tuned.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False)
        texts.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--completion", required=True)
    parser.add_argument("--init-text", default="Question: ")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        evals = tune(options, Path(folder))
        samples = json.loads((Path(folder) / "out" / "samples.json").read_text())
        stock = stock_texts(options, Path(folder) / "out" / "adapter", [sample["prompt"] for sample in samples])
    first, last = evals[0], evals[-1]
    print(f"\nbase loss {first.get('base_loss')}, fresh prefix {first['eval_loss']}, tuned {last['eval_loss']}")
    for sample, text in zip(samples, stock, strict=True):
        same = "same" if text.strip() == sample["tuned"].strip() else f"DIFFERS: {text!r}"
        for label, shown in (("prompt", sample["prompt"]), ("base", sample["base"]), ("tuned", sample["tuned"])):
            print(f"{label:>12} {shown!r}")
        print(f"{'stock PEFT':>12} {same}\n")


if __name__ == "__main__":
    main()
