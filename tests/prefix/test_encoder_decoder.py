"""Encoder-decoders: a prefix for the decoder, or for all three attentions, against stock PEFT and written-out sums."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.t5gemma.modeling_t5gemma import apply_rotary_pos_emb

from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.checkpointing import gradient_checkpointing, shadowed
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.encoder_decoder import decoder_inputs, encoder_attentions, start_token
from prefix_studio.prefix.files import load_prefix, save_adapter
from prefix_studio.prefix.initialise import prefix_of, text_prefix
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.loss import completion_loss
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import prefix_shape, refuse_unsupported, submodule_shapes, warnings_for
from prefix_studio.recipe import PrefixPart
from tests.prefix.pairs import FORMS, PAIRS, WHOLE, random_pairs, random_parts, tensors_of
from tests.prefix.tiny import random_ids, relative_difference
from tests.prefix.zoo import ENCODER_DECODERS, WINDOW, config_of, model_of

PARTS = {"decoder": 2, "encoder": 2, "cross": 2}
INPUTS, TARGETS = [9, 6, 7], [4, 8, 5]


def with_gradients(prefix: Prefix) -> tuple[Prefix, dict[str, torch.Tensor]]:
    """The same prefix, and its tensors by name, which take gradients."""
    prefix = prefix.map(lambda tensor: tensor.detach().clone().requires_grad_())
    return prefix, tensors_of(prefix)


# What the base model is, and what a prefix is in front of it


@pytest.mark.parametrize("family", PAIRS)
def test_every_attention_has_its_shapes(family):
    model = model_of(family)
    found = submodule_shapes(model, "all" if family in WHOLE else "decoder")
    counts = {name: len(shapes) for name, shapes in found.items()}
    assert counts == ({**PARTS, "encoder": 3} if family == "byt5" else PARTS if family in WHOLE else {"decoder": 2})
    heads = {"t5_odd": (4, 12), "t5gemma": (2, 12)}.get(family, (4, 8))
    assert {shape[1:3] for shapes in found.values() for shape in shapes} == {(heads, heads)}


@pytest.mark.parametrize("family", PAIRS)
def test_shapes_need_no_weights(family):
    submodules = "all" if family in WHOLE else "decoder"
    with torch.device("meta"):
        skeleton = AutoModelForSeq2SeqLM.from_config(config_of(family))
    assert submodule_shapes(skeleton, submodules) == submodule_shapes(model_of(family), submodules)


@pytest.mark.parametrize("fields", [{"decoder_layers": 3}, {"encoder_layers": 3}, {"num_decoder_layers": 3}])
def test_the_two_sides_may_differ_in_depth(fields):
    model_type, own = ENCODER_DECODERS["t5" if "num_decoder_layers" in fields else "bart"]
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, **own | fields)).eval()
    counts = {name: len(shapes) for name, shapes in submodule_shapes(model, "all").items()}
    deep = 2 if "encoder_layers" in fields else 3
    assert counts == {"decoder": deep, "encoder": 5 - deep, "cross": deep}
    loss, count = completion_loss(model, random_parts(model, 4, "all"), *random_pairs(INPUTS, TARGETS))
    assert count == sum(TARGETS)
    assert loss.isfinite()


def test_the_two_sides_may_differ_in_width():
    """As in T5Gemma 9B-2B: the cross part has the decoder's heads."""
    model_type, fields = ENCODER_DECODERS["t5gemma"]
    wide = {**fields["encoder"], "hidden_size": 48, "num_key_value_heads": 4}
    sides = {"encoder": wide, "decoder": dict(fields["decoder"])}
    config = AutoConfig.for_model(model_type, **fields | sides)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    found = {name: shapes[0].key for name, shapes in submodule_shapes(model, "all").items()}
    assert found == {"decoder": (2, 12), "encoder": (4, 12), "cross": (2, 12)}
    loss, _ = completion_loss(model, random_parts(model, 4, "all"), *random_pairs(INPUTS, TARGETS))
    assert loss.isfinite()


@pytest.mark.parametrize("family", PAIRS)
def test_without_a_prefix_it_is_the_plain_model(family):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    loss, count = completion_loss(model, None, *pairs)
    start = torch.full((3, 1), model.config.decoder_start_token_id)
    read = torch.cat([start, pairs.labels[:, :-1]], dim=1).clamp(min=3)
    read[:, :1] = start
    logits = model(input_ids=pairs.input_ids, attention_mask=pairs.attention_mask, decoder_input_ids=read).logits
    expected = functional.cross_entropy(logits.flatten(0, 1), pairs.labels.flatten(), reduction="sum")
    assert count == sum(TARGETS), "every token of a target counts, the first too"
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", PAIRS)
def test_a_texts_prefix_is_that_text_in_the_decoders_context(family):
    """Also where it is longer than the window of a sliding layer."""
    model = model_of(family)
    for length in (5, WINDOW + 4):
        text, target = random_ids(1, length), random_ids(1, 7, seed=1)
        start = torch.tensor([[start_token(model)]])
        whole = torch.cat([start, text[:, :-1], start, target], dim=1)
        expected = model(input_ids=text, decoder_input_ids=whole).logits[:, length:]
        seen, read = torch.ones_like(text), torch.cat([start, target], dim=1)
        logits = forward_with_prefix(model, prefix_of(model, text), text, seen, decoder_input_ids=read)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "submodules"), FORMS)
def test_rows_of_a_padded_batch_are_what_they_are_alone(family, submodules):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    prefix = random_parts(model, 5, submodules)
    read = decoder_inputs(model, pairs.labels)
    logits = forward_with_prefix(model, prefix, *pairs[:2], decoder_input_ids=read)
    for row, (length, target) in enumerate(zip(INPUTS, TARGETS, strict=True)):
        here = slice(row, row + 1)
        alone = forward_with_prefix(
            model,
            prefix,
            pairs.input_ids[here, :length],
            pairs.attention_mask[here, :length],
            decoder_input_ids=read[here, :target],
        )
        torch.testing.assert_close(logits[here, :target], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["t5", "bart", "t5gemma"])
def test_kept_positions_are_those_of_the_decoder(family):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    prefix, keep = random_parts(model, 5, "all"), pairs.labels != -100
    read = decoder_inputs(model, pairs.labels)
    whole = forward_with_prefix(model, prefix, *pairs[:2], decoder_input_ids=read)
    kept = forward_with_prefix(model, prefix, *pairs[:2], decoder_input_ids=read, keep=keep)
    torch.testing.assert_close(kept, whole[keep])


# The paper's form, against attention that is written out


def reference_encoder(model, prefix: Prefix, input_ids, attention_mask) -> torch.Tensor:
    """The encoder's states with every attention written out: one softmax over the virtual tokens and the text."""
    pairs = encoder_attentions(model)
    own = {
        attention: partial(written_out, attention, pairs[0][1], key, value, attention_mask.bool(), model)
        for (_, attention), (_, key, value) in zip(pairs, prefix, strict=True)
    }
    with shadowed(own):
        return model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def written_out(attention, first, key, value, seen, model, hidden_states, **_):
    batch, text = seen.shape
    length, width = key.shape[1:]
    letters = ("q", "k", "v", "o") if hasattr(attention, "q") else ("q_proj", "k_proj", "v_proj", "o_proj")
    q, k, v, out = (getattr(attention, name, None) or attention.out_proj for name in letters)  # BART's is `out_proj`
    q, k, v = (of(hidden_states).view(batch, text, -1, width).transpose(1, 2) for of in (q, k, v))
    visible = torch.cat([torch.ones(batch, length, dtype=torch.bool), seen], dim=1)[:, None, None]
    bias, cap = 0.0, None
    if hasattr(attention, "relative_attention_bias") or hasattr(first, "relative_attention_bias"):
        of = attention if hasattr(attention, "relative_attention_bias") else first  # T5's layers share the first's
        bias = of.compute_bias(length + text, length + text)[:, :, length:]
    if model.config.model_type == "t5gemma":
        places = torch.arange(length, length + text)[None]
        q, k = apply_rotary_pos_emb(q, k, *model.get_encoder().rotary_emb(hidden_states, places))
        cap = attention.attn_logit_softcapping
        if attention.sliding_window is not None:
            near = (places[0][:, None] - places[0]).abs() <= attention.sliding_window
            visible = visible & torch.cat([torch.ones(text, length, dtype=torch.bool), near], dim=1)
    k, v = (torch.cat([past.expand(batch, -1, -1, -1), new], dim=2) for past, new in ((key, k), (value, v)))
    k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for states in (k, v))
    scores = q @ k.transpose(2, 3) * attention.scaling
    scores = scores + bias if cap is None else cap * torch.tanh(scores / cap)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
    out = out((weights @ v).transpose(1, 2).flatten(2))
    return (out, None, None) if model.config.model_type == "t5" else (out, None)


@pytest.mark.parametrize("family", WHOLE)
def test_all_three_parts_are_what_written_out_attention_gives(family):
    """The encoder's attention by hand; the cross part as states that stand before the encoder's; the decoder's own
    part in the family's own cache."""
    model, length = model_of(family), 5
    pairs = random_pairs([WINDOW + 6, 6, 7], TARGETS)
    states = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(2))  # stand for a text
    whole = EncoderDecoderCache(DynamicCache(), DynamicCache())
    start = torch.tensor([[start_token(model)]])
    model(encoder_outputs=BaseModelOutput(states), decoder_input_ids=start, past_key_values=whole, use_cache=True)
    layers = whole.cross_attention_cache.layers
    cross = Prefix([layer.keys[0] for layer in layers], [layer.values[0] for layer in layers])
    prefix = replace(random_parts(model, length, "all"), cross=cross)
    read = decoder_inputs(model, pairs.labels)
    logits = forward_with_prefix(model, prefix, *pairs[:2], decoder_input_ids=read)

    encoded = reference_encoder(model, prefix.encoder, *pairs[:2])
    seen = torch.cat([torch.ones(3, length, dtype=torch.long), pairs.attention_mask], dim=1)
    past = EncoderDecoderCache(DynamicCache(config=model.get_decoder().config), DynamicCache())
    for index, key, value in prefix:
        past.self_attention_cache.update(key.expand(3, -1, -1, -1), value.expand(3, -1, -1, -1), index)
    expected = model(
        encoder_outputs=BaseModelOutput(torch.cat([states.expand(3, -1, -1), encoded], dim=1)),
        attention_mask=seen,
        decoder_input_ids=read,
        decoder_attention_mask=torch.ones(3, length + read.shape[1], dtype=torch.long),
        past_key_values=past,
        use_cache=True,
    ).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("submodules", ["decoder", "all"])
def test_eager_attention_sees_the_same_prefix(submodules):
    model, pairs = model_of("bart"), random_pairs(INPUTS, TARGETS)
    prefix = random_parts(model, 5, submodules)
    loss, _ = completion_loss(model, prefix, *pairs)
    model.set_attn_implementation("eager")
    torch.testing.assert_close(completion_loss(model, prefix, *pairs)[0], loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", ["t5", "bart", "t5gemma"])
def test_in_half_precision_every_part_has_the_models_dtype(family):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    prefix = random_parts(model, 5, "all")
    exact, _ = completion_loss(model, prefix, *pairs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(completion_loss(model, prefix, *pairs)[0], exact, rtol=0.02, atol=0)
    half, _ = completion_loss(model.to(torch.bfloat16), prefix, *pairs)
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0)


# Gradients


@pytest.mark.parametrize(("family", "submodules"), FORMS)
def test_checkpointing_changes_neither_loss_nor_gradients_and_every_tensor_has_one(family, submodules):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    prefix, tensors = with_gradients(random_parts(model, 4, submodules))
    loss, _ = completion_loss(model, prefix, *pairs)
    gradients = torch.autograd.grad(loss, list(tensors.values()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)

    calls = []
    hooks = [layer.register_forward_pre_hook(lambda *_: calls.append(1)) for layer in feed_forward_of(model)]
    with gradient_checkpointing(model):
        kept_loss, _ = completion_loss(model, prefix, *pairs)
    first = len(calls)
    kept = torch.autograd.grad(kept_loss, list(tensors.values()))
    torch.testing.assert_close(kept_loss, loss, rtol=1e-5, atol=0)
    assert max(relative_difference(one, other) for one, other in zip(kept, gradients, strict=True)) <= 1e-5
    again = [side for side, runs in (("decoder", True), ("encoder", submodules == "all")) if runs]
    assert len(calls) - first == sum(len(feed_forward_of(side)) for side in map(partial(side_of, model), again))
    for hook in hooks:
        hook.remove()


def side_of(model, name: str):
    return model.get_encoder() if name == "encoder" else model.get_decoder()


def feed_forward_of(model) -> list:
    """One module inside each layer that runs once with it."""
    return [module for name, module in model.named_modules() if name.endswith(("fc1", ".wi", "wi_0", "gate_proj"))]


@pytest.mark.parametrize(
    ("family", "submodules"),
    [("t5", "all"), ("bart", "all"), ("m2m_100", "decoder"), ("led", "decoder"), ("t5gemma", "all")],
)
def test_the_base_model_is_left_as_it_was(family, submodules):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(input_ids=pairs.input_ids, decoder_input_ids=pairs.input_ids)
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    prefix, _ = with_gradients(random_parts(model, 4, submodules))
    with gradient_checkpointing(model):
        loss, _ = completion_loss(model, prefix, *pairs)
    loss.backward()
    list(generate(model, [Row([5, 6], prefix.detach(), Sampling(max_new_tokens=3)), Row([7])], eos_ids={2}))
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_error_in_the_encoder_leaves_nothing_behind(family):
    model = model_of(family)
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    ids = torch.tensor([[9999]])
    with pytest.raises(IndexError):
        forward_with_prefix(
            model, random_parts(model, 4, "all"), ids, torch.ones_like(ids), decoder_input_ids=torch.tensor([[2]])
        )
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes


def test_weights_and_smoothing_belong_to_the_targets():
    model, pairs = model_of("t5"), random_pairs(INPUTS, TARGETS)
    prefix = random_parts(model, 4, "all")
    weights = torch.rand(pairs.labels.shape, generator=torch.Generator().manual_seed(3))
    loss, _ = completion_loss(model, prefix, *pairs, weights=weights, label_smoothing=0.2)
    logits = forward_with_prefix(model, prefix, *pairs[:2], decoder_input_ids=decoder_inputs(model, pairs.labels))
    each = functional.cross_entropy(logits.flatten(0, 1), pairs.labels.flatten(), reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(loss, (each * weights.flatten()).sum(), rtol=1e-5, atol=0)


# Stock PEFT


def stock(family: str, length: int, layers: int, shape: tuple[int, int]) -> PeftModel:
    """A model of this family under stock PEFT, ready to train; its sizes are said, because not all are guessed."""
    heads, width = shape
    sizes = {"num_layers": layers, "token_dim": heads * width, "num_attention_heads": heads}
    config = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=length, **sizes)
    torch.manual_seed(1)
    return get_peft_model(model_of(family), config).eval()


@pytest.mark.parametrize("family", PAIRS)
def test_our_file_in_stock_peft_gives_our_logits_our_gradients_and_our_text(family, tmp_path):
    model, pairs = model_of(family), random_pairs([7, 7], [6, 6])
    prefix = random_parts(model, 5, "decoder")
    save_adapter(tmp_path, prefix, model, base_model="tiny")
    assert torch.equal(load_prefix(tmp_path, model).flatten(), prefix.flatten())

    theirs = PeftModel.from_pretrained(model_of(family), tmp_path).eval()
    table = theirs.prompt_encoder["default"].embedding.weight.requires_grad_()
    read = decoder_inputs(model, pairs.labels)
    expected = theirs(
        input_ids=pairs.input_ids,
        attention_mask=pairs.attention_mask,
        decoder_input_ids=read,
        decoder_attention_mask=torch.ones_like(read),
    ).logits
    logits = forward_with_prefix(model, prefix, *pairs[:2], decoder_input_ids=read)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)

    flat = prefix.flatten().requires_grad_()
    loss, _ = completion_loss(model, Prefix.unflatten(flat, prefix_shape(model)), *pairs)
    (gradient,) = torch.autograd.grad(loss, flat)
    functional.cross_entropy(expected.flatten(0, 1), pairs.labels.flatten(), reduction="sum").backward()
    # Of the doubled table only every other layer is in use.
    used = table.grad.unflatten(1, (2, 2, -1))[:, :, 0].flatten(1)
    assert relative_difference(gradient, used) <= 1e-5

    ids = pairs.input_ids[:1]
    written = theirs.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        repetition_penalty=1.5,
    )
    row = Row(ids[0].tolist(), prefix, Sampling(max_new_tokens=12, repetition_penalty=1.5))
    assert [step[0][1] for step in generate(model, [row], eos_ids=())] == written[0, 1:].tolist()


@pytest.mark.parametrize("family", PAIRS)
def test_what_stock_peft_trained_is_read_as_stock_peft_uses_it(family, tmp_path):
    """It gives layer i the entry 2i, round and round, of a table of as many layers as the decoder has."""
    model, pairs = model_of(family), random_pairs([7, 7], [6, 6])
    theirs = stock(family, 4, layers=2, shape=prefix_shape(model)[0].key)
    theirs.save_pretrained(tmp_path)
    read = decoder_inputs(model, pairs.labels)
    expected = theirs(
        input_ids=pairs.input_ids,
        attention_mask=pairs.attention_mask,
        decoder_input_ids=read,
        decoder_attention_mask=torch.ones_like(read),
    ).logits
    logits = forward_with_prefix(model, load_prefix(tmp_path, model), *pairs[:2], decoder_input_ids=read)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


# How it starts, and files


class Letters:
    """A tokenizer of letters, which ends every text as T5's does."""

    bos_token_id, eos_token_id, chat_template = None, 2, None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [*(3 + ord(letter) % 90 for letter in text), 2]}


@pytest.mark.parametrize("family", WHOLE)
def test_a_texts_parts_are_the_keys_and_values_that_the_model_computes_for_it(family):
    model = model_of(family)
    ids = torch.tensor([Letters()("a short text")["input_ids"][:-1]])
    values = []
    for _, attention in encoder_attentions(model):
        of = attention.v if hasattr(attention, "v") else attention.v_proj
        of.register_forward_hook(lambda _module, _args, output: values.append(output[0]))
    start = torch.tensor([[start_token(model)]])
    read = torch.cat([start, ids[:, :-1]], dim=1)
    cache = model(input_ids=ids, decoder_input_ids=read, use_cache=True).past_key_values
    plain = list(values)
    made = text_prefix(model, Letters(), "a short text", submodules="all")
    for part, filled in ((made, cache.self_attention_cache), (made.cross, cache.cross_attention_cache)):
        for index, key, value in part:
            torch.testing.assert_close(key, filled.layers[index].keys[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(value, filled.layers[index].values[0], rtol=1e-4, atol=1e-5)
    for value, expected in zip(made.encoder.values, plain, strict=True):
        torch.testing.assert_close(value.transpose(0, 1).flatten(1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init", ["text", "random", "zero"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("family", ["t5_odd", "byt5", "bart", "t5gemma"])
def test_all_parts_are_built_learned_saved_and_loaded(family, projected, init, tmp_path):
    model, pairs = model_of(family), random_pairs(INPUTS, TARGETS)
    part = PrefixPart(
        init=init,
        init_text="Summarise the text",
        num_virtual_tokens=6,
        num_frozen_tokens=1,
        prefix_projection=projected,
        submodules="all",
    )
    module = PrefixModule.build(model, Letters(), part, seed=0)
    start = {name: tensor.detach().clone() for name, tensor in tensors_of(module()).items()}
    if init == "text":
        expected = tensors_of(text_prefix(model, Letters(), part.init_text, 6, submodules="all"))
        assert max(relative_difference(start[name], expected[name]) for name in expected) <= 1e-4
    loss, _ = completion_loss(model, module(), *pairs)
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    learned = module().detach()
    save_adapter(tmp_path, learned, model, base_model="tiny")
    loaded = tensors_of(load_prefix(tmp_path, model))
    assert loaded.keys() == start.keys()
    for name, tensor in tensors_of(learned).items():
        assert torch.equal(loaded[name], tensor)
        assert torch.equal(tensor[:, :1], start[name][:, :1]), "the first virtual token is frozen"
        assert not torch.equal(tensor[:, 1:], start[name][:, 1:])


def test_stock_peft_says_that_it_cannot_load_all_three_parts(tmp_path):
    model = model_of("bart")
    save_adapter(tmp_path, random_parts(model, 4, "all"), model, base_model="tiny")
    with pytest.raises(KeyError, match="PREFIX_STUDIO"):
        PeftModel.from_pretrained(model_of("bart"), tmp_path)


def test_a_decoder_only_model_has_no_more_than_its_own_attention():
    assert list(submodule_shapes(model_of("llama"), "all")) == ["decoder"]


# What is refused


def test_leds_encoder_is_refused_by_name():
    with pytest.raises(StudioError, match="The encoder of led models cannot take a prefix") as caught:
        submodule_shapes(model_of("led"), "all")
    assert (caught.value.category, caught.value.hint) == ("model", "Set submodules to decoder.")


@pytest.mark.parametrize("kind", ["whisper", "speech_to_text", "pix2struct", "vision-encoder-decoder", "prophetnet"])
def test_what_does_not_read_and_write_text_is_refused_by_name(kind):
    sides = {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "gpt2"}}
    config = AutoConfig.for_model(kind, **(sides if kind == "vision-encoder-decoder" else {}))
    with pytest.raises(StudioError, match=f"{kind} models "):
        refuse_unsupported(config)


def test_a_model_that_does_not_say_what_its_decoder_begins_with_is_refused():
    model = model_of("bart")
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = config.bos_token_id = None
    with pytest.raises(StudioError, match="which token its decoder begins with"):
        start_token(model)


@pytest.mark.parametrize("family", ["bart", "led", "marian"])
def test_both_sides_have_their_own_positions(family):
    model = model_of(family)  # 96 on each side
    prefix, start = random_parts(model, 6, "decoder"), torch.full((1, 90), start_token(model))
    long, longer = random_ids(1, 96), random_ids(1, 97)
    assert forward_with_prefix(model, prefix, long, torch.ones_like(long), decoder_input_ids=start).shape[1] == 90
    with pytest.raises(StudioError, match="A text of 97 tokens passes the 96 positions of the model's encoder"):
        forward_with_prefix(model, prefix, longer, torch.ones_like(longer), decoder_input_ids=start)
    with pytest.raises(StudioError, match="91 tokens behind 6 virtual tokens passes the model's 96 positions"):
        forward_with_prefix(
            model, prefix, long, torch.ones_like(long), decoder_input_ids=torch.cat([start, start[:, :1]], dim=1)
        )
    (warning,) = warnings_for(model, 6, 91)
    assert "keep targets within 90 tokens" in warning
    assert len(warnings_for(model, 6, 97)) == 2


def test_t5_reads_and_writes_texts_of_any_length():
    model = model_of("t5")
    ids = random_ids(1, 300)
    read = decoder_inputs(model, ids)
    assert (
        forward_with_prefix(model, random_parts(model, 6, "all"), ids, torch.ones_like(ids), decoder_input_ids=read)
        .isfinite()
        .all()
    )
    assert warnings_for(model, 6, 1000) == []
