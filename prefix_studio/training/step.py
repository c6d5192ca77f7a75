"""One optimizer step on the prefix of a frozen model, and the mean loss over rows.

Losses are means over tokens: a step's gradient does not depend on how its rows are cut into batches. Knows the
prefix, the model and torch's AdamW; knows nothing of epochs, files or reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefix_studio.data.tokens import TokenRow
from prefix_studio.errors import StudioError
from prefix_studio.prefix.checkpointing import gradient_checkpointing
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.inject import completion_loss
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.recipe import TrainingPart
from prefix_studio.training.batches import Batch, collate, longest_first


class Learner:
    """A prefix, its optimizer, and the model it is learned for. Only the prefix changes; it stays in float32."""

    def __init__(self, model: PreTrainedModel, module: PrefixModule, training: TrainingPart):
        self.model = model
        self.module = module
        self.training = training
        self.parameters = list(module.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )

    def step(self, batches: Sequence[Batch], learning_rate: float, step: int) -> float:
        """Learns from the batches as if they were one. Returns the mean loss of their learned tokens, in nats.

        step: this step's number, for messages. Raises StudioError: numbers when the loss or the gradient is not
        finite (the prefix is then as it was before), memory when there is too little.
        """
        learned = max(1, sum(batch.learned for batch in batches))
        checkpointing = gradient_checkpointing(self.model) if self.training.gradient_checkpointing else nullcontext()
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.model.device)
        with memory_errors(self.training), checkpointing:
            for batch in batches:
                loss, _ = completion_loss(
                    self.model,
                    self.module(),
                    batch.input_ids,
                    batch.attention_mask,
                    batch.labels,
                    reduction="sum",
                )
                (loss / learned).backward()
                total += loss.detach()
        norm = self.clip()
        mean = float(total) / learned
        check_finite("loss", mean, step, self.training)
        check_finite("gradient", norm, step, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return mean

    def clip(self) -> float:
        """Scales the gradient down to max_grad_norm, where that is not 0. Returns the norm it had."""
        limit = self.training.max_grad_norm or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))

    def tensors(self) -> dict[str, Tensor]:
        """Everything that decides the next step: the prefix with its projection, AdamW's moments, random states.

        The tensors are the living ones: write or clone them before the next step.
        """
        tensors = {f"prefix.{name}": tensor for name, tensor in self.module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
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
        torch.set_rng_state(tensors["random.cpu"])
        if self.model.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.model.device)


def named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start so, without that start."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def batch_losses(
    model: PreTrainedModel, prefix: Prefix | None, rows: Sequence[TokenRow], pad_id: int, training: TrainingPart
) -> Iterator[tuple[float, int]]:
    """The summed loss and the learned tokens of one batch after another; prefix None is the untuned model."""
    for some in longest_first(rows, training.per_device_eval_batch_size):
        batch = collate(some, pad_id, model.device)
        with memory_errors(training, "per_device_eval_batch_size"):
            loss, learned = completion_loss(
                model, prefix, batch.input_ids, batch.attention_mask, batch.labels, reduction="sum"
            )
        yield float(loss), learned


def mean_loss(losses: Iterable[tuple[float, int]]) -> float:
    """The mean over all learned tokens, in nats."""
    sums = list(losses)
    return math.fsum(loss for loss, _ in sums) / max(1, sum(learned for _, learned in sums))


def check_finite(what: str, number: float, step: int, training: TrainingPart) -> None:
    """Raises StudioError (numbers) for an infinity or NaN at `step`, with the way out."""
    if math.isfinite(number):
        return
    rate = training.learning_rate
    # Before anything was learned, the learning rate cannot be the reason.
    hint = (
        f"Lower the learning rate (now {rate:g}), for example to {rate / 10:g}."
        if step > 1
        else "Set model.dtype to float32: the model's own numbers may be too large for a smaller type."
    )
    raise StudioError(f"The {what} is not a finite number at step {step}.", hint, "numbers")


@contextmanager
def memory_errors(training: TrainingPart, field: str = "per_device_train_batch_size") -> Iterator[None]:
    """Says what to do when the device, or the machine, has too little memory. field: what sets the batch's size."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)):
            raise
        ways = [f"lower {field} (now {getattr(training, field)})", "lower max_length"]
        if not training.gradient_checkpointing and field == "per_device_train_batch_size":
            ways.append("turn on gradient_checkpointing")
        raise StudioError(
            "There is too little memory for a batch of this size.", f"To use less: {', or '.join(ways)}.", "memory"
        ) from error
