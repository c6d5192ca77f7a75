"""Trains the bundled base model from nothing: corpus, tokenizer, model, export.

Contract: `python train.py --work FOLDER --steps N --out FOLDER` generates the corpus from the seed, trains, and writes
a model folder that `from_pretrained` loads. Scratch files (tokens, checkpoint) stay in `--work`; the same command
again goes on from the last checkpoint. The learning rate is held and then falls to zero over the last `--decay` share
of the steps, so a run may be cut short or lengthened by giving another `--steps` before the fall begins. Nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from corpus import documents, text_of
from muon import Muon
from rows import Rows, token_rows
from tokenizer import MAX_LENGTH, train_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 20261120
VALIDATION_SEED = SEED + 1


def model_config(vocabulary: int, tokenizer: PreTrainedTokenizerFast | None = None, **changes) -> LlamaConfig:
    shape = {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 640,
    }
    ids = (
        {}
        if tokenizer is None
        else {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    )
    return LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        **(shape | ids | changes),
    )


# ---------------------------------------------------------------------------------------------- training


def weighted_loss(model, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy by weight. tokens, weights [batch, row + 1]."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()  # [batch, row, vocabulary]
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    share = weights[:, 1:].flatten()
    return (losses * share).sum() / share.sum().clamp(min=1)


def batch_of(rows: Rows, indices) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(rows.tokens[indices].astype(np.int64))
    return tokens, torch.from_numpy(rows.weights[indices].astype(np.float32) / 100)


def optimizers(model, muon_rate: float, adam_rate: float) -> list[torch.optim.Optimizer]:
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    chosen = {id(weight) for weight in matrices}
    rest = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        Muon(matrices, lr=muon_rate, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int, warm_up: int, decay: float) -> float:
    """Warm up, hold, then fall linearly to zero over the last `decay` share."""
    fall = max(1, round(steps * decay))
    return min(1.0, (step + 1) / max(1, warm_up), (steps - step) / fall)


class Trainer:
    """One training run that can be stopped and taken up again at any step."""

    def __init__(
        self, model, rows: Rows, batch: int, muon_rate: float = 0.02, adam_rate: float = 4e-3, compile: bool = False
    ):
        self.model, self.rows, self.batch = model, rows, batch
        self.forward = torch.compile(model) if compile else model
        self.optimizers = optimizers(model, muon_rate, adam_rate)
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step_number = 0
        self.seconds = 0.0

    def step(self, factor: float) -> float:
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        begun = time.perf_counter()
        loss = weighted_loss(self.forward, *batch_of(self.rows, self._indices()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        self.seconds += time.perf_counter() - begun
        return loss.item()

    def _indices(self) -> np.ndarray:
        """Rows in an order that depends on the pass only, so that a resumed run sees what the first would have."""
        start = self.step_number * self.batch
        count = len(self.rows.tokens)
        places = np.arange(start, start + self.batch)
        return np.array([_order(int(place // count), count)[place % count] for place in places])

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step_number,
            "seconds": self.seconds,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step_number, self.seconds = state["step"], state["seconds"]


_orders: dict[tuple[int, int], np.ndarray] = {}


def _order(pass_number: int, count: int) -> np.ndarray:
    if (pass_number, count) not in _orders:
        _orders[pass_number, count] = np.random.default_rng(SEED + pass_number).permutation(count)
    return _orders[pass_number, count]


@torch.no_grad()
def validation_loss(model, rows: Rows, batch: int = 8) -> float:
    total = weight = 0.0
    for start in range(0, len(rows.tokens), batch):
        tokens, weights = batch_of(rows, slice(start, start + batch))
        share = weights[:, 1:].sum().item()
        total += weighted_loss(model, tokens, weights).item() * share
        weight += share
    return total / weight


def export(model, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the model files beside whatever else is in the folder; each file appears whole or not at all."""
    part = folder.parent / f".{folder.name}.part"
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(part)
    tokenizer.save_pretrained(part)
    _tidy_tokenizer_settings(part)
    folder.mkdir(parents=True, exist_ok=True)
    for path in part.iterdir():
        path.replace(folder / path.name)
    shutil.rmtree(part)


def _tidy_tokenizer_settings(folder: Path) -> None:
    """One settings file: the chat template where older readers look for it too, and nothing about how it was saved."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("is_local", "local_files_only"):
        settings.pop(name, None)
    template = folder / "chat_template.jinja"
    settings["chat_template"] = template.read_text()
    template.unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


# ---------------------------------------------------------------------------------------------- the whole run


def prepare(work: Path, count: int, vocabulary: int) -> tuple[PreTrainedTokenizerFast, Rows, Rows]:
    """Tokenizer and rows, made once and kept in the work folder."""
    if not (work / "tokenizer.json").exists():
        slice_ = (text_of(document) for document in itertools.islice(documents(SEED), min(count, 20_000)))
        train_tokenizer(slice_, vocabulary).save_pretrained(work)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work)
    loaded = []
    for name, seed, size in (("train", SEED, count), ("validation", VALIDATION_SEED, max(8, min(240, count // 10)))):
        path = work / f"{name}.npz"
        if not path.exists():
            rows = token_rows(tokenizer, seed, size)
            np.savez(path, tokens=rows.tokens, weights=rows.weights)
        with np.load(path) as saved:
            loaded.append(Rows(saved["tokens"], saved["weights"]))
    return tokenizer, *loaded


def main() -> None:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tokenizer, rows, held_out = prepare(arguments.work, arguments.documents, arguments.vocabulary)
    model = LlamaForCausalLM(model_config(len(tokenizer), tokenizer))
    trainer = Trainer(model, rows, arguments.batch, arguments.muon_rate, arguments.adam_rate, arguments.compile)
    parameters, tokens = sum(weight.numel() for weight in model.parameters()), (rows.weights > 0).sum()
    print(f"{parameters:,} parameters, {tokens:,} tokens in {len(rows.tokens):,} rows", flush=True)
    checkpoint = arguments.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    run(trainer, held_out, arguments, checkpoint)
    export(model, tokenizer, arguments.out)


def run(trainer: Trainer, held_out: Rows, arguments: argparse.Namespace, checkpoint: Path) -> None:
    recent: list[float] = []
    while trainer.step_number < arguments.steps:
        factor = rate_factor(trainer.step_number, arguments.steps, arguments.warm_up, arguments.decay)
        recent.append(trainer.step(factor))
        if not math.isfinite(recent[-1]):
            raise SystemExit(f"The loss is {recent[-1]} at step {trainer.step_number}: lower the learning rates.")
        step = trainer.step_number
        if step % arguments.log_every == 0 or step == arguments.steps:
            read = step * trainer.batch * (trainer.rows.tokens.shape[1] - 1) / 1e6
            mean, seconds = sum(recent) / len(recent), trainer.seconds
            print(f"step {step} tokens {read:.2f}M loss {mean:.3f} seconds {seconds:.0f} rate {factor:.2f}", flush=True)
            recent.clear()
        if step % arguments.save_every == 0 or step == arguments.steps:
            trainer.save(checkpoint)
            print(f"step {step} validation {validation_loss(trainer.model, held_out):.4f}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for tokens and the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=12, help="rows a step")
    parser.add_argument("--warm-up", type=int, default=60, help="steps")
    parser.add_argument("--decay", type=float, default=0.3, help="share of the steps over which the rate falls")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=4e-3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=250)
    return parser.parse_args()


if __name__ == "__main__":
    main()
