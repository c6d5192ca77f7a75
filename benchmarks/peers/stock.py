"""PEFT's prefix tuning with transformers.Trainer, as its user would write it."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.task import Task, Tick, checked


def train(task: Task, tick: Tick) -> None:
    from peft import get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = task.tokenizer()
    model = get_peft_model(task.model(), prefix_config(task))
    rows = [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in task.rows(tokenizer)]
    Trainer(
        model,
        TrainingArguments(**arguments(task, "stock")),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[ticking(tick)],
    ).train()


def prefix_config(task: Task) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=task.recipe.prefix.num_virtual_tokens)


def arguments(task: Task, name: str) -> dict[str, Any]:
    training = task.recipe.training
    return {
        "output_dir": str(task.folder / f"{name}-{task.seed}"),
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup_steps,
        "seed": task.seed,
        "logging_steps": 10,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }


def ticking(tick: Tick) -> Any:
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            tick()

    return Ticking()


def start_loss(task: Task) -> float:
    from peft import PeftModel

    model, batch, _ = checked(task)
    tuned = PeftModel.from_pretrained(model, task.folder / "start")
    return float(tuned(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss)
