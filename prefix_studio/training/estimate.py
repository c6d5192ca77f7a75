"""How long a run will take and how much memory, before it starts.

A few real steps on the loaded model are timed, or one short row where whole steps would keep a person waiting. Knows
what a run does (`plan`); trains a throwaway prefix and leaves the model as it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from transformers import PreTrainedModel

from prefix_studio.data.token_rows import TokenRow, TokenRows, token_rows
from prefix_studio.models.check import build_skeleton, count, virtual_tokens, weight_bytes
from prefix_studio.models.memory import TrainingMemory
from prefix_studio.prefix.encoder import PrefixModule, trainable_parameters
from prefix_studio.prefix.shape import submodule_shapes
from prefix_studio.recipe import Recipe
from prefix_studio.training.batches import Order, collate
from prefix_studio.training.plan import closing_steps, evaluation_in_steps, make_plan
from prefix_studio.training.step import Learner

PROBE_TOKENS = 64
PATIENCE_SECONDS = 2.0
TIMED_STEPS = 3
# A process that starts, imports torch and transformers, and reads model and data.
START_SECONDS = 6.0


def estimate(
    recipe: Recipe, model: PreTrainedModel, rows: Sequence[TokenRow], *, validation_rows: int | None = None
) -> dict[str, Any]:
    """{"seconds", "steps", "tokens_per_step", "memory_bytes", "trainable_parameters", "all_parameters"}

    rows: the training rows. validation_rows: None means as many as the recipe's share or count says.
    seconds: from Start to finished on this machine, as busy as it is now, without downloads; early stopping is not
        foreseen. tokens_per_step: with padding, without virtual tokens. memory_bytes: at the peak.
    Takes a second or two; for models too slow for that, as long as 64 tokens take them.
    """
    training = recipe.training
    rows = token_rows(rows)
    held_out = expected_validation(recipe, len(rows)) if validation_rows is None else validation_rows
    plan = make_plan(training, len(rows), held_out)
    order = Order(rows, training.per_device_train_batch_size, training.gradient_accumulation_steps, training.seed)
    sizes = [padded_tokens(rows, order.step(step)) for step in range(order.steps_per_epoch)]
    tokens = sum(sizes) / len(sizes)

    length = virtual_tokens(recipe.model, recipe.prefix)
    part = recipe.prefix.model_copy(update={"init": "random", "num_virtual_tokens": length})
    learner = Learner(model, PrefixModule.build(model, None, part, training.seed), training)
    typical = min(range(len(sizes)), key=lambda step: abs(sizes[step] - tokens))
    step_seconds = time_step(learner, rows, order.step(typical))

    evaluations = plan.evaluations_after(0) + 2 if plan.evaluation_rows else 0  # the first one looks at the base too
    steps = plan.total_steps + evaluations * evaluation_in_steps(plan, training) + closing_steps(recipe)
    shapes = submodule_shapes(model, part.submodules)
    skeleton = build_skeleton(recipe.model, model.config)
    memory = TrainingMemory(skeleton, shapes, part, length, training, weight_bytes(recipe.model, skeleton))
    batch_size = min(training.per_device_train_batch_size, len(rows))
    return {
        "seconds": START_SECONDS + steps * step_seconds,
        "steps": plan.total_steps,
        "tokens_per_step": tokens,
        "memory_bytes": memory.bytes(batch_size, int(rows.lengths.max()), int(rows.target_lengths.max())),
        "trainable_parameters": trainable_parameters(shapes, part, length),
        "all_parameters": count(skeleton),
    }


def time_step(learner: Learner, rows: TokenRows, batches: list[list[int]]) -> float:
    """Seconds for a step on these batches: measured, or scaled up from a short row."""
    shortest = rows[int(rows.lengths.argmin())].input_ids[:PROBE_TOKENS]
    probe = TokenRow(shortest, shortest, 0)
    learn(learner, [[probe]])  # the first pass warms up
    seconds = min(learn(learner, [[probe]]) for _ in range(2))
    scale = padded_tokens(rows, batches) / len(shortest)
    if seconds * scale > PATIENCE_SECONDS:
        return seconds * scale
    whole = [rows.select(some) for some in batches]
    return median(learn(learner, whole) for _ in range(TIMED_STEPS))


def learn(learner: Learner, batches: Sequence[Sequence[TokenRow]]) -> float:
    """Seconds of one step. The learning rate is 0: nothing is to be learned here."""
    both, device = learner.model.config.is_encoder_decoder, learner.model.device
    began = time.perf_counter()
    learner.step([collate(rows, 0, device, encoder_decoder=both) for rows in batches], 0.0, 0)
    return time.perf_counter() - began


def padded_tokens(rows: TokenRows, batches: list[list[int]]) -> int:
    return sum(len(some) * int(rows.sizes[some].max()) for some in batches)


def expected_validation(recipe: Recipe, train_rows: int) -> int:
    """How many rows are held back when `train_rows` are left; a guess where a file decides."""
    asked = recipe.data.validation
    if isinstance(asked, str) or (recipe.data.source.startswith("sample:") and asked == 0.1):
        return train_rows // 4
    return int(asked) if asked >= 1 else round(train_rows * asked / (1 - asked))
