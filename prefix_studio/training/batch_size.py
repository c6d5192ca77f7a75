"""Batches that give way: where memory is too small, half as many rows at once, and the work goes on.

Knows errors of memory and sizes; knows neither models nor what the rows are for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from accelerate.utils.memory import clear_device_cache

from prefix_studio.errors import StudioError
from prefix_studio.recipe import TrainingPart

Field = Literal["per_device_train_batch_size", "per_device_eval_batch_size"]
Item, Result = TypeVar("Item"), TypeVar("Result")

# What CUDA, MPS, cuBLAS and the CPU's allocator say; most of them by a plain RuntimeError.
PHRASES = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")


class BatchSize:
    """How many rows go through the model at once: what the recipe says, and half of it whenever that is too many.

    on_halved: is called with this object afterwards.
    """

    def __init__(
        self, training: TrainingPart, field: Field, on_halved: Callable[[BatchSize], None] = lambda size: None
    ):
        self.training, self.field, self.on_halved = training, field, on_halved
        self.size: int = getattr(training, field)

    def halve(self, tried: int | None = None) -> None:
        """tried: the rows that were too many, where they were fewer than the size allows.

        Raises StudioError (memory) where one row is too much already, or the recipe allows no other size.
        """
        if tried == 1 or self.size == 1 or not self.training.auto_find_batch_size:
            raise too_large(self.training, self.field, 1 if tried == 1 else self.size)
        self.size = -(-(tried or self.size) // 2)
        self.on_halved(self)

    def event(self) -> dict[str, Any]:
        """What the person is told: the sizes in effect, and why."""
        training, asked = self.training, getattr(self.training, self.field)
        event: dict[str, Any] = {"event": "state", "state": "evaluating", self.field: self.size}
        if self.field == "per_device_train_batch_size":
            accumulated = training.gradient_accumulation_steps * -(-asked // self.size)
            event |= {"state": "training", "gradient_accumulation_steps": accumulated}
        warning = (
            f"Memory is too small for {asked} rows at once: from here on {self.size} at a time go through the model. "
            "What is learned and measured stays the same."
        )
        return event | {"warnings": [warning]}

    def each(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """What `work` makes of the items, in their order, as many at once as memory holds."""
        done = 0
        while done < len(items):
            some = items[done : done + self.size]
            fitted, result = attempt(lambda some=some: work(some))
            if not fitted:
                self.halve(len(some))
                continue
            yield result
            done += len(some)


def too_large(training: TrainingPart, field: Field, size: int) -> StudioError:
    """What to do when so many rows are too many for the device, or the machine."""
    ways = [] if size == 1 else [f"lower {field} (now {size})"]
    ways.append("lower max_length")
    if field == "per_device_train_batch_size" and not training.gradient_checkpointing:
        ways.append("turn on gradient_checkpointing")
    rows = "a single row" if size == 1 else "a batch of this size"
    return StudioError(f"There is too little memory for {rows}.", f"To use less: {', or '.join(ways)}.", "memory")


def attempt(work: Callable[[], Result]) -> tuple[bool, Result | None]:
    """(True, what the work returns), or (False, None) where memory was too small, with all that it held given back."""
    try:
        return True, work()
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
    # Not before the error is gone: its traceback holds every tensor of the batch.
    clear_device_cache(garbage_collection=True)
    return False, None


def ran_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in PHRASES)
