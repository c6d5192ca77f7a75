from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from prefix_studio.recipe import TrainingPart
from prefix_studio.training.plan import EVALUATION_SHARE, FEWEST_EVALUATION_ROWS, FORWARD_SHARE, make_plan


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_learning_rates_are_those_of_transformers_after_the_warm_up(kind):
    plan = make_plan(TrainingPart(max_steps=40, warmup_steps=0.1, learning_rate=0.3, lr_scheduler_type=kind), 100, 0)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=4, num_training_steps=40)
    theirs = []
    for _ in range(40):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert plan.warmup_steps == 4
    assert [plan.learning_rate(step) for step in range(4, 40)] == pytest.approx(theirs[4:])


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_no_step_has_a_learning_rate_of_zero_and_none_passes_the_peak(steps):
    plan = make_plan(TrainingPart(max_steps=steps, warmup_steps=0.5, learning_rate=0.3), 100, 0)
    rates = [plan.learning_rate(step) for step in range(steps)]
    assert min(rates) > 0
    assert max(rates) <= 0.3


def test_epochs_become_steps_and_accumulated_batches_count_as_one():
    training = TrainingPart(num_train_epochs=2.5, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    plan = make_plan(training, 50, 0)
    assert plan.steps_per_epoch == 5  # 13 batches, three a step
    assert plan.total_steps == 13


def test_max_steps_wins_over_epochs():
    assert make_plan(TrainingPart(num_train_epochs=2, max_steps=3), 1000, 0).total_steps == 3


def test_a_run_of_the_sample_evaluates_ten_times_on_all_rows():
    plan = make_plan(TrainingPart(num_train_epochs=40, per_device_train_batch_size=8), 400, 100)
    told = [step for step in range(plan.total_steps + 1) if plan.evaluates_at(step)]
    assert told == [0, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000]
    assert plan.evaluation_rows == 100


@pytest.mark.parametrize(("train_rows", "validation_rows"), [(400, 100), (3000, 3000), (100_000, 20_000), (40, 400)])
def test_default_evaluations_take_no_more_than_their_share_of_the_time(train_rows, validation_rows):
    plan = make_plan(TrainingPart(num_train_epochs=1), train_rows, validation_rows)
    cost = FORWARD_SHARE * plan.evaluation_rows * plan.evaluations_after(0)
    once = FORWARD_SHARE * FEWEST_EVALUATION_ROWS  # the one at the end is never left out
    assert cost <= max(EVALUATION_SHARE * train_rows, once) * 1.01
    assert plan.evaluation_rows >= min(validation_rows, FEWEST_EVALUATION_ROWS)


def test_eval_steps_is_obeyed_and_the_rows_give_way():
    plan = make_plan(TrainingPart(max_steps=1000, eval_steps=10, per_device_train_batch_size=8), 8000, 5000)
    assert plan.evaluation_steps == 10
    assert plan.evaluation_rows == FEWEST_EVALUATION_ROWS


@pytest.mark.parametrize(("total", "every"), [(10, 5), (11, 5), (3, 7), (1, 1)])
def test_evaluations_to_come_are_counted_right(total, every):
    plan = make_plan(TrainingPart(max_steps=total, eval_steps=every), 100, 10)
    for step in range(total + 1):
        assert plan.evaluations_after(step) == sum(plan.evaluates_at(later) for later in range(step + 1, total + 1))


def test_without_validation_rows_nothing_is_evaluated():
    plan = make_plan(TrainingPart(max_steps=5), 100, 0)
    assert not any(plan.evaluates_at(step) for step in range(6))
    assert plan.evaluations_after(0) == 0
