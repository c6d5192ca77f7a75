"""A prefix in front of an untouched model: text in context, padding, kept logits, and nothing left behind."""

from __future__ import annotations

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.checkpointing import gradient_checkpointing
from prefix_studio.prefix.initialise import prefix_of
from prefix_studio.prefix.inject import accepts, batch_cache, fill, forward_with_prefix, positions, shared_cache
from prefix_studio.prefix.loss import completion_loss
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import empty_cache, prefix_shape
from tests.prefix.tiny import (
    FAMILIES,
    WITHOUT_STATE,
    random_ids,
    random_prefix,
    relative_difference,
    right_padded,
)
from tests.prefix.zoo import model_of


@pytest.mark.parametrize("length", [5, 24], ids=["short", "longer than the window"])
@pytest.mark.parametrize("family", WITHOUT_STATE)
def test_a_texts_prefix_is_that_text_in_context(family, length):
    model = model_of(family)
    text, prompt = random_ids(1, length), random_ids(1, 9, seed=1)
    expected = model(input_ids=torch.cat([text, prompt], dim=1)).logits[:, length:]
    logits = forward_with_prefix(model, prefix_of(model, text), prompt, torch.ones_like(prompt))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_is_what_the_models_own_filled_cache_is(family):
    """One pass over the cache that the family builds and stores into, filled by hand: running states start empty."""
    model = model_of(family)
    prefix, ids = random_prefix(model, 5), random_ids(2, 7)
    cache = empty_cache(model)
    for index, key, value in prefix:
        fill(cache.layers[index], key.expand(2, -1, -1, -1), value.expand(2, -1, -1, -1))
    mask = torch.ones(2, 12, dtype=torch.long)
    places = {"position_ids": torch.arange(5, 12).expand(2, -1)} if accepts(model, "position_ids") else {}
    expected = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **places).logits
    logits = forward_with_prefix(model, prefix, ids, torch.ones_like(ids))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, forward_with_prefix(model, None, ids, torch.ones_like(ids)), atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layers_keys_and_values_take_gradients(family):
    model = model_of(family)
    shapes = prefix_shape(model)
    flat = random_prefix(model, 5).flatten().requires_grad_()
    loss, _ = completion_loss(model, Prefix.unflatten(flat, shapes), *right_padded([9, 6, 7], learned=3))
    loss.backward()
    sizes = [heads * width for shape in shapes for heads, width in (shape.key, shape.value)]
    assert all(part.abs().amax() > 0 for part in flat.grad.split(sizes, dim=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_right_changes_nothing(family):
    model = model_of(family)
    prefix = random_prefix(model, 4)
    ids, mask, _ = right_padded([9, 5], learned=2)
    together = forward_with_prefix(model, prefix, ids, mask)
    alone = forward_with_prefix(model, prefix, ids[1:, :5], mask[1:, :5])
    torch.testing.assert_close(together[1:, :5], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_logits_are_the_models_own(family):
    """Capping and scaling included: gemma2, cohere and granite change logits after their output layer."""
    model = model_of(family)
    ids, mask, labels = right_padded([9, 5], learned=3)
    keep = labels != -100
    prefix = random_prefix(model, 4)
    every = forward_with_prefix(model, prefix, ids, mask)
    torch.testing.assert_close(forward_with_prefix(model, prefix, ids, mask, keep=keep), every[keep])


def test_logits_are_kept_for_models_that_cannot_choose(monkeypatch):
    model = model_of("llama")
    ids, mask, labels = right_padded([9, 5], learned=3)
    keep = labels != -100
    expected = forward_with_prefix(model, None, ids, mask, keep=keep)
    whole = model.forward

    def forward_without(input_ids, position_ids, past_key_values, use_cache):
        return whole(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

    monkeypatch.setattr(model, "forward", forward_without)
    torch.testing.assert_close(forward_with_prefix(model, None, ids, mask, keep=keep), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_keeps_the_prefix(family):
    model = model_of(family)
    ids, mask, labels = right_padded([9, 5], learned=3)
    flat = random_prefix(model, 4).flatten().requires_grad_()

    shapes = prefix_shape(model)

    def loss_and_gradient():
        loss, _ = completion_loss(model, Prefix.unflatten(flat, shapes), ids, mask, labels)
        return loss.detach(), torch.autograd.grad(loss, flat)[0]

    loss, gradient = loss_and_gradient()
    with gradient_checkpointing(model):
        kept_loss, kept_gradient = loss_and_gradient()
    torch.testing.assert_close(kept_loss, loss, rtol=1e-5, atol=0)
    assert relative_difference(kept_gradient, gradient) <= 1e-5


def test_gradient_checkpointing_runs_every_layer_again_on_the_way_back():
    """Otherwise the test above would pass with a checkpointing that does nothing."""
    model = model_of("llama")
    ids, mask, labels = right_padded([9, 5], learned=3)
    flat = random_prefix(model, 4).flatten().requires_grad_()
    prefix = Prefix.unflatten(flat, prefix_shape(model))
    calls = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with gradient_checkpointing(model):
        loss, _ = completion_loss(model, prefix, ids, mask, labels)
        assert len(calls) == 2
        loss.backward()
    assert len(calls) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_model_is_left_as_it_was(family):
    model = model_of(family)
    ids = random_ids(1, 6)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(input_ids=ids).logits
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}

    rows, mask, labels = right_padded([9, 5], learned=3)
    flat = random_prefix(model, 4).flatten().requires_grad_()
    prefix = Prefix.unflatten(flat, prefix_shape(model))
    with gradient_checkpointing(model):
        loss, _ = completion_loss(model, prefix, rows, mask, labels)
    loss.backward()
    before = prefix.flatten().detach().clone()
    list(generate(model, [Row([5, 6], prefix.detach(), Sampling(max_new_tokens=4)), Row([7])], eos_ids={2}))

    assert torch.equal(prefix.flatten(), before), "a shared prefix is never changed"
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(input_ids=ids).logits, logits)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_shared_prefix_is_not_copied():
    model = model_of("llama")
    prefix = random_prefix(model, 4)
    cache = shared_cache(model, prefix, batch=1000)
    assert cache.layers[0].keys.shape == (1000, 2, 4, 8)
    assert cache.layers[0].keys.data_ptr() == prefix.keys[0].data_ptr()


def test_shorter_prefixes_stand_against_the_text_and_empty_slots_are_masked_zeros():
    model = model_of("llama")
    long, short = random_prefix(model, 4), random_prefix(model, 2, seed=1)
    cache, mask = batch_cache(model, [short, None, long])
    assert mask.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    keys = cache.layers[1].keys
    assert torch.equal(keys[0, :, 2:], short.keys[1])
    assert torch.equal(keys[2], long.keys[1])
    assert not keys[1].any()
    assert not keys[0, :, :2].any()


def test_without_any_prefix_the_cache_is_empty():
    cache, mask = batch_cache(model_of("llama"), [None, None])
    assert mask.shape == (2, 0)
    assert cache.get_seq_length() == 0


def test_texts_that_pass_the_models_positions_are_refused():
    model = model_of("gpt2")  # 96 positions
    ids = random_ids(1, 93)
    with pytest.raises(StudioError, match="93 tokens behind 4 virtual tokens passes the model's 96") as caught:
        forward_with_prefix(model, random_prefix(model, 4), ids, torch.ones_like(ids))
    assert caught.value.hint == "Lower max_length to 92."


def test_positions_count_tokens_only():
    assert positions(torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_under_autocast_the_prefix_has_the_dtype_of_the_models_own_keys():
    model = model_of("llama")
    ids = random_ids(1, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert shared_cache(model, random_prefix(model, 4), 1).layers[0].keys.dtype == torch.bfloat16
        logits = forward_with_prefix(model, random_prefix(model, 4), ids, torch.ones_like(ids))
    exact = forward_with_prefix(model, random_prefix(model, 4), ids, torch.ones_like(ids))
    assert relative_difference(logits.float(), exact) < 0.05
