from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_studio.data.tokens import TokenRow
from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.loss import completion_loss
from prefix_studio.recipe import PrefixPart, TrainingPart
from prefix_studio.training import step as step_module
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.training.batches import collate
from prefix_studio.training.step import Learner, batch_losses, mean_loss, row_text

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
    sums = [completion_loss(tiny[0], prefix, *single(row)) for row in ROWS]
    expected = float(sum(loss for loss, _ in sums)) / sum(count for _, count in sums)
    assert measured(tiny[0], prefix) == pytest.approx(expected, abs=1e-5)
    assert learner.step([collate(ROWS, 2)], 0.1, 1) == pytest.approx(expected, abs=1e-5)


def measured(model, prefix) -> float:
    size = BatchSize(TrainingPart(per_device_eval_batch_size=3), "per_device_eval_batch_size")
    return mean_loss(batch_losses(model, prefix, ROWS, 2, size))


def single(row: TokenRow) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = collate([row], 2)
    return batch.input_ids, batch.attention_mask, batch.labels


@pytest.mark.parametrize("cut", [[4], [1, 2, 1]], ids=["at once", "in pieces"])
def test_examples_may_count_alike_however_long_they_are(make_learner, tiny, cut):
    learner = make_learner(loss_average="example", max_grad_norm=0)
    expected = 0
    for row in ROWS:
        loss, count = completion_loss(tiny[0], learner.module(), *single(row))
        expected = expected + loss / count / len(ROWS)
    (expected_gradient,) = torch.autograd.grad(expected, learner.parameters)
    rows = iter(ROWS)
    batches = [collate([next(rows) for _ in range(size)], 2) for size in cut]
    assert learner.step(batches, 0.1, 1) == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(gradient(learner), expected_gradient.flatten(), rtol=1e-5, atol=1e-6)


def test_smoothed_labels_are_learned_and_the_reported_evaluation_stays_plain(make_learner, tiny):
    learner = make_learner(label_smoothing_factor=0.1)
    prefix = learner.module().detach()
    expected = 0.0
    for row in ROWS:
        ids, mask, labels = single(row)
        logits = forward_with_prefix(tiny[0], prefix, ids, mask)[0, :-1]
        expected += float(cross_entropy(logits, labels[0, 1:], label_smoothing=0.1, reduction="sum"))
    plain = measured(tiny[0], prefix)
    smoothed = learner.step([collate(ROWS, 2)], 0.1, 1)
    assert smoothed == pytest.approx(expected / 11, abs=1e-5)  # 11 learned tokens
    assert plain == pytest.approx(make_learner().step([collate(ROWS, 2)], 0.1, 1), abs=1e-5)
    assert smoothed != pytest.approx(plain, abs=1e-4)


@pytest.fixture
def in_type(tiny, make_learner):
    """A learner on a copy of the model in another number format."""

    def make(dtype: torch.dtype, **training) -> Learner:
        model = copy.deepcopy(tiny[0]).to(dtype)
        module = PrefixModule.build(model, tiny[1], PrefixPart(num_virtual_tokens=4, init_text="Question: "), seed=0)
        return Learner(model, module, TrainingPart(**training))

    return make


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_only_the_prefix_changes_and_it_stays_in_float32(in_type, dtype):
    learner = in_type(dtype)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    start = learner.parameters[0].clone()
    losses = [learner.step([collate(ROWS, 2)], 0.1, step) for step in range(4)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())
    assert {parameter.dtype for parameter in learner.parameters} == {torch.float32}
    assert not torch.equal(learner.parameters[0], start)


def test_gradients_too_small_for_float16_are_learned_from_all_the_same(in_type, make_learner, monkeypatch):
    def tiny_losses(*arguments, **options):
        loss, count = completion_loss(*arguments, **options)
        return loss * 1e-5, count

    monkeypatch.setattr(step_module, "completion_loss", tiny_losses)
    exact, scaled, unscaled = make_learner(max_grad_norm=0), *(in_type(torch.float16, max_grad_norm=0) for _ in "ab")
    unscaled.scaler = torch.amp.GradScaler("cpu", enabled=False)
    for learner in (exact, scaled, unscaled):
        learner.step([collate(ROWS, 2)], 0.1, 1)
    near = [cosine_similarity(gradient(exact), gradient(some), dim=0) for some in (scaled, unscaled)]
    assert near[0] > 0.999
    assert near[1] < 0.99


def test_a_gradient_scaled_too_far_is_passed_over_and_scaled_less(in_type):
    learner = in_type(torch.float16)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    start = learner.parameters[0].clone()
    learner.step([collate(ROWS, 2)], 0.1, 1)
    assert torch.equal(learner.parameters[0], start)
    assert learner.scaler.get_scale() == 2.0**39
    for step in range(40):
        learner.step([collate(ROWS, 2)], 0.1, step)
    assert not torch.equal(learner.parameters[0], start)


def test_gradients_are_clipped_to_the_norm(make_learner):
    learner = make_learner(max_grad_norm=0.01)
    learner.step([collate(ROWS, 2)], 0.0, 1)
    assert float(gradient(learner).norm()) == pytest.approx(0.01, rel=1e-3)


def test_gradient_checkpointing_changes_no_gradient(make_learner):
    plain, thrifty = make_learner(), make_learner(gradient_checkpointing=True)
    assert thrifty.step([collate(ROWS, 2)], 0.1, 1) == pytest.approx(plain.step([collate(ROWS, 2)], 0.1, 1), abs=1e-6)
    assert torch.allclose(gradient(thrifty), gradient(plain), atol=1e-6)


def test_a_restored_learner_goes_on_to_the_bit(make_learner):
    same_from_its_state(make_learner(True), make_learner(True))


def test_a_restored_learner_of_a_float16_model_knows_its_scale(in_type):
    first, second = in_type(torch.float16), in_type(torch.float16)
    first.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    same_from_its_state(first, second)
    assert second.scaler.get_scale() == first.scaler.get_scale() == 2.0**10


def same_from_its_state(first: Learner, second: Learner) -> None:
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
        learner.step([collate(ROWS, 2)], 0.5, 12, [[row.row for row in ROWS]])
    assert caught.value.category == "numbers"
    assert str(caught.value) == (
        "The loss is not a finite number at step 12, on rows 1, 2, 3, 4. "
        "Lower the learning rate (now 0.5), for example to 0.05."
    )
    assert (learner.parameters[0] == 1e38).all()


def test_the_batch_that_gave_no_number_is_named(make_learner, monkeypatch):
    def losses(model, prefix, input_ids, *rest, **options):
        loss, count = completion_loss(model, prefix, input_ids, *rest, **options)
        return loss * (float("nan") if 25 in input_ids else 1), count

    monkeypatch.setattr(step_module, "completion_loss", losses)
    with pytest.raises(StudioError, match="step 3, on rows 3, 4. "):
        make_learner(learning_rate=0.5).step([collate(ROWS[:2], 2), collate(ROWS[2:], 2)], 0.5, 3, [[1, 2], [4, 3]])


def test_many_rows_are_not_all_named():
    assert row_text([[7]]) == ", on row 7"
    assert row_text([range(19, 9, -1), range(10)]) == f", on rows {', '.join(map(str, range(16)))} and 4 more"
    assert row_text([]) == ""
