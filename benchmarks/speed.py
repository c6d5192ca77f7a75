"""Seconds a step and peak memory of training: this program against what people use today, and against the floor.

    python -m benchmarks.speed [--models bundled,llama,gpt2] [--data FOLDER] [--rounds 3] [--steps 8] [--batch 8]

The peers, each a module in `peers/`: `stock` is PEFT with transformers.Trainer, `trl` the same through TRL's
SFTTrainer, where TRL can be imported (`pip install --no-deps --target DIR trl==1.16.0`, then PYTHONPATH=DIR), `floor`
the bare base model without any prefix, `ours` this program. They get the same token rows, batch size, prefix length
and optimizer settings.

The models: `bundled` with rows of the sample `restaurants`; `llama` (6 layers, hidden 288, 6 heads, vocabulary 32,000)
and `gpt2` (12 layers, hidden 288, 6 heads, the real GPT-2's vocabulary of 50,257) with random weights. Those two read
--data, a folder whose train.csv begins with a column of prompts and one of completions, such as E2E NLG's; without it,
rows of random words as long as E2E's.

Each measurement is a process of its own, the peers in turn, so that what else the machine does meets all alike; the
figures are medians, the ratios those of the medians. CPU seconds are the ones to trust on a busy machine. The start is
checked too: one saved prefix must have the same loss on the same rows in stock PEFT and here.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peers.models import MODELS, prepare
from benchmarks.peers.task import Task, measure

PEERS = ("stock", "trl", "floor", "ours")
FIGURES = {
    "step_cpu_s": "CPU seconds a step",
    "step_s": "seconds a step",
    "start_s": "seconds to the first step",
    "peak_mb": "peak memory, MB",
    "above_mb": "of it above the loaded model, MB",
}
LOSS_TOLERANCE = 1e-4


def main() -> int:
    options = parse()
    if options.child == "prepare":
        prepare(options.folder, options.models, options.data, options.batch * options.steps)
        return 0
    if options.child:
        task = Task.load(options.folder, options.models, options.batch, options.steps, options.seed)
        print(json.dumps(measure(importlib.import_module(f"benchmarks.peers.{options.child}"), task)))
        return 0
    peers = [name for name in options.peers.split(",") if name != "trl" or importlib.util.find_spec("trl")]
    failed = False
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            runs = compare(model, peers, options, Path(folder))
        print_table(model, runs, options)
        failed |= not same_loss(runs)
    return int(failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--data", type=Path, help="a folder with a train.csv, for the models with random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="batches in one pass over the rows")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    for name, kind in {"child": str, "folder": Path, "seed": int}.items():
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(model: str, peers: list[str], options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every peer's figures, round by round."""
    run_child("prepare", model, 0, options, folder)
    runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    for number in range(options.rounds):
        for peer in peers if number % 2 == 0 else reversed(peers):
            figures = json.loads(run_child(peer, model, number, options, folder).splitlines()[-1])
            runs[peer].append(figures)
            print(f"{model} round {number + 1} {peer:6} {figures}", file=sys.stderr)
    return runs


def run_child(child: str, model: str, seed: int, options: argparse.Namespace, folder: Path) -> str:
    command = [sys.executable, __file__, "--child", child, "--models", model, "--folder", str(folder)]
    command += ["--seed", str(seed), "--steps", str(options.steps), "--batch", str(options.batch)]
    command += ["--data", str(options.data)] if options.data else []
    threads = str(options.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{child} on {model} failed:\n{done.stderr}")
    return done.stdout


def print_table(model: str, runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    settings = f"batch {options.batch}, {options.steps} steps, threads {options.threads}, median of {options.rounds}"
    print(f"\n{model}, {settings}\n")
    peers = list(runs)
    ratios = [(over, under) for over, under in (("ours", "floor"), ("stock", "ours")) if {over, under} <= set(peers)]
    heads = [*peers, *(f"{over} / {under}" for over, under in ratios)]
    print(f"| {'':32} | " + " | ".join(f"{head:>12}" for head in heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for figure, label in FIGURES.items():
        middle = {peer: statistics.median(run[figure] for run in runs[peer]) for peer in peers}
        cells = [f"{middle[peer]:12.3f}" for peer in peers]
        cells += [f"{middle[over] / middle[under]:12.2f}" for over, under in ratios]
        print(f"| {label:32} | " + " | ".join(cells) + " |")


def same_loss(runs: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether all who were asked for the loss of one prefix on the same rows gave the same."""
    losses = [run["start_loss"] for some in runs.values() for run in some if run["start_loss"] is not None]
    apart = max(losses, default=0) - min(losses, default=0)
    print(f"\nloss of one prefix on the same rows: at most {apart:.1e} apart")
    if apart > LOSS_TOLERANCE:
        print("Stock and ours do not compute the same loss: the comparison means nothing.", file=sys.stderr)
    return apart <= LOSS_TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
