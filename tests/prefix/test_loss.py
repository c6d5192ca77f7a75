"""The loss in chunks is torch's own cross-entropy of the model's own logits, and never holds all of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from prefix_studio.prefix import loss as loss_module
from prefix_studio.prefix.encoder_decoder import decoder_inputs
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.loss import chunk_rows, completion_loss, losses_and_slope
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape
from tests.prefix.tiny import random_ids, random_prefix, relative_difference, right_padded
from tests.prefix.zoo import config_of, model_of

# What models make of their last states: a plain product, capped logits (gemma2), scaled ones (cohere, granite), scaled
# states (minicpm3, t5), a bias (bart). OPT's output layer reads what a model inside the model inside gave.
DECODERS = ["llama", "gpt2", "gemma2", "cohere", "granite", "minicpm3", "opt"]
ENCODER_DECODERS = ["t5", "bart"]


@pytest.fixture
def small_chunks(monkeypatch):
    """Five rows at a time: the batches here take several."""
    monkeypatch.setattr(loss_module, "chunk_rows", lambda vocabulary, device: 5)


def batch_for(model):
    """Arguments of completion_loss. An encoder-decoder's labels are texts of their own."""
    ids, mask, labels = right_padded([9, 6, 11], learned=5)
    if model.config.is_encoder_decoder:
        _, _, labels = right_padded([7, 8, 5], learned=6, seed=1)
    return ids, mask, labels


def plain_loss(model, prefix, ids, mask, labels, weights=None, label_smoothing=0.0):
    """torch's cross-entropy of the whole logits."""
    two_sides = model.config.is_encoder_decoder
    logits = forward_with_prefix(
        model, prefix, ids, mask, decoder_input_ids=decoder_inputs(model, labels) if two_sides else None
    )
    weights = torch.ones(labels.shape) if weights is None else weights
    if not two_sides:
        logits, labels, weights = logits[:, :-1], labels[:, 1:], weights[:, 1:]
    losses = functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", label_smoothing=label_smoothing
    )  # [B, T]
    return (losses * weights).sum()


def loss_and_gradient(function, model, *batch, **options):
    """The loss behind one random prefix, and its gradient by that prefix."""
    flat = random_prefix(model, 4).flatten().requires_grad_()
    loss = function(model, Prefix.unflatten(flat, prefix_shape(model)), *batch, **options)
    loss = loss[0] if isinstance(loss, tuple) else loss
    return loss.detach(), torch.autograd.grad(loss, flat)[0]


def assert_equal_losses(model, *batch, **options):
    loss, gradient = loss_and_gradient(completion_loss, model, *batch, **options)
    expected_loss, expected_gradient = loss_and_gradient(plain_loss, model, *batch, **options)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    assert relative_difference(gradient, expected_gradient) <= 2e-6


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("family", DECODERS + ENCODER_DECODERS)
def test_chunks_change_neither_loss_nor_gradient(family):
    model = model_of(family)
    assert_equal_losses(model, *batch_for(model))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
def test_label_smoothing_is_torchs(family):
    model = model_of(family)
    assert_equal_losses(model, *batch_for(model), label_smoothing=0.1)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_weights_multiply_each_labels_loss(family):
    model = model_of(family)
    ids, mask, labels = batch_for(model)
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    assert_equal_losses(model, ids, mask, labels, weights=weights, label_smoothing=0.1)


def test_a_weight_of_zero_leaves_a_row_out():
    model = model_of("llama")
    ids, mask, labels = batch_for(model)
    weights = torch.tensor([1.0, 0.0, 1.0])[:, None].expand(labels.shape)
    loss, gradient = loss_and_gradient(completion_loss, model, ids, mask, labels, weights=weights)
    others = torch.tensor([0, 2])
    expected = loss_and_gradient(completion_loss, model, ids[others], mask[others], labels[others])
    torch.testing.assert_close(loss, expected[0], rtol=1e-6, atol=0)
    assert relative_difference(gradient, expected[1]) <= 2e-6


def test_the_count_is_of_labelled_tokens_that_something_stands_before():
    model = model_of("llama")
    ids, mask, _ = batch_for(model)
    labels = torch.full_like(ids, -100)
    labels[0, 0] = labels[0, 3] = labels[2, 10] = 7
    loss, count = completion_loss(model, None, ids, mask, labels)
    assert count == 2
    torch.testing.assert_close(loss, plain_loss(model, None, ids, mask, labels))


def test_without_labels_the_loss_is_zero_and_can_still_be_walked_back():
    model = model_of("llama")
    ids, mask, labels = batch_for(model)
    loss, count = completion_loss(model, random_prefix(model, 4), ids, mask, torch.full_like(labels, -100))
    loss.backward()
    assert (loss.item(), count) == (0, 0)


@pytest.mark.usefixtures("small_chunks")
def test_a_scaled_loss_has_a_scaled_gradient():
    """A step divides by its tokens before it walks back."""
    model = model_of("llama")
    batch = batch_for(model)
    _, once = loss_and_gradient(completion_loss, model, *batch)
    _, third = loss_and_gradient(lambda *arguments: completion_loss(*arguments)[0] / 3, model, *batch)
    torch.testing.assert_close(third * 3, once)


@pytest.mark.usefixtures("small_chunks")
def test_an_evaluation_takes_no_gradient():
    model = model_of("gemma2")
    ids, mask, labels = batch_for(model)
    calls = []
    model.lm_head.register_forward_hook(lambda module, args, output: calls.append(output.requires_grad))
    with torch.no_grad():
        loss, _ = completion_loss(model, random_prefix(model, 4), ids, mask, labels)
    assert not loss.requires_grad
    assert len(calls) > 2
    assert not any(calls)
    torch.testing.assert_close(loss, plain_loss(model, random_prefix(model, 4), ids, mask, labels))


def test_a_probability_that_vanishes_has_a_finite_loss():
    logits = torch.tensor([[300.0, 0.0, -50.0], [0.0, 1e-3, 30.0]])
    losses, slope = losses_and_slope(logits, torch.tensor([1, 2]), 0.0)
    torch.testing.assert_close(losses, functional.cross_entropy(logits, torch.tensor([1, 2]), reduction="none"))
    torch.testing.assert_close(slope[0], torch.tensor([1.0, -1.0, 0.0]))


class Widest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor))
        self.numbers = max([self.numbers, *(tensor.numel() for tensor in tensors)])
        return outputs


def test_no_vocabulary_makes_the_memory_large():
    """As wide a vocabulary as Gemma's, and more tokens than a chunk holds."""
    vocabulary, rows, text = 262_144, 4, 81
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    ids = random_ids(rows, text)
    with Widest() as widest:
        flat = random_prefix(model, 4).flatten().requires_grad_()
        loss, count = completion_loss(
            model, Prefix.unflatten(flat, prefix_shape(model)), ids, torch.ones_like(ids), ids.clone()
        )
        loss.backward()
    assert count == 320
    assert widest.numbers == chunk_rows(vocabulary, "cpu") * vocabulary < count * vocabulary / 4
    assert flat.grad.abs().max() > 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_chunk_has_a_limit_that_a_small_vocabulary_does_not_reach(device):
    assert chunk_rows(262_144, device) * 262_144 <= 2**27
    assert chunk_rows(2_048, device) > 2_000


class Undivided(LlamaForCausalLM):
    """A model that is not another one and an output layer."""

    def forward(self, input_ids, position_ids=None, past_key_values=None, use_cache=None):
        inside = type(self.model).forward
        output = inside(
            self.model,
            input_ids=input_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        output["logits"] = self.lm_head(output.last_hidden_state)
        return output


@pytest.mark.usefixtures("small_chunks")
def test_a_model_that_cannot_be_divided_has_the_same_loss():
    model = model_of("llama")
    undivided = Undivided(config_of("llama")).eval().requires_grad_(False)
    undivided.load_state_dict(model.state_dict())
    batch = batch_for(model)
    loss, gradient = loss_and_gradient(completion_loss, undivided, *batch)
    expected_loss, expected_gradient = loss_and_gradient(completion_loss, model, *batch)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    assert relative_difference(gradient, expected_gradient) <= 2e-6


def test_in_bfloat16_the_loss_is_close_and_the_gradient_too():
    model = model_of("llama")
    batch = batch_for(model)
    loss, gradient = loss_and_gradient(completion_loss, model, *batch)
    half_loss, half_gradient = loss_and_gradient(completion_loss, model.to(torch.bfloat16), *batch)
    assert half_loss.dtype == torch.float32
    torch.testing.assert_close(half_loss, loss, rtol=0.02, atol=0)
    assert relative_difference(half_gradient, gradient) <= 0.1


@pytest.mark.parametrize("family", ["llama", "opt", "t5"])
def test_a_failure_leaves_the_model_as_it_was(family):
    """Too little memory is a failure that a run goes on after."""
    model = model_of(family)
    batch = batch_for(model)
    expected, _ = completion_loss(model, None, *batch)
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}

    def fail(module, args):
        raise MemoryError

    hook = model.lm_head.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        completion_loss(model, None, *batch)
    hook.remove()
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes
    assert torch.equal(completion_loss(model, None, *batch)[0], expected)
