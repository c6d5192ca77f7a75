"""PEFT's prefix tuning with TRL's SFTTrainer, as its user would write it; its own defaults but where they fail here.

Those are bfloat16, for the sake of the comparison, and gradient checkpointing, with which stock PEFT's prefix tuning
does not work.
"""

from __future__ import annotations

from benchmarks.peers.stock import arguments, prefix_config, ticking
from benchmarks.peers.task import Task, Tick


def train(task: Task, tick: Tick) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = task.tokenizer()
    rows = [
        {"input_ids": list(row.input_ids), "completion_mask": [int(label >= 0) for label in row.labels]}
        for row in task.rows(tokenizer)
    ]
    SFTTrainer(
        task.model(),
        SFTConfig(**arguments(task, "trl"), bf16=False, gradient_checkpointing=False, completion_only_loss=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=prefix_config(task),
        callbacks=[ticking(tick)],
    ).train()


def start_loss(task: Task) -> None:
    return None
