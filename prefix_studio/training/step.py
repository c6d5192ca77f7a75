"""One optimizer step on the prefix of a frozen model, and the mean loss over rows.

A step's gradient does not depend on how its rows are cut into batches, nor on how many processes share them. Knows
the prefix, the model and torch's AdamW; knows nothing of epochs, files or reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_studio.data.spans import IGNORED
from prefix_studio.data.token_rows import TokenRow
from prefix_studio.errors import StudioError
from prefix_studio.models.load import is_offloaded
from prefix_studio.prefix.checkpointing import gradient_checkpointing
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.loss import completion_loss
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.recipe import TrainingPart
from prefix_studio.training.batch_size import BatchSize, attempt, too_large
from prefix_studio.training.batches import Batch, collate, longest_first
from prefix_studio.training.parallel import Ranks

NAMED_ROWS = 16


class Learner:
    """A prefix, its optimizer, and the model it is learned for. Only the prefix changes; it stays in float32.

    ranks: the processes that share every step; each calls `step` at the same time, with batches of its own.
    """

    def __init__(
        self, model: PreTrainedModel, module: PrefixModule, training: TrainingPart, ranks: Ranks | None = None
    ):
        self.model = model
        self.module = module
        self.training = training
        self.ranks = ranks or Ranks()
        self.parameters = list(module.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, weight_decay=training.weight_decay)
        # On the way back through a float16 model small gradients would vanish, so they are made larger meanwhile.
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=model.dtype == torch.float16)

    def step(
        self, batches: Sequence[Batch], learning_rate: float, step: int, rows: Sequence[Sequence[int]] = ()
    ) -> float:
        """Learns from the batches as if they were one. Returns their mean loss, by the recipe's `loss_average`.

        step: this step's number; rows: the row numbers of each batch; both for messages. Raises StudioError: memory
        when there is too little, here or in another process, numbers when the loss or the gradient is not finite.
        The prefix is then as it was before.
        """
        total = max(1, *self.ranks.sum(sum(map(self.share_of, batches))))
        self.optimizer.zero_grad()
        fitted, losses = attempt(lambda: self.backward(batches, total))
        if any(self.ranks.sum(not fitted)):
            self.optimizer.zero_grad()
            size = max((len(batch.input_ids) for batch in batches), default=1)
            raise too_large(self.training, "per_device_train_batch_size", size)
        mean = self.reduce(losses) / total
        norm = self.clip()
        if not math.isfinite(mean):
            rows = [some for loss, some in zip(losses, rows, strict=False) if not torch.isfinite(loss)] or rows
        check_finite("loss", mean, step, self.training, rows)
        if not self.scaler.is_enabled() or self.scaler.get_scale() < 1:
            check_finite("gradient", norm, step, self.training, rows)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # A gradient that the scaler made too large is passed over, and the next one is made less large.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return mean

    def share_of(self, batch: Batch) -> int:
        """What a batch counts for in the mean: its learned tokens, or its rows that have any."""
        if self.training.loss_average == "token":
            return batch.learned
        return int((self.learned_tokens(batch) > 0).sum())

    def weights(self, batch: Batch) -> Tensor | None:
        """What each token counts for, [B, T]; None means 1."""
        if self.training.loss_average == "token":
            return None
        return (1 / self.learned_tokens(batch).clamp(min=1))[:, None].expand_as(batch.labels)

    def learned_tokens(self, batch: Batch) -> Tensor:
        """How many tokens of each row are learned, [B]. A decoder-only row's first one is never predicted."""
        labels = batch.labels if self.model.config.is_encoder_decoder else batch.labels[:, 1:]
        return (labels != IGNORED).sum(dim=1)

    def backward(self, batches: Sequence[Batch], total: float) -> list[Tensor]:
        """Adds up the gradient of the mean over `total`. Returns every batch's sum of losses."""
        training = self.training
        losses = []
        # Weights that come and go with each layer must not be held until the backward pass.
        again = training.gradient_checkpointing or is_offloaded(self.model)
        with gradient_checkpointing(self.model) if again else nullcontext():
            for batch in batches:
                loss, _ = completion_loss(
                    self.model,
                    self.module(),
                    batch.input_ids,
                    batch.attention_mask,
                    batch.labels,
                    weights=self.weights(batch),
                    label_smoothing=training.label_smoothing_factor,
                )
                self.scaler.scale(loss / total).backward()
                losses.append(loss.detach())
        return losses

    def reduce(self, losses: Sequence[Tensor]) -> float:
        """Makes the gradients those of all ranks together. Returns the sum of the losses of all."""
        for parameter in self.parameters:
            if parameter.grad is None:  # this rank had no rows
                parameter.grad = torch.zeros_like(parameter)
        loss = sum(losses, torch.zeros((), device=self.model.device))
        self.ranks.all_reduce_sum([loss, *(parameter.grad for parameter in self.parameters)])
        return float(loss)

    def clip(self) -> float:
        """Scales the gradient down to max_grad_norm, where that is not 0. Returns the norm it had."""
        self.scaler.unscale_(self.optimizer)
        limit = self.training.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))

    def tensors(self) -> dict[str, Tensor]:
        """Everything that decides the next step: the prefix with its projection, AdamW's moments, random states.

        The tensors are the living ones: write or clone them before the next step.
        """
        tensors = {f"prefix.{name}": tensor for name, tensor in self.module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        tensors |= {f"scaler.{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.model.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.model.device)
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`. On another kind of device the random states of the first are left out."""
        self.module.load_state_dict(named(tensors, "prefix."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in named(tensors, "optimizer.").items():
            index, _, moment = name.partition(".")
            state.setdefault(int(index), {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if scaler := {name: tensor.item() for name, tensor in named(tensors, "scaler.").items()}:
            self.scaler.load_state_dict(scaler)
        torch.set_rng_state(tensors["random.cpu"])
        if self.model.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.model.device)


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start so, without that start."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def batch_losses(
    model: PreTrainedModel, prefix: Prefix | None, rows: Sequence[TokenRow], pad_id: int, size: BatchSize
) -> Iterator[tuple[float, int]]:
    """The summed loss and the learned tokens of one batch after another; prefix None is the untuned model."""

    @torch.no_grad()
    def losses(some: Sequence[TokenRow]) -> tuple[float, int]:
        batch = collate(some, pad_id, model.device, encoder_decoder=model.config.is_encoder_decoder)
        loss, learned = completion_loss(model, prefix, batch.input_ids, batch.attention_mask, batch.labels)
        return float(loss), learned

    return size.each(longest_first(rows), losses)


def mean_loss(losses: Iterable[tuple[float, int]], ranks: Ranks | None = None) -> float:
    """The mean over all learned tokens, of all ranks, in nats."""
    sums = list(losses)
    loss, learned = math.fsum(loss for loss, _ in sums), sum(learned for _, learned in sums)
    loss, learned = (ranks or Ranks()).sum(loss, learned)
    return loss / max(1, learned)


def check_finite(
    what: str, number: float, step: int, training: TrainingPart, rows: Sequence[Sequence[int]] = ()
) -> None:
    """Raises StudioError (numbers) for an infinity or NaN at `step`, with the batches' rows and the way out."""
    if math.isfinite(number):
        return
    rate = training.learning_rate
    # Before anything was learned, the learning rate cannot be the reason.
    hint = (
        f"Lower the learning rate (now {rate:g}), for example to {rate / 10:g}."
        if step > 1
        else "Set model.dtype to float32: the model's own numbers may be too large for a smaller type."
    )
    raise StudioError(f"The {what} is not a finite number at step {step}{row_text(rows)}.", hint, "numbers")


def row_text(batches: Sequence[Sequence[int]]) -> str:
    """The rows as the end of a sentence."""
    numbers = sorted(number for batch in batches for number in batch)
    told = ", ".join(map(str, numbers[:NAMED_ROWS]))
    more = len(numbers) - NAMED_ROWS
    if not numbers:
        return ""
    return f", on row {told}" if len(numbers) == 1 else f", on rows {told}{f' and {more} more' if more > 0 else ''}"
