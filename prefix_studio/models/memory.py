"""How much memory training takes, from the configuration alone, and how much this machine has.

A training step is rehearsed on a model without storage, and its tensors are counted. What a family keeps for the
backward pass, what gradient checkpointing saves and what a loss in pieces costs need no table that way. Knows models
and prefixes; knows no data and no files but the system's own.
"""

from __future__ import annotations

import bisect
import logging
from contextlib import nullcontext
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel

from prefix_studio.errors import StudioError
from prefix_studio.models.rehearsal import rehearsal
from prefix_studio.prefix.checkpointing import gradient_checkpointing
from prefix_studio.prefix.encoder import PrefixModule, trainable_parameters
from prefix_studio.prefix.loss import chunk_rows, completion_loss
from prefix_studio.prefix.prefix import LayerShape
from prefix_studio.recipe import PrefixPart, TrainingPart

PROCESS_BYTES = 530_000_000  # Python with torch, transformers, peft and the data's readers loaded, before any model
FLOAT32_BYTES = 4
ADAM_COPIES = 4  # the parameter, its gradient, two moments, each float32
LOGIT_COPIES = 3  # logits, their float32 copy, their gradient
REHEARSED_TOKENS = 8192
TRIALS = 3
LARGEST_BATCH = 65536  # a recipe's limit
CONTROL_GROUPS = Path("/sys/fs/cgroup")

log = logging.getLogger(__name__)


class TrainingMemory:
    """What training takes, for any size of batch.

    skeleton: the base model without storage, in the precision it would have. weights: bytes of its weights.
    """

    def __init__(
        self,
        skeleton: PreTrainedModel,
        shapes: dict[str, tuple[LayerShape, ...]],
        prefix: PrefixPart,
        num_virtual_tokens: int,
        training: TrainingPart,
        weights: int,
    ):
        self.skeleton, self.shapes, self.weights = skeleton, shapes, weights
        self.prefix, self.num_virtual_tokens, self.training = prefix, num_virtual_tokens, training
        self.known: dict[tuple[int, ...], int] = {}

    def bytes(self, batch_size: int, max_length: int, target_length: int | None = None) -> int:
        """Bytes that a process takes at its peak, with batches of so many rows of `max_length` tokens, all learned.

        target_length: tokens of an encoder-decoder's targets; None means as many as the inputs have.
        Raises StudioError for what cannot be trained so: more tokens than positions, layers without checkpointing.
        """
        lengths = (max_length,) if target_length is None else (max_length, target_length)
        sizes = rehearsed_sizes(max_length)
        if batch_size <= sizes[-1]:
            return self.whole(batch_size, *lengths)
        return round(line(batch_size, [(rows, self.whole(rows, *lengths)) for rows in sizes]))

    def largest_batch(self, max_length: int, available: int) -> int:
        """How many rows of `max_length` tokens `available` bytes allow in a batch; 0 where not even one fits.

        Reckoned from some sizes; what comes out is tried and reckoned with, where that does not take long.
        """
        points = [(rows, self.whole(rows, max_length)) for rows in rehearsed_sizes(max_length)]
        for _ in range(TRIALS):
            largest = bisect.bisect_right(range(1, LARGEST_BATCH + 1), available, key=lambda rows: line(rows, points))
            if not 0 < largest < points[-1][0] or self.whole(largest, max_length) <= available:
                break
            points = sorted({*points, (largest, self.whole(largest, max_length))})
        return largest

    def whole(self, batch_size: int, *lengths: int) -> int:
        """`bytes`, rehearsed. What is known already is not done again."""
        if (batch_size, *lengths) not in self.known:
            try:
                computed = self.step_bytes(batch_size, *lengths)
            except StudioError:
                raise
            except Exception as error:  # whatever an unknown family's own code may raise without numbers
                log.warning("Memory is estimated from the configuration's widths only: %s", error)
                computed = self.bytes_by_width(batch_size * (self.num_virtual_tokens + lengths[0]))
            self.known[batch_size, *lengths] = PROCESS_BYTES + self.weights + computed
        return self.known[batch_size, *lengths]

    def step_bytes(self, batch_size: int, max_length: int, target_length: int | None = None) -> int:
        """Bytes that a training step takes beside the weights: for what is learned and what is computed."""
        device = device_type()
        with rehearsal(self.skeleton, device) as counted:
            self.step(self.skeleton, batch_size, max_length, target_length)
        return counted.heap.peak if device == "cpu" else counted.peak

    def step(self, model: PreTrainedModel, batch_size: int, max_length: int, target_length: int | None = None) -> None:
        """What a run does to learn from a batch, from its second step on, when AdamW has its moments."""
        module = PrefixModule(self.shapes, self.prefix, self.num_virtual_tokens)
        module.freeze(self.prefix.num_frozen_tokens)
        optimizer = torch.optim.AdamW(module.parameters())
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        ids = torch.zeros(batch_size, max_length, dtype=torch.long)
        separate = model.config.is_encoder_decoder and target_length
        labels = torch.zeros(batch_size, target_length, dtype=torch.long) if separate else ids
        smoothing = self.training.label_smoothing_factor
        with gradient_checkpointing(model) if self.training.gradient_checkpointing else nullcontext():
            loss, _ = completion_loss(model, module(), ids, torch.ones_like(ids), labels, label_smoothing=smoothing)
            loss.backward()

    def bytes_by_width(self, tokens: int) -> int:
        """The same where a step cannot be rehearsed: a rough estimate for `tokens` tokens, by the widths of the layers.

        For every token, each linear layer leaves its output and what is made of that; the loss, a piece of the logits.
        """
        embeddings = (self.skeleton.get_input_embeddings(), self.skeleton.get_output_embeddings())
        tables = {id(module.weight) for module in embeddings if module is not None}
        matrices = (some for some in self.skeleton.parameters() if some.dim() == 2 and id(some) not in tables)
        kept = 2 * sum(max(matrix.shape) for matrix in matrices) * self.skeleton.dtype.itemsize * tokens
        vocabulary = embeddings[0].weight.shape[0]
        logits = LOGIT_COPIES * vocabulary * min(tokens, chunk_rows(vocabulary, device_type())) * FLOAT32_BYTES
        learned = trainable_parameters(self.shapes, self.prefix, self.num_virtual_tokens)
        return kept + logits + learned * FLOAT32_BYTES * ADAM_COPIES


def rehearsed_sizes(max_length: int) -> list[int]:
    """Sizes of batches that are rehearsed to know the larger ones: the time grows with the loss's pieces."""
    most = max(4, REHEARSED_TOKENS // max_length)
    return sorted({1, most // 8, most // 2, most} - {0})


def line(x: float, points: list[tuple[int, int]]) -> float:
    """y at x, on straight lines through the points, which go on beyond the last."""
    right = next((index for index, point in enumerate(points[1:-1], 1) if x <= point[0]), len(points) - 1)
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def device_type() -> str:
    """Where a run computes unless told otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def available_memory() -> int:
    """Bytes free for a new process: the GPU's where there is one, otherwise the machine's, or its container's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return min([psutil.virtual_memory().available, *container_memory()])


def container_memory() -> list[int]:
    """The bytes that a container's processes may still take, of either version of control groups; [] without limit."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            allowed = int((CONTROL_GROUPS / limit).read_text())
            figures = (CONTROL_GROUPS / limit).with_name("memory.stat").read_text().split()
            # Files that were read long ago are given up when memory is wanted.
            taken = int((CONTROL_GROUPS / used).read_text()) - int(figures[figures.index(cache) + 1])
        except (OSError, ValueError):  # not there, or "max"
            continue
        return [max(0, allowed - taken)]
    return []
