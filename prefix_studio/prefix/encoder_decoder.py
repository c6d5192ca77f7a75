"""What only encoder-decoder models need: a prefix inside the encoder, and what the decoder begins with.

An encoder has no cache to fill. Its attention modules, which are mostly the decoder's own code, still take one: they
are handed a stand-in that puts the prefix in front of the text's keys and values, and a mask widened by as much. So
every position of the text sees all virtual tokens, also where a layer sees no more than a window of the text.
The virtual tokens stand before the text: T5's relative distances count them so, and rotary positions of the text go
on after them. Learned and sinusoidal positions of the text (BART) start at 0 as ever.

The stand-ins are there only while a layer runs, and again when a checkpoint runs it a second time. Not for two
threads on one model. Knows models; knows no files and nothing of how a prefix is learned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput

from prefix_studio.errors import StudioError
from prefix_studio.prefix.checkpointing import Forward, around
from prefix_studio.prefix.prefix import LayerShape

MASKS = ("attention_mask", "mask")  # what attention modules call their mask


class InFront:
    """A stand-in for the cache of one attention module: its own past, then what is new, of which it keeps nothing."""

    def __init__(self, key: Tensor, value: Tensor):
        self.past = (key, value)  # each [B, heads, m, width]
        self.asked = False

    def get_seq_length(self, *_: object) -> int:
        return self.past[0].shape[-2]

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.asked = True
        # Where the model's layers are spread over devices, the prefix goes where this layer is.
        pairs = zip(self.past, (key_states, value_states), strict=True)
        return tuple(torch.cat([past.to(new.device, new.dtype), new], dim=-2) for past, new in pairs)


class Recorder:
    """A stand-in without a past, which remembers what is new."""

    def __init__(self) -> None:
        self.states: tuple[Tensor, Tensor] | None = None  # each [B, heads, T, width]

    @property
    def asked(self) -> bool:
        return self.states is not None

    def get_seq_length(self, *_: object) -> int:
        return 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.states = (key_states, value_states)
        return self.states


def encode(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    past: Sequence[InFront | Recorder] | None = None,
) -> ModelOutput:
    """The encoder's output for texts [B, T], padded on the right; `past` is one stand-in a layer. Differentiable.

    Raises StudioError (category model) where a layer leaves its stand-in aside.
    """
    encoder = model.get_encoder()
    arguments = {"input_ids": input_ids, "attention_mask": attention_mask}
    if past is None:
        return encoder(**arguments)
    if "position_ids" in parameters(encoder):
        positions = torch.arange(input_ids.shape[1], device=input_ids.device) + past[0].get_seq_length()
        arguments["position_ids"] = positions.expand(len(input_ids), -1)
    pairs = encoder_attentions(model)
    with around({layer: with_past(attention, own) for (layer, attention), own in zip(pairs, past, strict=True)}):
        outputs = encoder(**arguments)
    for index, own in enumerate(past):
        if not own.asked:  # sparse attention, for instance, is code of its own
            refuse_encoder(model, f"layer {index} does not ask a cache for keys and values")
    return outputs


def encoder_attentions(model: PreTrainedModel) -> list[tuple[nn.Module, nn.Module]]:
    """The encoder's layers, each with its attention module. Raises StudioError (category model) where one has none."""
    pairs = []
    for layer in model.get_encoder().modules():
        if not isinstance(layer, GradientCheckpointingLayer):
            continue
        takers = [module for module in layer.modules() if "past_key_values" in parameters(module)]
        if not takers:
            refuse_encoder(model, "its attention has no place for keys and values from outside the text")
        pairs.append((layer, takers[-1]))  # the innermost: what is around it only hands the cache on
    return pairs or refuse_encoder(model, "its layers are not known")


def with_past(attention: nn.Module, past: InFront | Recorder) -> Callable[[Forward], Forward]:
    """What makes of a layer's forward one in which this module, somewhere in the layer, has a past."""

    def change(forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            hook = attention.register_forward_pre_hook(partial(put_in_front, past), with_kwargs=True)
            try:
                return forward(*args, **kwargs)
            finally:
                hook.remove()

        return run

    return change


def put_in_front(past: InFront | Recorder, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of an attention module, with its past among them and a mask that counts it."""
    call = signature(type(module)).bind(module, *args, **kwargs)
    call.arguments["past_key_values"] = past
    for name in MASKS:
        if call.arguments.get(name) is not None:
            call.arguments[name] = widened(call.arguments[name], past.get_seq_length())
    return call.args[1:], call.kwargs


def widened(mask: Tensor, length: int) -> Tensor:
    """A mask [..., T, S] or [B, S] with `length` columns in front that all may see."""
    adds = mask.dim() > 2 and mask.is_floating_point()  # what is added to scores, rather than 1 for what is seen
    return functional.pad(mask, (length, 0), value=0 if adds else 1)


def encoder_shapes(model: PreTrainedModel) -> tuple[LayerShape, ...]:
    """The shapes of the encoder's own keys and values, from one token that went through it.

    Works on the meta device. Raises StudioError (category model) where no prefix fits in the encoder.
    """
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    recorders = [Recorder() for _ in encoder_attentions(model)]
    try:
        with torch.no_grad():
            encode(model, token, one_token_mask(model), recorders)
    except StudioError:
        raise
    except Exception as error:  # whatever an unknown family's own code may raise: the answer is the same
        refuse_encoder(model, f"one token through it failed ({error})")
    shapes = []
    for index, recorder in enumerate(recorders):
        key, value = (states.shape[1::2] for states in recorder.states)  # [1, heads, 1, width]
        shapes.append(LayerShape(index, tuple(key), tuple(value)))
    return tuple(shapes)


def one_token_mask(model: PreTrainedModel) -> Tensor:
    """A mask [1, 1, 1, 1] for one token that sees itself, already in its final form.

    Given a plain one, models look whether it holds padding, which the meta device cannot tell.
    """
    return torch.zeros(1, 1, 1, 1, device=model.device, dtype=model.dtype)


def refuse_encoder(model: PreTrainedModel, reason: str) -> Any:
    raise StudioError(
        f"The encoder of {model.config.model_type} models cannot take a prefix: {reason}.",
        "Set submodules to decoder.",
        "model",
    )


def parameters(module: nn.Module) -> Collection[str]:
    """What a module's forward takes."""
    return signature(type(module)).parameters


@cache
def signature(kind: type[nn.Module]) -> inspect.Signature:
    """A forward's, as its class wrote it: an instance's own may be shadowed."""
    return inspect.signature(kind.forward)


def start_token(model: PreTrainedModel) -> int:
    """The token that the decoder begins with. Raises StudioError (category model) where the model names none."""
    generation = getattr(model, "generation_config", None)
    text = model.config.get_text_config(decoder=True)
    for owner, name in (
        (generation, "decoder_start_token_id"),
        (model.config, "decoder_start_token_id"),
        (generation, "bos_token_id"),
        (text, "bos_token_id"),
    ):
        token = getattr(owner, name, None)
        if token is not None:
            return token if isinstance(token, int) else token[0]
    raise StudioError(
        f"This {model.config.model_type} model does not say which token its decoder begins with.",
        "Add decoder_start_token_id to its generation_config.json.",
        "model",
    )


def decoder_inputs(model: PreTrainedModel, labels: Tensor) -> Tensor:
    """What the decoder reads while it writes labels [B, T]: the start token, then all of them but the last."""
    start = torch.full_like(labels[:, :1], start_token(model))
    read = torch.cat([start, labels[:, :-1]], dim=1)
    return torch.where(read < 0, start, read)  # what is not learned stands behind what is, where none looks
