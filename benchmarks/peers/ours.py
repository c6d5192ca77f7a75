"""This program: a whole run, from the recipe to the adapter."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.task import Task, Tick, checked


def train(task: Task, tick: Tick) -> None:
    from prefix_studio.training.run import train

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "step" or event.get("state") == "training":
            tick()

    train(task.recipe, task.folder / f"ours-{task.seed}", tell, lambda: None, device="cpu")


def start_loss(task: Task) -> float:
    from prefix_studio.prefix.loss import completion_loss

    model, batch, prefix = checked(task)
    loss, count = completion_loss(model, prefix, batch.input_ids, batch.attention_mask, batch.labels)
    return float(loss) / count
