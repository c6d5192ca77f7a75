"""Rows to tokens: this program against datasets.Dataset.map, as a user would write it.

    python -m benchmarks.tokenise [--rows 100000] [--rounds 1] [--data FILE.csv] [--tokenizer FOLDER]

The sample `restaurants`, or a file with the columns mr and ref, repeated until there are so many rows; every
repetition has a number of its own in prompt and completion, so that no row comes twice. Each measurement is a process
of its own that starts with the rows read and the tokenizer loaded. Prints one table: rows, seconds, rows a second, and
the most memory that the process took above what it had at the start. Both must make as many tokens.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefix_studio.settings import BUNDLED_MODEL, LIBRARY_ENVIRONMENT, SAMPLES

WATCH_SECONDS = 0.01
MEGABYTE = 2**20

Pairs = Sequence[tuple[str, str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path, default=SAMPLES / "restaurants" / "train.csv")
    parser.add_argument("--tokenizer", default=str(BUNDLED_MODEL))
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options)))
        return 0
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for number in range(options.rounds):
        for name in WAYS if number % 2 == 0 else reversed(WAYS):
            runs[name].append(run_child(name, options))
    return report({name: middle(several) for name, several in runs.items()}, options)


def run_child(name: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.tokenise", "--child", name, "--rows", str(options.rows)]
    command += ["--data", str(options.data), "--tokenizer", options.tokenizer]
    # Ours runs as a run's own process does, a user's script without any of that.
    environment = os.environ | (LIBRARY_ENVIRONMENT if name == "ours" else {}) | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}


def report(figures: dict[str, dict[str, float]], options: argparse.Namespace) -> int:
    ours, mapped = figures["ours"], figures["map"]
    print(f"{options.rows:,} rows, {ours['tokens'] / options.rows:.0f} tokens each, median of {options.rounds}\n")
    print(f"| {'':26} | {'map':>9} | {'ours':>9} | map / ours |")
    print("|---|---|---|---|")
    for figure, label in {"seconds": "seconds", "peak_mb": "peak MB above the start"}.items():
        print(f"| {label:26} | {mapped[figure]:9.1f} | {ours[figure]:9.1f} | {mapped[figure] / ours[figure]:10.2f} |")
    rates = [options.rows / run["seconds"] for run in (mapped, ours)]
    print(f"| {'rows a second':26} | {rates[0]:9,.0f} | {rates[1]:9,.0f} | {rates[0] / rates[1]:10.2f} |")
    print(f"\nours keeps {ours['bytes'] / ours['tokens']:.1f} bytes a token in memory; map's rows lie in a file")
    if ours["tokens"] != mapped["tokens"]:
        print(f"Not the same tokens: {mapped['tokens']:,.0f} and {ours['tokens']:,.0f}.", file=sys.stderr)
        return 1
    return 0


def measure(options: argparse.Namespace) -> dict[str, float]:
    with options.data.open(encoding="utf-8", newline="") as file:
        rows = [(row["mr"], row["ref"]) for row in csv.DictReader(file)]
    repeated = (divmod(number, len(rows)) for number in range(options.rows))
    pairs = [(f"{rows[index][0]}, number[{turn}] =>", f" {rows[index][1]} ({turn})") for turn, index in repeated]
    return WAYS[options.child](pairs, options.tokenizer)


def ours(pairs: Pairs, tokenizer_id: str) -> dict[str, float]:
    from prefix_studio.data.examples import Example
    from prefix_studio.data.tokens import tokenize_all
    from prefix_studio.models.load import load_tokenizer
    from prefix_studio.recipe import ModelPart

    tokenizer = load_tokenizer(ModelPart(id=tokenizer_id))
    examples = [Example(prompt, completion, number) for number, (prompt, completion) in enumerate(pairs, start=1)]
    with measured() as figures:
        rows = tokenize_all(examples, tokenizer, 512)
    return figures | {"tokens": int(rows.lengths.sum()), "bytes": rows.nbytes}


def mapped(pairs: Pairs, tokenizer_id: str) -> dict[str, float]:
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_id)
    with tempfile.TemporaryDirectory() as folder:
        columns = {"prompt": [prompt for prompt, _ in pairs], "completion": [completion for _, completion in pairs]}
        Dataset.from_dict(columns).save_to_disk(folder)
        dataset = Dataset.load_from_disk(folder)

        def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            prompts = tokenizer(batch["prompt"])["input_ids"]
            completions = tokenizer(batch["completion"], add_special_tokens=False)["input_ids"]
            learned = [ids + [tokenizer.eos_token_id] for ids in completions]
            wholes = [prompt + ids for prompt, ids in zip(prompts, learned, strict=True)]
            labels = [[-100] * len(prompt) + ids for prompt, ids in zip(prompts, learned, strict=True)]
            return {"input_ids": wholes, "attention_mask": [[1] * len(ids) for ids in wholes], "labels": labels}

        with measured() as figures:
            done = dataset.map(tokenise, batched=True, remove_columns=dataset.column_names)
        return figures | {"tokens": sum(len(ids) for ids in done["input_ids"])}


WAYS = {"map": mapped, "ours": ours}


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Filled at the end: {"seconds", "peak_mb": the most resident memory within, above that at the start}."""
    import psutil

    memory = psutil.Process().memory_info
    start = highest = memory().rss
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(WATCH_SECONDS):
            highest = max(highest, memory().rss)

    watcher = threading.Thread(target=watch)
    figures: dict[str, Any] = {}
    watcher.start()
    began = time.perf_counter()
    yield figures
    figures["seconds"] = time.perf_counter() - began
    over.set()
    watcher.join()
    figures["peak_mb"] = (max(highest, memory().rss) - start) / MEGABYTE


if __name__ == "__main__":
    sys.exit(main())
