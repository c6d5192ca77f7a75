"""What is learned: how it starts, that all of it takes gradients, and how much it is."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from prefix_studio.errors import StudioError
from prefix_studio.prefix.encoder import PrefixModule, trainable_parameters
from prefix_studio.prefix.initialise import text_prefix
from prefix_studio.prefix.loss import completion_loss
from prefix_studio.prefix.shape import submodule_shapes
from prefix_studio.recipe import PrefixPart
from prefix_studio.settings import BUNDLED_MODEL
from tests.prefix.tiny import FAMILIES, relative_difference, right_padded
from tests.prefix.zoo import model_of

TEXT = "Describe the place in one short sentence."


def build(model, tokenizer=None, seed=0, **fields) -> PrefixModule:
    return PrefixModule.build(model, tokenizer, PrefixPart(**fields), seed)


def test_text_initialisation_starts_from_the_texts_keys_and_values(bundled):
    model, tokenizer = bundled
    module = build(model, tokenizer, init="text", init_text=TEXT, num_virtual_tokens=8)
    expected = text_prefix(model, tokenizer, TEXT, 8)
    assert module.num_virtual_tokens == 8
    assert torch.equal(module().flatten(), expected.flatten())


# Beyond token_dim (128 here) the projection's first half has few directions to spare, and rounding grows.
@pytest.mark.parametrize(("length", "tolerance"), [(8, 1e-5), (64, 1e-5), (150, 1e-3)])
def test_text_initialisation_through_the_projection_is_the_same_prefix(bundled, length, tolerance):
    model, tokenizer = bundled
    module = build(model, tokenizer, init="text", init_text=TEXT, num_virtual_tokens=length, prefix_projection=True)
    expected = text_prefix(model, tokenizer, TEXT, length).flatten()
    assert module.tables["decoder"].transform[0].out_features == max(4 * 32, length)
    assert relative_difference(module().flatten(), expected) <= tolerance


def test_the_length_can_follow_the_text(bundled):
    model, tokenizer = bundled
    module = build(model, tokenizer, init="text", init_text=TEXT, num_virtual_tokens=None)
    assert module.num_virtual_tokens == len(tokenizer(TEXT)["input_ids"])


def test_a_projection_narrower_than_the_text_is_refused(bundled):
    model, tokenizer = bundled
    with pytest.raises(StudioError, match="encoder_hidden_size 4 is below the"):
        build(
            model,
            tokenizer,
            init="text",
            init_text=TEXT,
            num_virtual_tokens=None,
            prefix_projection=True,
            encoder_hidden_size=4,
        )


def test_random_initialisation_is_pefts():
    flat = build(model_of("llama"), init="random", num_virtual_tokens=90)().flatten()
    assert abs(flat.mean()) < 0.05
    assert abs(flat.std() - 1) < 0.05


@pytest.mark.parametrize("projected", [False, True])
def test_zero_initialisation_is_zero(projected):
    module = build(model_of("llama"), init="zero", num_virtual_tokens=6, prefix_projection=projected)
    assert not module().flatten().any()


def test_seeds_decide_and_the_programs_random_state_is_left_alone():
    model = model_of("llama")
    state = torch.get_rng_state()
    one, same, other = (build(model, seed=seed, init="random", num_virtual_tokens=3) for seed in (1, 1, 2))
    assert torch.equal(one().flatten(), same().flatten())
    assert not torch.equal(one().flatten(), other().flatten())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("init", ["random", "zero"])
@pytest.mark.parametrize("projected", [False, True])
def test_a_step_on_the_loss_lowers_it(projected, init):
    model = model_of("llama")
    module = build(model, init=init, num_virtual_tokens=6, prefix_projection=projected)
    ids, mask, labels = right_padded([9, 7], learned=4)
    first, _ = completion_loss(model, module(), ids, mask, labels)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        loss, _ = completion_loss(model, module(), ids, mask, labels)
        loss.backward()
        optimizer.step()
    assert completion_loss(model, module(), ids, mask, labels)[0] < first - 0.01


@pytest.mark.parametrize("projected", [False, True])
def test_the_state_restores_all_that_is_learned(projected):
    model = model_of("llama")
    fields = {"init": "random", "num_virtual_tokens": 6, "prefix_projection": projected}
    trained, fresh = build(model, seed=1, **fields), build(model, seed=2, **fields)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh().flatten(), trained().flatten())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("projected", [False, True])
def test_the_count_of_parameters_is_the_modules(projected, family):
    model = model_of(family)
    part = PrefixPart(init="random", num_virtual_tokens=12, prefix_projection=projected)
    module = PrefixModule.build(model, None, part, 0)
    assert module().length == 12
    counted = sum(parameter.numel() for parameter in module.parameters())
    assert trainable_parameters(submodule_shapes(model), part, 12) == counted


@pytest.mark.parametrize("projected", [False, True])
def test_frozen_tokens_stay_and_the_others_learn(bundled, projected):
    model, tokenizer = bundled
    fields = {"init_text": TEXT, "num_virtual_tokens": 8, "num_frozen_tokens": 2, "prefix_projection": projected}
    module = build(model, tokenizer, init="text", **fields)
    before = module().flatten().detach()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    loss, _ = completion_loss(model, module(), *right_padded([9, 7], learned=4))
    loss.backward()
    optimizer.step()
    after = module().flatten()
    assert torch.equal(after[:2], before[:2])
    assert (after[2:] != before[2:]).any(dim=1).all()


def test_a_prefix_without_a_token_to_learn_is_refused(bundled):
    model, tokenizer = bundled
    with pytest.raises(StudioError, match="num_frozen_tokens is 3, so none of the 2 virtual tokens"):
        build(model, tokenizer, init="text", init_text="a b", num_virtual_tokens=None, num_frozen_tokens=3)


def test_parameters_stay_float32_on_a_bfloat16_model():
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    model = model_of("llama").to(torch.bfloat16)
    model.resize_token_embeddings(len(tokenizer))
    module = build(model, tokenizer, init="text", init_text="a", num_virtual_tokens=3)
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    ids, mask, labels = right_padded([9, 7], learned=4)
    loss, _ = completion_loss(model, module(), ids, mask, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_prefix_that_fills_the_models_positions_is_refused():
    with pytest.raises(StudioError, match="96 virtual tokens fill them all"):
        build(model_of("gpt2"), init="random", num_virtual_tokens=96)
