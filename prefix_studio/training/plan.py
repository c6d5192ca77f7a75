"""The arithmetic of a run: how many steps, which learning rate at each, and when to evaluate on how many rows.

Pure numbers from the recipe and the number of rows; knows neither tensors nor files, so that it is quick to ask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prefix_studio.recipe import Recipe, TrainingPart

DEFAULT_EVALUATIONS = 10
# Evaluations may cost this share of the training time, but never see fewer rows than the second figure.
EVALUATION_SHARE = 0.1
FEWEST_EVALUATION_ROWS = 128
# A forward pass takes this share of a training step on the same rows: frozen weights need no gradients of their own.
FORWARD_SHARE = 0.4
# One more token for a batch of texts takes about this share of a training step.
TOKEN_SHARE = 0.04
# Texts are generated for at most so many validation prompts at the end of a run; `evaluate` takes them all.
METRIC_PROMPTS = 200


@dataclass(frozen=True)
class Plan:
    """What a run will do. Steps are optimizer steps, counted from 0 before the first.

    evaluation_rows: how many validation rows every evaluation of the run uses; always the same ones, so that the
    losses can be compared. 0 where there are no validation rows, and then nothing is evaluated.
    """

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    evaluation_steps: int
    evaluation_rows: int
    peak_learning_rate: float
    schedule: str

    def learning_rate(self, step: int) -> float:
        """The learning rate of the step after `step` steps: transformers' schedules of the same names.

        One difference: the warm-up starts a notch above zero, so that no step is spent on standing still.
        """
        if self.schedule == "constant":
            return self.peak_learning_rate
        if step < self.warmup_steps:
            return self.peak_learning_rate * (step + 1) / (self.warmup_steps + 1)
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        factor = {
            "constant_with_warmup": 1.0,
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
        }[self.schedule]
        return self.peak_learning_rate * max(0.0, factor)

    def evaluates_at(self, step: int) -> bool:
        """Before the first step, every `evaluation_steps`, and after the last step."""
        if not self.evaluation_rows:
            return False
        return step % self.evaluation_steps == 0 or step == self.total_steps

    def evaluations_after(self, step: int) -> int:
        """How many evaluations are still to come when `step` steps are done."""
        if not self.evaluation_rows or step >= self.total_steps:
            return 0
        return math.ceil(self.total_steps / self.evaluation_steps) - step // self.evaluation_steps


def make_plan(training: TrainingPart, train_rows: int, validation_rows: int) -> Plan:
    """The plan for so many rows.

    By default about ten evaluations on all validation rows; where that would take more than a tenth of the training
    time, they use a fixed part of the rows (at least 128), and short runs evaluate less often.
    """
    batches = math.ceil(train_rows / training.per_device_train_batch_size)
    steps_per_epoch = math.ceil(batches / training.gradient_accumulation_steps)
    total = training.max_steps or math.ceil(training.num_train_epochs * steps_per_epoch)
    warmup = training.warmup_steps
    every, rows = plan_evaluations(training, total, math.ceil(total / steps_per_epoch * train_rows), validation_rows)
    return Plan(
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=math.ceil(warmup * total) if warmup < 1 else int(warmup),
        evaluation_steps=every,
        evaluation_rows=rows,
        peak_learning_rate=training.learning_rate,
        schedule=training.lr_scheduler_type,
    )


def plan_evaluations(training: TrainingPart, total_steps: int, rows_seen: int, available: int) -> tuple[int, int]:
    """Steps between evaluations, and the rows each uses. rows_seen: training rows of the whole run, epochs counted."""
    affordable = EVALUATION_SHARE / FORWARD_SHARE * rows_seen
    if training.eval_steps is not None:
        every = min(training.eval_steps, total_steps)
        rows = int(affordable / math.ceil(total_steps / every))
    else:
        rows = int(affordable / DEFAULT_EVALUATIONS)
    rows = min(available, max(rows, FEWEST_EVALUATION_ROWS))
    if training.eval_steps is None:
        times = min(DEFAULT_EVALUATIONS, total_steps, max(1, int(affordable / max(rows, 1))))
        every = math.ceil(total_steps / times)
    return every, rows


def evaluation_in_steps(plan: Plan, training: TrainingPart) -> float:
    """How many training steps an evaluation is likely to be worth in time."""
    rows_per_step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    return FORWARD_SHARE * plan.evaluation_rows / rows_per_step


def closing_steps(recipe: Recipe) -> float:
    """How many training steps the texts written at the end are likely to be worth; the untuned base seldom stops."""
    prompts = recipe.evaluation.samples
    if set(recipe.evaluation.metrics) - {"loss"}:
        prompts = max(prompts, METRIC_PROMPTS)
    batches = math.ceil(prompts / recipe.training.per_device_eval_batch_size)
    return TOKEN_SHARE * batches * recipe.evaluation.max_new_tokens / recipe.training.gradient_accumulation_steps
