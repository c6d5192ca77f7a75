"""Several processes on one run: each takes its share of every step, and all of them stay equal.

A launcher (torchrun, accelerate launch) starts them and says in the environment who is who. The first one speaks for
all: it alone reports, decides and writes; the others follow. Knows torch.distributed, tensors and numbers; knows no
training.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

Item = TypeVar("Item")

# A process that dies is its launcher's to notice; until then the others may wait for a long download.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """This process's place among all: rank 0 to world - 1. By default it is alone, and nothing here does anything."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batches: Sequence[Sequence[Item]]) -> list[Sequence[Item]]:
        """This rank's part: whole batches where all ranks get as many, otherwise every rank some rows of each."""
        if len(batches) % self.world == 0:
            return list(batches[self.rank :: self.world])
        return [batch[self.rank :: self.world] for batch in batches]

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Makes every tensor the sum over all ranks, in place; they travel as one."""
        if self.world == 1:
            return
        together = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(together)
        parts = together.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum(self, *numbers: float) -> list[float]:
        """The numbers, each summed over all ranks."""
        if self.world == 1:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def broadcast(self, content: bytes) -> bytes:
        """The first rank's content."""
        if self.world == 1:
            return content
        size = torch.tensor([len(content)])
        distributed.broadcast(size, 0)
        data = torch.empty(int(size), dtype=torch.uint8)
        if self.first and content:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        distributed.broadcast(data, 0)
        return data.numpy().tobytes()

    def word(self, word: str | None) -> str | None:
        """The first rank's word, or None."""
        return self.broadcast((word or "").encode()).decode() or None

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """What is downloaded or written to a cache inside is there when the others come."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.sum(0)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process's place for as long as a run takes; alone unless a launcher says otherwise."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    # Gradients stay on their GPUs; words and counts need none.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def local_rank() -> int:
    """Which of this machine's processes of a run this is, and so which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))
