"""The loss of a batch: the cross-entropy of its labelled tokens, in memory that no vocabulary makes large.

Only hidden states that a labelled token is predicted from go through the model's output layer, some rows at a time.
A chunk's gradient is taken at once, so its logits are used while they are near and gone before the next chunk's; no
[N, vocabulary] ever stands whole. The model's own forward makes them, so its scaling and capping of logits stay.
Knows the model, its prefix and labels; knows no optimizer and no data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from prefix_studio.prefix.checkpointing import shadowed
from prefix_studio.prefix.encoder_decoder import decoder_inputs
from prefix_studio.prefix.inject import forward_with_prefix
from prefix_studio.prefix.prefix import Prefix

IGNORED = -100
# A chunk has so many logits, but not fewer rows than a matrix product needs to be worth its while. On a CPU so few
# that they fit the caches and the memory of the last chunk serves the next (24 MB in float32); a GPU wants larger ones.
CPU_LOGITS, CPU_ROWS = 6 * 2**20, 64
GPU_LOGITS, GPU_ROWS = 2**25, 512

Head = Callable[[Tensor], Tensor]


def completion_loss(
    model: PreTrainedModel,
    prefix: Prefix | None,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, int]:
    """The weighted sum of the labelled tokens' losses, a scalar in nats, and how many such tokens there are.

    input_ids, attention_mask: [B, T], padded on the right; of encoder-decoder models, what the encoder reads.
    labels: [B, T], the token itself where it is learned and -100 elsewhere; encoder-decoder models' own [B, S].
    weights: what each label counts for, in the labels' shape; None means 1.
    label_smoothing: the share of every target that is spread over the whole vocabulary, as in torch's cross_entropy.
    Differentiable once, down to the prefix; the model's own weights get no gradients. Not for two threads on one model.
    Without any label the loss is 0 and the count 0.
    """
    decoder_ids = None
    if model.config.is_encoder_decoder:
        decoder_ids = decoder_inputs(model, labels)
    else:
        labels = following(labels, IGNORED)
        weights = None if weights is None else following(weights, 0)
    keep = labels != IGNORED
    count = int(keep.sum())
    if count == 0:
        return torch.zeros((), device=input_ids.device, requires_grad=torch.is_grad_enabled()), 0
    each = torch.ones(count, device=labels.device) if weights is None else weights[keep].float()
    hidden, head, vocabulary = kept_states(model, prefix, input_ids, attention_mask, decoder_ids, keep)
    rows = chunk_rows(vocabulary, hidden.device.type)
    loss = ChunkedLoss.apply(hidden, head, labels[keep], each, label_smoothing, rows)
    return loss.to(labels.device), count


def following(tensor: Tensor, last: float) -> Tensor:
    """[B, T] moved by one: a decoder's position t speaks about token t + 1, and the last about nothing."""
    return torch.cat([tensor[:, 1:], torch.full_like(tensor[:, :1], last)], dim=1)


def chunk_rows(vocabulary: int, device: str) -> int:
    """How many rows of logits may stand at one time."""
    logits, rows = (CPU_LOGITS, CPU_ROWS) if device == "cpu" else (GPU_LOGITS, GPU_ROWS)
    return max(rows, logits // vocabulary)


class ChunkedLoss(torch.autograd.Function):
    """From hidden states [N, H] to the weighted sum of N losses. The gradient is found on the way there."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Head, targets: Tensor, weights: Tensor, label_smoothing: float, rows: int
    ) -> Tensor:
        learns = ctx.needs_input_grad[0]
        gradients, total = [], torch.zeros((), device=hidden.device)
        # Chunks of one size, so that the memory of one is the memory of the next.
        pieces = -(-len(hidden) // rows)
        for chunk, target, weight in zip(*(x.tensor_split(pieces) for x in (hidden, targets, weights)), strict=True):
            with torch.set_grad_enabled(learns):
                chunk = chunk.detach().requires_grad_(learns)  # [n, H]
                logits = head(chunk)  # [n, vocabulary]
            losses, slope = losses_and_slope(logits.detach(), target.to(logits.device), label_smoothing)
            weight = weight.to(logits.device)
            total += (losses @ weight).to(total.device)
            if learns:
                slope.mul_(weight[:, None])
                gradients += torch.autograd.grad(logits, chunk, slope.to(logits.dtype))
            del logits, slope  # before the next chunk asks for as much
        if learns:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None, None, None, None


def losses_and_slope(logits: Tensor, targets: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Each row's cross-entropy [n], and its derivative by the logits [n, vocabulary], in float32."""
    scores, columns = logits.float(), targets[:, None]
    highest, wanted = scores.amax(dim=1), scores.gather(1, columns)[:, 0]
    slope = torch.softmax(scores, dim=1)
    # -log p = highest score - wanted score - log(highest p): no logarithm of a p that may have vanished.
    losses = highest - wanted - slope.amax(dim=1).log()
    if label_smoothing:
        losses += label_smoothing * (wanted - scores.mean(dim=1))
        slope -= label_smoothing / scores.shape[1]
    slope.scatter_add_(1, columns, torch.full_like(slope[:, :1], label_smoothing - 1))
    return losses, slope


def kept_states(
    model: PreTrainedModel,
    prefix: Prefix | None,
    input_ids: Tensor,
    attention_mask: Tensor,
    decoder_ids: Tensor | None,
    keep: Tensor,
) -> tuple[Tensor, Head, int]:
    """(what the output layer reads at the kept positions [N, H], what makes logits of it, the vocabulary's size).

    The model runs once, its output layer on nothing. Where a model is not another one and an output layer, its logits
    come back instead, and a head that leaves them as they are.
    """
    inside = Inside(model)
    with inside.keeping(keep):
        logits = forward_with_prefix(model, prefix, input_ids, attention_mask, decoder_input_ids=decoder_ids)
    if inside.states is None:
        return logits[keep], lambda states: states, logits.shape[-1]
    # Where the model's layers are spread over devices, its last states are not where its input is.
    return inside.states[keep.to(inside.states.device)], inside.logits, logits.shape[-1]


class Inside:
    """The models inside a model: all of it but the output layer, or an encoder and a decoder.

    After one pass of the model in `keeping`, `states` is what its output layer would have read, and `logits` is what
    the model makes of such states: its own forward runs again, with what the models inside gave already there.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.inner = [module for module in model.modules() if isinstance(module, PreTrainedModel)][1:]
        self.encoder = model.get_encoder() if model.config.is_encoder_decoder else None
        self.call: tuple[Any, Any] = ((), {})
        self.running = 0
        self.outputs: dict[nn.Module, Any] = {}
        self.last: nn.Module | None = None
        self.states: Tensor | None = None  # [B, T, H]

    @contextmanager
    def keeping(self, keep: Tensor) -> Iterator[None]:
        """The model's pass leaves its last hidden states here, and hands none of them to the output layer."""

        def note_call(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.call = args, kwargs

        def run(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self.running += 1
            output = forward(*args, **kwargs)
            self.running -= 1
            if self.running:
                return output  # this one belongs to another, which is still at work
            self.outputs[module] = output
            states = getattr(output, "last_hidden_state", None)
            if module is self.encoder or states is None or states.shape[:2] != keep.shape:
                return output
            self.last, self.states = module, states
            return with_states(output, states[:, :0])

        hook = self.model.register_forward_pre_hook(note_call, with_kwargs=True)
        try:
            with shadowed({module: partial(run, module, module.forward) for module in self.inner}):
                yield
        finally:
            hook.remove()

    def logits(self, states: Tensor) -> Tensor:
        """[n, H] -> [n, vocabulary]."""
        outputs = self.outputs | {self.last: with_states(self.outputs[self.last], states[None])}
        args, kwargs = self.call
        with shadowed({module: partial(given, output) for module, output in outputs.items()}):
            return self.model(*args, **kwargs).logits[0]


def given(output: Any, *_: Any, **__: Any) -> Any:
    return output


def with_states(output: Any, states: Tensor) -> Any:
    """A model's output with other hidden states."""
    return type(output)(**{**output, "last_hidden_state": states})
