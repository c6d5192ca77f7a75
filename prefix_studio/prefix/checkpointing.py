"""Gradient checkpointing that keeps the prefix: less memory, the same loss and the same gradients.

transformers' own switch drops the cache of every checkpointed layer, and the prefix with it. Here each layer runs
under torch's checkpoint with its cache in hand. That is safe because the caches of `inject.shared_cache` store
nothing: when a layer runs a second time, on the way back, it finds what it found the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prefix_studio.errors import StudioError


@contextmanager
def gradient_checkpointing(model: PreTrainedModel) -> Iterator[None]:
    """Forward passes inside keep each layer's input only; the backward pass may come later. Leaves the model as it was.

    Not for two threads on one model. Raises StudioError (category model) where the model has no such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise StudioError(
            f"{model.config.model_type} models cannot trade time for memory.",
            "Set gradient_checkpointing to false.",
            "model",
        )
    # An instance's own `forward` shadows its class's; there is one already where layers are spread over devices.
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        # The base model is in eval mode: without dropout there is no random state to keep.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward
