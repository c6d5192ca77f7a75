"""Seconds a step and peak memory: this program against stock PEFT with transformers.Trainer.

    python benchmarks/speed.py [--rounds 3] [--steps 50] [--batch 8]

The bundled model, the sample `restaurants`, the same token rows, batch size, prefix and optimizer settings. Each
measurement is a process of its own, ours and stock in turn, so that what else the machine does meets both alike. The
start is checked too: one saved prefix must have the same loss on the same rows in both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

WARM_UP = 2  # steps not counted
CHECKED_ROWS = 16
LOSS_TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="50 is one pass over the data with batches of 8")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CHILDREN}
        for number in range(options.rounds):
            for name in CHILDREN if number % 2 == 0 else reversed(CHILDREN):
                runs[name].append(run_child(name, options, Path(folder) / f"{name}-{number}"))
                print(f"round {number + 1} {name:6} {runs[name][-1]}", file=sys.stderr)
    return report(runs, options)


def run_child(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    command += ["--steps", str(options.steps), "--batch", str(options.batch)]
    threads = str(options.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> int:
    def middle(name: str, figure: str) -> float:
        return statistics.median(run[figure] for run in runs[name])

    print(f"\nbundled model, restaurants, batch {options.batch}, {options.steps} steps, median of {options.rounds}\n")
    print(f"| {'':34} | {'stock':>9} | {'ours':>9} | stock / ours |")
    print("|---|---|---|---|")
    for figure, label in FIGURES.items():
        stock, ours = middle("stock", figure), middle("ours", figure)
        print(f"| {label:34} | {stock:9.3f} | {ours:9.3f} | {stock / ours:12.2f} |")
    losses = [run["start_loss"] for several in runs.values() for run in several]
    apart = max(losses) - min(losses)
    print(f"\nloss of one prefix on {CHECKED_ROWS} rows: {losses[0]:.6f}, at most {apart:.1e} apart")
    if apart > LOSS_TOLERANCE:
        print("The two do not compute the same loss: the comparison means nothing.", file=sys.stderr)
        return 1
    return 0


FIGURES = {
    "step_s": "seconds a step",
    "step_cpu_s": "CPU seconds a step",
    "start_s": "seconds to the first step",
    "peak_mb": "peak memory, MB",
    "above_mb": "of it above the loaded model, MB",
}
CHILDREN = ("stock", "ours")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One child's figures. Times count from here, the imports included."""
    began = time.perf_counter()
    from prefix_studio.recipe import Recipe

    training = {"max_steps": options.steps, "per_device_train_batch_size": options.batch, "learning_rate": 0.03}
    recipe = Recipe.from_fields(
        {
            "data": {"source": "sample:restaurants", "validation": 0},
            "prefix": {"num_virtual_tokens": 32},
            "training": training,
            "evaluation": {"samples": 0},
        }
    )
    ticks: list[tuple[float, float, float]] = []  # wall clock, CPU clock, peak memory: at the start and after each step

    def tick() -> None:
        ticks.append((time.perf_counter(), time.process_time(), peak_mb()))

    start_loss = {"stock": train_stock, "ours": train_ours}[options.child](recipe, options.folder, tick)
    start, warm, end = ticks[0], ticks[WARM_UP], ticks[-1]
    counted = len(ticks) - 1 - WARM_UP
    return {
        "step_s": (end[0] - warm[0]) / counted,
        "step_cpu_s": (end[1] - warm[1]) / counted,
        "start_s": start[0] - began,
        "peak_mb": end[2],
        "above_mb": end[2] - start[2],
        "start_loss": start_loss,
    }


def train_ours(recipe: Any, folder: Path, tick: Callable[[], None]) -> float:
    from prefix_studio.training.run import train

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "step" or event.get("state") == "training":
            tick()

    train(recipe, folder, tell, lambda: None, device="cpu")

    from prefix_studio.prefix.inject import completion_loss

    model, batch, prefix = checked_start(recipe, folder)
    return float(completion_loss(model, prefix, batch.input_ids, batch.attention_mask, batch.labels)[0])


def train_stock(recipe: Any, folder: Path, tick: Callable[[], None]) -> float:
    from peft import PeftModel, PrefixTuningConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

    from prefix_studio.data.examples import load_examples
    from prefix_studio.data.tokens import tokenize_all
    from prefix_studio.models.load import load_model, load_tokenizer

    training, tokenizer, model = recipe.training, load_tokenizer(recipe.model), load_model(recipe.model)
    rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, recipe.data.max_length)
    length = recipe.prefix.num_virtual_tokens
    tuned = get_peft_model(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length))

    class Ticks(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            tick()

    arguments = TrainingArguments(
        str(folder / "trainer"),
        max_steps=training.max_steps,
        per_device_train_batch_size=training.per_device_train_batch_size,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(
        tuned,
        arguments,
        train_dataset=[{"input_ids": row.input_ids, "labels": row.labels} for row in rows],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[Ticks()],
    ).train()

    fresh, batch, _ = checked_start(recipe, folder)
    peft_model = PeftModel.from_pretrained(fresh, folder / "start")
    return float(peft_model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss)


def checked_start(recipe: Any, folder: Path) -> tuple[Any, Any, Any]:
    """A fresh model, a batch, and the recipe's first prefix, which is also saved as the adapter `start`."""
    from prefix_studio.data.examples import load_examples
    from prefix_studio.data.tokens import tokenize_all
    from prefix_studio.models.load import load_model, load_tokenizer
    from prefix_studio.prefix.encoder import PrefixModule
    from prefix_studio.prefix.files import save_adapter
    from prefix_studio.training.batches import collate

    model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
    rows = tokenize_all(load_examples(recipe.data, tokenizer).train, tokenizer, recipe.data.max_length)
    prefix = PrefixModule.build(model, tokenizer, recipe.prefix, 0)().detach()
    save_adapter(folder / "start", prefix, base_model="bundled")
    return model, collate(rows[:CHECKED_ROWS], tokenizer.pad_token_id), prefix


def peak_mb() -> float:
    """The most resident memory that this process has had."""
    import psutil

    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    sys.exit(main())
