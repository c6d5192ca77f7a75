"""What all peers are given, and how one of them is measured.

A peer is a module with `train(task, tick)`, which calls `tick` when the first step begins and after every step, and
`start_loss(task)`, the mean loss of what `checked` gives: its batch behind its prefix; None where there is no prefix.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

WARM_UP = 2  # steps not counted
CHECKED_ROWS = 8
BEGAN = time.perf_counter()  # a child's start; what it imports counts

Tick = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """A model's rows, prefix and settings. seed: the round's, so that every round has an order of its own."""

    folder: Path
    recipe: Any
    seed: int

    @classmethod
    def load(cls, folder: Path, model: str, batch: int, steps: int, seed: int) -> Task:
        from prefix_studio.recipe import Recipe

        bundled = model == "bundled"
        fields = {
            "model": {"id": "bundled" if bundled else str(folder / "model"), "dtype": "float32"},
            "data": {
                "source": str(folder / "rows.csv"),
                "prompt": "{{ mr }}",
                "completion": " {{ ref }}",
                "validation": 0,
            },
            "prefix": {"num_virtual_tokens": 32 if bundled else 20, "init": "random"},
            "training": {
                "max_steps": steps + WARM_UP,
                "per_device_train_batch_size": batch,
                "learning_rate": 0.01,
                "seed": seed,
            },
            "evaluation": {"samples": 0},
        }
        return cls(folder, Recipe.from_fields(fields), seed)

    def tokenizer(self) -> Any:
        from prefix_studio.models.load import load_tokenizer

        return load_tokenizer(self.recipe.model)

    def model(self) -> Any:
        from prefix_studio.models.load import load_model

        return load_model(self.recipe.model)

    def rows(self, tokenizer: Any) -> Any:
        from prefix_studio.data.examples import load_examples
        from prefix_studio.data.tokens import tokenize_all

        data = self.recipe.data
        return tokenize_all(load_examples(data, tokenizer).train, tokenizer, data.max_length)


def measure(peer: ModuleType, task: Task) -> dict[str, Any]:
    """One child's figures."""
    ticks: list[tuple[float, float, float]] = []  # wall clock, CPU clock, peak memory

    def tick() -> None:
        ticks.append((time.perf_counter(), time.process_time(), peak_mb()))

    peer.train(task, tick)
    start, warm, end = ticks[0], ticks[WARM_UP], ticks[-1]
    counted = len(ticks) - 1 - WARM_UP
    return {
        "step_s": (end[0] - warm[0]) / counted,
        "step_cpu_s": (end[1] - warm[1]) / counted,
        "start_s": start[0] - BEGAN,
        "peak_mb": end[2],
        "above_mb": end[2] - start[2],
        "start_loss": peer.start_loss(task) if task.seed == 0 else None,
    }


def checked(task: Task) -> tuple[Any, Any, Any]:
    """(a fresh model, a batch, a prefix that is also in the folder `start` as an adapter): the same for all peers."""
    from prefix_studio.prefix.encoder import PrefixModule
    from prefix_studio.prefix.files import save_adapter
    from prefix_studio.training.batches import collate

    model, tokenizer = task.model(), task.tokenizer()
    prefix = PrefixModule.build(model, tokenizer, task.recipe.prefix, seed=0)().detach()
    save_adapter(task.folder / "start", prefix, model, base_model=task.recipe.model.id)
    return model, collate(task.rows(tokenizer)[:CHECKED_ROWS], tokenizer.pad_token_id), prefix


def peak_mb() -> float:
    """The most resident memory that this process has had."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
