"""Base and tuned in one batch, against a call for each, on the bundled model.

    python -m benchmarks.playground [--rounds 5] [--tokens 64]

Both ways write the same tokens, which is checked first. They alternate within one run, so that what else the machine
does falls on both. Prints one table: seconds of the median round, and how many times faster one batch is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.settings import BUNDLED_MODEL

PROMPT = "name :: The Mill // food :: Italian // price :: low\n"
TEXTS = [
    "Question: ",
    "Write one short sentence about the place.",
    "A friendly review of a place to eat, with its name.",
]


def write(model: PreTrainedModel, rows: Sequence[Row]) -> list[list[int]]:
    tokens: list[list[int]] = [[] for _ in rows]
    for made in generate(model, rows, eos_ids=()):
        for index, token in made:
            tokens[index].append(token)
    return tokens


def in_one_batch(model: PreTrainedModel, rows: Sequence[Row]) -> list[list[int]]:
    return write(model, rows)


def in_calls_of_their_own(model: PreTrainedModel, rows: Sequence[Row]) -> list[list[int]]:
    return [write(model, [row])[0] for row in rows]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    ids = tokenizer(PROMPT)["input_ids"]
    prefixes = [text_prefix(model, tokenizer, text, length) for text, length in zip(TEXTS, (32, 20, 7), strict=True)]
    versions = [None, *prefixes]
    cases = {"base + 1 tuned": versions[:2], "base + 3 tuned": versions}

    print(f"{torch.get_num_threads()} threads, {options.tokens} tokens a row, median of {options.rounds} rounds")
    print(f"{'':16} {'a call each':>12} {'one batch':>12} {'times faster':>13}")
    for name, some in cases.items():
        rows = [Row(ids, prefix, Sampling(options.tokens)) for prefix in some]
        if in_one_batch(model, rows) != in_calls_of_their_own(model, rows):
            raise SystemExit(f"{name}: one batch writes other tokens than a call each")
        apart, together = [], []
        for _ in range(options.rounds):
            apart.append(seconds(lambda rows=rows: in_calls_of_their_own(model, rows)))
            together.append(seconds(lambda rows=rows: in_one_batch(model, rows)))
        slow, fast = statistics.median(apart), statistics.median(together)
        print(f"{name:16} {slow:10.2f} s {fast:10.2f} s {slow / fast:12.2f}x")


if __name__ == "__main__":
    main()
