"""Base models in memory: loaded when first asked for, shared by all who ask, let go when nobody does.

Loaded models are kept by fingerprint and never changed. Used by one thread only, the worker's. Knows models and their
sizes; knows no requests.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from prefix_studio.data.chat import Message
from prefix_studio.data.tokens import prompt_ids
from prefix_studio.errors import StudioError
from prefix_studio.generation.text import end_ids
from prefix_studio.models.check import available_memory
from prefix_studio.models.load import choose_dtype, describe, fingerprint, load_model, load_tokenizer, locate
from prefix_studio.models.weights import count_parameters
from prefix_studio.recipe import ModelPart

IDLE_SECONDS = 600.0
ROOM_TO_WORK = 1.2  # of the weights' size: the cache, logits, and the copy in hand while loading


@dataclass
class Base:
    """A frozen model with its tokenizer, the tokens that end a text, and when it was last used."""

    part: ModelPart
    model: PreTrainedModel
    tokenizer: Any
    eos_ids: set[int]
    used: float

    def prompt_ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """A prompt as this model reads it."""
        return prompt_ids(prompt, self.tokenizer, encoder_decoder=self.model.config.is_encoder_decoder)


class Bases:
    """The loaded base models. `idle_seconds`: how long an unused one stays."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS, clock: Callable[[], float] = time.monotonic):
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._loaded: dict[str, Base] = {}

    def get(self, part: ModelPart) -> Base:
        """The base model, loaded if it is not. Raises StudioError when it cannot be, or would not fit in memory."""
        key = fingerprint(part)
        base = self._loaded.get(key)
        if base is None:
            self._make_room_for(part)
            model, tokenizer = load_model(part, self.device), load_tokenizer(part)
            base = self._loaded[key] = Base(part, model, tokenizer, end_ids(model, tokenizer), self._clock())
        base.used = self._clock()
        return base

    def unload_idle(self) -> None:
        """Let go of what nobody has used for `idle_seconds`."""
        oldest = self._clock() - self._idle_seconds
        for key in [key for key, base in self._loaded.items() if base.used <= oldest]:
            self._unload(key)

    def _make_room_for(self, part: ModelPart) -> None:
        parameters = count_parameters(locate(part, weights=True))
        needed = int(parameters * choose_dtype(part, self.device, parameters).itemsize * ROOM_TO_WORK)
        while needed > available_memory() and self._loaded:
            self._unload(min(self._loaded, key=lambda key: self._loaded[key].used))
        free = available_memory()
        if needed > free:
            raise StudioError(
                f"This machine's memory is too small for {describe(part)}: it needs {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB are free.",
                "Wait for the running jobs, or choose a smaller model.",
                "memory",
            )

    def _unload(self, key: str) -> None:
        del self._loaded[key]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
