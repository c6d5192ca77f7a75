from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_studio.data.tokens import TokenRow
from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.inject import completion_loss
from prefix_studio.recipe import PrefixPart, TrainingPart
from prefix_studio.training.batches import collate
from prefix_studio.training.step import Learner, batch_losses, mean_loss, memory_errors

ROWS = [
    TokenRow([5, 6, 7, 8, 9], [-100, -100, 7, 8, 9], 1),
    TokenRow([15, 16, 17], [-100, -100, 17], 2),
    TokenRow([25, 26, 27, 28, 29, 30, 31], [-100, 26, 27, 28, 29, 30, 31], 3),
    TokenRow([35, 36, 37, 38], [-100, -100, -100, 38], 4),
]


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def make_learner(tiny):
    def make(prefix_projection: bool = False, **training) -> Learner:
        part = PrefixPart(num_virtual_tokens=4, init_text="Question: ", prefix_projection=prefix_projection)
        return Learner(tiny[0], PrefixModule.build(*tiny, part, seed=0), TrainingPart(**training))

    return make


def gradient(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in learner.parameters])


@pytest.mark.parametrize("projection", [False, True])
def test_accumulated_batches_equal_one_large_batch(make_learner, projection):
    large, small = make_learner(projection, max_grad_norm=0), make_learner(projection, max_grad_norm=0)
    at_once = large.step([collate(ROWS, 2)], 0.1, 1)
    in_pieces = small.step([collate(ROWS[:1], 2), collate(ROWS[1:3], 2), collate(ROWS[3:], 2)], 0.1, 1)
    assert in_pieces == pytest.approx(at_once, abs=1e-6)
    assert torch.allclose(gradient(small), gradient(large), rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_over_learned_tokens(make_learner, tiny):
    learner = make_learner()
    prefix = learner.module().detach()
    sums = [completion_loss(tiny[0], prefix, *single(row), reduction="sum") for row in ROWS]
    expected = float(sum(loss for loss, _ in sums)) / sum(count for _, count in sums)
    losses = batch_losses(tiny[0], prefix, ROWS, 2, TrainingPart(per_device_eval_batch_size=3))
    assert mean_loss(losses) == pytest.approx(expected, abs=1e-6)
    assert learner.step([collate(ROWS, 2)], 0.1, 1) == pytest.approx(expected, abs=1e-6)


def single(row: TokenRow) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = collate([row], 2)
    return batch.input_ids, batch.attention_mask, batch.labels


def test_only_the_prefix_changes_and_it_stays_in_float32(make_learner, tiny):
    model = copy.deepcopy(tiny[0]).bfloat16()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner = make_learner()
    learner.model = model
    start = learner.tensors()["prefix.encoder.embedding.weight"].clone()
    learner.step([collate(ROWS, 2)], 0.1, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {parameter.dtype for parameter in learner.parameters} == {torch.float32}
    assert not torch.equal(learner.parameters[0], start)


def test_gradients_are_clipped_to_the_norm(make_learner):
    learner = make_learner(max_grad_norm=0.01)
    learner.step([collate(ROWS, 2)], 0.0, 1)
    assert float(gradient(learner).norm()) == pytest.approx(0.01, rel=1e-3)


def test_gradient_checkpointing_changes_no_gradient(make_learner):
    plain, thrifty = make_learner(), make_learner(gradient_checkpointing=True)
    assert thrifty.step([collate(ROWS, 2)], 0.1, 1) == pytest.approx(plain.step([collate(ROWS, 2)], 0.1, 1), abs=1e-6)
    assert torch.allclose(gradient(thrifty), gradient(plain), atol=1e-6)


@pytest.mark.parametrize("projection", [False, True])
def test_a_restored_learner_goes_on_to_the_bit(make_learner, projection):
    first, second = make_learner(projection), make_learner(projection)
    for step in range(3):
        first.step([collate(ROWS, 2)], 0.1, step)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    for step in range(3):
        assert first.step([collate(ROWS, 2)], 0.05, step) == second.step([collate(ROWS, 2)], 0.05, step)
    ours, theirs = first.tensors(), second.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_loss_that_is_no_number_stops_with_the_way_out_and_leaves_the_prefix(make_learner):
    learner = make_learner(learning_rate=0.5)
    with torch.no_grad():
        learner.parameters[0].fill_(1e38)
    with pytest.raises(StudioError) as caught:
        learner.step([collate(ROWS, 2)], 0.5, 12)
    assert caught.value.category == "numbers"
    assert str(caught.value) == (
        "The loss is not a finite number at step 12. Lower the learning rate (now 0.5), for example to 0.05."
    )
    assert (learner.parameters[0] == 1e38).all()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_names_the_settings_that_need_less(error):
    with pytest.raises(StudioError) as caught, memory_errors(TrainingPart(per_device_train_batch_size=64)):
        raise error
    assert caught.value.category == "memory"
    assert caught.value.hint == (
        "To use less: lower per_device_train_batch_size (now 64), or lower max_length, "
        "or turn on gradient_checkpointing."
    )


def test_the_cpu_allocator_is_understood_for_real():
    with pytest.raises(StudioError) as caught, memory_errors(TrainingPart(), "per_device_eval_batch_size"):
        torch.empty(2**60)
    assert caught.value.hint == "To use less: lower per_device_eval_batch_size (now 16), or lower max_length."


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(TrainingPart()):
        raise RuntimeError("shapes do not match")
