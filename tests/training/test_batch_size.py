"""Where memory is too small, half as many rows go through the model at once, and what comes out is the same."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.recipe import TrainingPart
from prefix_studio.training import evaluate, step
from prefix_studio.training.batch_size import BatchSize, attempt, too_large
from prefix_studio.training.evaluate import evaluate_adapter

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory"),
]


@pytest.fixture
def small_memory(monkeypatch):
    """small_memory(4) is a device on which a fifth row of a batch is too much, both ways through the model."""

    def make(limit: int, *, after: int = 0) -> list[int]:
        losses, texts = step.completion_loss, evaluate.complete
        tried: list[int] = []

        def refuse(rows: int) -> None:
            tried.append(rows)
            if rows > limit and len(tried) > after:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        def limited_losses(model, prefix, input_ids, *rest, **options):
            refuse(len(input_ids))
            return losses(model, prefix, input_ids, *rest, **options)

        def limited_texts(model, tokenizer, rows, **options):
            refuse(len(rows))
            return texts(model, tokenizer, rows, **options)

        monkeypatch.setattr(step, "completion_loss", limited_losses)
        monkeypatch.setattr(evaluate, "complete", limited_texts)
        return tried

    return make


def halvings(run) -> list[dict]:
    return [event for event in run.of("state") if "gradient_accumulation_steps" in event]


def test_a_run_in_halved_batches_learns_the_same(make_run, small_memory):
    straight, halved = (make_run(name, evaluation={"samples": 0}) for name in ("straight", "halved"))
    straight.go()
    tried = small_memory(2)
    assert halved.go() == "finished"
    assert tried.count(4) == 1  # what did not fit is not tried again
    assert halved.losses == pytest.approx(straight.losses, abs=1e-5)
    assert halved.eval_losses == pytest.approx(straight.eval_losses, abs=1e-5)


def test_it_equals_a_run_with_the_small_batch_and_accumulation(make_run, small_memory):
    # Every step takes all rows, so that both runs see the same ones.
    all_at_once = {"per_device_train_batch_size": 18}
    halved = make_run("halved", training=all_at_once)
    small = make_run("small", training={"per_device_train_batch_size": 9, "gradient_accumulation_steps": 2})
    small.go()
    small_memory(9)
    halved.go()
    assert [event["per_device_train_batch_size"] for event in halvings(halved)] == [9]
    assert halved.losses == pytest.approx(small.losses, abs=1e-5)


def test_the_person_is_told_once_and_in_numbers(make_run, small_memory):
    run = make_run("run", training={"gradient_accumulation_steps": 3, "max_steps": 3}, evaluation={"samples": 0})
    small_memory(1)
    run.go()
    assert [
        (event["per_device_train_batch_size"], event["gradient_accumulation_steps"]) for event in halvings(run)
    ] == [
        (2, 6),
        (1, 12),
    ]
    assert halvings(run)[-1]["warnings"] == [
        "Memory is too small for 4 rows at once: from here on 1 at a time go through the model. "
        "What is learned and measured stays the same."
    ]


@pytest.mark.parametrize("pause", [2, 5], ids=["before it happens", "afterwards"])
def test_a_resumed_run_goes_on_in_halved_batches_to_the_bit(make_run, small_memory, monkeypatch, pause):
    runs = []
    for name in ("straight", "paused"):
        with monkeypatch.context():
            run = make_run(name, data={"validation": 0})
            # The first three steps find room for whole batches.
            small_memory(2, after=3)
            if name == "paused":
                assert run.go(pause_after=pause) == "pause"
                monkeypatch.undo()
                tried = small_memory(2, after=3 - pause)
            assert run.go() == "finished"
            monkeypatch.undo()
        runs.append(run)
    straight, paused = runs
    assert (4 in tried) == (pause == 2), "what is remembered is not tried again"
    assert paused.losses == straight.losses
    assert paused.adapter == straight.adapter


def test_one_row_too_large_ends_the_run_with_the_ways_out(make_run, small_memory):
    small_memory(0, after=6)
    with pytest.raises(StudioError) as caught:
        make_run("run").go()
    assert caught.value.category == "memory"
    assert str(caught.value) == (
        "There is too little memory for a single row. To use less: lower max_length, or turn on gradient_checkpointing."
    )


def test_the_batch_is_the_persons_where_they_say_so(make_run, small_memory):
    small_memory(2)
    run = make_run("run", data={"validation": 0}, training={"auto_find_batch_size": False})
    with pytest.raises(StudioError) as caught:
        run.go()
    assert caught.value.hint.startswith("To use less: lower per_device_train_batch_size (now 4), or lower max_length")


def test_evaluations_give_way_too(make_run, rows_file, small_memory):
    run = make_run("run")
    run.go()
    part, adapter = run.recipe.model, run.folder / "adapter"
    whole = evaluate_adapter(part, adapter, rows_file, run.recipe, device="cpu")
    tried = small_memory(3)
    parts = evaluate_adapter(part, adapter, rows_file, run.recipe, device="cpu")
    assert max(tried) == 16
    assert parts["predictions"] == whole["predictions"]
    assert parts["tuned"]["loss"] == pytest.approx(whole["tuned"]["loss"], abs=1e-6)


def test_what_a_failed_batch_held_is_given_back_before_the_next(monkeypatch):
    held = []

    def work(rows):
        tensor = torch.zeros(len(rows))
        assert not any(one() is not None for one in held)
        held.append(weakref.ref(tensor))
        if len(rows) > 1:
            ring = [tensor]
            ring.append(ring)  # as models and their hooks make them
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(rows)

    gc.disable()
    try:
        size = BatchSize(TrainingPart(per_device_eval_batch_size=5), "per_device_eval_batch_size")
        assert list(size.each(range(3), work)) == [1, 1, 1]
    finally:
        gc.enable()
    assert size.size == 1


def test_sizes_are_halved_upwards_so_that_two_parts_are_enough():
    sizes = []
    size = BatchSize(
        TrainingPart(per_device_train_batch_size=13), "per_device_train_batch_size", lambda s: sizes.append(s.size)
    )
    for _ in range(4):
        size.halve()
    assert sizes == [7, 4, 2, 1]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:20] or "MemoryError")
def test_every_devices_way_to_say_it_is_understood(error):
    def work():
        raise error

    assert attempt(work) == (False, None)


def test_the_cpu_allocator_is_understood_for_real():
    assert attempt(lambda: torch.empty(2**60)) == (False, None)
    assert too_large(TrainingPart(), "per_device_eval_batch_size", 16).hint == (
        "To use less: lower per_device_eval_batch_size (now 16), or lower max_length."
    )


def test_other_errors_stay_what_they_are():
    def work():
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        attempt(work)
